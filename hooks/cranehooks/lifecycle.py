"""One hook run as a pure state machine: what happened goes in, the new state and what to do about it come out.

    READY ──begin──► SPAWNING(i) ──Started──► RUNNING(i) ──ProcessExited──► REAPING(i) ──ContainmentEmpty──► next script | FINISHED
                         │                        │ DeadlineReached, StopRequested   ▲
                         │ SpawnFailed            ▼                                  │ ProcessExited
                         ▼                   TERMINATING(i) ──GraceEnded──► KILLING(i)
                    next script | FINISHED                                     └──KillWaitEnded──► FINISHED

A script ends when its process exits; REAPING kills whatever it left behind, unless the script may keep it and went well. The machine holds no clock: the
interpreter sets the timers it is told to set and feeds back their expiry.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

from cranehooks.model.outcome import Outcome, OutcomeKind, from_wait_status
from cranehooks.model.run import Leftover, RunSpec, TimeoutScope


class Phase(Enum):
    """Where the run stands."""

    READY = "ready"
    SPAWNING = "spawning"
    RUNNING = "running"
    TERMINATING = "terminating"
    """TERM was sent, the grace is running."""
    KILLING = "killing"
    """KILL was sent, the script's own process has not gone yet."""
    REAPING = "reaping"
    """The script's process is gone; what it left behind is being killed."""
    FINISHED = "finished"


class Timer(Enum):
    """At most one timer of each kind is set at any time."""

    DEADLINE = "deadline"
    GRACE = "grace"
    KILL_WAIT = "kill_wait"


class Strength(Enum):
    """The two signals a run is ended with."""

    TERM = "term"
    KILL = "kill"


# ---- events


@dataclass(frozen=True, slots=True)
class Begin:
    """The run's turn has come."""


@dataclass(frozen=True, slots=True)
class Started:
    """The script asked for by `SpawnScript` runs."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The script asked for by `SpawnScript` never ran."""

    errno: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The script's own process ended; its children may live on."""

    wait_status: int


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """`Timer.DEADLINE` ran out."""


@dataclass(frozen=True, slots=True)
class GraceEnded:
    """`Timer.GRACE` ran out."""


