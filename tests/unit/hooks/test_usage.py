"""The sum of what parts of a job used."""

from cranehooks.model.limits import Usage
from cranehooks.model.usage import usage_of, usage_sum, usage_text


def test_parts_add_up_and_the_highest_peak_counts() -> None:
    assert usage_sum([Usage(1.5, 100, 1), Usage(0.5, 300, None), Usage(1.0, None, 2)]) == Usage(3.0, 300, 3)


def test_what_nobody_knows_stays_unknown() -> None:
    assert usage_sum([Usage(), Usage()]) == Usage(None, None, None)
    assert usage_sum([]) is None


def test_the_parts_tell_what_the_whole_does_not() -> None:
    assert usage_of(Usage(2.0, 500, 0), [Usage(1.0, 100, 1), Usage(0.5, 300, 0)]) == Usage(2.0, 500, 1)
    assert usage_of(Usage(), [Usage(1.0, 100, None)]) == Usage(1.0, 100, None)
    assert usage_of(Usage(2.0), []) == Usage(2.0, None, None)


def test_people_read_it_in_words() -> None:
    assert usage_text(Usage(2.44, 64 << 20, 1)) == "2.4 s of CPU, at most 64.0 MiB of memory, 1 process killed for want of memory"
    assert usage_text(Usage(0.0123, None, 0)) == "0.012 s of CPU"
    assert usage_text(Usage()) == "not known"
