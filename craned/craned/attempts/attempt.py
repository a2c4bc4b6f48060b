"""One attempt of one job on this node as a pure state machine: what happened goes in, the new state and what to do about it come out.

    Prolog   NOT_ASKED ──first request──► QUEUED ──PrologStarted──► RUNNING ──PrologEnded──► SUCCEEDED | FAILED
    step     WAITING (for the Prolog) ──► STARTING ──TasksStarted──► RUNNING ──StepEnded──► ended
    attempt  HELD ──ReleaseRequested──► RELEASING ──last step and Prolog ended──► CLEANING ──ProcessesGone──►
             EPILOG_QUEUED ──EpilogStarted──► EPILOG_RUNNING ──EpilogEnded──► RELEASED

The machine is also the journal's reader: the events are recorded before their effects are done, and replayed in order they give the state
back. What a restart of the daemon, or of the node, means for it is `recovery`'s matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from cranehooks.model.ids import AttemptKey, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun
from cranehooks.model.usage import usage_of, usage_sum

NEVER_STARTED_CODE = 1
"""Exit code of a task that never ran because something before it failed."""


class PrologState(Enum):
    NOT_ASKED = "not asked"
    QUEUED = "queued"
    """Asked for, and waiting for its turn; nothing of it has run."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Failed, timed out, was stopped or lost: no task of this attempt starts here any more."""

    @property
    def is_in_progress(self) -> bool:
        return self is PrologState.QUEUED or self is PrologState.RUNNING


