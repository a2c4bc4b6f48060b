"""One task as a pure state machine: its before-hooks, its process, its after-hooks.

    WAITING ─Begin─► TASK_PROLOG ─► STEP_TASK_PROLOG ─► STARTING ─Spawned─► RUNNING ─ProcessExited─► CLEARING
                          │ failed or stopped │              │ SpawnFailed                             │ Cleared
                          ▼                   ▼              ▼                                         ▼
                     TASK_EPILOG ◄─────── STEP_TASK_EPILOG ◄─┴─────────────────────────────────────────┘
                          └─► ENDED

A stage whose hook is not configured is passed over. After-hooks pair with before-hooks: `TaskEpilog` runs for every
task whose `TaskProlog` was started (or whose turn for it came, where none is configured), `--task-epilog` likewise for
`--task-prolog`. So a task that TaskProlog cancels runs TaskEpilog and no `--task-epilog`; one that was ended before its
turn came runs none. Each runs once.
"""

from dataclasses import dataclass, replace
from enum import Enum
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import Final

from cranehooks.model.ids import TaskId
from cranehooks.model.job import ExitStatus, TaskEnd
from cranehooks.model.points import HookPoint

CANCELLED_EXIT: Final = ExitStatus(code=1)
STOPPED_EXIT: Final = ExitStatus(signal=int(SIGTERM))
"""Of a task that was ended before its process existed: as if the process had been."""
_ENDS_A_PROCESS: Final = frozenset({SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM})


class Phase(Enum):
    """Where the task stands."""

    WAITING = "waiting"
    TASK_PROLOG = "TaskProlog"
    STEP_TASK_PROLOG = "--task-prolog"
    STARTING = "starting"
    RUNNING = "running"
    CLEARING = "clearing"
    """Its process has exited; what that left behind is ended."""
    STEP_TASK_EPILOG = "--task-epilog"
    TASK_EPILOG = "TaskEpilog"
    ENDED = "ended"


class Timer(Enum):
    GRACE = "grace"
    """From TERM to KILL."""
    KILL_WAIT = "kill wait"
    """From KILL to giving up."""


# ---- events


@dataclass(frozen=True, slots=True)
class Begin:
    """The step is ready for it."""


@dataclass(frozen=True, slots=True)
class HookEnded:
    """The hook asked for by `RunHook` ended; `failure` says why it failed and is empty when it did not."""

    point: HookPoint
    failure: str = ""
    exit: ExitStatus = CANCELLED_EXIT
    """Of the task that it keeps from starting."""
    cancels: bool = True
    """Whether that task is cancelled; else it fails."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process asked for by `SpawnTask` runs."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """It could not be started; `exit` is what a shell would report."""

    exit: ExitStatus
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    exit: ExitStatus
    cause: str = ""
    """Why it ended so, where somebody else than itself is to blame."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing of the task lives, but for what cannot be killed."""


@dataclass(frozen=True, slots=True)
class TimerEnded:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Terminate:
    """The task is no longer wanted. Repeating it changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Signal:
    """For every process of the task, from its user."""

    number: int


Event = Begin | HookEnded | Spawned | SpawnFailed | ProcessExited | Cleared | TimerEnded | Terminate | Signal


# ---- effects


@dataclass(frozen=True, slots=True)
class RunHook:
    """Answer with `HookEnded`."""

    point: HookPoint


@dataclass(frozen=True, slots=True)
class StopHook:
    """Stop the hook that runs; it still answers with `HookEnded`."""


@dataclass(frozen=True, slots=True)
class SpawnTask:
    """Answer with `Spawned` or `SpawnFailed`."""


@dataclass(frozen=True, slots=True)
class SignalTask:
    number: int


@dataclass(frozen=True, slots=True)
class KillTask:
    """KILL every process of the task."""


@dataclass(frozen=True, slots=True)
class AwaitRest:
    """Wait until nothing of the task lives, without killing; answer with `Cleared`."""


@dataclass(frozen=True, slots=True)
class KillRest:
    """Kill what lives, and wait no longer than for the unkillable; answer with `Cleared`, once even after `AwaitRest`."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    timer: Timer
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class ReportRunning:
    """The process of the task exists."""


@dataclass(frozen=True, slots=True)
class ReportEnd:
    """The task and its epilogs are over. The last effect of a task."""

    end: TaskEnd


