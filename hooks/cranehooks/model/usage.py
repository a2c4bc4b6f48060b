"""What jobs may use of a node, and what they used."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What the processes of a job may use on a node; None: no limit."""

    memory_bytes: int | None = None
    swap_bytes: int | None = None
    """Besides the memory; 0: no swap."""
    cpus: float | None = None
    """CPU time, in CPUs: 0.5 is half of one."""
    processes: int | None = None
    """Threads count."""
    denied_devices: tuple[str, ...] = ()
    """Device files that cannot be opened: of the node's gres, what is not the job's."""

    @property
    def limits_nothing(self) -> bool:
        return self == JobLimits()


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What was used; None: not known, because the driver of containment does not tell."""

    cpu_s: float = 0.0
    """User and system together."""
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    """Processes that the kernel killed for want of memory."""


def usage_sum(parts: Iterable[ResourceUsage]) -> ResourceUsage | None:
    """Of parts that ran at the same time or one after the other: CPU time and kills add up, the peak is at least the highest one's."""
    parts = list(parts)
    if not parts:
        return None
    return ResourceUsage(
        sum(part.cpu_s for part in parts),
        max((part.memory_peak_bytes for part in parts if part.memory_peak_bytes is not None), default=None),
        sum(known) if (known := [part.oom_kills for part in parts if part.oom_kills is not None]) else None,
    )
