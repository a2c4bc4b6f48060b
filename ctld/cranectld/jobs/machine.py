"""The rules of a job's life: `advance(job, event) -> (job, effects)`. No clock, no I/O, no logging.

    Pending ──Allocated──► Configuring ──hooks done──► Running ──end──► Completing ──after-hooks done──► final
       ▲                        └──────a before-hook failed, cancel───────►│                             │
       └──────────────────────────── requeue (or Held) ◄───────────────────┴─────────────────────────────┘

Entering Completing asks every node for its release and starts CranectldEpilog; a node's resources are free at its own release;
the attempt is over when all nodes are released (or lost) and CranectldEpilog has ended.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from cranectld.jobs import steps
from cranectld.jobs.events import (
    END_DECISIONS,
    Allocated,
    CancelRequested,
    CompletionRequested,
    CtldHookEnded,
    Decide,
    DecisionKind,
    DrainNode,
    Effect,
    Event,
    FreeNode,
    HoldReleased,
    HoldRequested,
    InvalidTransitionError,
    NodeLost,
    NodeReleased,
    OweEpilog,
    PrepareNode,
    PrologEnded,
    Record,
    ReleaseNode,
    RunCtldHook,
    SendStep,
    StartTimeLimit,
    StepCancelRequested,
    StepEnded,
    StepRequested,
    StepSendRequested,
    StepStarted,
    StopCtldHook,
    StopTimeLimit,
    TaskHookEnded,
    TimeLimitReached,
)
from cranectld.jobs.model import Ending, EndKind, HookProgress, Job, JobState, NodeProgress
from cranehooks.model.ids import BATCH_STEP, EXTERN_STEP, Attempt, NodeName
from cranehooks.model.job import ExitStatus, JobKind
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun
from cranehooks.model.usage import usage_text
from cranehooks.policy import RequeuePolicy, Verdict, decide, drain_reason, lost_node_action, printable
from cranehooks.profiles import JobAction, PrologFlag
from cranekit.hostlist import fold

Result = tuple[Job, list[Effect]]

BREAKER_REASON = "breaker:"
"""How the reason of a job begins that is held because a script's drain budget is used up; only an administrator releases it."""

_FINAL_STATE = {
    EndKind.COMPLETED: JobState.COMPLETED,
    EndKind.FAILED: JobState.FAILED,
    EndKind.CANCELLED: JobState.CANCELLED,
    EndKind.TIMED_OUT: JobState.TIMED_OUT,
    EndKind.NODE_FAIL: JobState.NODE_FAIL,
}


def advance(job: Job, event: Event, requeue: RequeuePolicy) -> Result:
    """The job after `event`, and what must be done, in that order.

    An event of another attempt than the current one, or one that repeats what is known, changes nothing and asks for nothing.

    Raises:
        InvalidTransitionError: the event is a request that this state refuses.
    """
    attempt: Attempt | None = getattr(event, "attempt", None)
    if attempt is not None and not isinstance(event, Allocated) and attempt != job.attempt:
        return job, []
    match event:
        case Allocated():
            return _allocated(job, event)
        case CtldHookEnded():
            return _ctld_hook_ended(job, event, requeue)
        case PrologEnded():
            return _prolog_ended(job, event, requeue)
        case TaskHookEnded():
            return job, _drains(verdict(job, event.run), event.node, event.run, event.over_budget)
        case StepRequested() | StepSendRequested() | StepCancelRequested() | StepStarted():
            return steps.advance(job, event)
        case StepEnded():
            return _step_ended(job, event, requeue)
        case NodeReleased():
            return _node_released(job, event, requeue)
        case NodeLost():
            return _node_lost(job, event, requeue)
        case CompletionRequested():
            return _completion_requested(job, event, requeue)
        case CancelRequested():
            return _cancel_requested(job, event, requeue)
        case TimeLimitReached():
            if job.state is not JobState.RUNNING:
                return job, []
            return _complete(job, Ending(EndKind.TIMED_OUT, "time limit reached"), event.at, requeue)
        case HoldRequested():
            return _hold_requested(job, event)
        case HoldReleased():
            return _hold_released(job, event)
        case _:
            assert_never(event)


