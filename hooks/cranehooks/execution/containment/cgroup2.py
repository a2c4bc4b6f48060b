"""Containment by version 2 control groups: what is born in one cannot leave it, and dies with `cgroup.kill`."""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from cranehooks.execution.containment.cells import command_of, file_name
from cranehooks.model.limits import Limits, Offers, Usage, words
from cranehooks.model.run import Leftover

_GONE = (errno.ENOENT, errno.ENODEV)
"""What a file of a removed cgroup answers."""
_HOOKS = "hooks"
_KEPT = "kept"
"""Name of the empty cgroup that marks a cell whose processes stay."""
_MAX_TWINS = 1000
_BUSY_ATTEMPTS = 3
_MAKE_ATTEMPTS = 100
_SWEEP_TIMEOUT_S = 5.0


def own_directory(mountinfo: str | None = None, membership: str | None = None) -> Path | None:
    """The directory of this process's version 2 cgroup, wherever that hierarchy is mounted; None when it is not.

    Args:
        mountinfo: text of `/proc/self/mountinfo`; read when not given.
        membership: text of `/proc/self/cgroup`; read when not given.
    """
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8") if mountinfo is None else mountinfo
    membership = Path("/proc/self/cgroup").read_text(encoding="utf-8") if membership is None else membership
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)
    if own is None:
        return None
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        if back.split(" ", 1)[0] != "cgroup2":
            continue
        root, mount_point = (_unescaped(field) for field in front.split(" ")[3:5])
        # In a container the mount may show a part of the hierarchy only.
        if root == "/":
            return Path(mount_point + own.rstrip("/"))
        if own == root or own.startswith(f"{root}/"):
            return Path(mount_point + own[len(root) :])
    return None


def _unescaped(field: str) -> str:
    return field.encode().decode("unicode_escape") if "\\" in field else field


