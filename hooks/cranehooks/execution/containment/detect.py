"""Chooses the containment driver: the best one that is shown to work, or the one that is asked for."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cranehooks.execution.child import Stage
from cranehooks.execution.containment.cells import Containment, file_name
from cranehooks.execution.containment.cgroup1 import FreezerContainment
from cranehooks.execution.containment.cgroup2 import CgroupContainment
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.execution.containment.hybrid import HybridContainment
from cranehooks.execution.containment.seats import FREEZER, ControllerTrees
from cranehooks.execution.containment.session import SessionContainment
from cranehooks.execution.containment.sweeping import Instance
from cranehooks.execution.process import SpawnError, SpawnRequest, spawn

CGROUP2 = "cgroup2"
HYBRID = "hybrid"
CGROUP1 = "cgroup1"
NONE = "none"
AUTO = "auto"
DRIVERS = (CGROUP2, HYBRID, CGROUP1, NONE)
_PROBE = "/nonexistent/probe"


class ContainmentUnavailableError(Exception):
    """The driver asked for does not work here; says why."""


def detect(
    force: str | None = None, root_name: str = "default", hierarchies: Hierarchies | None = None, *, is_shown: bool = False
) -> tuple[Containment, str]:
    """The driver to use, and in one sentence what is lost with it (empty: nothing).

    Left to itself it takes `hybrid` where version 1 controllers can be used beside version 2, else `cgroup2`, else
    `cgroup1`, else `none`.

    Args:
        force: one of `DRIVERS`; None or `auto` takes the best that works.
        root_name: `<cluster>.<node>.<instance>`: what keeps several daemons on a host apart.
        hierarchies: the cgroups to work below; our own when not given.
        is_shown: another process of the daemon has found that the forced driver works here. It is not tried again, and what
            is lost has been told.

    Raises:
        ContainmentUnavailableError: the driver that is forced does not work, or is unknown.
    """
    if force not in (None, AUTO, *DRIVERS):
        raise ContainmentUnavailableError(
            f"unknown containment driver {force!r}, expected {', '.join((AUTO, *DRIVERS[:-1]))} or {NONE}"
        )
    where = hierarchies or Hierarchies.of_this_process()
    if force == NONE:
        return _with_loss(_none(root_name, where))
    if force is not None and force in _MAKERS:
        containment = _MAKERS[force](root_name, where)
        return (containment, "") if is_shown else _with_loss(_shown_to_work(containment, where))
    problems = []
    for driver in (HYBRID, CGROUP2, CGROUP1):
        try:
            return _with_loss(_shown_to_work(_MAKERS[driver](root_name, where), where))
        except ContainmentUnavailableError as error:
            problems.append(f"{driver}: {error}")
    containment, lost = _with_loss(_none(root_name, where))
    return containment, f"{'; '.join(problems)}; {lost}"


def _with_loss(containment: Containment) -> tuple[Containment, str]:
    return containment, containment.offers.what_is_lost


def _none(root_name: str, where: Hierarchies) -> Containment:
    return SessionContainment(Instance(where, file_name(root_name)))


def _cgroup2(root_name: str, where: Hierarchies) -> Containment:
    if where.unified is None:
        raise ContainmentUnavailableError("no version 2 cgroup hierarchy is mounted")
    try:
        return CgroupContainment(where.unified, root_name, where)
    except OSError as error:
        raise _unusable(where.unified, error) from error


def _hybrid(root_name: str, where: Hierarchies) -> Containment:
    if where.unified is None:
        raise ContainmentUnavailableError("no version 2 cgroup hierarchy is mounted")
    if not where.controllers:
        raise ContainmentUnavailableError("no version 1 cgroup hierarchy is mounted")
    try:
        return HybridContainment(where.unified, root_name, where, ControllerTrees(where.controllers, root_name))
    except OSError as error:
        raise _unusable(where.unified, error) from error


def _cgroup1(root_name: str, where: Hierarchies) -> Containment:
    if FREEZER not in where.controllers:
        raise ContainmentUnavailableError(
            "the version 1 freezer, without which nothing can be killed for certain, is not mounted"
        )
    try:
        return FreezerContainment(root_name, where, ControllerTrees(where.controllers, root_name))
    except OSError as error:
        raise _unusable(where.controllers[FREEZER], error) from error


_MAKERS: Mapping[str, Callable[[str, Hierarchies], Containment]] = {HYBRID: _hybrid, CGROUP2: _cgroup2, CGROUP1: _cgroup1}


def _unusable(place: Path | None, error: OSError) -> ContainmentUnavailableError:
    return ContainmentUnavailableError(f"cannot use cgroups below {place}: {error.strerror or error}")


def _shown_to_work(containment: Containment, where: Hierarchies) -> Containment:
    """The driver, after a process has really entered a cell: permission bits do not tell (delegation, domain types)."""
    try:
        _try_out(containment)
    except OSError as error:
        containment.close()
        place = where.controllers.get(FREEZER) if containment.driver == CGROUP1 else where.unified
        raise _unusable(place, error) from error
    if containment.driver == HYBRID and not containment.offers.enforced:
        containment.close()
        raise ContainmentUnavailableError("no version 1 controller that limits anything may be used here")
    return containment


def _try_out(containment: Containment) -> None:
    cell = containment.create(f"probe-{os.getpid()}")
    try:
        # It fails at exec, which is after everything that matters here.
        spawn(SpawnRequest(_PROBE, (_PROBE,), {}, cgroup_fd=cell.cgroup_fd, entry_fds=tuple(cell.entry_fds)))
    except SpawnError as error:
        if error.stage is not Stage.EXEC:
            raise OSError(error.errno, f"{error.stage.value}: {os.strerror(error.errno)}") from error
    finally:
        cell.remove()
