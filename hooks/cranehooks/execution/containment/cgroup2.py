"""Containment by version 2 control groups: what is born in one cannot leave it, and dies with `cgroup.kill`."""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from cranehooks.execution.containment import limits2
from cranehooks.execution.containment.cells import file_name
from cranehooks.execution.containment.hierarchies import HOOKS, Hierarchies, root_below
from cranehooks.execution.containment.sweeping import Instance, mark_kept
from cranehooks.execution.containment.tree import (
    GONE,
    kill_unified,
    make_directory,
    make_new,
    members,
    pids,
    remove_tree,
    signal_members,
)
from cranehooks.model.limits import LimitKind, Limits, Offers, Usage, words
from cranehooks.model.run import Leftover


def own_directory() -> Path | None:
    """The directory of this process's version 2 cgroup, wherever that hierarchy is mounted; None when it is not."""
    return Hierarchies.of_this_process().unified


class CgroupCell:
    """One cgroup and whatever is made below it."""

    wants_subreaper = False
    entry_fds: Sequence[int] = ()

    def __init__(self, directory: Path, not_enforced: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.not_enforced = not_enforced
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._events_fd = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            os.close(self._fd)
            raise

    @property
    def name(self) -> str:
        return str(self.directory)

    @property
    def cgroup(self) -> str | None:
        return str(self.directory)

    @property
    def cgroup_fd(self) -> int | None:
        return self._fd

    def started(self, pid: int) -> None:
        """Nothing to note: the process was born inside."""

    def leader_exited(self) -> None:
        """Nothing to note: what it left is inside."""

    def signal_all(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.kill()
        else:
            signal_members(lambda: pids(self.directory), number)

    def members(self) -> list[Leftover]:
        return members(self.directory)

    def is_empty(self) -> bool:
        # Reading is also what arms the notification of the next change.
        try:
            return b"populated 0" in os.pread(self._events_fd, 256, 0)
        except OSError as error:
            if error.errno not in GONE:
                raise
            # Swept by the instance that takes our place, and nobody can live in what has been removed.
            return True

    def kill(self) -> None:
        kill_unified(self.directory)

    def usage(self) -> Usage:
        return limits2.usage(self.directory)

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return ((self._events_fd, select.EPOLLPRI),)

    def keep(self) -> None:
        mark_kept(self.directory)
        self._close()

    def remove(self) -> None:
        if self._fd < 0:
            return
        self._close()
        try:
            self.directory.rmdir()
        except OSError:
            # It has cgroups of its own, or somebody lives in it.
            remove_tree(self.directory)

    def _close(self) -> None:
        os.close(self._events_fd)
        os.close(self._fd)
        self._fd = self._events_fd = -1


class CgroupContainment:
    """Cells below `<own cgroup>/crane/<root_name>`.

    A cgroup that has controllers below it may hold no processes: cells of jobs and steps hold none, those of tasks pass no
    controllers on.
    """

    driver = "cgroup2"

    def __init__(self, base: Path, root_name: str, hierarchies: Hierarchies | None = None) -> None:
        """Make the root.

        Args:
            base: our own cgroup.
            root_name: of the instance.
            hierarchies: where else a sweep looks; only below `base` when not given.

        Raises:
            OSError: the hierarchy does not let us.
        """
        self._base = base
        self._instance = Instance(hierarchies or Hierarchies(base), file_name(root_name))
        self.root = root_below(base, file_name(root_name))
        make_directory(self.root)

    def create(self, name: str, *, limits: Limits | None = None) -> CgroupCell:
        return self._new(self.root / HOOKS, file_name(name), limits)

    def create_at(self, *parts: str, limits: Limits | None = None) -> CgroupCell:
        directory = self.root.joinpath(*(file_name(part) for part in parts))
        make_directory(directory)
        return self._cell(directory, limits)

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> CgroupCell:
        parent = Path(cgroup)
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such cgroup", cgroup)
        return self._new(parent, file_name(name), limits, passes_on=False)

    def sweep(self, *parts: str) -> list[Leftover]:
        return self._instance.sweep(*parts)

    def end_kept(self, name: str) -> list[Leftover]:
        return self._instance.end_kept(name)

    def kept(self) -> list[Leftover]:
        return self._instance.kept()

    def close(self) -> None:
        # Cells are removed one by one: an instance that has taken our place may have made its own among them, still empty.
        for directory in (self.root / HOOKS, self.root, self.root.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def _new(self, parent: Path, name: str, limits: Limits | None, *, passes_on: bool = True) -> CgroupCell:
        directory = make_new(parent, name)
        try:
            return self._cell(directory, limits, passes_on=passes_on)
        except OSError:
            with contextlib.suppress(OSError):
                directory.rmdir()
            raise

    def _cell(self, directory: Path, limits: Limits | None, *, passes_on: bool = True) -> CgroupCell:
        """The cell in a directory that has been made for it, with its limits."""
        if limits is None:
            return CgroupCell(directory)
        if passes_on:
            self._reach(directory, limits2.controllers_for(limits))
        return CgroupCell(directory, words(limits2.apply(directory, limits)))

    def _reach(self, directory: Path, controllers: frozenset[str]) -> None:
        """Have controllers passed on all the way from our cgroup to this one."""
        if self.offers.enforced and (wanted := controllers & limits2.passed_on(self._base)):
            above = [*directory.relative_to(self._base).parents]
            for part in reversed(above):
                limits2.pass_on(self._base / part, wanted)

    @cached_property
    def offers(self) -> Offers:
        """Take what controllers there are, and see which limits come of it."""
        problems = []
        for controller in sorted(limits2.available(self._base) - limits2.passed_on(self._base)):
            try:
                limits2.pass_on(self._base, {controller})
            except OSError as error:
                problems.append(f"{controller}: {os.strerror(error.errno or 0)}")
        enforced = limits2.offered(self.root.parent)
        lost = words(frozenset(LimitKind) - enforced)
        why = f" ({self._base} cannot pass on {'; '.join(problems)})" if problems else ""
        return Offers(enforced, f"no limits of {', '.join(lost)}{why}" if lost else "")
