"""Directories of control groups, of either version: making them, who is in them, removing them."""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cranehooks.execution.containment.cells import command_of
from cranehooks.model.run import Leftover

GONE = (errno.ENOENT, errno.ENODEV)
"""What a file of a removed cgroup answers."""
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
_MAX_TWINS = 1000
_BUSY_ATTEMPTS = 3
_MAKE_ATTEMPTS = 100
_KILL_ROUNDS = 10
_FREEZE_WITHIN_S = 0.05


def make_directory(directory: Path, *, exist_ok: bool = True) -> None:
    """Make a cgroup and those above it, although an instance that ends may be removing them while they are empty.

    Raises:
        FileExistsError: it is there, and must not be.
        OSError: the hierarchy does not let us.
    """
    for attempt in range(_MAKE_ATTEMPTS):
        try:
            directory.mkdir()
        except FileExistsError:
            if not exist_ok:
                raise
            if directory.is_dir():
                return
        except FileNotFoundError:
            if attempt == _MAKE_ATTEMPTS - 1:
                raise
            make_directory(directory.parent)
        else:
            return


def make_new(parent: Path, name: str) -> Path:
    """A new directory; a namesake that something unkillable keeps alive gets a twin.

    Raises:
        OSError: the hierarchy does not let us.
    """
    for number in range(_MAX_TWINS):
        directory = parent / (f"{name}~{number}" if number else name)
        with contextlib.suppress(FileExistsError):
            make_directory(directory, exist_ok=False)
            return directory
    raise FileExistsError(errno.EEXIST, f"{_MAX_TWINS} cgroups of that name exist", str(parent / name))


def tree(top: Path) -> Iterator[Path]:
    """The cgroup and all below it, deepest first; hooks may make their own."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)


def pids(top: Path) -> list[int]:
    """Of all processes in the cgroup and below it; none when it is gone."""
    found = []
    for directory in tree(top):
        try:
            text = (directory / "cgroup.procs").read_text(encoding="ascii")
        except OSError as error:
            if error.errno not in (*GONE, errno.EOPNOTSUPP):
                raise
            continue
        # 0 stands for a process of another pid namespace.
        found += [int(word) for word in text.split() if word != "0"]
    return found


def members(top: Path) -> list[Leftover]:
    """The same, named."""
    return [Leftover(pid, command_of(pid)) for pid in pids(top)]


def signal_members(list_pids: Callable[[], Sequence[int]], number: int) -> None:
    """Signal every process of a group, and none that has taken the number of one that ended meanwhile."""
    handles: dict[int, int] = {}
    try:
        for pid in list_pids():
            with contextlib.suppress(ProcessLookupError):
                handles[pid] = os.pidfd_open(pid)
        # Whoever is listed still is what its handle stands for, or has come into the group since.
        for pid in list_pids():
            if pid in handles:
                # PermissionError: a set-uid program; it is told as unkillable if it stays.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handles[pid], number)
    finally:
        for handle in handles.values():
            os.close(handle)


def kill_each(list_pids: Callable[[], Sequence[int]]) -> None:
    """KILL every process of a group that cannot be killed at once, and what they fork meanwhile, within reason."""
    seen: set[int] = set()
    for _ in range(_KILL_ROUNDS):
        found = set(list_pids())
        if found <= seen:
            return
        seen |= found
        signal_members(list_pids, signal.SIGKILL)


def kill_unified(top: Path) -> None:
    """KILL everything in a version 2 cgroup and below; where the kernel has no `cgroup.kill`, one by one."""
    try:
        (top / "cgroup.kill").write_text("1", encoding="ascii")
    except OSError as error:
        if top.is_dir() and error.errno in (*GONE, errno.EACCES, errno.EPERM):
            kill_each(lambda: pids(top))
        elif error.errno not in GONE:
            raise


def kill_frozen(top: Path) -> None:
    """KILL everything in a version 1 freezer cgroup and below, while it is frozen so that nothing is forked meanwhile."""
    state = top / "freezer.state"
    try:
        state.write_text("FROZEN", encoding="ascii")
        # There is no event to wait for. One that is stuck in the kernel never freezes, and cannot fork either.
        give_up_at = time.monotonic() + _FREEZE_WITHIN_S
        while state.read_text(encoding="ascii").strip() == "FREEZING" and time.monotonic() < give_up_at:
            os.sched_yield()
    except OSError as error:
        if error.errno not in GONE:
            raise
    try:
        kill_each(lambda: pids(top))
    finally:
        # Frozen, they could not even die.
        for directory in tree(top):
            with contextlib.suppress(OSError):
                (directory / "freezer.state").write_text("THAWED", encoding="ascii")


def remove_tree(top: Path) -> None:
    """Remove the cgroup and all below it; what is populated stays."""
    for directory in tree(top):
        for _ in range(_BUSY_ATTEMPTS):
            try:
                directory.rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY:
                    continue
                if error.errno not in (*GONE, *_NOT_OURS):
                    raise
            break


def write(directory: Path, name: str, value: str) -> bool:
    """Write a file of a cgroup; False when the kernel has no such file.

    Raises:
        OSError: the kernel refuses the value; tells file and value.
    """
    path = directory / name
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if directory.is_dir():
            return False
        raise
    try:
        os.write(fd, value.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (writing {value!r} to {path})", str(path)) from error
    finally:
        os.close(fd)
    return True


def read_number(directory: Path, name: str, key: str | None = None) -> int | None:
    """A number in a file of a cgroup, that of a line `key number` where a key is given; None when there is none."""
    try:
        text = (directory / name).read_text(encoding="ascii")
    except OSError as error:
        if error.errno not in (*GONE, errno.EOPNOTSUPP):
            raise
        return None
    if key is None:
        return int(text) if text.strip().isdigit() else None
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[:1] == [key]), None)
