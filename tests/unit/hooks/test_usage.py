"""What jobs may use, and the sum of what they used."""

import pytest

from cranehooks.model.usage import JobLimits, ResourceUsage, usage_sum


def test_parts_add_up_and_the_highest_peak_counts() -> None:
    parts = [ResourceUsage(1.5, 100, 1), ResourceUsage(0.5, 300, None), ResourceUsage(1.0, None, 2)]
    assert usage_sum(parts) == ResourceUsage(3.0, 300, 3)


def test_what_nobody_knows_stays_unknown() -> None:
    assert usage_sum([ResourceUsage(1.0)]) == ResourceUsage(1.0, None, None)
    assert usage_sum([]) is None


@pytest.mark.parametrize("limits", [JobLimits(memory_bytes=1), JobLimits(denied_devices=("/dev/x",)), JobLimits(swap_bytes=0)])
def test_any_limit_is_a_limit(limits: JobLimits) -> None:
    assert not limits.limits_nothing
    assert JobLimits().limits_nothing
