"""Containment without cgroups: sessions, child subreapers and `/proc`, for a user who may not make cgroups.

The first process of each cell leads a session and is a child subreaper, so that all its descendants stay below it while
it lives, whatever they fork or detach. Once it has exited they become *our* children (we are a subreaper too), where
they are told from children of our own making: those share our session or are in `OWNED_PIDS`. So nothing gets away; only
when several cells end at the same moment a detached process may be named by the wrong one of them.

What is lost against cgroups: a process that takes part in its own orphaning (changes its subreaper attribute), a fork
bomb faster than the scan, and limits.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cranehooks.execution import syscalls
from cranehooks.execution.containment.cells import command_of, file_name
from cranehooks.execution.containment.sweeping import Instance
from cranehooks.execution.process import OWNED_PIDS, start_time_of, stat_fields
from cranehooks.model.limits import Limits, Offers, Usage, words
from cranehooks.model.run import Leftover

_ENDED_STATES = (b"Z", b"X", b"x")
_KILL_ROUNDS = 10
"""Each round finds what was forked during the one before."""
_SEARCH_ROUNDS = 50
"""The same for a search of all processes, which takes milliseconds."""


class SessionCell:
    """The descendants of one process."""

    cgroup: str | None = None
    cgroup_fd: int | None = None
    entry_fds: tuple[int, ...] = ()
    wants_subreaper = True

    def __init__(self, driver: "SessionContainment", name: str, limits: Limits | None = None) -> None:
        self.name = name
        self.not_enforced = words(limits.kinds) if limits else ()
        self._driver = driver
        self._leader: int | None = None
        self.is_leaderless = False
        self.sessions: set[int] = set()
        """Sessions seen among our processes: what is in one of them later is ours."""
        self._watched: dict[int, int] = {}
        """pid → pidfd of members whose end is waited for."""

    def started(self, pid: int) -> None:
        self._leader = pid
        self.is_leaderless = False
        self.sessions.add(pid)

    def leader_exited(self) -> None:
        self._leader = None
        self.is_leaderless = True

    def signal_all(self, number: int) -> None:
        for pid, started in self._live().items():
            _signal(pid, started, number)

    def members(self) -> list[Leftover]:
        return [Leftover(pid, command_of(pid)) for pid in self._live()]

    def is_empty(self) -> bool:
        while True:
            live = self._live()
            for pid in self._watched.keys() - live.keys():
                os.close(self._watched.pop(pid))
            for pid in live.keys() - self._watched.keys():
                with contextlib.suppress(ProcessLookupError):
                    self._watched[pid] = os.pidfd_open(pid)
            # Those that have gone since leave nothing to wait for; what they forked is found by another look.
            if self._watched or not live:
                return not live

    def kill(self) -> None:
        for _ in range(_KILL_ROUNDS):
            live = self._live()
            for pid, started in live.items():
                _signal(pid, started, signal.SIGKILL)
            if not live:
                return

    def usage(self) -> Usage:
        return Usage()

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return [(fd, select.EPOLLIN) for fd in self._watched.values()]

    def keep(self) -> None:
        self._close()
        self._driver.keep(self)

    def remove(self) -> None:
        self._close()
        self._driver.forget(self)

    def _close(self) -> None:
        for fd in self._watched.values():
            os.close(fd)
        self._watched.clear()

    def _live(self) -> dict[int, int]:
        """Our living processes, each with its start time; dead ones that fell to us are reaped on the way."""
        tops = [] if self._leader is None else [self._leader]
        if self.is_leaderless:
            tops += self._driver.orphans_of(self)
        found: dict[int, int] = {}
        pending = tops
        while pending:
            pid = pending.pop()
            if pid in found:
                continue
            try:
                fields = stat_fields(pid)
            except ProcessLookupError:
                continue
            pending += _children(pid)
            if not _has_ended(fields):
                found[pid] = int(fields[19])
                self.sessions.add(int(fields[3]))
        return found


class SessionContainment:
    """Makes this process a child subreaper and hands out cells."""

    driver = "none"
    offers = Offers(
        what_is_lost="processes are contained by session and child subreaper: no limits, no protection against a fork bomb"
    )

    def __init__(self, instance: Instance | None = None) -> None:
        """`instance`: whose cgroups a sweep looks for, of a former driver's making."""
        self._instance = instance
        syscalls.set_child_subreaper()
        self._cells: set[SessionCell] = set()
        self._kept: dict[SessionCell, None] = {}
        """Cells that are given up: what is in their sessions is nobody's leftover."""
        self._our_session = os.getsid(0)

    def create(self, name: str, *, limits: Limits | None = None) -> SessionCell:
        cell = SessionCell(self, file_name(name), limits)
        self._cells.add(cell)
        return cell

    def create_at(self, *parts: str, limits: Limits | None = None) -> SessionCell:
        return self.create("/".join(parts), limits=limits)

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> SessionCell:
        """The cgroup is somebody else's to care for; the cell is the same as any."""
        del cgroup
        return self.create(name, limits=limits)

    def sweep(self, *parts: str) -> list[Leftover]:
        """What had cgroups under another driver; without them, processes of a dead instance went to another parent."""
        return [] if self._instance is None else self._instance.sweep(*parts)

    def close(self) -> None:
        """Nothing to give back."""

    def end_kept(self, name: str) -> list[Leftover]:
        """Of this instance's keeping: what a dead one kept went to another parent, unless it had cgroups."""
        ended = [] if self._instance is None else self._instance.end_kept(name)
        for cell in [cell for cell in self._kept if cell.name == file_name(name)]:
            ended += cell.members()
            cell.kill()
            self.forget(cell)
        return ended

    def kept(self) -> list[Leftover]:
        living = [] if self._instance is None else self._instance.kept()
        for cell in list(self._kept):
            members = cell.members()
            if not members:
                self.forget(cell)
            living += members
        return living

    def keep(self, cell: SessionCell) -> None:
        # Those that have ended meanwhile are forgotten, so that their number stays that of what lives.
        self.kept()
        self._kept[cell] = None

    def forget(self, cell: SessionCell) -> None:
        self._cells.discard(cell)
        self._kept.pop(cell, None)

    def orphans_of(self, cell: SessionCell) -> list[int]:
        """Children that fell to us and are the cell's: in one of its sessions, or in nobody else's."""
        claimed_elsewhere = {session for other in self._cells if other is not cell for session in other.sessions}
        orphans = []
        for pid in _children(os.getpid()):
            if pid in OWNED_PIDS:
                continue
            try:
                state, _, _, session = stat_fields(pid)[:4]
            except ProcessLookupError:
                continue
            number = int(session)
            if number == self._our_session:
                continue
            # What is kept was known when it was: whatever is new belongs to somebody who is under way.
            if number in cell.sessions or (cell not in self._kept and number not in claimed_elsewhere):
                if state in _ENDED_STATES:
                    with contextlib.suppress(ChildProcessError):
                        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
                else:
                    orphans.append(pid)
        return orphans


