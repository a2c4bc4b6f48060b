import resource

import pytest

from cranehooks.model.job import SOFT_LIMITS, UNLIMITED
from csupervisor.limits import rlimits_of

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("hard", "wanted", "soft"),
    [(100, 50, 50), (100, 200, 100), (100, UNLIMITED, 100), (INFINITY, 200, 200), (INFINITY, UNLIMITED, INFINITY), (100, 0, 0)],
)
def test_soft_limits_go_as_far_as_our_hard_ones(monkeypatch: pytest.MonkeyPatch, hard: int, wanted: int, soft: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (7, hard))
    assert rlimits_of({"NOFILE": wanted}) == {resource.RLIMIT_NOFILE: (soft, hard)}


def test_every_limit_that_may_be_taken_over_is_one_of_the_kernels() -> None:
    assert len(rlimits_of(dict.fromkeys(SOFT_LIMITS, 0))) == len(SOFT_LIMITS)
    assert rlimits_of({}) == {}