class CgroupCell:
    """One cgroup and whatever is made below it."""

    entry_fds: tuple[int, ...] = ()
    wants_subreaper = False

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
    def cgroup_fd(self) -> int | None:
        return self._fd

    def started(self, pid: int) -> None:
        """Nothing to note: the process was born inside."""

    def leader_exited(self) -> None:
        """Nothing to note: what it left is inside."""

    def signal_all(self, number: int) -> None:
        for pid in _pids(self.directory):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def members(self) -> list[Leftover]:
        return _members(self.directory)

    def is_empty(self) -> bool:
        # Reading is also what arms the notification of the next change.
        try:
            return b"populated 0" in os.pread(self._events_fd, 256, 0)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # Swept by the instance that takes our place, and nobody can live in what has been removed.
            return True

    def kill(self) -> None:
        kill_tree(self.directory)

    def usage(self) -> Usage:
        return Usage()

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return ((self._events_fd, select.EPOLLPRI),)

    def keep(self) -> None:
        # The mark is a cgroup, too: it lasts as long as the processes can, and not beyond a reboot.
        (self.directory / _KEPT).mkdir()
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
    """Cells below `<own cgroup>/crane/<root_name>`."""

    driver = "cgroup2"
    offers = Offers()

    def __init__(self, base: Path, root_name: str) -> None:
        """Make the root.

        Raises:
            OSError: the hierarchy does not let us.
        """
        self.root = base / "crane" / file_name(root_name)
        make_directory(self.root)

    def create(self, name: str, *, limits: Limits | None = None) -> CgroupCell:
        return self._create(self.root / _HOOKS, file_name(name), limits)

    def create_at(self, *parts: str, limits: Limits | None = None) -> CgroupCell:
        directory = self.root.joinpath(*(file_name(part) for part in parts))
        make_directory(directory)
        return CgroupCell(directory, words(limits.kinds) if limits else ())

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> CgroupCell:
        parent = Path(cgroup)
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such cgroup", cgroup)
        return self._create(parent, file_name(name), limits)

    def sweep(self, *parts: str) -> list[Leftover]:
        top = self.root.joinpath(*(file_name(part) for part in parts))
        if parts != (_HOOKS,):
            return _swept(top)
        killed = [process for cell in _cells(top) if not _is_kept(cell) for process in _swept(cell)]
        with contextlib.suppress(OSError):
            # Something is kept there, or it was never made.
            top.rmdir()
        return killed

    def end_kept(self, name: str) -> list[Leftover]:
        cells = [cell for cell in _cells(self.root / _HOOKS) if _is_kept(cell) and cell.name.split("~")[0] == file_name(name)]
        return [process for cell in cells for process in _swept(cell)]

    def kept(self) -> list[Leftover]:
        living: list[Leftover] = []
        for cell in _cells(self.root / _HOOKS):
            if not _is_kept(cell):
                continue
            members = _members(cell)
            if not members:
                # They have ended by themselves, and nobody else removes it.
                remove_tree(cell)
            living += members
        return living

    def close(self) -> None:
        # Cells are removed one by one: an instance that has taken our place may have made its own among them, still empty.
        for directory in (self.root / _HOOKS, self.root, self.root.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()

    @staticmethod
    def _create(parent: Path, name: str, limits: Limits | None) -> CgroupCell:
        """A new directory; a namesake that something unkillable keeps alive gets a twin."""
        for number in range(_MAX_TWINS):
            directory = parent / (f"{name}~{number}" if number else name)
            try:
                make_directory(directory, exist_ok=False)
            except FileExistsError:
                continue
            return CgroupCell(directory, words(limits.kinds) if limits else ())
        raise FileExistsError(errno.EEXIST, f"{_MAX_TWINS} cgroups of that name exist", str(parent / name))


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


def _cells(place: Path) -> list[Path]:
    """The cgroups right below a place."""
    try:
        return [path for path in place.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _is_kept(cell: Path) -> bool:
    return (cell / _KEPT).is_dir()


def _members(top: Path) -> list[Leftover]:
    return [Leftover(pid, command_of(pid)) for pid in _pids(top)]


def _swept(top: Path) -> list[Leftover]:
    """Kill and remove the cgroup with all below it; names what was killed."""
    killed = _members(top)
    if killed:
        _kill_and_wait(top)
    remove_tree(top)
    return killed


def _tree(top: Path) -> Iterator[Path]:
    """The cgroup and all below it, deepest first; hooks may make their own."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)


def _pids(top: Path) -> list[int]:
    pids = []
    for directory in _tree(top):
        try:
            text = (directory / "cgroup.procs").read_text(encoding="ascii")
        except OSError as error:
            if error.errno not in (*_GONE, errno.EOPNOTSUPP):
                raise
            continue
        # 0 stands for a process of another pid namespace.
        pids += [int(word) for word in text.split() if word != "0"]
    return pids


def kill_tree(top: Path) -> None:
    """KILL everything in the cgroup and below; where the kernel has no `cgroup.kill`, one by one."""
    try:
        (top / "cgroup.kill").write_text("1", encoding="ascii")
    except OSError as error:
        if top.is_dir() and error.errno in (*_GONE, errno.EACCES, errno.EPERM):
            for pid in _pids(top):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        elif error.errno not in _GONE:
            raise


def remove_tree(top: Path) -> None:
    """Remove the cgroup and all below it; what is populated stays."""
    for directory in _tree(top):
        for _ in range(_BUSY_ATTEMPTS):
            try:
                directory.rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY:
                    continue
                if error.errno not in _GONE:
                    raise
            break


def _kill_and_wait(top: Path) -> None:
    """Kill the tree until it is empty, or until waiting has become pointless."""
    fd = os.open(top / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    poller = select.poll()
    poller.register(fd, select.POLLPRI)
    try:
        kill_tree(top)
        while b"populated 1" in os.pread(fd, 256, 0):
            if not poller.poll(_SWEEP_TIMEOUT_S * 1000):
                return
            kill_tree(top)
    finally:
        os.close(fd)
