"""The controller's state as protobuf messages."""

from collections.abc import Mapping

from crane.hooks.v1 import ctld_service_pb2, job_pb2, node_pb2
from cranectld.controller import Controller
from cranectld.history import Event
from cranectld.jobs.events import DecisionKind
from cranectld.jobs.machine import BREAKER_REASON
from cranectld.jobs.model import HookProgress, Job, JobState, NodeProgress, Step, StepState
from cranectld.nodes.breaker import Breaker
from cranectld.nodes.model import DrainOwner, Node, NodeUse
from cranehooks.model.gres import held_text
from cranehooks.model.ids import NodeName
from cranehooks.model.limits import Usage
from cranehooks.wire import (
    EnumCodec,
    exit_status_to_wire,
    hook_run_to_wire,
    job_spec_to_wire,
    node_share_to_wire,
    timestamp,
    usage_to_wire,
)
from cranekit.hostlist import fold

JOB_STATES = EnumCodec(JobState, job_pb2.JobState, "JOB_STATE")
STEP_STATES = EnumCodec(StepState, job_pb2.StepState, "STEP_STATE")
DRAIN_OWNERS = EnumCodec(DrainOwner, node_pb2.DrainOwner, "DRAIN_OWNER")
NODE_USES = EnumCodec(NodeUse, node_pb2.NodeUse, "NODE_USE")
DECISIONS = EnumCodec(DecisionKind, ctld_service_pb2.DecisionKind, "DECISION_KIND")


def step_status(step: Step) -> job_pb2.StepStatus:
    status = job_pb2.StepStatus(
        step_id=step.step_id,
        state=STEP_STATES.to_wire(step.state),
        nodes=step.nodes,
        exit=exit_status_to_wire(step.exit),
        reason=step.reason,
        name=step.spec.name,
        ntasks=step.spec.ntasks,
        cancelled=step.cancelled,
        usage=_usage(step.usage),
    )
    if step.started_at:
        status.started_at.CopyFrom(timestamp(step.started_at))
    if step.ended_at:
        status.ended_at.CopyFrom(timestamp(step.ended_at))
    return status


def _usage(by_node: Mapping[NodeName, Usage]) -> list[job_pb2.NodeUsage]:
    return [job_pb2.NodeUsage(node=node, usage=usage_to_wire(usage)) for node, usage in by_node.items()]


def job_status(job: Job, reason: str = "", *, with_environment: bool = False) -> job_pb2.JobStatus:
    """A job without history. `reason`: where it says more than the job itself knows. The environment stays out unless asked for."""
    spec = job_spec_to_wire(job.spec)
    if not with_environment:
        spec.environment.clear()
        spec.script = ""
    status = job_pb2.JobStatus(
        job_id=job.job_id,
        attempt=job.attempt,
        state=JOB_STATES.to_wire(job.state),
        reason=reason or job.reason,
        spec=spec,
        nodes=job.nodes if job.state.is_allocated or job.state.is_final else (),
        busy_nodes=job.busy_nodes,
        exit=exit_status_to_wire(job.exit),
        requeue_count=job.requeue_count,
        submitted_at=timestamp(job.submitted_at),
        steps=[step_status(step) for step in job.steps.values()],
        shares=[node_share_to_wire(share) for share in job.shares] if job.state.is_allocated or job.state.is_final else (),
        usage=_usage(job.usage),
    )
    for name, value in (("started_at", job.started_at), ("ended_at", job.ended_at), ("not_before", job.not_before)):
        if value:
            getattr(status, name).CopyFrom(timestamp(value))
    return status


def waiting_for(controller: Controller, job: Job) -> str:
    """What a job that does not run yet waits for, for a person; empty when it waits for nothing."""
    match job.state:
        case JobState.PENDING:
            return controller.reason_of(job)
        case JobState.HELD:
            return f"held: {job.reason}"
        case JobState.CONFIGURING if job.ctld_prolog is HookProgress.RUNNING:
            return "CranectldProlog"
        case JobState.CONFIGURING:
            waiting = [node for node, state in job.progress.items() if state is NodeProgress.PREPARING]
            ready = len(job.nodes) - len(waiting)
            return f"Prolog on {fold(waiting)}: {ready} of {len(job.nodes)} nodes ready"
        case JobState.RUNNING:
            for step in job.steps.values():
                slow = [node for node in step.nodes if node not in step.started_nodes]
                if step.state is StepState.CONFIGURING and step.sent and slow:
                    return f"step {step.step_id} to start on {fold(slow)}"
            return ""
        case JobState.COMPLETING:
            return f"Epilog on {fold(job.busy_nodes)}" if job.busy_nodes else "CranectldEpilog"
        case _:
            return ""


def history_event(event: Event) -> job_pb2.HistoryEvent:
    return job_pb2.HistoryEvent(
        time=timestamp(event.at), kind=event.kind, attempt=event.attempt, text=event.text, node=event.node
    )


def event_message(event: Event) -> ctld_service_pb2.Event:
    message = ctld_service_pb2.Event(
        cursor=event.cursor,
        time=timestamp(event.at),
        kind=event.kind,
        job_id=event.job_id,
        attempt=event.attempt,
        node=event.node,
        text=event.text,
    )
    if event.run is not None:
        message.run.CopyFrom(hook_run_to_wire(event.run))
    return message


def node_status(controller: Controller, node: Node, config_digest: str) -> node_pb2.NodeStatus:
    status = node_pb2.NodeStatus(
        name=node.name,
        up=node.up,
        use=NODE_USES.to_wire(node.use),
        cpus=node.config.cpus,
        cpus_used=node.cpus_used,
        memory_bytes=node.config.memory_bytes,
        memory_used_bytes=node.memory_used_bytes,
        partitions=node.config.partitions,
        job_ids=sorted({key.job_id for key in node.shares}),
        owed_epilogs=sorted({key.job_id for key in node.owed}),
        address=node.address,
        version=node.version,
        config_digest=node.config_digest,
        config_differs=node.up and node.config_digest != config_digest,
        boot_id=node.boot_id,
        gres=node.config.gres,
        gres_used=held_text(node.devices_used),
        containment=node.containment,
        containment_lost=node.containment_lost,
        only_uid=node.only_uid,
    )
    for cause in node.drains:
        status.drain_causes.add(
            owner=DRAIN_OWNERS.to_wire(cause.owner), reason=cause.reason, time=timestamp(cause.at), by=cause.by
        )
    if node.last_heartbeat:
        status.last_heartbeat.CopyFrom(timestamp(node.last_heartbeat))
    return status


def breaker_status(controller: Controller, breaker: Breaker) -> ctld_service_pb2.BreakerStatus:
    held = [
        job.job_id for job in controller.jobs.values() if job.state is JobState.HELD and job.reason.startswith(BREAKER_REASON)
    ]
    status = ctld_service_pb2.BreakerStatus(
        sha256=breaker.digest,
        script=breaker.script,
        tripped=breaker.tripped,
        drained_nodes=len(breaker.nodes),
        budget=controller.fleet.budget.budget,
        nodes=breaker.nodes,
        held_jobs=held if breaker.tripped else (),
    )
    if breaker.tripped:
        status.tripped_at.CopyFrom(timestamp(breaker.tripped_at))
    return status
