"""Jobs on the wire."""

from collections.abc import Iterable
from typing import Final

from crane.hooks.v1 import job_pb2 as pb
from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import (
    SOFT_LIMITS,
    ArrayBounds,
    EqualShares,
    ExitStatus,
    Inherited,
    JobKind,
    JobOnNode,
    JobSpec,
    NodeShare,
)
from cranehooks.wire.enumeration import EnumCodec, WireError
from cranehooks.wire.moment import duration, seconds, timestamp
from cranehooks.wire.nodelist import nodelist_from_wire, nodelist_to_wire

_EVERY_BIT_OF_UMASK: Final = 0o777
_KIND: Final = EnumCodec(JobKind, pb.JobKind, "JOB_KIND")


def job_kind_to_wire(kind: JobKind) -> pb.JobKind.ValueType:
    return _KIND.to_wire(kind)


def job_kind_from_wire(value: int) -> JobKind:
    return _KIND.from_wire(value)


def exit_status_to_wire(status: ExitStatus) -> pb.ExitStatus:
    return pb.ExitStatus(code=status.code, signal=status.signal)


def exit_status_from_wire(message: pb.ExitStatus) -> ExitStatus:
    return ExitStatus(message.code, message.signal)


def node_share_to_wire(share: NodeShare) -> pb.NodeShare:
    return pb.NodeShare(
        node=share.node,
        ntasks=share.ntasks,
        cpus=share.cpus,
        memory_bytes=share.memory_bytes,
        gres=share.gres,
        devices=[pb.HeldDevices(name=held.name, indexes=held.indexes) for held in share.devices],
    )


def node_share_from_wire(message: pb.NodeShare) -> NodeShare:
    devices = tuple(HeldDevices(held.name, tuple(held.indexes)) for held in message.devices)
    return NodeShare(NodeName(message.node), message.ntasks, message.cpus, message.memory_bytes, message.gres, devices)


def inherited_to_wire(inherited: Inherited | None) -> pb.Inherited | None:
    return None if inherited is None else pb.Inherited(umask=inherited.umask, soft_limits=inherited.soft_limits)


def inherited_from_wire(message: pb.Inherited) -> Inherited:
    """What a shell passed on; limits that nobody here knows are left out."""
    return Inherited(
        message.umask & _EVERY_BIT_OF_UMASK if message.HasField("umask") else None,
        {name: value for name, value in message.soft_limits.items() if name in SOFT_LIMITS},
    )


def job_spec_to_wire(spec: JobSpec) -> pb.JobSpec:
    return pb.JobSpec(
        kind=job_kind_to_wire(spec.kind),
        uid=spec.uid,
        gid=spec.gid,
        user=spec.user,
        groups=spec.groups,
        name=spec.name,
        account=spec.account,
        partition=spec.partition,
        qos=spec.qos,
        num_nodes=spec.num_nodes,
        ntasks=spec.ntasks,
        ntasks_per_node=spec.ntasks_per_node,
        cpus_per_task=spec.cpus_per_task,
        memory_per_node_bytes=spec.memory_per_node_bytes,
        gres=spec.gres,
        nodelist=nodelist_to_wire(spec.nodelist),
        exclude=nodelist_to_wire(spec.exclude),
        time_limit=None if spec.time_limit_s is None else duration(spec.time_limit_s),
        cwd=spec.cwd,
        environment=spec.environment,
        script=spec.script,
        script_name=spec.script_name,
        script_arguments=spec.script_arguments,
        stdout_path=spec.stdout_path,
        stderr_path=spec.stderr_path,
        requeue=spec.requeue,
        submit_host=spec.submit_host,
        comment=spec.comment,
        array_job_id=spec.array_job_id,
        array_task_id=spec.array_task_id,
        memory_per_cpu_bytes=spec.memory_per_cpu_bytes,
        gpus=spec.gpus,
        exclusive=spec.exclusive,
        cpus_requested=spec.cpus_requested,
        group=spec.group,
        array=None if spec.array is None else _array_to_wire(spec.array),
        inherited=inherited_to_wire(spec.inherited),
    )


