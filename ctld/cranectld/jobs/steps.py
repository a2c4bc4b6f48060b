"""The part of a job's life that concerns its steps: pure, used by `machine`."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from cranectld.jobs.events import (
    Decide,
    DecisionKind,
    Effect,
    InvalidTransitionError,
    Record,
    SendStep,
    StepCancelRequested,
    StepEnded,
    StepRequested,
    StepSendRequested,
    StepStarted,
    TerminateStep,
)
from cranectld.jobs.model import Job, JobState, NodeProgress, Step, StepState
from cranehooks.model.ids import BATCH_STEP, EXTERN_STEP, NodeName, StepId
from cranehooks.model.job import ExitStatus, JobKind, StdioMode, StepSpec
from cranehooks.profiles import BatchStart, PrologFlag, effective
from cranekit.hostlist import fold

MAX_STEPS_KEPT = 200
"""Ended steps kept in the job; older ones live in its history only."""


def place_tasks(ntasks: int, nodes: Sequence[NodeName], rooms: Sequence[int] | None = None) -> dict[NodeName, tuple[int, ...]]:
    """Task ids per node in blocks: node 0 gets the first ones, as Slurm's block distribution.

    Every node gets at least one task when there are enough. `rooms` bounds each node's number; all together they hold the tasks.
    """
    placement: dict[NodeName, tuple[int, ...]] = {}
    first = 0
    for index, node in enumerate(nodes):
        left_tasks, left_nodes = ntasks - first, len(nodes) - index
        count = ceil(left_tasks / left_nodes)
        if rooms is not None:
            count = max(min(count, rooms[index]), left_tasks - sum(rooms[index + 1 :]))
        placement[node] = tuple(range(first, first + count))
        first += count
    return {node: ids for node, ids in placement.items() if ids}


def may_start(job: Job) -> bool:
    """Whether the Prologs at allocation that a job waits for are done: all of them, or, for a batch script that awaits no other, its node's.

    A step on another node waits there for that node's Prolog.
    """
    is_eager = effective(job.hooks).batch_start is BatchStart.OWN_PROLOG and PrologFlag.DEFER_BATCH not in job.hooks.flags
    if is_eager and job.spec.kind is JobKind.BATCH:
        return job.progress[job.nodes[0]] is not NodeProgress.PREPARING
    return NodeProgress.PREPARING not in job.progress.values()


def with_batch_step(job: Job) -> tuple[Job, NodeName]:
    """The job with its script as a step that is sent to its first node."""
    first = job.nodes[0]
    step = Step(
        StepSpec(
            step_id=BATCH_STEP,
            argv=(),
            ntasks=1,
            tasks_per_node={first: (0,)},
            cpus_per_task=job.spec.cpus_per_task,
            environment=job.spec.environment,
            cwd=job.spec.cwd,
            stdio=StdioMode.FILES,
            name=job.spec.name,
        ),
        nodes=(first,),
        sent=True,
    )
    return _with(job, step), first


def with_extern_step(job: Job) -> Job:
    """The job with the step that holds its place on every node; the nodes start it of themselves, and end it."""
    spec = StepSpec(EXTERN_STEP, (), 0, stdio=StdioMode.FILES, name=EXTERN_STEP)
    return _with(job, Step(spec, nodes=job.nodes, sent=True))


def is_any_under_way(job: Job) -> bool:
    """Whether a step of the user's was sent and has not ended on all its nodes."""
    steps = (step for step_id, step in job.steps.items() if step_id != EXTERN_STEP)
    return any(step.sent and step.state is not StepState.ENDED for step in steps)


def advance(
    job: Job,
    event: StepRequested | StepSendRequested | StepCancelRequested | StepStarted,
) -> tuple[Job, list[Effect]]:
    """Creation, sending, cancelling and start of a step.

    Raises:
        InvalidTransitionError: a step asked for in a job that is not Running, or sent after it was cancelled.
    """
    match event:
        case StepRequested():
            if job.state is not JobState.RUNNING:
                raise InvalidTransitionError(job.state.value, event, "a running job")
            number = job.next_step
            if event.spec.step_id.isdecimal():
                number = max(number, int(event.spec.step_id) + 1)
            job = replace(_with(job, Step(event.spec, event.nodes)), next_step=number)
            return job, [Record("step", f"step {event.spec.step_id} created on {fold(event.nodes)}")]
        case StepSendRequested():
            return _send(job, event)
        case StepCancelRequested():
            return _cancel(job, event)
        case StepStarted():
            step = job.steps.get(event.step_id)
            if step is None or event.node in step.started_nodes or step.state is StepState.ENDED:
                return job, []
            started = step.started_nodes | {event.node}
            state = step.state
            if state is StepState.CONFIGURING and started >= set(step.nodes):
                state = StepState.RUNNING
            step = replace(step, started_nodes=started, state=state, started_at=step.started_at or event.at)
            effects: list[Effect] = [Record("step", f"step {event.step_id} running")] if state is StepState.RUNNING else []
            return _with(job, step), effects