Effect = (
    RunHook
    | StopHook
    | SpawnTask
    | SignalTask
    | KillTask
    | AwaitRest
    | KillRest
    | SetTimer
    | CancelTimer
    | ReportRunning
    | ReportEnd
)


class InvalidTransitionError(Exception):
    """An event that cannot happen in this state: a fault of the interpreter."""

    def __init__(self, state: object, event: object) -> None:
        super().__init__(f"{event} cannot happen in {state}")


@dataclass(frozen=True, slots=True)
class Task:
    """What is known of the task. `advance` is the only way on."""

    task_id: TaskId
    hooks: frozenset[HookPoint]
    """The points that have scripts."""
    kill_grace_s: float
    unkillable_after_s: float
    phase: Phase = Phase.WAITING
    owes: tuple[HookPoint, ...] = ()
    """After-points to pass, in order."""
    exit: ExitStatus | None = None
    cancelled: bool = False
    reason: str = ""
    stop_reason: str | None = None
    """Set once the task is no longer wanted."""
    fails_by_hook: bool = False
    """A before-hook kept it from starting, which counts as a failure of its own."""
    unkillable: bool = False
    """Its process survived KILL: its exit may come at any time, or never."""

    @property
    def has_begun(self) -> bool:
        return self.phase is not Phase.WAITING

    @property
    def end(self) -> TaskEnd:
        assert self.exit is not None
        return TaskEnd(self.task_id, self.exit, self.cancelled, self.reason)

    @property
    def notice(self) -> str:
        """For its owner: why it never ran; empty where it did, or where its standard error tells."""
        if self.cancelled:
            return f"task {self.task_id} cancelled: {self.reason}"
        return f"task {self.task_id} failed: {self.reason}" if self.fails_by_hook else ""

    def check_invariants(self) -> None:
        assert (self.exit is not None) == (self.phase in _AFTER), self
        assert not (self.cancelled and not self.reason), self
        assert self.phase is not Phase.ENDED or not self.owes, self


_AFTER: Final = frozenset({Phase.CLEARING, Phase.STEP_TASK_EPILOG, Phase.TASK_EPILOG, Phase.ENDED})
_BEFORE_HOOKS: Final = {Phase.TASK_PROLOG: HookPoint.TASK_PROLOG, Phase.STEP_TASK_PROLOG: HookPoint.STEP_TASK_PROLOG}
_AFTER_HOOKS: Final = {Phase.STEP_TASK_EPILOG: HookPoint.STEP_TASK_EPILOG, Phase.TASK_EPILOG: HookPoint.TASK_EPILOG}

Step = tuple[Task, tuple[Effect, ...]]


def advance(task: Task, event: Event) -> Step:
    """The next state and what to do about it.

    Raises:
        InvalidTransitionError: the event cannot happen here.
    """
    match event:
        case Terminate(reason):
            return _terminate(task, reason)
        case Signal(number):
            return _signal(task, number)
        case TimerEnded(timer):
            return _timer_ended(task, timer)
        case ProcessExited() if task.unkillable:
            return task, ()
    match task.phase, event:
        case Phase.WAITING, Begin():
            return _task_prolog(task)
        case ((Phase.TASK_PROLOG | Phase.STEP_TASK_PROLOG), HookEnded(point)) if point is _BEFORE_HOOKS[task.phase]:
            return _before_hook_ended(task, event)
        case Phase.STARTING, Spawned():
            return _spawned(task)
        case Phase.STARTING, SpawnFailed(status, reason):
            return _epilogs(replace(task, exit=status, reason=reason))
        case Phase.RUNNING, ProcessExited(status, cause):
            return _process_exited(task, status, cause)
        case Phase.CLEARING, Cleared():
            task, effects = _epilogs(task)
            return task, (CancelTimer(Timer.GRACE), *effects)
        case ((Phase.STEP_TASK_EPILOG | Phase.TASK_EPILOG), HookEnded(point)) if point is _AFTER_HOOKS[task.phase]:
            return _epilogs(task)
    raise InvalidTransitionError(task, event)


def _task_prolog(task: Task) -> Step:
    task = replace(task, owes=(HookPoint.TASK_EPILOG,))
    if HookPoint.TASK_PROLOG in task.hooks:
        return replace(task, phase=Phase.TASK_PROLOG), (RunHook(HookPoint.TASK_PROLOG),)
    return _step_task_prolog(task)


