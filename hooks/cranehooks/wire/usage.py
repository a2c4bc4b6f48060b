"""Limits and usage on the wire."""

from crane.hooks.v1 import job_pb2 as pb
from crane.hooks.v1 import supervisor_pb2
from cranehooks.model.usage import JobLimits, ResourceUsage


def resource_usage_to_wire(usage: ResourceUsage) -> pb.ResourceUsage:
    return pb.ResourceUsage(cpu_s=usage.cpu_s, memory_peak_bytes=usage.memory_peak_bytes, oom_kills=usage.oom_kills)


def resource_usage_from_wire(message: pb.ResourceUsage) -> ResourceUsage:
    return ResourceUsage(
        message.cpu_s,
        message.memory_peak_bytes if message.HasField("memory_peak_bytes") else None,
        message.oom_kills if message.HasField("oom_kills") else None,
    )


def job_limits_to_wire(limits: JobLimits) -> supervisor_pb2.JobLimits:
    return supervisor_pb2.JobLimits(
        memory_bytes=limits.memory_bytes,
        swap_bytes=limits.swap_bytes,
        cpus=limits.cpus,
        processes=limits.processes,
        denied_devices=limits.denied_devices,
    )


def job_limits_from_wire(message: supervisor_pb2.JobLimits) -> JobLimits:
    return JobLimits(
        message.memory_bytes if message.HasField("memory_bytes") else None,
        message.swap_bytes if message.HasField("swap_bytes") else None,
        message.cpus if message.HasField("cpus") else None,
        message.processes if message.HasField("processes") else None,
        tuple(message.denied_devices),
    )