def _send(job: Job, event: StepSendRequested) -> tuple[Job, list[Effect]]:
    step = job.steps.get(event.step_id)
    if step is None:
        raise InvalidTransitionError(job.state.value, event, f"a step {event.step_id}")
    if step.sent:
        return job, []
    if job.state is not JobState.RUNNING or step.state is StepState.ENDED:
        raise InvalidTransitionError(job.state.value, event, f"a step that is not over ({step.reason or job.state.value})")
    effects: list[Effect] = [SendStep(node, step.step_id) for node in step.nodes]
    return _with(job, replace(step, sent=True)), effects


def _cancel(job: Job, event: StepCancelRequested) -> tuple[Job, list[Effect]]:
    step = job.steps.get(event.step_id)
    if step is None or step.state is StepState.ENDED:
        return job, []
    if not step.sent:
        fate = "failed" if event.failed else "cancelled"
        return _with(job, replace(never_sent(step, event.at, event.reason), cancelled=not event.failed)), [
            Record("step", f"step {step.step_id} {fate}, never sent: {event.reason}"),
            Decide(DecisionKind.STEP_ENDED, event.reason, step.step_id),
        ]
    step = replace(step, cancelled=True, reason=step.reason or event.reason)
    return _with(job, step), [
        Record("step", f"step {step.step_id} cancelled: {event.reason}"),
        *(TerminateStep(node, step.step_id, event.reason) for node in step.nodes if node not in step.ended_nodes),
    ]


def ended_on_node(job: Job, event: StepEnded) -> tuple[Job, list[Effect], Step | None]:
    """One node's part of a step is over. The third value is the step when that was its last part, and the step is the user's."""
    step = job.steps.get(event.step_id)
    if step is None or event.node in step.ended_nodes or event.node not in step.nodes or step.state is StepState.ENDED:
        return job, [], None
    ended = step.ended_nodes | {event.node}
    step = replace(
        step,
        ended_nodes=ended,
        tasks=(*step.tasks, *event.tasks),
        usage=step.usage if event.usage is None else {**step.usage, event.node: event.usage},
        reason=step.reason or event.reason or next((task.reason for task in event.tasks if task.reason), ""),
        is_cut_short=step.is_cut_short or bool(event.reason),
        state=StepState.COMPLETING,
    )
    if ended < set(step.nodes):
        return _with(job, step), [], None
    without_tasks = ExitStatus() if step.step_id == EXTERN_STEP else ExitStatus(code=1)
    worst = max((task.exit for task in step.tasks), key=lambda status: status.shell_code, default=without_tasks)
    step = replace(step, state=StepState.ENDED, exit=worst, ended_at=event.at)
    text = f"step {step.step_id} ended {worst}" + (f": {step.reason}" if step.reason else "")
    job = _forget_old(_with(job, step))
    if step.step_id == EXTERN_STEP:
        return job, [Record("step", text)], None
    return job, [Record("step", text), Decide(DecisionKind.STEP_ENDED, step.reason, step.step_id)], step


def was_kept_from_starting(step: Step) -> bool:
    """Whether a hook of its own kept each task from starting, where the profile says that this cancels a task."""
    return not step.is_cut_short and bool(step.tasks) and all(task.cancelled for task in step.tasks)


def never_sent(step: Step, at: float, reason: str) -> Step:
    """A step that ends without a node having heard of it."""
    if step.state is StepState.ENDED:
        return step
    return replace(step, state=StepState.ENDED, exit=ExitStatus(code=1), reason=reason or "cancelled", ended_at=at)


def closed(step: Step, at: float) -> Step:
    """A step whose attempt is over: nodes that never said how it ended were lost."""
    if step.state is StepState.ENDED:
        return step
    without_tasks = ExitStatus() if step.step_id == EXTERN_STEP else ExitStatus(signal=9)
    worst = max((task.exit for task in step.tasks), key=lambda status: status.shell_code, default=without_tasks)
    return replace(step, state=StepState.ENDED, exit=worst, ended_at=at, reason=step.reason or "ended with its job")


def _with(job: Job, step: Step) -> Job:
    return replace(job, steps={**job.steps, step.step_id: step})


def _forget_old(job: Job) -> Job:
    if len(job.steps) <= MAX_STEPS_KEPT:
        return job
    oldest: StepId = next(step_id for step_id, step in job.steps.items() if step.state is StepState.ENDED)
    return replace(job, steps={step_id: step for step_id, step in job.steps.items() if step_id != oldest})


def next_step_id(job: Job) -> StepId:
    return StepId(str(job.next_step))


def placed(spec: StepSpec, step_id: StepId, placement: dict[NodeName, tuple[int, ...]]) -> StepSpec:
    """The step as its nodes get it."""
    return replace(spec, step_id=step_id, tasks_per_node=placement, ntasks=sum(map(len, placement.values())))
