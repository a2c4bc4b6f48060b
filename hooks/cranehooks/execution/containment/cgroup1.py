"""Containment by version 1 control groups alone: killed while frozen by the freezer, limited by the other controllers.

A process moves into its cgroups after the fork and before the exec: version 1 has no way to be born in one. That costs
milliseconds where moves are rare.
"""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from cranehooks.execution.containment.cells import file_name
from cranehooks.execution.containment.hierarchies import HOOKS, Hierarchies
from cranehooks.execution.containment.seats import FREEZER, ControllerTrees, Seats
from cranehooks.execution.containment.sweeping import Instance, mark_kept
from cranehooks.execution.containment.tree import (
    kill_frozen,
    make_directory,
    make_new,
    members,
    pids,
    remove_tree,
    signal_members,
)
from cranehooks.model.limits import LimitKind, Limits, Offers, Usage, words
from cranehooks.model.run import Leftover


class FreezerCell:
    """One freezer cgroup and whatever is made below it, and its companions in other controllers."""

    wants_subreaper = False
    cgroup_fd: int | None = None

    def __init__(self, directory: Path, seats: Seats, trees: ControllerTrees, parts: tuple[str, ...]) -> None:
        """Open the cell's files. Raises OSError."""
        self.directory = directory
        self.not_enforced = seats.not_enforced
        self._seats = seats
        self._trees = trees
        self._parts = parts
        self._procs_fd = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self._watched: dict[int, int] = {}
        """pid → pidfd of members whose end is waited for."""

    @property
    def name(self) -> str:
        return str(self.directory)

    @property
    def cgroup(self) -> str | None:
        return str(self.directory)

    @property
    def entry_fds(self) -> Sequence[int]:
        # The freezer first: whatever becomes of the others, what has entered it is held.
        return (self._procs_fd, *self._seats.entry_fds)

    def started(self, pid: int) -> None:
        """Nothing to note: the process is inside."""

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
        while True:
            live = set(pids(self.directory))
            for pid in self._watched.keys() - live:
                os.close(self._watched.pop(pid))
            for pid in live - self._watched.keys():
                with contextlib.suppress(ProcessLookupError):
                    self._watched[pid] = os.pidfd_open(pid)
            # Those that have gone since leave nothing to wait for; what they forked is found by another look.
            if self._watched or not live:
                return not live

    def kill(self) -> None:
        if self.directory.is_dir():
            kill_frozen(self.directory)

    def usage(self) -> Usage:
        return self._seats.usage()

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return [(fd, select.EPOLLIN) for fd in self._watched.values()]

    def keep(self) -> None:
        mark_kept(self.directory)
        self._close()
        self._seats.leave()

    def remove(self) -> None:
        if self._procs_fd < 0:
            return
        self._close()
        remove_tree(self.directory)
        self._seats.close()
        if self._parts[:1] != (HOOKS,):
            self._trees.remove(self._parts)

    def _close(self) -> None:
        for fd in self._watched.values():
            os.close(fd)
        self._watched.clear()
        os.close(self._procs_fd)
        self._procs_fd = -1


class FreezerContainment:
    """Cells below `<own cgroup>/crane/<root_name>` of the freezer, and of the same names in other controllers where needed."""

    driver = "cgroup1"

    def __init__(self, root_name: str, hierarchies: Hierarchies, trees: ControllerTrees) -> None:
        """Make the root.

        Raises:
            OSError: the hierarchy does not let us.
        """
        self._instance = Instance(hierarchies, file_name(root_name))
        self._trees = trees
        self.root = trees.top(FREEZER)
        make_directory(self.root)

    @cached_property
    def offers(self) -> Offers:
        lost = words(frozenset(LimitKind) - self._trees.kinds)
        cost = "each process is moved into its cgroup, which costs milliseconds"
        return Offers(self._trees.kinds, "; ".join((cost, f"no limits of {', '.join(lost)}")) if lost else cost)

    def create(self, name: str, *, limits: Limits | None = None) -> FreezerCell:
        return self._new(self.root / HOOKS, file_name(name), limits)

    def create_at(self, *parts: str, limits: Limits | None = None) -> FreezerCell:
        directory = self.root.joinpath(*(file_name(part) for part in parts))
        make_directory(directory)
        return self._cell(directory, limits)

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> FreezerCell:
        parent = Path(cgroup)
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such cgroup", cgroup)
        return self._new(parent, file_name(name), limits)

    def sweep(self, *parts: str) -> list[Leftover]:
        return self._instance.sweep(*parts)

    def end_kept(self, name: str) -> list[Leftover]:
        return self._instance.end_kept(name)

    def kept(self) -> list[Leftover]:
        return self._instance.kept()

    def close(self) -> None:
        self._trees.close()

    def _new(self, parent: Path, name: str, limits: Limits | None) -> FreezerCell:
        directory = make_new(parent, name)
        try:
            return self._cell(directory, limits)
        except OSError:
            with contextlib.suppress(OSError):
                directory.rmdir()
            raise

    def _cell(self, directory: Path, limits: Limits | None) -> FreezerCell:
        parts = directory.relative_to(self.root).parts
        seats = self._trees.seats(parts, limits)
        try:
            return FreezerCell(directory, seats, self._trees, parts)
        except OSError:
            seats.close()
            raise