@dataclass(frozen=True, slots=True)
class KillWaitEnded:
    """`Timer.KILL_WAIT` ran out and `survivors` live."""

    survivors: tuple[Leftover, ...] = ()


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The run is no longer wanted; `now` skips the grace."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class ContainmentEmpty:
    """Nothing of the script lives; `leftovers` are those that had to be killed for it."""

    leftovers: tuple[Leftover, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftoversKept:
    """What the script left behind lives on and is no longer waited for."""

    kept: tuple[Leftover, ...] = ()


Event = (
    Begin
    | Started
    | SpawnFailed
    | ProcessExited
    | DeadlineReached
    | GraceEnded
    | KillWaitEnded
    | StopRequested
    | ContainmentEmpty
    | LeftoversKept
)


# ---- effects


@dataclass(frozen=True, slots=True)
class SpawnScript:
    """Start script `index`; answer with `Started` or `SpawnFailed`."""

    index: int


@dataclass(frozen=True, slots=True)
class SignalAll:
    """Signal every process of the run."""

    strength: Strength


@dataclass(frozen=True, slots=True)
class SetTimer:
    timer: Timer
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class ReapLeftovers:
    """Kill what the script left behind; answer with `ContainmentEmpty` once nothing lives."""


@dataclass(frozen=True, slots=True)
class KeepLeftovers:
    """Let live what the script left behind; answer with `LeftoversKept`, or as to `ReapLeftovers` where that cannot be."""


@dataclass(frozen=True, slots=True)
class ScriptEnd:
    """How one script that was reached ended. `index` counts in the order of the run's list."""

    index: int
    outcome: Outcome
    leftovers: tuple[Leftover, ...] = ()
    kept: tuple[Leftover, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: one end per script reached, in order."""

    ends: tuple[ScriptEnd, ...]


Effect = SpawnScript | SignalAll | SetTimer | CancelTimer | ReapLeftovers | KeepLeftovers | Finish


class InvalidTransitionError(Exception):
    """An event that cannot happen in this state: the interpreter is broken."""

    def __init__(self, run: "Run", event: Event) -> None:
        super().__init__(f"hook run in phase {run.phase.value} (script {run.index}): unexpected event {event}")
        self.run = run
        self.event = event


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a run: the part of a `RunSpec` that the machine needs."""

    scripts: int
    timeout_s: float | None
    scope: TimeoutScope = TimeoutScope.LIST
    continue_on_failure: bool = False
    grace_s: float = 5.0
    unkillable_after_s: float = 30.0
    keeping: frozenset[int] = frozenset()
    """Scripts that may leave processes behind, by place in the list."""

    @classmethod
    def of(cls, spec: RunSpec) -> "Limits":
        return cls(
            len(spec.scripts),
            spec.timeout_s,
            spec.timeout_scope,
            spec.continue_on_failure,
            spec.grace_s,
            spec.unkillable_after_s,
            frozenset(index for index, path in enumerate(spec.scripts) if path in spec.keeps),
        )


@dataclass(frozen=True, slots=True)
class Run:
    """The state of one run."""

    limits: Limits
    phase: Phase = Phase.READY
    index: int = -1
    """The script that is under way; -1 before the first."""
    ends: tuple[ScriptEnd, ...] = ()
    timers: frozenset[Timer] = frozenset()
    is_budget_spent: bool = False
    """The list's time ran out: no further script starts."""
    is_stopping: bool = False
    """Stop was asked for: no further script starts."""
    verdict: Outcome | None = None
    """The outcome of the script under way once it no longer depends on its exit status, or once that is known."""

    def advance(self, event: Event) -> tuple["Run", tuple[Effect, ...]]:
        """The state after `event`, and the effects to carry out in order.

        Raises:
            InvalidTransitionError: the event cannot happen now.
        """
        match self.phase, event:
            case Phase.READY, Begin():
                return _next_script(self)
            case Phase.READY, StopRequested():
                return _next_script(replace(self, is_stopping=True))
            case Phase.SPAWNING, Started():
                return _started(self)
            case Phase.SPAWNING, SpawnFailed(errno, detail):
                failure = Outcome(OutcomeKind.SPAWN, errno, detail)
                return _script_over(replace(self, verdict=self.verdict or failure), ())
            case Phase.SPAWNING, DeadlineReached() if Timer.DEADLINE in self.timers:
                return _fired(self, Timer.DEADLINE, verdict=_timed_out(self.limits), is_budget_spent=_is_list(self.limits)), ()
            case Phase.SPAWNING, StopRequested():
                return replace(self, is_stopping=True, verdict=self.verdict or Outcome(OutcomeKind.STOPPED)), ()
            case Phase.RUNNING, ProcessExited(status):
                return _reap(replace(self, verdict=from_wait_status(status)))
            case Phase.RUNNING, DeadlineReached() if Timer.DEADLINE in self.timers:
                fired = _fired(self, Timer.DEADLINE, verdict=_timed_out(self.limits), is_budget_spent=_is_list(self.limits))
                return _terminate(fired)
            case Phase.RUNNING, StopRequested(now):
                stopping = replace(self, is_stopping=True, verdict=Outcome(OutcomeKind.STOPPED))
                return _kill(stopping) if now else _terminate(stopping)
            case Phase.TERMINATING | Phase.KILLING, ProcessExited():
                return _reap(self)
            case Phase.TERMINATING, GraceEnded():
                return _kill(_fired(self, Timer.GRACE))
            case Phase.TERMINATING, StopRequested(now=True):
                return _kill(replace(self, is_stopping=True))
            case Phase.TERMINATING | Phase.KILLING | Phase.REAPING, StopRequested():
                return replace(self, is_stopping=True), ()
            case Phase.REAPING, DeadlineReached() if Timer.DEADLINE in self.timers:
                return _fired(self, Timer.DEADLINE, is_budget_spent=True), ()
            case Phase.REAPING, ContainmentEmpty(leftovers):
                state, effects = _cancelled(self, Timer.KILL_WAIT)
                after, more = _script_over(state, leftovers)
                return after, effects + more
            case Phase.REAPING, LeftoversKept(kept) if _keeps(self):
                state, effects = _cancelled(self, Timer.KILL_WAIT)
                after, more = _script_over(state, (), kept)
                return after, effects + more
            case Phase.KILLING | Phase.REAPING, KillWaitEnded(survivors):
                return _give_up(_fired(self, Timer.KILL_WAIT), survivors)
            case Phase.FINISHED, StopRequested():
                return self, ()
            case _:
                raise InvalidTransitionError(self, event)

    def check_invariants(self) -> None:
        """Assert what holds in every reachable state; for tests."""
        assert (self.phase is Phase.FINISHED) <= (not self.timers), "a finished run has no timer"
        assert (Timer.GRACE in self.timers) == (self.phase is Phase.TERMINATING), "the grace runs exactly while terminating"
        assert (Timer.KILL_WAIT in self.timers) == (self.phase in (Phase.KILLING, Phase.REAPING)), "killing is bounded"
        assert (self.phase in (Phase.TERMINATING, Phase.KILLING, Phase.REAPING)) <= (self.verdict is not None)
        assert [end.index for end in self.ends] == list(range(len(self.ends))), "one end per script, in order"
        under_way = self.phase not in (Phase.READY, Phase.FINISHED)
        assert under_way <= (self.index == len(self.ends)), "one script at a time"
        assert (self.phase is Phase.READY) <= (not self.ends)
        assert all(end.outcome.ok and end.index in self.limits.keeping for end in self.ends if end.kept), "only success keeps"
        if not self.limits.continue_on_failure:
            assert all(end.outcome.ok for end in self.ends[:-1]), "the first failure ends the list"


def _is_list(limits: Limits) -> bool:
    return limits.scope is TimeoutScope.LIST


def _timed_out(limits: Limits) -> Outcome:
    return Outcome(OutcomeKind.TIMEOUT, math.ceil(max(limits.timeout_s or 0.0, 0.0)))


def _fired(run: Run, timer: Timer, *, verdict: Outcome | None = None, is_budget_spent: bool = False) -> Run:
    """The state once `timer` has run out; a verdict already reached stands."""
    return replace(
        run,
        timers=run.timers - {timer},
        verdict=run.verdict or verdict,
        is_budget_spent=run.is_budget_spent or is_budget_spent,
    )


def _cancelled(run: Run, *timers: Timer) -> tuple[Run, tuple[Effect, ...]]:
    pending = tuple(timer for timer in timers if timer in run.timers)
    return replace(run, timers=run.timers.difference(pending)), tuple(CancelTimer(timer) for timer in pending)


def _next_script(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    """Spawn the script after `run.index`, record it as unable to start, or finish."""
    index = run.index + 1
    if index >= run.limits.scripts:
        return _finish(run)
    run = replace(run, index=index, verdict=None)
    if run.is_stopping:
        return _script_over(replace(run, verdict=Outcome(OutcomeKind.STOPPED, 0, "stopped before it was started")), ())
    timeout_s = run.limits.timeout_s
    if run.is_budget_spent or (timeout_s is not None and timeout_s <= 0):
        detail = "not started: the time was used up before"
        return _script_over(replace(run, verdict=replace(_timed_out(run.limits), detail=detail)), ())
    effects: tuple[Effect, ...] = (SpawnScript(index),)
    if timeout_s is not None and (index == 0 or not _is_list(run.limits)):
        run = replace(run, timers=run.timers | {Timer.DEADLINE})
        # The clock runs before the spawn: the time it takes belongs to the budget.
        effects = (SetTimer(Timer.DEADLINE, timeout_s), *effects)
    return replace(run, phase=Phase.SPAWNING), effects


def _started(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    if run.verdict is not None:
        return _terminate(run)
    return replace(run, phase=Phase.RUNNING), ()


def _terminate(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    run, effects = _cancelled(run, Timer.DEADLINE)
    run = replace(run, phase=Phase.TERMINATING, timers=run.timers | {Timer.GRACE})
    return run, (*effects, SignalAll(Strength.TERM), SetTimer(Timer.GRACE, run.limits.grace_s))


def _kill(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    run, effects = _cancelled(run, Timer.DEADLINE, Timer.GRACE)
    run = replace(run, phase=Phase.KILLING, timers=run.timers | {Timer.KILL_WAIT})
    return run, (*effects, SignalAll(Strength.KILL), SetTimer(Timer.KILL_WAIT, run.limits.unkillable_after_s))


def _keeps(run: Run) -> bool:
    """Whether the script under way may leave processes behind; one that went wrong may not."""
    return run.index in run.limits.keeping and run.verdict is not None and run.verdict.ok


def _reap(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    """The process is gone. A list's budget keeps running while leftovers are killed; a script's own ends here."""
    run, effects = _cancelled(run, Timer.GRACE) if _is_list(run.limits) else _cancelled(run, Timer.GRACE, Timer.DEADLINE)
    if Timer.KILL_WAIT not in run.timers:
        run = replace(run, timers=run.timers | {Timer.KILL_WAIT})
        effects = (*effects, SetTimer(Timer.KILL_WAIT, run.limits.unkillable_after_s))
    return replace(run, phase=Phase.REAPING), (*effects, KeepLeftovers() if _keeps(run) else ReapLeftovers())


def _script_over(run: Run, leftovers: tuple[Leftover, ...], kept: tuple[Leftover, ...] = ()) -> tuple[Run, tuple[Effect, ...]]:
    """Record the script under way and go on, or finish."""
    verdict = run.verdict
    assert verdict is not None, "a script is over once its outcome is known"
    run = replace(run, ends=(*run.ends, ScriptEnd(run.index, verdict, leftovers, kept)))
    goes_on = verdict.ok or (run.limits.continue_on_failure and verdict.kind is not OutcomeKind.STOPPED)
    if not goes_on:
        return _finish(run)
    run, effects = (run, ()) if _is_list(run.limits) else _cancelled(run, Timer.DEADLINE)
    after, more = _next_script(run)
    return after, effects + more


def _give_up(run: Run, survivors: tuple[Leftover, ...]) -> tuple[Run, tuple[Effect, ...]]:
    names = ", ".join(f"{survivor.pid} ({survivor.command})" for survivor in survivors)
    detail = f"alive {run.limits.unkillable_after_s:g} s after KILL: {names or 'the script itself'}"
    end = ScriptEnd(run.index, Outcome(OutcomeKind.UNKILLABLE, 0, detail), survivors)
    return _finish(replace(run, ends=(*run.ends, end)))


def _finish(run: Run) -> tuple[Run, tuple[Effect, ...]]:
    run, effects = _cancelled(run, *Timer)
    return replace(run, phase=Phase.FINISHED, verdict=None), (*effects, Finish(run.ends))
