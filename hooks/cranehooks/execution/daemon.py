"""What a daemon does about containment: it makes room for limits where it stands in their way, and tells what its hooks have."""

from collections.abc import Iterable

import structlog

from cranehooks.execution.containment.delegation import settle
from cranehooks.execution.containment.detect import CGROUP1, NONE
from cranehooks.execution.spawner_messages import Ready
from cranehooks.model.limits import LimitKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger("cranehooks.containment")


def make_room(containment: str) -> None:
    """Moves this process into a leaf of its cgroup if only that lets controllers be passed on."""
    if containment in (NONE, CGROUP1):
        return
    try:
        leaf = settle()
    except OSError as error:
        # What comes of it is told when the driver is known.
        log.warning("cgroup_not_left", problem=str(error), meaning="limits may not hold")
        return
    if leaf is not None:
        log.info("cgroup_left", now=leaf, meaning="its own cgroup must be empty to limit what is below")


def tell_of(ready: Ready) -> None:
    """Logs the driver of a spawner, what is lost with it, and what a dead predecessor had left."""
    log.info("containment", driver=ready.driver)
    if ready.what_is_lost:
        log.warning("containment_degraded", driver=ready.driver, lost=ready.what_is_lost)
    if ready.swept:
        log.warning("leftovers_killed", place="hooks", processes=list(ready.swept))


def tell_of_gaps(hooks: HookSettings, points: Iterable[HookPoint], enforced: frozenset[LimitKind]) -> None:
    """Logs limits of hooks that the configuration wants and this host does not hold."""
    for point, limits in hooks.unenforced(points, enforced).items():
        log.warning("hook_limits_not_enforced", setting=f"HookLimits: {point.value}", limits=list(limits))
