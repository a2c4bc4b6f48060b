"""Limits and usage in the files of version 1 control groups."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from cranehooks.execution.containment.tree import read_number, write
from cranehooks.model.limits import Device, DeviceKind, LimitKind, Limits, Usage

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000
_EVERYBODYS_WEIGHT, _EVERYBODYS_SHARES = 100, 1024
_SHARES_RANGE = 2, 262_144
_BLKIO_FILES = {"blkio.bfq.weight": (1, 1000, 1.0), "blkio.weight": (10, 1000, 5.0)}
"""Either may be there, with its range and what our 100 is multiplied with to give its default."""
_EVERY_DEVICE = "a"
_HARMLESS = (
    *(Device(DeviceKind.CHARACTER, 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(Device(DeviceKind.CHARACTER, 5, minor) for minor in (0, 1, 2)),
    Device(DeviceKind.CHARACTER, 136),
)
"""null, zero, full, random, urandom; tty, console, ptmx; the terminals of ptmx."""

CONTROLLER_OF = {
    LimitKind.MEMORY: "memory",
    LimitKind.SWAP: "memory",
    LimitKind.CPU: "cpu",
    LimitKind.CPU_WEIGHT: "cpu",
    LimitKind.PIDS: "pids",
    LimitKind.CPUSET: "cpuset",
    LimitKind.IO_WEIGHT: "blkio",
    LimitKind.DEVICES: "devices",
}
_FILES_OF: Mapping[LimitKind, tuple[str, ...]] = {
    LimitKind.MEMORY: ("memory.limit_in_bytes",),
    LimitKind.SWAP: ("memory.memsw.limit_in_bytes",),
    LimitKind.CPU: ("cpu.cfs_quota_us",),
    LimitKind.CPU_WEIGHT: ("cpu.shares",),
    LimitKind.PIDS: ("pids.max",),
    LimitKind.CPUSET: ("cpuset.cpus",),
    LimitKind.IO_WEIGHT: tuple(_BLKIO_FILES),
    LimitKind.DEVICES: ("devices.deny",),
}


def controllers_for(limits: Limits) -> frozenset[str]:
    """Those in which a cgroup is needed for these limits."""
    return frozenset(CONTROLLER_OF[kind] for kind in limits.kinds) | ({"memory"} if limits.measures_memory else frozenset())


def offered(controller: str, directory: Path) -> frozenset[LimitKind]:
    """Limits that a cgroup of a controller may have, by the files it has."""
    kinds = [kind for kind, owner in CONTROLLER_OF.items() if owner == controller]
    return frozenset(kind for kind in kinds if any((directory / name).exists() for name in _FILES_OF[kind]))


def prepare(controller: str, directory: Path) -> None:
    """Make a new cgroup usable: some take nobody, or bind nothing below them, as they are made.

    Raises:
        OSError: the kernel refuses.
    """
    if controller == "cpuset":
        for name in ("cpuset.cpus", "cpuset.mems"):
            own = directory / name
            if not own.read_text(encoding="ascii").strip():
                write(directory, name, (directory.parent / name).read_text(encoding="ascii").strip())
    if controller == "memory" and read_number(directory, "memory.use_hierarchy") == 0:
        write(directory, "memory.use_hierarchy", "1")


def apply(controller: str, directory: Path, limits: Limits) -> frozenset[LimitKind]:
    """Set those limits of a cgroup that are its controller's; those of them that it cannot have.

    Raises:
        OSError: the kernel refuses a value.
    """
    kinds = {kind for kind in limits.kinds if CONTROLLER_OF[kind] == controller}
    return frozenset(kind for kind in sorted(kinds, key=list(LimitKind).index) if not _APPLY[kind](directory, limits))


def usage(directories: Mapping[str, Path]) -> Usage:
    """What has been used, by controller as far as there is a cgroup in it."""
    cpu, memory, pids = (directories.get(controller) for controller in ("cpuacct", "memory", "pids"))
    cpu_ns = None if cpu is None else read_number(cpu, "cpuacct.usage")
    return Usage(
        cpu_s=None if cpu_ns is None else cpu_ns / 1_000_000_000,
        memory_peak_bytes=None if memory is None else read_number(memory, "memory.max_usage_in_bytes"),
        oom_kills=None if memory is None else read_number(memory, "memory.oom_control", "oom_kill"),
        forks_refused=None if pids is None else read_number(pids, "pids.events", "max"),
    )


def _memory(directory: Path, limits: Limits) -> bool:
    value = str(limits.memory_bytes)
    try:
        return write(directory, "memory.limit_in_bytes", value)
    except OSError as error:
        # It may not exceed memory and swap together, which an earlier limit bounds.
        if error.errno != errno.EINVAL or not write(directory, "memory.memsw.limit_in_bytes", "-1"):
            raise
        return write(directory, "memory.limit_in_bytes", value)


def _swap(directory: Path, limits: Limits) -> bool:
    if limits.memory_bytes is None or limits.swap_bytes is None:
        # Only the sum can be bounded.
        return False
    return write(directory, "memory.memsw.limit_in_bytes", str(limits.memory_bytes + limits.swap_bytes))


def _cpu(directory: Path, limits: Limits) -> bool:
    quota_us = max(_LEAST_QUOTA_US, round((limits.cpu_cores or 0.0) * _PERIOD_US))
    if not write(directory, "cpu.cfs_period_us", str(_PERIOD_US)):
        return False
    return write(directory, "cpu.cfs_quota_us", str(quota_us))


def _cpu_weight(directory: Path, limits: Limits) -> bool:
    shares = round((limits.cpu_weight or 0) * _EVERYBODYS_SHARES / _EVERYBODYS_WEIGHT)
    return write(directory, "cpu.shares", str(min(max(shares, _SHARES_RANGE[0]), _SHARES_RANGE[1])))


def _pids(directory: Path, limits: Limits) -> bool:
    return write(directory, "pids.max", str(limits.pids))


def _cpuset(directory: Path, limits: Limits) -> bool:
    return write(directory, "cpuset.cpus", str(limits.cpuset))


def _io_weight(directory: Path, limits: Limits) -> bool:
    for name, (lowest, highest, factor) in _BLKIO_FILES.items():
        if write(directory, name, str(min(max(round((limits.io_weight or 0) * factor), lowest), highest))):
            return True
    return False


def _devices(directory: Path, limits: Limits) -> bool:
    rules = limits.devices
    if rules is None or not (directory / "devices.deny").exists():
        return False
    if rules.allowed is not None:
        write(directory, "devices.deny", _EVERY_DEVICE)
        for device in (*_HARMLESS, *rules.allowed):
            write(directory, "devices.allow", f"{device} rwm")
    for device in rules.denied:
        write(directory, "devices.deny", f"{device} rwm")
    return True


_APPLY: Mapping[LimitKind, Callable[[Path, Limits], bool]] = {
    LimitKind.MEMORY: _memory,
    LimitKind.SWAP: _swap,
    LimitKind.CPU: _cpu,
    LimitKind.CPU_WEIGHT: _cpu_weight,
    LimitKind.PIDS: _pids,
    LimitKind.CPUSET: _cpuset,
    LimitKind.IO_WEIGHT: _io_weight,
    LimitKind.DEVICES: _devices,
}
