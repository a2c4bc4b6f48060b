"""What bounds the processes of one cell, what they have used, and what a containment driver can enforce."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum


class LimitKind(Enum):
    """One thing that can be bounded. The value is the word used in warnings and reports."""

    MEMORY = "memory"
    SWAP = "swap"
    CPU = "cpu"
    CPU_WEIGHT = "cpu weight"
    PIDS = "pids"
    CPUSET = "cpuset"
    IO_WEIGHT = "io weight"
    DEVICES = "devices"


class DeviceKind(Enum):
    """The value is the letter that `ls -l` shows and the kernel takes."""

    CHARACTER = "c"
    BLOCK = "b"


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A device by its numbers."""

    kind: DeviceKind
    major: int
    minor: int | None = None
    """None: all of that major number."""

    def __str__(self) -> str:
        """`c 195:0`, as the kernel writes it."""
        return f"{self.kind.value} {self.major}:{'*' if self.minor is None else self.minor}"


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """Which devices may be opened."""

    denied: tuple[Device, ...] = ()
    """Closed: what the node has and the job has not got."""
    allowed: tuple[Device, ...] | None = None
    """Open in the face of `denied`. None leaves open whatever is not denied; otherwise these and the harmless ones every
    program needs (null, zero, full, random, urandom, terminals) are all that is open."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one cell and everything below it; None sets none, and what holds above it holds in any case.

    Raises:
        ValueError: a number is out of range.
    """

    memory_bytes: int | None = None
    """Beyond it processes are killed: see `kills_all`."""
    swap_bytes: int | None = None
    """Swap beyond the memory limit; 0: none. Without a limit of memory it needs version 2 control groups."""
    cpu_cores: float | None = None
    """CPU seconds per second."""
    cpu_weight: int | None = None
    """Share of contended CPU time, 1 to 10000, where 100 is what everybody has."""
    pids: int | None = None
    """Processes and threads at a time."""
    cpuset: str | None = None
    """CPUs to run on, as the kernel lists them: `0-3,8`."""
    io_weight: int | None = None
    """Share of a contended disk, 1 to 10000, where 100 is what everybody has."""
    devices: DeviceRules | None = None
    measures_memory: bool = False
    """Have `Usage.memory_peak_bytes` known even without a limit of memory: a version 1 cgroup more where that is needed."""
    kills_all: bool = True
    """Whether the want of memory kills the whole cell, where the kernel can do that (version 2); otherwise its largest process."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("memory_bytes", 1, None),
            ("swap_bytes", 0, None),
            ("pids", 1, None),
            ("cpu_weight", 1, 10_000),
            ("io_weight", 1, 10_000),
        ):
            value = getattr(self, name)
            if value is not None and (value < lowest or (highest is not None and value > highest)):
                expected = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
                raise ValueError(f"limit {name} is {value}, expected {expected}")
        if self.cpu_cores is not None and not self.cpu_cores > 0:
            raise ValueError(f"limit cpu_cores is {self.cpu_cores}, expected more than 0")
        if self.cpuset is not None and not self.cpuset.strip():
            raise ValueError("limit cpuset is empty, expected CPUs such as 0-3,8")

    @property
    def kinds(self) -> frozenset[LimitKind]:
        """What is bounded."""
        wanted = {
            LimitKind.MEMORY: self.memory_bytes,
            LimitKind.SWAP: self.swap_bytes,
            LimitKind.CPU: self.cpu_cores,
            LimitKind.CPU_WEIGHT: self.cpu_weight,
            LimitKind.PIDS: self.pids,
            LimitKind.CPUSET: self.cpuset,
            LimitKind.IO_WEIGHT: self.io_weight,
            LimitKind.DEVICES: self.devices,
        }
        return frozenset(kind for kind, value in wanted.items() if value is not None)

    def __str__(self) -> str:
        """For a person: `1024 MiB of memory, no swap, 4096 processes, CPU weight 50`."""
        swap = None if self.swap_bytes is None else _mib(self.swap_bytes) + " of swap" if self.swap_bytes else "no swap"
        told = (
            None if self.memory_bytes is None else _mib(self.memory_bytes) + " of memory",
            swap,
            None if self.cpu_cores is None else f"{self.cpu_cores:g} CPUs",
            None if self.cpu_weight is None else f"CPU weight {self.cpu_weight}",
            None if self.pids is None else f"{self.pids} processes",
            None if self.cpuset is None else f"on CPUs {self.cpuset}",
            None if self.io_weight is None else f"I/O weight {self.io_weight}",
        )
        return ", ".join(text for text in told if text is not None)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):g} MiB"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cell has used so far; None: not known here."""

    cpu_s: float | None = None
    """CPU time of all its processes, those that ended too."""
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    """How many of its processes the kernel killed for want of memory."""
    forks_refused: int | None = None
    """How often its limit of processes kept it from starting one."""


@dataclass(frozen=True, slots=True)
class Offers:
    """What a containment driver can do where it runs."""

    enforced: frozenset[LimitKind] = frozenset()
    """Limits that hold; others are passed over (`Cell.not_enforced` names them)."""
    what_is_lost: str = ""
    """One sentence for an administrator; empty: nothing."""


def words(kinds: AbstractSet[LimitKind]) -> tuple[str, ...]:
    """Their names, in the order of the enumeration."""
    return tuple(kind.value for kind in LimitKind if kind in kinds)
