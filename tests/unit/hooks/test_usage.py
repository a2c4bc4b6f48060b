"""The sum of what parts of a job used."""

from cranehooks.model.limits import Usage
from cranehooks.model.usage import usage_sum


def test_parts_add_up_and_the_highest_peak_counts() -> None:
    assert usage_sum([Usage(1.5, 100, 1), Usage(0.5, 300, None), Usage(1.0, None, 2)]) == Usage(3.0, 300, 3)


def test_what_nobody_knows_stays_unknown() -> None:
    assert usage_sum([Usage(), Usage()]) == Usage(None, None, None)
    assert usage_sum([]) is None
