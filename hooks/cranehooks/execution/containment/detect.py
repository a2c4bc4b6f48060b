"""Chooses the containment driver: the best one that is shown to work, or the one that is asked for."""

import os
from pathlib import Path

from cranehooks.execution.child import Stage
from cranehooks.execution.containment.cells import Containment
from cranehooks.execution.containment.cgroup2 import CgroupContainment, own_directory
from cranehooks.execution.containment.session import SessionContainment
from cranehooks.execution.process import SpawnError, SpawnRequest, spawn

CGROUP2 = "cgroup2"
NONE = "none"

WHAT_NONE_LOSES = SessionContainment.offers.what_is_lost


class ContainmentUnavailableError(Exception):
    """The driver asked for does not work here; says why."""


def detect(force: str | None = None, root_name: str = "default", base: Path | None = None) -> tuple[Containment, str]:
    """The driver to use, and in one sentence what is lost with it (empty: nothing).

    Args:
        force: `cgroup2` or `none`; None or `auto` takes the best that works.
        root_name: `<cluster>.<node>.<instance>`: what keeps several daemons on a host apart.
        base: the cgroup to work below; our own when not given.

    Raises:
        ContainmentUnavailableError: the driver that is forced does not work, or is unknown.
    """
    if force == NONE:
        return SessionContainment(), WHAT_NONE_LOSES
    if force not in (None, "auto", CGROUP2):
        raise ContainmentUnavailableError(f"unknown containment driver {force!r}, expected auto, {CGROUP2} or {NONE}")
    directory = base or own_directory()
    if directory is None:
        problem = "no version 2 cgroup hierarchy is mounted"
    else:
        try:
            return _working_cgroups(directory, root_name), ""
        except OSError as error:
            problem = f"cannot use cgroups below {directory}: {error.strerror or error}"
    if force == CGROUP2:
        raise ContainmentUnavailableError(problem)
    return SessionContainment(), f"{problem}; {WHAT_NONE_LOSES}"


def _working_cgroups(directory: Path, root_name: str) -> CgroupContainment:
    """The driver, after a process has really entered a cell: permission bits do not tell (delegation, domain types)."""
    containment = CgroupContainment(directory, root_name)
    try:
        cell = containment.create(f"probe-{os.getpid()}")
        try:
            # The probe fails at exec, which is after everything that matters here.
            spawn(SpawnRequest("/nonexistent/probe", ("probe",), {}, cgroup_fd=cell.cgroup_fd))
        except SpawnError as error:
            if error.stage is not Stage.EXEC:
                raise OSError(error.errno, f"{error.stage.value}: {os.strerror(error.errno)}") from error
        finally:
            cell.remove()
    except OSError:
        containment.close()
        raise
    return containment