def job_spec_from_wire(message: pb.JobSpec) -> JobSpec:
    """The job; what the message documents as a default for 0 is filled in.

    Raises:
        WireError: the job has no kind, or a list of nodes is no hostlist.
    """
    nodelist = nodelist_from_wire(message.nodelist, "nodelist")
    # A list asks for all of its nodes.
    widest = max(message.num_nodes, len(nodelist), 1)
    return JobSpec(
        kind=job_kind_from_wire(message.kind),
        uid=message.uid,
        gid=message.gid,
        user=message.user,
        groups=tuple(message.groups),
        name=message.name,
        account=message.account,
        partition=message.partition,
        qos=message.qos,
        num_nodes=message.num_nodes or 1,
        ntasks=message.ntasks or (message.ntasks_per_node or 1) * widest,
        ntasks_per_node=message.ntasks_per_node,
        cpus_per_task=message.cpus_per_task or 1.0,
        memory_per_node_bytes=message.memory_per_node_bytes,
        gres=message.gres,
        nodelist=nodelist,
        exclude=nodelist_from_wire(message.exclude, "exclude"),
        time_limit_s=seconds(message.time_limit) if message.HasField("time_limit") else None,
        cwd=message.cwd or "/",
        environment=dict(message.environment),
        script=message.script,
        script_name=message.script_name,
        script_arguments=tuple(message.script_arguments),
        stdout_path=message.stdout_path,
        stderr_path=message.stderr_path,
        requeue=message.requeue,
        submit_host=message.submit_host,
        comment=message.comment,
        array_job_id=JobId(message.array_job_id) if message.HasField("array_job_id") else None,
        array_task_id=message.array_task_id if message.HasField("array_task_id") else None,
        memory_per_cpu_bytes=message.memory_per_cpu_bytes,
        gpus=message.gpus,
        exclusive=message.exclusive,
        cpus_requested=message.cpus_requested if message.HasField("cpus_requested") else message.cpus_per_task > 0,
        group=message.group,
        array=_array_from_wire(message.array) if message.HasField("array") else None,
        inherited=inherited_from_wire(message.inherited) if message.HasField("inherited") else None,
    )


def _layout_to_wire(layout: Iterable[EqualShares]) -> list[pb.EqualShares]:
    return [pb.EqualShares(nodes=part.nodes, ntasks=part.ntasks, cpus=part.cpus) for part in layout]


def _array_to_wire(array: ArrayBounds) -> pb.ArrayBounds:
    return pb.ArrayBounds(count=array.count, first=array.first, last=array.last, step=array.step)


def _array_from_wire(message: pb.ArrayBounds) -> ArrayBounds:
    return ArrayBounds(message.count, message.first, message.last, message.step)


def job_on_node_to_wire(job: JobOnNode) -> pb.JobOnNode:
    return pb.JobOnNode(
        job_id=job.job_id,
        attempt=job.attempt,
        spec=job_spec_to_wire(job.spec),
        nodes=job.nodes,
        share=node_share_to_wire(job.share),
        cluster=job.cluster,
        start_time=timestamp(job.start_time),
        end_time=timestamp(job.end_time) if job.end_time else None,
        restart_count=job.restart_count,
        layout=_layout_to_wire(job.layout),
    )


def job_on_node_from_wire(message: pb.JobOnNode) -> JobOnNode:
    """The job as one node sees it.

    Raises:
        WireError: spec or share are missing: nothing can be done for such a job.
    """
    for part in ("spec", "share"):
        if not message.HasField(part):
            text = f"job {message.job_id} on the wire has no {part}"
            raise WireError(text)
    return JobOnNode(
        job_id=JobId(message.job_id),
        attempt=Attempt(message.attempt),
        spec=job_spec_from_wire(message.spec),
        nodes=tuple(NodeName(node) for node in message.nodes),
        share=node_share_from_wire(message.share),
        cluster=message.cluster,
        start_time=seconds(message.start_time),
        end_time=seconds(message.end_time),
        restart_count=message.restart_count,
        layout=tuple(EqualShares(part.nodes, part.ntasks, part.cpus) for part in message.layout),
    )
