"""What the processes of a job may use on this node: from its request, the configuration and the node's device files."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cranehooks.model.gres import NodeDevice, parse_gres
from cranehooks.model.job import JobOnNode, NodeShare
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits
from cranehooks.settings.limits import JobLimitsSection

_PERCENT = 100


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """From the configuration of the moment."""

    section: JobLimitsSection = JobLimitsSection()
    devices: tuple[NodeDevice, ...] = ()
    """All of this node."""

    @property
    def has_device_files(self) -> bool:
        return any(device.files for device in self.devices)

    @property
    def constrains_devices(self) -> bool:
        """Whether jobs are to be kept from devices of others."""
        return self.section.constrain_devices and self.has_device_files

    @property
    def wanted(self) -> frozenset[LimitKind]:
        """Limits that jobs may come to have."""
        section = self.section
        wanted = {
            LimitKind.MEMORY: section.constrain_ram_space,
            LimitKind.SWAP: section.constrain_ram_space and section.constrain_swap_space,
            LimitKind.CPU: section.constrain_cores,
            LimitKind.PIDS: section.max_processes is not None,
            LimitKind.DEVICES: self.constrains_devices,
        }
        return frozenset(kind for kind, is_wanted in wanted.items() if is_wanted)


def job_limits(job: JobOnNode, settings: LimitSettings) -> Limits:
    """Limits of what the job asked for, and of nothing else. Looks at the device files."""
    section, share = settings.section, job.share
    memory = share.memory_bytes if section.constrain_ram_space and share.memory_bytes > 0 else None
    swap = None
    if memory is not None and section.constrain_swap_space:
        swap = int(memory * section.allowed_swap_space / _PERCENT)
    return Limits(
        memory_bytes=memory,
        swap_bytes=swap,
        cpu_cores=share.cpus if section.constrain_cores and job.spec.cpus_requested and share.cpus > 0 else None,
        pids=section.max_processes,
        devices=closed_devices(share, settings.devices) if settings.constrains_devices else None,
        kills_all=False,
    )


def closed_devices(share: NodeShare, devices: Iterable[NodeDevice]) -> DeviceRules | None:
    """The node's devices that the job does not hold; None when it holds all. A number that one of its own has, too, stays open."""
    held = {each.name: frozenset(each.indexes) for each in share.devices}
    counted_only = {entry.name for entry in parse_gres(share.gres)} - held.keys()
    own: set[Device] = set()
    others: set[Device] = set()
    for device in devices:
        # Of a job that was allocated before devices were told apart, nobody knows which are its own.
        is_own = device.index in held.get(device.name, ()) or device.name in counted_only
        (own if is_own else others).update(number for _, number in _numbers(device) if number is not None)
    closed = tuple(sorted(others - own, key=lambda each: (each.kind.value, each.major, each.minor or 0)))
    return DeviceRules(closed) if closed else None


def missing_files(devices: Iterable[NodeDevice]) -> tuple[str, ...]:
    """Files that are no device files, or not there: nobody can be kept from them."""
    return tuple(path for device in devices for path, number in _numbers(device) if number is None)


def _numbers(device: NodeDevice) -> Iterator[tuple[str, Device | None]]:
    for path in device.files:
        try:
            found = Path(path).stat()
        except OSError:
            yield path, None
            continue
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            kind = DeviceKind.BLOCK if stat.S_ISBLK(found.st_mode) else DeviceKind.CHARACTER
            yield path, Device(kind, os.major(found.st_rdev), os.minor(found.st_rdev))
        else:
            yield path, None
