"""A step's part on one node as a pure state machine: what happened goes in, the new state and what to do come out.

    NEW ─Begin─► WAITING ─LauncherAttached─► STARTING ─► RUNNING ─► ENDING ─► ENDED
                    │ no launcher in time, Terminate        ▲ all tasks over    ▲ cleaned up, output sent
                    └───────────────────────────────────────┘

STARTING prepares the step and runs the before-hooks of its tasks; RUNNING begins once every task has started or
ended. A step whose output goes to files waits for nobody. ENDED is reported once per dial until it is acknowledged; a
supervisor that was asked to stop waits for that only so long.
"""

from dataclasses import dataclass, replace
from enum import Enum
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import Final

from cranehooks.model.ids import TaskId
from cranehooks.model.job import TaskEnd
from cranehooks.model.limits import Usage
from csupervisor.task import CANCELLED_EXIT, STOPPED_EXIT, InvalidTransitionError

ATTACH_MARGIN_S: Final = 30.0
"""How much longer than the launcher grace a step waits for its launcher's first word."""
DELIVER_WITHIN_S: Final = 30.0
"""How long a supervisor that was asked to stop waits for a craned that takes the step's end: a host that shuts down does not hang."""
LAUNCHER_GONE: Final = "launcher gone"
_ENDS_A_STEP: Final = frozenset({SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM})


class Phase(Enum):
    """Where the step stands."""

    NEW = "new"
    WAITING = "waiting for launcher"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    """No task is left; what remains is killed and the last output is sent."""
    ENDED = "ended"
    ACKNOWLEDGED = "acknowledged"
    UNDELIVERED = "undelivered"
    """Asked to stop, and nobody took the end in time."""


class Timer(Enum):
    ATTACH = "attach"
    LAUNCHER = "launcher"
    OUTPUT = "output"
    DELIVERY = "delivery"


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How the node's part of the step ended."""

    tasks: tuple[TaskEnd, ...]
    reason: str = ""
    unkillable: tuple[str, ...] = ()
    usage: Usage | None = None


# ---- events


@dataclass(frozen=True, slots=True)
class Begin:
    """The supervisor runs."""


@dataclass(frozen=True, slots=True)
class LauncherAttached:
    pass


@dataclass(frozen=True, slots=True)
class LauncherLost:
    pass


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `Prepare` asked for is done."""


@dataclass(frozen=True, slots=True)
class PreparationFailed:
    reason: str


@dataclass(frozen=True, slots=True)
class TaskRunning:
    task_id: TaskId


@dataclass(frozen=True, slots=True)
class TaskOver:
    end: TaskEnd


@dataclass(frozen=True, slots=True)
class Terminate:
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The supervisor itself is to go, as when its host shuts down. Repeating it changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Signal:
    number: int


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """Nothing of the step lives, but for these (pid and command)."""

    unkillable: tuple[str, ...] = ()
    usage: Usage | None = None
    """Of all that ran; None when nothing did."""


@dataclass(frozen=True, slots=True)
class OutputSent:
    """All streams have ended and all they gave has been sent, or dropped."""


@dataclass(frozen=True, slots=True)
class TimerEnded:
    timer: Timer


@dataclass(frozen=True, slots=True)
class EndAcknowledged:
    pass


Event = (
    Begin
    | LauncherAttached
    | LauncherLost
    | Prepared
    | PreparationFailed
    | TaskRunning
    | TaskOver
    | Terminate
    | Stop
    | Signal
    | CleanedUp
    | OutputSent
    | TimerEnded
    | EndAcknowledged
)


# ---- effects


@dataclass(frozen=True, slots=True)
class Prepare:
    """Check the working directory, open files, make cells; answer with `Prepared` or `PreparationFailed`."""


@dataclass(frozen=True, slots=True)
class BeginTasks:
    pass


@dataclass(frozen=True, slots=True)
class TerminateTasks:
    reason: str


@dataclass(frozen=True, slots=True)
class SignalTasks:
    number: int


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Kill what is left; answer with `CleanedUp`. After it the streams can end: answer with `OutputSent` then."""


@dataclass(frozen=True, slots=True)
class DropOutput:
    """Nobody will take it; answer with `OutputSent`."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    timer: Timer
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class ReportStarted:
    pass


@dataclass(frozen=True, slots=True)
class ReportEnd:
    end: StepEnd


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left to do."""


