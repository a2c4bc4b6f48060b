"""The extern step on one node as a pure state machine: it runs no task, holds the job's place, and runs hooks of the node in it.

NEW ─Begin─► OPENING ─Opened─► READY ─Terminate─► ENDING ─hooks ended, CleanedUp─► ENDED ─► ACKNOWLEDGED | UNDELIVERED
"""

from dataclasses import dataclass, replace
from enum import Enum

from cranehooks.model.points import HookPoint
from csupervisor.step import DELIVER_WITHIN_S
from csupervisor.task import InvalidTransitionError


class Phase(Enum):
    """Where the step stands."""

    NEW = "new"
    OPENING = "opening"
    READY = "ready"
    ENDING = "ending"
    """Hooks that run are being stopped; then whatever is left in the step is killed."""
    ENDED = "ended"
    ACKNOWLEDGED = "acknowledged"
    UNDELIVERED = "undelivered"
    """Asked to stop, and nobody took the end in time."""


# ---- events


@dataclass(frozen=True, slots=True)
class Begin:
    """The supervisor runs."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The step has its cell."""


@dataclass(frozen=True, slots=True)
class OpeningFailed:
    reason: str


@dataclass(frozen=True, slots=True)
class HookOrdered:
    point: HookPoint


@dataclass(frozen=True, slots=True)
class HookStopOrdered:
    point: HookPoint


@dataclass(frozen=True, slots=True)
class HookEnded:
    point: HookPoint


@dataclass(frozen=True, slots=True)
class Terminate:
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The supervisor itself is to go, as when its host shuts down. Repeating it changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """Nothing of the step lives, but for these (pid and command)."""

    unkillable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliveryTimeEnded:
    pass


@dataclass(frozen=True, slots=True)
class EndAcknowledged:
    pass


Event = (
    Begin
    | Opened
    | OpeningFailed
    | HookOrdered
    | HookStopOrdered
    | HookEnded
    | Terminate
    | Stop
    | CleanedUp
    | DeliveryTimeEnded
    | EndAcknowledged
)


# ---- effects


@dataclass(frozen=True, slots=True)
class Open:
    """Make the cell; answer with `Opened` or `OpeningFailed`."""


@dataclass(frozen=True, slots=True)
class ReportReady:
    pass


@dataclass(frozen=True, slots=True)
class RunHook:
    """Answer with `HookEnded`, after its record has been sent."""

    point: HookPoint


@dataclass(frozen=True, slots=True)
class StopHook:
    """`HookEnded` still comes."""

    point: HookPoint


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Kill what is left; answer with `CleanedUp`."""


@dataclass(frozen=True, slots=True)
class ReportEnd:
    reason: str
    unkillable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoundDelivery:
    """Feed `DeliveryTimeEnded` after that time."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left to do."""


Effect = Open | ReportReady | RunHook | StopHook | CleanUp | ReportEnd | BoundDelivery | Exit


@dataclass(frozen=True, slots=True)
class Extern:
    """What is known of the step. `advance` is the only way on."""

    deliver_within_s: float = DELIVER_WITHIN_S
    phase: Phase = Phase.NEW
    ordered: frozenset[HookPoint] = frozenset()
    """Hooks that were asked for: none runs twice."""
    running: frozenset[HookPoint] = frozenset()
    reason: str = ""
    """Why it ends; set as soon as that is known."""
    is_stopping: bool = False

    def check_invariants(self) -> None:
        assert self.running <= self.ordered, self
        assert not self.running or self.phase in (Phase.READY, Phase.ENDING), self
        assert self.phase in (Phase.NEW, Phase.OPENING, Phase.READY) or self.reason, self


Advance = tuple[Extern, tuple[Effect, ...]]
_AFTER_THE_END = (Phase.ENDED, Phase.ACKNOWLEDGED, Phase.UNDELIVERED)


def advance(step: Extern, event: Event) -> Advance:
    """The next state and what to do about it.

    Raises:
        InvalidTransitionError: the event cannot happen here.
    """
    match event:
        case Begin() if step.phase is Phase.NEW:
            return replace(step, phase=Phase.OPENING), (Open(),)
        case Opened() if step.phase is Phase.OPENING:
            # What it was asked to end for meanwhile, it ends for now.
            return _end(step) if step.reason else (replace(step, phase=Phase.READY), (ReportReady(),))
        case OpeningFailed(reason) if step.phase is Phase.OPENING:
            return _end(replace(step, reason=step.reason or reason))
        case HookOrdered(point):
            if step.phase is not Phase.READY or point in step.ordered:
                return step, ()
            return replace(step, ordered=step.ordered | {point}, running=step.running | {point}), (RunHook(point),)
        case HookStopOrdered(point):
            return step, (StopHook(point),) if point in step.running else ()
        case HookEnded(point) if point in step.running:
            step = replace(step, running=step.running - {point})
            return step, (CleanUp(),) if step.phase is Phase.ENDING and not step.running else ()
        case Terminate(reason):
            return _terminate(step, reason)
        case Stop(reason):
            return _stop(step, reason)
        case CleanedUp(unkillable) if step.phase is Phase.ENDING and not step.running:
            bound = (BoundDelivery(step.deliver_within_s),) if step.is_stopping else ()
            return replace(step, phase=Phase.ENDED), (ReportEnd(step.reason, unkillable), *bound)
        case DeliveryTimeEnded() if step.phase in (Phase.ENDED, Phase.ACKNOWLEDGED):
            is_late = step.phase is Phase.ENDED
            return (replace(step, phase=Phase.UNDELIVERED), (Exit(),)) if is_late else (step, ())
        case EndAcknowledged() if step.phase in _AFTER_THE_END:
            return (replace(step, phase=Phase.ACKNOWLEDGED), (Exit(),)) if step.phase is Phase.ENDED else (step, ())
        case _:
            raise InvalidTransitionError(step, event)


def _terminate(step: Extern, reason: str) -> Advance:
    if step.reason or step.phase in _AFTER_THE_END:
        return step, ()
    step = replace(step, reason=reason)
    return _end(step) if step.phase is Phase.READY else (step, ())


def _stop(step: Extern, reason: str) -> Advance:
    if step.is_stopping:
        return step, ()
    step = replace(step, is_stopping=True)
    if step.phase is Phase.ENDED:
        return step, (BoundDelivery(step.deliver_within_s),)
    return _terminate(step, reason)


def _end(step: Extern) -> Advance:
    step = replace(step, phase=Phase.ENDING)
    stops = tuple(StopHook(point) for point in sorted(step.running, key=lambda point: point.name))
    return step, stops or (CleanUp(),)