def outstanding(job: Job) -> list[Effect]:
    """What nodes must be told (again) so that they agree with `job`: after a restart of either side, repeats being harmless there."""
    effects: list[Effect] = []
    for node, progress in job.progress.items():
        if progress is NodeProgress.RELEASING and job.ending is not None:
            effects.append(ReleaseNode(node, job.ending.exit, job.ending.reason))
        elif job.state in (JobState.CONFIGURING, JobState.RUNNING):
            if progress is NodeProgress.PREPARING:
                effects.append(PrepareNode(node))
            effects += [
                SendStep(node, step.step_id)
                for step_id, step in job.steps.items()
                if step.sent and step_id != EXTERN_STEP and node in step.nodes and node not in step.ended_nodes
            ]
    return effects


def _allocated(job: Job, event: Allocated) -> Result:
    if job.state is not JobState.PENDING or event.attempt != job.attempt + 1:
        raise InvalidTransitionError(job.state.value, event, f"a pending job and attempt {job.attempt + 1}")
    nodes = fold([share.node for share in event.shares])
    job = replace(
        job,
        attempt=event.attempt,
        state=JobState.CONFIGURING,
        reason="",
        hooks=event.hooks,
        shares=event.shares,
        progress={share.node: NodeProgress.ALLOCATED for share in event.shares},
        ctld_prolog=HookProgress.NOT_RUN,
        ctld_epilog=HookProgress.NOT_RUN,
        steps={},
        next_step=0,
        ending=None,
        allocated_at=event.at,
        started_at=0.0,
        exit=ExitStatus(),
        usage={},
    )
    effects: list[Effect] = [Record("allocated", f"attempt {event.attempt} on {nodes}")]
    if _has(job, HookPoint.CRANECTLD_PROLOG):
        return replace(job, ctld_prolog=HookProgress.RUNNING), [*effects, RunCtldHook(HookPoint.CRANECTLD_PROLOG)]
    job, more = _configure_nodes(job, event.at)
    return job, effects + more


def _configure_nodes(job: Job, at: float) -> Result:
    """CranectldProlog is out of the way: extern step and Prolog at allocation where a flag asks for them, else Running at once."""
    flags = job.hooks.flags
    contains = PrologFlag.CONTAIN in flags
    if PrologFlag.ALLOC not in flags or not (contains or _has(job, HookPoint.PROLOG)):
        return _run(job, at)
    job = replace(job, progress=dict.fromkeys(job.nodes, NodeProgress.PREPARING))
    job = steps.with_extern_step(job) if contains else job
    prepare: list[Effect] = [PrepareNode(node) for node in job.nodes]
    if PrologFlag.NO_HOLD in flags:
        job, effects = _run(job, at)
        return job, prepare + effects
    return job, prepare


def _run(job: Job, at: float) -> Result:
    job = replace(job, state=JobState.RUNNING, started_at=at)
    effects: list[Effect] = [Record("state", "running")]
    if job.spec.time_limit_s is not None:
        effects.append(StartTimeLimit(job.spec.time_limit_s))
    effects.append(Decide(DecisionKind.RUN))
    if job.spec.kind is JobKind.BATCH and job.spec.script:
        job, first = steps.with_batch_step(job)
        effects.append(SendStep(first, BATCH_STEP))
    return job, effects


def _ctld_hook_ended(job: Job, event: CtldHookEnded, requeue: RequeuePolicy) -> Result:
    run = event.run
    if run.key.point is HookPoint.CRANECTLD_EPILOG:
        if job.ctld_epilog is not HookProgress.RUNNING:
            return job, []
        effects = _drained_by_controller(job, event)
        job, more = _finish_if_done(replace(job, ctld_epilog=HookProgress.DONE), event.at, requeue)
        return job, effects + more
    if job.ctld_prolog is not HookProgress.RUNNING:
        return job, []
    job = replace(job, ctld_prolog=HookProgress.DONE)
    if job.state is JobState.COMPLETING:
        # Cancelled, or a node was lost, meanwhile: only the epilog was waiting for this.
        return _start_ctld_epilog(job, event.at, requeue, [])
    if run.outcome.ok:
        return _configure_nodes(job, event.at)
    return _complete(job, _ending(job, verdict(job, run), _failure_text(run), requeue), event.at, requeue)