Effect = (
    Prepare
    | BeginTasks
    | TerminateTasks
    | SignalTasks
    | CleanUp
    | DropOutput
    | SetTimer
    | CancelTimer
    | ReportStarted
    | ReportEnd
    | Exit
)


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of the step. `advance` is the only way on."""

    task_ids: tuple[TaskId, ...]
    has_launcher: bool
    """Its streams go to a launcher, without which it does not live on."""
    launcher_grace_s: float
    output_grace_s: float
    """How long a step that was terminated waits for its last output to be taken."""
    deliver_within_s: float = DELIVER_WITHIN_S
    phase: Phase = Phase.NEW
    has_begun_tasks: bool = False
    running: frozenset[TaskId] = frozenset()
    """Tasks that were started, also those that have ended since."""
    ends: tuple[TaskEnd, ...] = ()
    reason: str = ""
    is_terminated: bool = False
    is_stopping: bool = False
    unkillable: tuple[str, ...] | None = None
    """None: not cleaned up yet."""
    usage: Usage | None = None
    is_output_sent: bool = False

    def check_invariants(self) -> None:
        ended = {end.task_id for end in self.ends}
        assert len(ended) == len(self.ends), f"a task ended twice: {self}"
        is_over = self.phase is Phase.ENDING or self.phase in _AFTER_THE_END
        assert is_over == (ended == set(self.task_ids)), self
        assert self.phase not in _AFTER_THE_END or (self.unkillable is not None and self.is_output_sent), self
        assert not self.is_terminated or self.reason, self


_AFTER_THE_END: Final = (Phase.ENDED, Phase.ACKNOWLEDGED, Phase.UNDELIVERED)

Advance = tuple[Step, tuple[Effect, ...]]


def advance(step: Step, event: Event) -> Advance:
    """The next state and what to do about it.

    Raises:
        InvalidTransitionError: the event cannot happen here.
    """
    match event:
        case Begin() if step.phase is Phase.NEW:
            if step.has_launcher:
                return replace(step, phase=Phase.WAITING), (SetTimer(Timer.ATTACH, step.launcher_grace_s + ATTACH_MARGIN_S),)
            return replace(step, phase=Phase.STARTING), (Prepare(),)
        case LauncherAttached():
            return _launcher_attached(step)
        case LauncherLost():
            return _launcher_lost(step)
        case Terminate(reason):
            return _terminate(step, reason)
        case Stop(reason):
            return _stop(step, reason)
        case Signal(number):
            return _signal(step, number)
        case TimerEnded(timer):
            return _timer_ended(step, timer)
        case _:
            return _progress(step, event)


def _progress(step: Step, event: Event) -> Advance:
    match step.phase, event:
        case Phase.STARTING, Prepared() if not step.has_begun_tasks:
            if step.is_terminated:
                return _end_unbegun(step, STOPPED_EXIT.signal, step.reason)
            return replace(step, has_begun_tasks=True), (BeginTasks(),)
        case Phase.STARTING, PreparationFailed(reason) if not step.has_begun_tasks:
            return _end_unbegun(replace(step, reason=step.reason or reason), 0, reason)
        case ((Phase.STARTING | Phase.RUNNING), TaskRunning(task_id)):
            return _settle(replace(step, running=step.running | {task_id}))
        case ((Phase.STARTING | Phase.RUNNING), TaskOver(end)):
            return _settle(replace(step, ends=(*step.ends, end)))
        case Phase.ENDING, CleanedUp(unkillable, usage):
            step = replace(step, unkillable=unkillable, usage=usage)
            # What cannot be killed may hold its streams open for ever.
            waits = unkillable and not step.is_output_sent and not step.is_terminated
            step, effects = _finish(step)
            return step, (SetTimer(Timer.OUTPUT, step.output_grace_s), *effects) if waits else effects
        case Phase.ENDING, OutputSent():
            return _finish(replace(step, is_output_sent=True))
        case Phase.ENDED, EndAcknowledged():
            effects = (CancelTimer(Timer.DELIVERY), Exit()) if step.is_stopping else (Exit(),)
            return replace(step, phase=Phase.ACKNOWLEDGED), effects
        case ((Phase.ACKNOWLEDGED | Phase.UNDELIVERED), EndAcknowledged()):
            return step, ()
        case _:
            raise InvalidTransitionError(step, event)


def _launcher_attached(step: Step) -> Advance:
    if step.phase is Phase.WAITING:
        return replace(step, phase=Phase.STARTING), (CancelTimer(Timer.ATTACH), Prepare())
    return step, (CancelTimer(Timer.LAUNCHER),)


def _launcher_lost(step: Step) -> Advance:
    if step.has_launcher and step.phase in (Phase.STARTING, Phase.RUNNING, Phase.ENDING):
        return step, (SetTimer(Timer.LAUNCHER, step.launcher_grace_s),)
    return step, ()


def _terminate(step: Step, reason: str) -> Advance:
    if step.is_terminated or step.phase in _AFTER_THE_END:
        return step, ()
    if step.phase is Phase.ENDING:
        step = replace(step, is_terminated=True, reason=step.reason or reason)
        return step, (SetTimer(Timer.OUTPUT, step.output_grace_s),)
    step = replace(step, is_terminated=True, reason=reason)
    match step.phase:
        case Phase.NEW | Phase.WAITING:
            return _end_unbegun(step, STOPPED_EXIT.signal, reason)
        case _ if step.has_begun_tasks:
            return step, (TerminateTasks(reason),)
        case _:
            return step, ()


def _stop(step: Step, reason: str) -> Advance:
    if step.is_stopping:
        return step, ()
    step = replace(step, is_stopping=True)
    if step.phase is Phase.ENDED:
        return step, (SetTimer(Timer.DELIVERY, step.deliver_within_s),)
    return _terminate(step, reason)


def _signal(step: Step, number: int) -> Advance:
    if step.has_begun_tasks and step.phase in (Phase.STARTING, Phase.RUNNING):
        return step, (SignalTasks(number),)
    if number in _ENDS_A_STEP:
        return _terminate(step, f"signal {number} before the step started")
    return step, ()


def _timer_ended(step: Step, timer: Timer) -> Advance:
    match timer, step.phase:
        case Timer.ATTACH, Phase.WAITING:
            waited_s = step.launcher_grace_s + ATTACH_MARGIN_S
            return _terminate(step, f"the launcher did not attach within {waited_s:g} s")
        case Timer.LAUNCHER, (Phase.STARTING | Phase.RUNNING):
            return _terminate(step, LAUNCHER_GONE)
        case Timer.DELIVERY, Phase.ENDED:
            return replace(step, phase=Phase.UNDELIVERED), (Exit(),)
        case ((Timer.LAUNCHER | Timer.OUTPUT), Phase.ENDING):
            return step, (DropOutput(),)
        case _:
            raise InvalidTransitionError(step, timer)


def _settle(step: Step) -> Advance:
    """Go on to RUNNING when every task has started or ended, and to ENDING when all have ended."""
    effects: tuple[Effect, ...] = ()
    ended = {end.task_id for end in step.ends}
    everyone = set(step.task_ids)
    if step.phase is Phase.STARTING and ended | step.running == everyone:
        step = replace(step, phase=Phase.RUNNING)
        effects = (ReportStarted(),) if step.running else ()
    if ended == everyone:
        step, more = _end(step)
        return step, (*effects, *more)
    return step, effects


def _end(step: Step) -> Advance:
    step = replace(step, phase=Phase.ENDING)
    if step.is_terminated:
        return step, (CleanUp(), SetTimer(Timer.OUTPUT, step.output_grace_s))
    return step, (CleanUp(),)


def _end_unbegun(step: Step, signal: int, reason: str) -> Advance:
    """No task had its turn, so none has hooks to run."""
    status = STOPPED_EXIT if signal else CANCELLED_EXIT
    ends = tuple(TaskEnd(task_id, status, cancelled=True, reason=reason) for task_id in step.task_ids)
    was_waiting = step.phase is Phase.WAITING
    step, effects = _end(replace(step, ends=ends))
    return step, (CancelTimer(Timer.ATTACH), *effects) if was_waiting else effects


def _finish(step: Step) -> Advance:
    if step.unkillable is None or not step.is_output_sent:
        return step, ()
    step = replace(step, phase=Phase.ENDED)
    order = {task_id: place for place, task_id in enumerate(step.task_ids)}
    tasks = tuple(sorted(step.ends, key=lambda end: order[end.task_id]))
    end = StepEnd(tasks, step.reason, step.unkillable or (), step.usage)
    bound = (SetTimer(Timer.DELIVERY, step.deliver_within_s),) if step.is_stopping else ()
    return step, (CancelTimer(Timer.LAUNCHER), CancelTimer(Timer.OUTPUT), ReportEnd(end), *bound)
