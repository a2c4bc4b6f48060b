"""Limits and usage in the files of version 2 control groups."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cranehooks.execution.containment.tree import read_number, write
from cranehooks.model.limits import LimitKind, Limits, Usage

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000
_CONTROL = "cgroup.subtree_control"

CONTROLLER_OF = {
    LimitKind.MEMORY: "memory",
    LimitKind.SWAP: "memory",
    LimitKind.CPU: "cpu",
    LimitKind.CPU_WEIGHT: "cpu",
    LimitKind.PIDS: "pids",
    LimitKind.CPUSET: "cpuset",
    LimitKind.IO_WEIGHT: "io",
}
"""Devices are not among them: version 2 closes those by eBPF programs alone, which are not loaded here."""
_FILE_OF = {
    LimitKind.MEMORY: "memory.max",
    LimitKind.SWAP: "memory.swap.max",
    LimitKind.CPU: "cpu.max",
    LimitKind.CPU_WEIGHT: "cpu.weight",
    LimitKind.PIDS: "pids.max",
    LimitKind.CPUSET: "cpuset.cpus",
    LimitKind.IO_WEIGHT: "io.weight",
}


def controllers_for(limits: Limits) -> frozenset[str]:
    """What must be passed on to a cgroup that is to have these limits."""
    needed = {CONTROLLER_OF[kind] for kind in limits.kinds if kind in CONTROLLER_OF}
    return frozenset(needed | ({"memory"} if limits.measures_memory else set()))


def available(directory: Path) -> frozenset[str]:
    """Controllers that may be passed on to what is below, as far as any limit needs them."""
    text = (directory / "cgroup.controllers").read_text(encoding="ascii")
    return frozenset(text.split()) & frozenset(CONTROLLER_OF.values())


def passed_on(directory: Path) -> frozenset[str]:
    """Controllers that are passed on to what is below."""
    return frozenset((directory / _CONTROL).read_text(encoding="ascii").split())


def pass_on(directory: Path, controllers: Iterable[str]) -> None:
    """Have what is below this cgroup controlled. Safe to repeat.

    Raises:
        OSError: EBUSY where processes live in it, other numbers where it may not.
    """
    for controller in sorted(controllers):
        write(directory, _CONTROL, f"+{controller}")


def offered(directory: Path) -> frozenset[LimitKind]:
    """Limits that a cgroup may have, by the files it has."""
    return frozenset(kind for kind, name in _FILE_OF.items() if (directory / name).exists())


def apply(directory: Path, limits: Limits) -> frozenset[LimitKind]:
    """Set the limits of a cgroup; those that it cannot have.

    Raises:
        OSError: the kernel refuses a value.
    """
    missing = {LimitKind.DEVICES} & limits.kinds
    for kind, value in _values(limits):
        if not write(directory, _FILE_OF[kind], value):
            missing |= {kind}
    if limits.memory_bytes is not None and LimitKind.MEMORY not in missing:
        # A script of which half has been killed does the wrong thing; a job's programs may be made for it.
        write(directory, "memory.oom.group", "1" if limits.kills_all else "0")
    return frozenset(missing)


def usage(directory: Path) -> Usage:
    """What all processes of a cgroup have used, those that ended too."""
    cpu_us = read_number(directory, "cpu.stat", "usage_usec")
    return Usage(
        cpu_s=None if cpu_us is None else cpu_us / 1_000_000,
        memory_peak_bytes=read_number(directory, "memory.peak"),
        oom_kills=read_number(directory, "memory.events", "oom_kill"),
        forks_refused=read_number(directory, "pids.events", "max"),
    )


def _values(limits: Limits) -> Iterator[tuple[LimitKind, str]]:
    if limits.memory_bytes is not None:
        yield LimitKind.MEMORY, str(limits.memory_bytes)
    if limits.swap_bytes is not None:
        yield LimitKind.SWAP, str(limits.swap_bytes)
    if limits.cpu_cores is not None:
        yield LimitKind.CPU, f"{max(_LEAST_QUOTA_US, round(limits.cpu_cores * _PERIOD_US))} {_PERIOD_US}"
    if limits.cpu_weight is not None:
        yield LimitKind.CPU_WEIGHT, str(limits.cpu_weight)
    if limits.pids is not None:
        yield LimitKind.PIDS, str(limits.pids)
    if limits.cpuset is not None:
        yield LimitKind.CPUSET, limits.cpuset
    if limits.io_weight is not None:
        yield LimitKind.IO_WEIGHT, f"default {limits.io_weight}"
