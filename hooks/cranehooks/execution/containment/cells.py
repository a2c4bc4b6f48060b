"""The interface of containment: a driver makes cells, a cell holds all processes of one script or task."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cranehooks.model.limits import Limits, Offers, Usage
from cranehooks.model.run import Leftover

COMMAND_LIMIT_BYTES = 200


class Cell(Protocol):
    """Everything one script or task started, however it tries to get away."""

    @property
    def name(self) -> str:
        """For people: which cell this is."""
        ...

    @property
    def cgroup_fd(self) -> int | None:
        """Of the directory to be born in (`SpawnRequest.cgroup_fd`); None without a cgroup."""
        ...

    @property
    def cgroup(self) -> str | None:
        """Absolute directory, for `Containment.create_inside`; None without one."""
        ...

    @property
    def entry_fds(self) -> Sequence[int]:
        """`cgroup.procs` files to be entered before the first instruction (`SpawnRequest.entry_fds`); they belong to the cell."""
        ...

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """Limits that were asked for and do not hold here, by name."""
        ...

    @property
    def wants_subreaper(self) -> bool:
        """Whether the first process must be a child subreaper (`SpawnRequest.child_subreaper`)."""
        ...

    def started(self, pid: int) -> None:
        """Told of the first process as soon as it runs."""
        ...

    def leader_exited(self) -> None:
        """Told once the first process has been reaped."""
        ...

    def signal_all(self, number: int) -> None:
        """Signal every process; those that are going already are passed over."""
        ...

    def members(self) -> list[Leftover]:
        """The processes that live."""
        ...

    def is_empty(self) -> bool:
        """Whether nothing lives; also arms `wake_fds` for the next change."""
        ...

    def kill(self) -> None:
        """KILL every process; repeat until the cell is empty.

        The cell is of no further use then: from Linux 6.14 on, `clone3` into a cgroup that has ever been killed yields a
        process that is killed at birth.
        """
        ...

    def usage(self) -> Usage:
        """What has been used so far; for the whole of it, ask when the cell is empty. Nothing is known after `remove`."""
        ...

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        """(descriptor, epoll mask) pairs: one becomes ready when `is_empty` is worth asking again.

        They may change with each `is_empty`, and belong to the cell.
        """
        ...

    def keep(self) -> None:
        """Give everything up, and let live what lives in it, also when its place is swept: until `Containment.end_kept`.

        Raises:
            OSError: that cannot be noted; nothing has changed.
        """
        ...

    def remove(self) -> None:
        """Give everything up. Safe to repeat; what still lives (unkillable) keeps its directory."""
        ...


class Containment(Protocol):
    """A driver."""

    @property
    def driver(self) -> str:
        """The word in the configuration and in reports."""
        ...

    @property
    def offers(self) -> Offers:
        """Which limits hold here, and what is lost."""
        ...

    def create(self, name: str, *, limits: Limits | None = None) -> Cell:
        """A cell for one hook run, below `hooks/`.

        Limits that do not hold here are passed over; `Cell.not_enforced` names them.

        Raises:
            OSError: it cannot be made, or the kernel refuses the value of a limit (CPUs that do not exist).
        """
        ...

    def create_at(self, *parts: str, limits: Limits | None = None) -> Cell:
        """A cell at a place of its own: `job_42`, `step_0`, `task_3`. Those above it are made where missing.

        A directory that is there is taken over, with all that lives in it; its limits are set anew. Limits of those above
        bind it too. Raises as `create`.
        """
        ...

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> Cell:
        """A cell within an existing cgroup (the task's, the job's): bound by its limits, and killed alone.

        Limits of its own hold only where that cgroup may pass controllers on. Raises as `create`.
        """
        ...

    def sweep(self, *parts: str) -> list[Leftover]:
        """Kill and remove what a dead instance left below the given place; names what it killed. What is kept below `hooks` stays."""
        ...

    def end_kept(self, name: str) -> list[Leftover]:
        """Kill and remove what cells of that name have kept; names what it killed. Safe to repeat."""
        ...

    def kept(self) -> list[Leftover]:
        """What lives of all that is kept."""
        ...

    def close(self) -> None:
        """Remove what is empty of our own tree."""
        ...


def command_of(pid: int) -> str:
    """The command line of a process, shortened, for people; its short name when it has none."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()[:COMMAND_LIMIT_BYTES]
        if not raw:
            raw = Path(f"/proc/{pid}/comm").read_bytes().strip()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
            raise
        return "?"
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")


def file_name(name: str) -> str:
    """`name` as one component of a path: a run id holds a slash."""
    return name.replace("/", "_").replace("\n", "_")[:200] or "_"
