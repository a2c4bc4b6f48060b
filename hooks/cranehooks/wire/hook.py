"""Outcomes and hook runs on the wire."""

from typing import Final

from crane.hooks.v1 import hook_pb2 as pb
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, Leftover, ScriptRun
from cranehooks.wire.enumeration import EnumCodec
from cranehooks.wire.moment import duration, seconds, timestamp

_POINT: Final = EnumCodec(HookPoint, pb.HookPoint, "HOOK_POINT")
_OUTCOME_KIND: Final = EnumCodec(OutcomeKind, pb.OutcomeKind, "OUTCOME_KIND")
_NO_TASK: Final = -1


def hook_point_to_wire(point: HookPoint) -> pb.HookPoint.ValueType:
    return _POINT.to_wire(point)


def hook_point_from_wire(value: int) -> HookPoint:
    return _POINT.from_wire(value)


def outcome_to_wire(outcome: Outcome) -> pb.Outcome:
    return pb.Outcome(kind=_OUTCOME_KIND.to_wire(outcome.kind), code=outcome.code, detail=outcome.detail)


def outcome_from_wire(message: pb.Outcome) -> Outcome:
    return Outcome(_OUTCOME_KIND.from_wire(message.kind), message.code, message.detail)


def script_run_to_wire(run: ScriptRun) -> pb.ScriptRun:
    return pb.ScriptRun(
        path=run.path,
        sha256=run.sha256,
        outcome=outcome_to_wire(run.outcome),
        started_at=timestamp(run.started_at),
        duration=duration(run.duration_s),
        output=run.output,
        output_bytes=run.output_bytes,
        leftovers=[pb.Leftover(pid=left.pid, command=left.command) for left in run.leftovers],
        kept=[pb.Leftover(pid=left.pid, command=left.command) for left in run.kept],
    )


def script_run_from_wire(message: pb.ScriptRun) -> ScriptRun:
    return ScriptRun(
        path=message.path,
        outcome=outcome_from_wire(message.outcome),
        started_at=seconds(message.started_at),
        duration_s=seconds(message.duration),
        sha256=message.sha256,
        output=message.output,
        output_bytes=message.output_bytes,
        leftovers=tuple(Leftover(left.pid, left.command) for left in message.leftovers),
        kept=tuple(Leftover(left.pid, left.command) for left in message.kept),
    )


def hook_run_to_wire(run: HookRun) -> pb.HookRun:
    key = run.key
    return pb.HookRun(
        run_id=key.run_id,
        point=hook_point_to_wire(key.point),
        job_id=key.job_id,
        attempt=key.attempt,
        step_id=key.step_id or "",
        task_id=_NO_TASK if key.task_id is None else key.task_id,
        node=key.node or "",
        user=run.user,
        started_at=timestamp(run.started_at),
        duration=duration(run.duration_s),
        queue_wait=duration(run.queue_wait_s),
        outcome=outcome_to_wire(run.outcome),
        scripts=[script_run_to_wire(script) for script in run.scripts],
        notes=run.notes,
    )


def hook_run_from_wire(message: pb.HookRun) -> HookRun:
    return HookRun(
        key=HookKey(
            point=hook_point_from_wire(message.point),
            job_id=JobId(message.job_id),
            attempt=Attempt(message.attempt),
            node=NodeName(message.node) if message.node else None,
            step_id=StepId(message.step_id) if message.step_id else None,
            task_id=None if message.task_id == _NO_TASK else TaskId(message.task_id),
        ),
        user=message.user,
        started_at=seconds(message.started_at),
        duration_s=seconds(message.duration),
        outcome=outcome_from_wire(message.outcome),
        scripts=tuple(script_run_from_wire(script) for script in message.scripts),
        queue_wait_s=seconds(message.queue_wait),
        notes=tuple(message.notes),
    )