def _drained_by_controller(job: Job, event: CtldHookEnded) -> list[Effect]:
    """Where the site wants it, a failing CranectldEpilog drains all nodes of the attempt."""
    decided = verdict(job, event.run)
    effects: list[Effect] = []
    for node in job.nodes:
        effects += _drains(decided, node, event.run, event.over_budget if node in event.undrained else "")
    return effects


def _prolog_ended(job: Job, event: PrologEnded, requeue: RequeuePolicy) -> Result:
    node, run = event.node, event.run
    progress = job.progress.get(node)
    if progress in (None, NodeProgress.RELEASED, NodeProgress.LOST):
        return job, []
    if run.outcome.ok:
        if progress is NodeProgress.RELEASING:
            return job, []
        job = replace(job, progress={**job.progress, node: NodeProgress.READY})
        if job.state is JobState.CONFIGURING and steps.may_start(job):
            return _run(job, event.at)
        return job, []
    decided = verdict(job, run)
    effects = _drains(decided, node, run, event.over_budget)
    if decided.drain and event.over_budget:
        decided = replace(decided, job=JobAction.REQUEUE_HELD if job.spec.kind is JobKind.BATCH else decided.job)
    if job.state is JobState.COMPLETING or run.outcome.kind is OutcomeKind.STOPPED:
        return job, effects
    reason = _failure_text(run)
    if event.over_budget:
        reason = f"{BREAKER_REASON} {event.over_budget} has used up its drain budget; {reason}"
    job, more = _complete(job, _ending(job, decided, reason, requeue), event.at, requeue)
    return job, effects + more


def _drains(decided: Verdict, node: NodeName, run: HookRun, over_budget: str) -> list[Effect]:
    """What a run does to its node: nothing, a drain, or the note that the script's drain budget is used up."""
    if not decided.drain:
        return []
    if over_budget:
        return [Record("breaker", f"{node} is not drained: the drain budget of {over_budget} is used up", node)]
    reason = drain_reason(run)
    return [DrainNode(node, reason), Record("drained", reason, node)]


def _step_ended(job: Job, event: StepEnded, requeue: RequeuePolicy) -> Result:
    job, effects, over = steps.ended_on_node(job, event)
    if over is None or job.state is not JobState.RUNNING:
        return job, effects
    if over.step_id == BATCH_STEP or job.spec.kind is JobKind.RUN:
        is_cancelled = over.cancelled or steps.was_kept_from_starting(over)
        ending = Ending(EndKind.CANCELLED, over.reason, over.exit) if is_cancelled else _own_end(over.exit, over.reason)
        job, more = _complete(job, ending, event.at, requeue)
        return job, effects + more
    return job, effects


def _own_end(exit_status: ExitStatus, reason: str) -> Ending:
    if exit_status.ok:
        return Ending(EndKind.COMPLETED, reason, exit_status)
    text = f"signal {exit_status.signal}" if exit_status.signal else f"exit {exit_status.code}"
    return Ending(EndKind.FAILED, reason or text, exit_status)


def _completion_requested(job: Job, event: CompletionRequested, requeue: RequeuePolicy) -> Result:
    if job.state is JobState.RUNNING:
        if job.spec.kind is JobKind.RUN and steps.is_any_under_way(job):
            # The nodes' word on the step is on its way, and says more than its launcher's.
            return job, []
        return _complete(job, _own_end(event.exit, event.reason), event.at, requeue)
    if job.state in (JobState.PENDING, JobState.HELD, JobState.CONFIGURING):
        return _cancel_requested(job, CancelRequested(event.at, "given up by its owner"), requeue)
    return job, []


def _cancel_requested(job: Job, event: CancelRequested, requeue: RequeuePolicy) -> Result:
    ending = Ending(EndKind.CANCELLED, event.reason, ExitStatus(signal=15) if job.started_at else ExitStatus())
    match job.state:
        case JobState.PENDING | JobState.HELD:
            job = replace(job, state=JobState.CANCELLED, reason=event.reason, ended_at=event.at)
            return job, [Record("cancelled", event.reason), Decide(DecisionKind.CANCEL, event.reason)]
        case JobState.CONFIGURING | JobState.RUNNING:
            job, effects = _complete(job, ending, event.at, requeue)
            return job, [Record("cancelled", event.reason), *effects]
        case JobState.COMPLETING:
            if job.ending is not None and job.ending.kind.comes_back:
                return replace(job, ending=ending, reason=event.reason), [Record("cancelled", event.reason)]
            return job, []
        case _:
            return job, []


