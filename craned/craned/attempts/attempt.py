"""One attempt of one job on this node as a pure state machine: what happened goes in, the new state and what to do about it come out.

    Prolog   NOT_ASKED ──first request──► QUEUED ──PrologStarted──► RUNNING ──PrologEnded──► SUCCEEDED | FAILED
    step     WAITING (for the Prolog) ──► STARTING ──TasksStarted──► RUNNING ──StepEnded──► ended
    attempt  HELD ──ReleaseRequested──► RELEASING ──last step and Prolog ended──► CLEANING ──ProcessesGone──►
             EPILOG_QUEUED ──EpilogStarted──► EPILOG_RUNNING ──EpilogEnded──► RELEASED
    extern   NONE ──first request──► STARTING ──TasksStarted──► RUNNING ──(the job is over)──► ENDING ──StepEnded──► ENDED

The extern step is there under the flag Contain. It ends after the other steps and before the CLEANING; with the flag RunInJob, where Epilog
runs in it, after the Epilog: EPILOG_RUNNING ──EpilogEnded──► CLOSING ──it has ended, ProcessesGone──► RELEASED.

The machine is also the journal's reader: the events are recorded before their effects are done, and replayed in order they give the state
back. What a restart of the daemon, or of the node, means for it is `recovery`'s matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from craned.attempts.effects import (
    Effect,
    EndExtern,
    KillProcesses,
    ReportProlog,
    ReportReleased,
    ReportStepEnded,
    ReportStepStarted,
    RunEpilog,
    RunProlog,
    SignalStep,
    StartExtern,
    StartSupervisor,
    StopProlog,
    TerminateStep,
)
from craned.attempts.events import (
    EpilogEnded,
    EpilogStarted,
    Event,
    NodeRebooted,
    PrepareRequested,
    ProcessesGone,
    PrologEnded,
    PrologStarted,
    ReleaseRequested,
    SignalRequested,
    StepEnded,
    StepRequested,
    TasksStarted,
)
from cranehooks.model.ids import EXTERN_STEP, AttemptKey, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, StdioMode, StepSpec, TaskEnd
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


class ExternState(Enum):
    """Of the job's extern step on this node."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor lives, as far as is known."""
        return self in (ExternState.STARTING, ExternState.RUNNING, ExternState.ENDING)


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
    CLOSING = "closing"
    """The Epilog ran in the extern step, which ends now; then what is left of the job's place is removed."""
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
    contains: bool = False
    """Flag Contain: an extern step holds the job's place from the first request on."""
    runs_in_job: bool = False
    """Flag RunInJob: Prolog and Epilog run in that step."""
    extern: ExternState = ExternState.NONE
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
    """Set when it has ended and there was one."""

    def step(self, step_id: StepId) -> Step | None:
        return next((step for step in self.steps if step.spec.step_id == step_id), None)

    def knows(self, step_id: StepId) -> bool:
        return step_id == EXTERN_STEP or step_id in self.ended_steps or self.step(step_id) is not None


Change = tuple[AttemptState, tuple[Effect, ...]]


def extern_step() -> StepSpec:
    """The extern step as supervisors are started for: no task, nothing to wait for."""
    return StepSpec(EXTERN_STEP, (), 0, cwd="/", stdio=StdioMode.FILES)


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
    state, started = _with_extern(replace(state, prolog=PrologState.QUEUED))
    # The Prolog waits for the step that it is to run in.
    return state, (*started, RunProlog())


def _with_extern(state: AttemptState) -> Change:
    """Starts the extern step where the job is to have one and it has not begun."""
    if not state.contains or state.extern is not ExternState.NONE:
        return state, ()
    return replace(state, extern=ExternState.STARTING), (StartExtern(),)


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
    if step_id == EXTERN_STEP:
        if state.extern is not ExternState.STARTING:
            return state, ()
        return replace(state, extern=ExternState.RUNNING), (ReportStepStarted(step_id),)
    step = state.step(step_id)
    if step is None or step.phase is not StepPhase.STARTING:
        return state, ()
    return _with(state, replace(step, phase=StepPhase.RUNNING)), (ReportStepStarted(step_id),)


def _step_ended(state: AttemptState, event: StepEnded) -> Change:
    if event.step_id == EXTERN_STEP:
        return _extern_ended(state, event.reason)
    step = state.step(event.step_id)
    if step is None or step.phase is StepPhase.WAITING:
        return state, ()
    state = _without(state, event.step_id)
    if event.usage is not None:
        state = replace(state, usage=usage_sum(filter(None, (state.usage, event.usage))))
    report = ReportStepEnded(event.step_id, event.tasks, event.reason or step.reason, event.usage)
    state, settled = _settled(state)
    return state, (report, *settled)


def _extern_ended(state: AttemptState, reason: str) -> Change:
    """Asked to, or by itself: what ran in it has its outcome by other events, and the attempt goes on without it."""
    if not state.extern.is_alive:
        return state, ()
    state = replace(state, extern=ExternState.ENDED)
    report = ReportStepEnded(EXTERN_STEP, (), reason)
    if state.phase is Phase.CLOSING:
        return state, (report, KillProcesses())
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
            # Where nothing was asked for before the release, RunInJob's Epilog has yet to get its step.
            state, started = _with_extern(state) if state.runs_in_job else (state, ())
            return state, (*started, RunEpilog(state.exit, state.reason, state.unkillable, state.derived_exit))
        case ProcessesGone(), Phase.CLOSING if not state.extern.is_alive:
            return _over(state)
        case EpilogStarted(), Phase.EPILOG_QUEUED:
            return replace(state, phase=Phase.EPILOG_RUNNING), ()
        case EpilogEnded(), Phase.EPILOG_QUEUED | Phase.EPILOG_RUNNING:
            state = replace(state, epilog=event.run)
            if not state.runs_in_job:
                return _over(state)
            state = replace(state, phase=Phase.CLOSING)
            if state.extern.is_alive:
                return replace(state, extern=ExternState.ENDING), (EndExtern(state.reason or "the job is over"),)
            return state, (KillProcesses(),)
        case _:
            return state, ()


def _over(state: AttemptState) -> Change:
    return replace(state, phase=Phase.RELEASED), (ReportReleased(state.epilog, state.usage),)


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
    if state.extern.is_alive and state.phase is Phase.HELD and state.prolog is PrologState.QUEUED:
        # Nothing has run in it yet: the Prolog that waits gets a new one.
        state, again = _with_extern(replace(state, extern=ExternState.NONE))
        effects += again
    elif state.extern.is_alive:
        state, ended = _extern_ended(state, reason)
        effects += ended
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
    if state.extern.is_alive and not state.runs_in_job:
        if state.extern is ExternState.ENDING:
            return state, ()
        return replace(state, extern=ExternState.ENDING), (EndExtern(state.reason or "the job is over"),)
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
