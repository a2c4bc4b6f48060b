"""Limits and usage of jobs on the wire."""

from crane.hooks.v1 import job_pb2 as pb
from crane.hooks.v1 import supervisor_pb2
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, Limits, Usage


def usage_to_wire(usage: Usage) -> pb.ResourceUsage:
    return pb.ResourceUsage(cpu_s=usage.cpu_s, memory_peak_bytes=usage.memory_peak_bytes, oom_kills=usage.oom_kills)


def usage_from_wire(message: pb.ResourceUsage) -> Usage:
    return Usage(
        message.cpu_s if message.HasField("cpu_s") else None,
        message.memory_peak_bytes if message.HasField("memory_peak_bytes") else None,
        message.oom_kills if message.HasField("oom_kills") else None,
    )


def job_limits_to_wire(limits: Limits) -> supervisor_pb2.JobLimits:
    """The limits of a job, or of a hook."""
    denied = limits.devices.denied if limits.devices is not None else ()
    return supervisor_pb2.JobLimits(
        memory_bytes=limits.memory_bytes,
        swap_bytes=limits.swap_bytes,
        cpus=limits.cpu_cores,
        processes=limits.pids,
        cpuset=limits.cpuset or "",
        cpu_weight=limits.cpu_weight,
        io_weight=limits.io_weight,
        measures_memory=limits.measures_memory,
        kills_largest=not limits.kills_all,
        denied_devices=[
            supervisor_pb2.DeviceNumber(block=device.kind is DeviceKind.BLOCK, major=device.major, minor=device.minor or 0)
            for device in denied
        ],
    )


def job_limits_from_wire(message: supervisor_pb2.JobLimits) -> Limits:
    """The limits.

    Raises:
        ValueError: a number is out of range.
    """
    denied = tuple(
        Device(DeviceKind.BLOCK if device.block else DeviceKind.CHARACTER, device.major, device.minor)
        for device in message.denied_devices
    )
    return Limits(
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        swap_bytes=message.swap_bytes if message.HasField("swap_bytes") else None,
        cpu_cores=message.cpus if message.HasField("cpus") else None,
        pids=message.processes if message.HasField("processes") else None,
        cpuset=message.cpuset or None,
        cpu_weight=message.cpu_weight if message.HasField("cpu_weight") else None,
        io_weight=message.io_weight if message.HasField("io_weight") else None,
        devices=DeviceRules(denied) if denied else None,
        measures_memory=message.measures_memory,
        kills_all=not message.kills_largest,
    )