def kill_sessions(leaders: Mapping[int, int]) -> None:
    """KILL what is left of sessions whose keeper is dead: (pid of the leader → its start time).

    Finds whatever stayed in its session, wherever it is now in the tree of processes, and looks again until there is nothing
    new; bounded, so that something that forks faster than the search does not hold it for ever. Blocks.
    """
    killed: set[tuple[int, int]] = set()
    for _ in range(_SEARCH_ROUNDS if leaders else 0):
        # What is killed may have forked since it was looked at.
        new = set(_members_of_sessions(leaders)) - killed
        if not new:
            return
        for pid, started in new:
            _signal(pid, started, signal.SIGKILL)
        killed |= new


def _members_of_sessions(leaders: Mapping[int, int]) -> Iterable[tuple[int, int]]:
    """(pid, start time) of those that live."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = stat_fields(name)
        except ProcessLookupError:
            continue
        began = leaders.get(int(fields[3]))
        # A session of that number that began later is somebody else's; no member is older than its leader.
        if began is not None and int(fields[19]) >= began and not _has_ended(fields):
            yield int(name), int(fields[19])


def _children(pid: int) -> list[int]:
    """The direct children, of all threads. Complete for ourselves: nothing leaves that list unless we reap it."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    children: list[int] = []
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_bytes()
        except FileNotFoundError:
            if _is_alive(pid):
                return _children_by_scan(pid)
            continue
        except ProcessLookupError:
            continue
        children += map(int, text.split())
    return children


def _children_by_scan(parent: int) -> list[int]:
    """The same on a kernel without CONFIG_PROC_CHILDREN."""
    return [pid for pid, ppid in _parents(name for name in os.listdir("/proc") if name.isdigit()) if ppid == parent]


def _parents(names: Iterable[str]) -> Iterable[tuple[int, int]]:
    for name in names:
        try:
            yield int(name), int(stat_fields(name)[1])
        except ProcessLookupError:
            continue


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()


def _has_ended(fields: Sequence[bytes]) -> bool:
    # A process whose first thread has ended looks like a zombie while others go on.
    return fields[0] in _ENDED_STATES and int(fields[17]) <= 1


def _signal(pid: int, started: int, number: int) -> None:
    """Signal that process, and nobody who has its number by now."""
    # PermissionError: a set-uid program; it is told as unkillable if it stays.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)
        try:
            if start_time_of(pid) == started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