def _hold_requested(job: Job, event: HoldRequested) -> Result:
    if job.state is not JobState.PENDING:
        raise InvalidTransitionError(job.state.value, event, "a pending job")
    return replace(job, state=JobState.HELD, reason=event.reason), [
        Record("held", event.reason),
        Decide(DecisionKind.HOLD, event.reason),
    ]


def _hold_released(job: Job, event: HoldReleased) -> Result:
    if job.state is not JobState.HELD:
        raise InvalidTransitionError(job.state.value, event, "a held job")
    job = replace(job, state=JobState.PENDING, reason="", requeue_count=0, not_before=0.0)
    return job, [Record("released", f"by {event.by}"), Decide(DecisionKind.RELEASED)]


def _node_lost(job: Job, event: NodeLost, requeue: RequeuePolicy) -> Result:
    node = event.node
    if not job.state.is_allocated or job.progress.get(node) in (None, NodeProgress.RELEASED, NodeProgress.LOST):
        return job, []
    job = replace(job, progress={**job.progress, node: NodeProgress.LOST})
    effects: list[Effect] = [OweEpilog(node), Record("node", f"{node} is down; its Epilog stays owed", node)]
    if job.state is JobState.COMPLETING:
        job, more = _finish_if_done(job, event.at, requeue)
        return job, effects + more
    reason = f"node {node} was lost"
    if lost_node_action(job.spec.kind, requeue_allowed=job.spec.requeue) is JobAction.REQUEUE:
        ending = _requeue(job, reason, requeue)
    else:
        ending = Ending(EndKind.CANCELLED if job.spec.kind.is_interactive else EndKind.NODE_FAIL, reason)
    job, more = _complete(job, ending, event.at, requeue)
    return job, effects + more


def _node_released(job: Job, event: NodeReleased, requeue: RequeuePolicy) -> Result:
    node = event.node
    if not job.state.is_allocated or job.progress.get(node) is not NodeProgress.RELEASING:
        return job, []
    effects: list[Effect] = []
    if event.epilog is not None and not event.epilog.outcome.ok:
        effects += _drains(verdict(job, event.epilog), node, event.epilog, event.over_budget)
    job = replace(job, progress={**job.progress, node: NodeProgress.RELEASED})
    if event.usage is not None:
        job = replace(job, usage={**job.usage, node: event.usage})
        effects.append(Record("usage", f"used on {node}: {usage_text(event.usage)}", node))
    effects += [FreeNode(node), Decide(DecisionKind.NODE_FREE, node=node)]
    job, more = _finish_if_done(job, event.at, requeue)
    return job, effects + more


def _complete(job: Job, ending: Ending, at: float, requeue: RequeuePolicy) -> Result:
    """Enter Completing: everything that runs is ended by the nodes' release, after-hooks start."""
    effects: list[Effect] = []
    if job.state is JobState.RUNNING and job.spec.time_limit_s is not None:
        effects.append(StopTimeLimit())
    job = replace(job, state=JobState.COMPLETING, ending=ending, reason=ending.reason, exit=ending.exit)
    effects.append(Record("state", f"completing: {ending.reason}" if ending.reason else "completing"))
    ended_steps = {
        step_id: step if step.sent else steps.never_sent(step, at, ending.reason) for step_id, step in job.steps.items()
    }
    progress = {node: state if state is NodeProgress.LOST else NodeProgress.RELEASING for node, state in job.progress.items()}
    job = replace(job, steps=ended_steps, progress=progress)
    effects += [
        ReleaseNode(node, ending.exit, ending.reason) for node, state in progress.items() if state is NodeProgress.RELEASING
    ]
    if job.ctld_prolog is HookProgress.RUNNING:
        return job, [*effects, StopCtldHook(HookPoint.CRANECTLD_PROLOG)]
    return _start_ctld_epilog(job, at, requeue, effects)