def _step_task_prolog(task: Task) -> Step:
    task = replace(task, owes=(HookPoint.STEP_TASK_EPILOG, HookPoint.TASK_EPILOG))
    if HookPoint.STEP_TASK_PROLOG in task.hooks:
        return replace(task, phase=Phase.STEP_TASK_PROLOG), (RunHook(HookPoint.STEP_TASK_PROLOG),)
    return _start(task)


def _start(task: Task) -> Step:
    return replace(task, phase=Phase.STARTING), (SpawnTask(),)


def _before_hook_ended(task: Task, ended: HookEnded) -> Step:
    if task.stop_reason is not None:
        return _epilogs(replace(task, exit=STOPPED_EXIT, cancelled=True, reason=task.stop_reason))
    if ended.failure:
        fate = replace(task, exit=ended.exit, reason=ended.failure, cancelled=ended.cancels, fails_by_hook=not ended.cancels)
        return _epilogs(fate)
    return _step_task_prolog(task) if task.phase is Phase.TASK_PROLOG else _start(task)


def _spawned(task: Task) -> Step:
    task = replace(task, phase=Phase.RUNNING)
    if task.stop_reason is None:
        return task, (ReportRunning(),)
    return task, (ReportRunning(), *_ladder(task))


def _ladder(task: Task) -> tuple[Effect, ...]:
    # CONT, so that a stopped process gets to know of its TERM.
    return SignalTask(SIGTERM), SignalTask(SIGCONT), SetTimer(Timer.GRACE, task.kill_grace_s)


def _process_exited(task: Task, status: ExitStatus, cause: str) -> Step:
    task = replace(task, phase=Phase.CLEARING, exit=status, reason=task.stop_reason or cause)
    if task.stop_reason is None:
        return task, (KillRest(),)
    # A shell dies of TERM at once; the program it ran has the rest of the grace.
    return task, (CancelTimer(Timer.KILL_WAIT), AwaitRest())


def _terminate(task: Task, reason: str) -> Step:
    if task.stop_reason is not None:
        return task, ()
    match task.phase:
        case Phase.WAITING:
            task = replace(task, phase=Phase.ENDED, exit=STOPPED_EXIT, cancelled=True, reason=reason, stop_reason=reason)
            return task, (ReportEnd(task.end),)
        case Phase.TASK_PROLOG | Phase.STEP_TASK_PROLOG:
            return replace(task, stop_reason=reason), (StopHook(),)
        case Phase.STARTING:
            return replace(task, stop_reason=reason), ()
        case Phase.RUNNING:
            task = replace(task, stop_reason=reason)
            return task, _ladder(task)
        case _:
            return task, ()


def _signal(task: Task, number: int) -> Step:
    match task.phase:
        case Phase.RUNNING | Phase.CLEARING:
            return task, (SignalTask(number),)
        case Phase.TASK_PROLOG | Phase.STEP_TASK_PROLOG | Phase.STARTING if number in _ENDS_A_PROCESS:
            # There is no process that could decide what the signal means: it means what it does by default.
            return _terminate(task, f"signal {number} before the task started")
        case _:
            return task, ()


def _timer_ended(task: Task, timer: Timer) -> Step:
    match task.phase, timer:
        case Phase.RUNNING, Timer.GRACE:
            return task, (KillTask(), SetTimer(Timer.KILL_WAIT, task.unkillable_after_s))
        case Phase.RUNNING, Timer.KILL_WAIT:
            reason = f"{task.stop_reason}; its process cannot be killed"
            return _epilogs(replace(task, exit=ExitStatus(signal=int(SIGKILL)), reason=reason, unkillable=True))
        case Phase.CLEARING, Timer.GRACE:
            return task, (KillRest(),)
        case _:
            raise InvalidTransitionError(task, timer)


def _epilogs(task: Task) -> Step:
    """The next after-hook that is owed and configured, or the end."""
    owes = task.owes
    while owes:
        point, *rest = owes
        owes = tuple(rest)
        if point in task.hooks:
            phase = Phase.STEP_TASK_EPILOG if point is HookPoint.STEP_TASK_EPILOG else Phase.TASK_EPILOG
            return replace(task, phase=phase, owes=owes), (RunHook(point),)
    task = replace(task, phase=Phase.ENDED, owes=())
    return task, (ReportEnd(task.end),)