class StepPhase(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"


class Phase(Enum):
    """Where the attempt stands."""

    HELD = "held"
    RELEASING = "releasing"
    CLEANING = "cleaning"
    """Steps are over; whatever is left of the job's processes is being killed."""
    EPILOG_QUEUED = "epilog queued"
    EPILOG_RUNNING = "epilog running"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Step:
    """A step whose part on this node is not over."""

    spec: StepSpec
    phase: StepPhase
    is_terminating: bool = False
    reason: str = ""
    """Why it is being ended."""


@dataclass(frozen=True, slots=True)
class AttemptState:
    key: AttemptKey
    node: NodeName
    awaits_prolog: bool = False
    """A release lets a running Prolog end by itself, as Slurm does; else it is stopped."""
    prolog: PrologState = PrologState.NOT_ASKED
    prolog_failure: str = ""
    steps: tuple[Step, ...] = ()
    ended_steps: frozenset[StepId] = frozenset()
    phase: Phase = Phase.HELD
    exit: ExitStatus = ExitStatus()
    derived_exit: ExitStatus = ExitStatus()
    """The highest of the job's numbered steps."""
    reason: str = ""
    """Why it was released."""
    unkillable: tuple[str, ...] = ()
    """What survived KILL before the Epilog: pid and command."""
    usage: Usage | None = None
    """Of the steps that are over; once the processes are gone, of the whole job."""
    epilog: HookRun | None = None
    """Set when RELEASED and there was an Epilog."""

    def step(self, step_id: StepId) -> Step | None:
        return next((step for step in self.steps if step.spec.step_id == step_id), None)

    def knows(self, step_id: StepId) -> bool:
        return step_id in self.ended_steps or self.step(step_id) is not None


# ---- events


@dataclass(frozen=True, slots=True)
class PrepareRequested:
    """The Prolog is wanted now."""


@dataclass(frozen=True, slots=True)
class StepRequested:
    step: StepSpec


@dataclass(frozen=True, slots=True)
class SignalRequested:
    """For all tasks of a step; with `terminate` it is to end."""

    step_id: StepId
    signal: int = 0
    terminate: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PrologStarted:
    """The intent: its turn has come, the first script runs next."""


@dataclass(frozen=True, slots=True)
class PrologEnded:
    run: HookRun
    failure: str = ""
    """For a person, when the outcome is not ok."""


@dataclass(frozen=True, slots=True)
class TasksStarted:
    step_id: StepId


@dataclass(frozen=True, slots=True)
class StepEnded:
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str = ""
    usage: Usage | None = None
    """None: nothing of it ran."""


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    exit: ExitStatus = ExitStatus()
    reason: str = ""
    derived_exit: ExitStatus = ExitStatus()
    """The highest of the job's numbered steps."""


@dataclass(frozen=True, slots=True)
class ProcessesGone:
    """Everything of the job on this node has ended, or would not."""

    unkillable: tuple[str, ...] = ()
    usage: Usage | None = None
    """Of the whole job here, as far as its cell tells."""


@dataclass(frozen=True, slots=True)
class EpilogStarted:
    """The intent."""


@dataclass(frozen=True, slots=True)
class EpilogEnded:
    run: HookRun | None
    """None: there is no Epilog."""


@dataclass(frozen=True, slots=True)
class NodeRebooted:
    """Every process of the attempt is gone, and so is what its Prolog had prepared."""


Event = (
    PrepareRequested
    | StepRequested
    | SignalRequested
    | PrologStarted
    | PrologEnded
    | TasksStarted
    | StepEnded
    | ReleaseRequested
    | ProcessesGone
    | EpilogStarted
    | EpilogEnded
    | NodeRebooted
)


# ---- effects


@dataclass(frozen=True, slots=True)
class RunProlog:
    """When its turn comes; answered by PrologStarted and PrologEnded."""


@dataclass(frozen=True, slots=True)
class StopProlog:
    """Running or queued; PrologEnded still comes."""


@dataclass(frozen=True, slots=True)
class StartSupervisor:
    """Answered by TasksStarted and StepEnded."""

    step: StepSpec


@dataclass(frozen=True, slots=True)
class SignalStep:
    step_id: StepId
    signal: int


@dataclass(frozen=True, slots=True)
class TerminateStep:
    """TERM, grace, KILL; StepEnded still comes."""

    step_id: StepId
    reason: str


@dataclass(frozen=True, slots=True)
class KillProcesses:
    """Whatever is left of the job; answered by ProcessesGone."""


@dataclass(frozen=True, slots=True)
class RunEpilog:
    """When its turn comes; answered by EpilogStarted and EpilogEnded."""

    exit: ExitStatus
    reason: str
    unkillable: tuple[str, ...] = ()
    derived_exit: ExitStatus = ExitStatus()


@dataclass(frozen=True, slots=True)
class ReportProlog:
    run: HookRun


@dataclass(frozen=True, slots=True)
class ReportStepStarted:
    step_id: StepId


@dataclass(frozen=True, slots=True)
class ReportStepEnded:
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ReportReleased:
    epilog: HookRun | None
    usage: Usage | None = None


ReportEffect = ReportProlog | ReportStepStarted | ReportStepEnded | ReportReleased
Effect = RunProlog | StopProlog | StartSupervisor | SignalStep | TerminateStep | KillProcesses | RunEpilog | ReportEffect
Change = tuple[AttemptState, tuple[Effect, ...]]


def never_started(step: StepSpec, node: NodeName, reason: str) -> tuple[TaskEnd, ...]:
    """The ends of the step's tasks on `node` when none of them ran."""
    exit_status = ExitStatus(code=NEVER_STARTED_CODE)
    return tuple(
        TaskEnd(TaskId(task_id), exit_status, cancelled=True, reason=reason) for task_id in step.tasks_per_node.get(node, ())
    )


def advance(state: AttemptState, event: Event) -> Change:
    """What `event` makes of the attempt. Repeats and late answers change nothing; a request after the release repeats its report."""
    if state.phase is Phase.RELEASED:
        is_request = isinstance(event, PrepareRequested | StepRequested | SignalRequested | ReleaseRequested)
        return state, (ReportReleased(state.epilog, state.usage),) if is_request else ()
    match event:
        case PrepareRequested():
            return _prepared(state)
        case StepRequested():
            return _step_requested(state, event.step)
        case SignalRequested():
            return _signalled(state, event)
        case PrologStarted():
            return (replace(state, prolog=PrologState.RUNNING) if state.prolog is PrologState.QUEUED else state), ()
        case PrologEnded():
            return _prolog_ended(state, event)
        case TasksStarted():
            return _tasks_started(state, event.step_id)
        case StepEnded():
            return _step_ended(state, event)
        case ReleaseRequested():
            return _released(state, event)
        case ProcessesGone() | EpilogStarted() | EpilogEnded():
            return _cleaned(state, event)
        case NodeRebooted():
            return _rebooted(state)


def _prepared(state: AttemptState) -> Change:
    if state.prolog is not PrologState.NOT_ASKED or state.phase is not Phase.HELD:
        return state, ()
    return replace(state, prolog=PrologState.QUEUED), (RunProlog(),)


def _step_requested(state: AttemptState, spec: StepSpec) -> Change:
    if state.knows(spec.step_id):
        return state, ()
    if state.phase is not Phase.HELD:
        return _refused(state, spec, state.reason or "the job was released before the step started")
    if state.prolog is PrologState.FAILED:
        return _refused(state, spec, state.prolog_failure)
    if state.prolog is PrologState.SUCCEEDED:
        return replace(state, steps=(*state.steps, Step(spec, StepPhase.STARTING))), (StartSupervisor(spec),)
    state, effects = _prepared(state)
    return replace(state, steps=(*state.steps, Step(spec, StepPhase.WAITING))), effects


def _refused(state: AttemptState, spec: StepSpec, reason: str) -> Change:
    ended = state.ended_steps | {spec.step_id}
    return replace(state, ended_steps=ended), (ReportStepEnded(spec.step_id, never_started(spec, state.node, reason), reason),)


def _signalled(state: AttemptState, event: SignalRequested) -> Change:
    step = state.step(event.step_id)
    if step is None:
        return state, ()
    if step.phase is StepPhase.WAITING:
        return (
            _waiting_ended(state, event.reason or "cancelled", lambda waiting: waiting is step)
            if event.terminate
            else (state, ())
        )
    if not event.terminate:
        return state, (SignalStep(event.step_id, event.signal),)
    if step.is_terminating:
        return state, ()
    return _with(state, replace(step, is_terminating=True, reason=event.reason)), (TerminateStep(event.step_id, event.reason),)


def _prolog_ended(state: AttemptState, event: PrologEnded) -> Change:
    if not state.prolog.is_in_progress:
        return state, ()
    report = ReportProlog(event.run)
    if not event.run.outcome.ok:
        failure = event.failure or f"Prolog {event.run.outcome}"
        state, ended = _waiting_ended(replace(state, prolog=PrologState.FAILED, prolog_failure=failure), failure)
        state, settled = _settled(state)
        return state, (report, *ended, *settled)
    state = replace(state, prolog=PrologState.SUCCEEDED)
    if state.phase is not Phase.HELD:
        state, settled = _settled(state)
        return state, (report, *settled)
    waiting = [step for step in state.steps if step.phase is StepPhase.WAITING]
    steps = tuple(replace(step, phase=StepPhase.STARTING) if step in waiting else step for step in state.steps)
    return replace(state, steps=steps), (report, *(StartSupervisor(step.spec) for step in waiting))


def _tasks_started(state: AttemptState, step_id: StepId) -> Change:
    step = state.step(step_id)
    if step is None or step.phase is not StepPhase.STARTING:
        return state, ()
    return _with(state, replace(step, phase=StepPhase.RUNNING)), (ReportStepStarted(step_id),)


def _step_ended(state: AttemptState, event: StepEnded) -> Change:
    step = state.step(event.step_id)
    if step is None or step.phase is StepPhase.WAITING:
        return state, ()
    state = _without(state, event.step_id)
    if event.usage is not None:
        state = replace(state, usage=usage_sum(filter(None, (state.usage, event.usage))))
    report = ReportStepEnded(event.step_id, event.tasks, event.reason or step.reason, event.usage)
    state, settled = _settled(state)
    return state, (report, *settled)


def _released(state: AttemptState, event: ReleaseRequested) -> Change:
    if state.phase is not Phase.HELD:
        return state, ()
    reason = event.reason or "the job was released"
    state = replace(state, phase=Phase.RELEASING, exit=event.exit, derived_exit=event.derived_exit, reason=event.reason)
    effects: list[Effect] = []
    if state.prolog.is_in_progress and not (state.awaits_prolog and state.prolog is PrologState.RUNNING):
        effects.append(StopProlog())
    state, ended = _waiting_ended(state, reason)
    effects += ended
    effects += (TerminateStep(step.spec.step_id, reason) for step in state.steps if not step.is_terminating)
    steps = tuple(step if step.is_terminating else replace(step, is_terminating=True, reason=reason) for step in state.steps)
    state, settled = _settled(replace(state, steps=steps))
    return state, (*effects, *settled)


def _cleaned(state: AttemptState, event: ProcessesGone | EpilogStarted | EpilogEnded) -> Change:
    match event, state.phase:
        case ProcessesGone(), Phase.CLEANING:
            usage = state.usage
            if event.usage is not None:
                usage = usage_of(event.usage, filter(None, (usage,)))
            state = replace(state, phase=Phase.EPILOG_QUEUED, unkillable=event.unkillable, usage=usage)
            return state, (RunEpilog(state.exit, state.reason, state.unkillable, state.derived_exit),)
        case EpilogStarted(), Phase.EPILOG_QUEUED:
            return replace(state, phase=Phase.EPILOG_RUNNING), ()
        case EpilogEnded(), Phase.EPILOG_QUEUED | Phase.EPILOG_RUNNING:
            return replace(state, phase=Phase.RELEASED, epilog=event.run), (ReportReleased(event.run, state.usage),)
        case _:
            return state, ()


def _rebooted(state: AttemptState) -> Change:
    reason = "the node rebooted"
    effects: list[Effect] = []
    for step in state.steps:
        if step.phase is not StepPhase.WAITING:
            state = _without(state, step.spec.step_id)
            ends = tuple(
                TaskEnd(TaskId(task_id), ExitStatus(signal=9), reason=reason)
                for task_id in step.spec.tasks_per_node.get(state.node, ())
            )
            effects.append(ReportStepEnded(step.spec.step_id, ends, reason))
    if state.prolog is PrologState.SUCCEEDED:
        state = replace(state, prolog=PrologState.FAILED, prolog_failure=f"{reason} after its Prolog")
    if state.phase is Phase.EPILOG_RUNNING:
        state = replace(state, phase=Phase.EPILOG_QUEUED)
    state, settled = _settled(state)
    return state, (*effects, *settled)


def _settled(state: AttemptState) -> Change:
    """Goes on to the clean-up once nothing runs any more."""
    if state.phase is not Phase.RELEASING or state.steps or state.prolog.is_in_progress:
        return state, ()
    return replace(state, phase=Phase.CLEANING), (KillProcesses(),)


def _waiting_ended(
    state: AttemptState, reason: str, chosen: Callable[[Step], bool] = lambda _: True
) -> tuple[AttemptState, tuple[Effect, ...]]:
    """Ends waiting steps without their ever having started."""
    effects: list[Effect] = []
    for step in state.steps:
        if step.phase is StepPhase.WAITING and chosen(step):
            state = _without(state, step.spec.step_id)
            effects.append(ReportStepEnded(step.spec.step_id, never_started(step.spec, state.node, reason), reason))
    return state, tuple(effects)


def _with(state: AttemptState, changed: Step) -> AttemptState:
    steps = tuple(changed if step.spec.step_id == changed.spec.step_id else step for step in state.steps)
    return replace(state, steps=steps)


def _without(state: AttemptState, step_id: StepId) -> AttemptState:
    steps = tuple(step for step in state.steps if step.spec.step_id != step_id)
    return replace(state, steps=steps, ended_steps=state.ended_steps | {step_id})