def _start_ctld_epilog(job: Job, at: float, requeue: RequeuePolicy, effects: list[Effect]) -> Result:
    if _has(job, HookPoint.CRANECTLD_EPILOG) and job.ctld_epilog is HookProgress.NOT_RUN:
        job = replace(job, ctld_epilog=HookProgress.RUNNING)
        return job, [*effects, RunCtldHook(HookPoint.CRANECTLD_EPILOG)]
    job, more = _finish_if_done(replace(job, ctld_epilog=HookProgress.DONE), at, requeue)
    return job, effects + more


def _finish_if_done(job: Job, at: float, requeue: RequeuePolicy) -> Result:
    if job.state is not JobState.COMPLETING or job.busy_nodes or job.ctld_epilog is not HookProgress.DONE:
        return job, []
    ending = job.ending
    assert ending is not None, "a Completing job has an ending"
    job = replace(job, steps={step_id: steps.closed(step, at) for step_id, step in job.steps.items()})
    decision = Decide(END_DECISIONS[ending.kind], ending.reason)
    match ending.kind:
        case EndKind.REQUEUE:
            count = job.requeue_count + 1
            not_before = at + requeue.delay_s(count)
            job = replace(job, state=JobState.PENDING, requeue_count=count, not_before=not_before, reason=ending.reason)
            return job, [Record("requeued", f"{ending.reason} (requeue {count})"), decision]
        case EndKind.HOLD:
            job = replace(job, state=JobState.HELD, reason=ending.reason)
            return job, [Record("held", ending.reason), decision]
        case _:
            state = _FINAL_STATE[ending.kind]
            job = replace(job, state=state, ended_at=at, reason=ending.reason, exit=ending.exit)
            return job, [Record("state", f"{state.value}: {ending.reason}" if ending.reason else state.value), decision]


def _has(job: Job, point: HookPoint) -> bool:
    return bool(job.hooks.patterns.get(point))


def verdict(job: Job, run: HookRun) -> Verdict:
    """What a run means for this job and its node, by the profile the attempt was allocated under."""
    return decide(run, job.spec.kind, requeue_allowed=job.spec.requeue, hooks=job.hooks)


def _ending(job: Job, decided: Verdict, reason: str, requeue: RequeuePolicy) -> Ending:
    match decided.job:
        case JobAction.REQUEUE:
            return _requeue(job, reason, requeue)
        case JobAction.REQUEUE_HELD:
            return Ending(EndKind.HOLD, reason)
        case JobAction.CANCEL:
            return Ending(EndKind.CANCELLED, reason)
        case JobAction.FAIL | JobAction.CONTINUE:
            return Ending(EndKind.FAILED, reason, ExitStatus(code=1))
        case _:
            assert_never(decided.job)


def _requeue(job: Job, reason: str, requeue: RequeuePolicy) -> Ending:
    if requeue.is_exhausted(job.requeue_count):
        return Ending(EndKind.HOLD, f"requeued {job.requeue_count} times, MaxRequeueCount; last: {reason}")
    return Ending(EndKind.REQUEUE, reason)


def _failure_text(run: HookRun) -> str:
    """`Prolog 20-gpu.sh exit 3 on cn01: <last line>`."""
    script = run.failed_script
    outcome = script.outcome if script is not None else run.outcome
    words = [run.key.point.value]
    if script is not None:
        words.append(script.name)
    words.append(str(outcome))
    if run.key.node is not None:
        words.append(f"on {run.key.node}")
    detail = printable(outcome.detail or (script.last_line if script is not None else ""))
    return " ".join(words) + (f": {detail[:200]}" if detail else "")


def check_invariants(job: Job) -> Sequence[str]:
    """What is wrong with this state; empty when nothing is. Called by tests after every event."""
    wrong: list[str] = []
    if job.state.is_allocated != bool(job.attempt and job.state.is_allocated):
        wrong.append("allocated without an attempt")
    if job.state is JobState.COMPLETING and job.ending is None:
        wrong.append("completing without an ending")
    if job.state is JobState.RUNNING and job.ctld_prolog is HookProgress.RUNNING:
        wrong.append("running before CranectldProlog ended")
    if job.state.is_final and (job.busy_nodes or any(step.state.value != "ended" for step in job.steps.values())):
        wrong.append("final with something left")
    if job.state in (JobState.HELD, JobState.FAILED, JobState.CANCELLED, JobState.NODE_FAIL) and not job.reason:
        wrong.append(f"{job.state.value} without a reason")
    return wrong
