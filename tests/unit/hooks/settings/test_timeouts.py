"""Which timeout bounds which point, by profile."""

import pytest

from cranehooks.model.points import HookPoint
from cranehooks.profiles import PROFILES
from cranehooks.settings.timeouts import HookTimeouts, timeouts_of

BEFORE = (HookPoint.PROLOG, HookPoint.CRANECTLD_PROLOG)
AFTER = (HookPoint.EPILOG, HookPoint.CRANECTLD_EPILOG)
TASK_BEFORE = (HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_PROLOG)
TASK_AFTER = (HookPoint.TASK_EPILOG, HookPoint.STEP_TASK_EPILOG)

# given; then for the Crane profiles and for slurm and sunk: (prologs, epilogs, task prologs, task epilogs)
GOLDEN = [
    (HookTimeouts(), (60, 60, 60, 60), (300, 300, 300, 300)),
    (HookTimeouts(prolog_s=10), (10, 60, 10, 60), (10, 300, 300, 300)),
    (HookTimeouts(epilog_s=20), (60, 20, 60, 20), (300, 20, 300, 300)),
    (HookTimeouts(both_s=120), (120, 120, 120, 120), (120, 120, 300, 300)),
    (HookTimeouts(10, 20, 120), (120, 120, 120, 120), (10, 20, 300, 300)),
    (HookTimeouts(prolog_s=10, both_s=120), (120, 120, 120, 120), (10, 120, 300, 300)),
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("given", "crane", "slurm"), GOLDEN)
def test_timeouts(profile: str, given: HookTimeouts, crane: tuple[float, ...], slurm: tuple[float, ...]) -> None:
    resolved = timeouts_of(PROFILES[profile], given)
    expected = crane if profile.startswith("crane") else slurm
    for points, seconds in zip((BEFORE, AFTER, TASK_BEFORE, TASK_AFTER), expected, strict=True):
        assert [resolved[point] for point in points] == [seconds] * 2
    assert resolved[HookPoint.CRUN_PROLOG] is None
    assert resolved[HookPoint.CRUN_EPILOG] is None


@pytest.mark.parametrize("profile", PROFILES)
def test_crun_hooks_have_their_own(profile: str) -> None:
    resolved = timeouts_of(PROFILES[profile], HookTimeouts(1, 2, 3, crun_prolog_s=4, crun_epilog_s=5))
    assert (resolved[HookPoint.CRUN_PROLOG], resolved[HookPoint.CRUN_EPILOG]) == (4, 5)
