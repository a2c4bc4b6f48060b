"""The resource limits of tasks: soft ones from where the tasks were asked for, hard ones from the daemon."""

import resource
from collections.abc import Mapping

from cranehooks.model.job import UNLIMITED


def rlimits_of(soft_limits: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Number of each limit to (soft, hard): the soft one as far as our own hard one allows.

    Args:
        soft_limits: by name (`SOFT_LIMITS`); what is not in there stays as it is.
    """
    limits = {}
    for name, wanted in soft_limits.items():
        number: int = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        soft = resource.RLIM_INFINITY if wanted == UNLIMITED else wanted
        limits[number] = (_least(soft, hard), hard)
    return limits


def _least(soft: int, hard: int) -> int:
    if hard == resource.RLIM_INFINITY:
        return soft
    return hard if soft == resource.RLIM_INFINITY else min(soft, hard)
