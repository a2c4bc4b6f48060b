"""The promises of the extern step's machine, over every order in which anything can happen."""

import pytest

from cranehooks.model.points import HookPoint
from csupervisor.extern import (
    Begin,
    BoundDelivery,
    CleanedUp,
    CleanUp,
    DeliveryTimeEnded,
    Effect,
    EndAcknowledged,
    Event,
    Exit,
    Extern,
    HookEnded,
    HookOrdered,
    HookStopOrdered,
    Open,
    Opened,
    OpeningFailed,
    Phase,
    ReportEnd,
    ReportReady,
    RunHook,
    Stop,
    StopHook,
    Terminate,
    advance,
)
from csupervisor.task import InvalidTransitionError

PROLOG, EPILOG = HookPoint.PROLOG, HookPoint.EPILOG
EVENTS: tuple[Event, ...] = (
    Begin(),
    Opened(),
    OpeningFailed("no cgroup"),
    HookOrdered(PROLOG),
    HookOrdered(EPILOG),
    HookStopOrdered(PROLOG),
    HookEnded(PROLOG),
    HookEnded(EPILOG),
    Terminate("the job is over"),
    Stop("asked to stop"),
    CleanedUp(),
    DeliveryTimeEnded(),
    EndAcknowledged(),
)


def after(*events: Event) -> tuple[Extern, list[Effect]]:
    """The state after `events`, and the effects of the last one."""
    step, effects = Extern(), tuple[Effect, ...]()
    for event in events:
        step, effects = advance(step, event)
        step.check_invariants()
    return step, list(effects)


def test_every_order_of_events_keeps_the_promises() -> None:
    known: dict[Extern, tuple[Effect, ...]] = {Extern(): ()}
    fresh = [Extern()]
    while fresh:
        step = fresh.pop()
        told = known[step]
        for event in EVENTS:
            try:
                following, effects = advance(step, event)
            except InvalidTransitionError:
                assert following_is_refused(step, event)
                continue
            following.check_invariants()
            for effect in effects:
                match effect:
                    case RunHook(point):
                        assert step.phase is Phase.READY
                        assert point not in step.ordered, "a hook runs once"
                    case CleanUp():
                        assert not following.running, "what runs is stopped first"
                    case ReportEnd():
                        assert following.reason
                        assert not following.running
                    case Exit():
                        assert step.phase is Phase.ENDED
                    case _:
                        pass
            if following not in known:
                known[following] = (*told, *effects)
                fresh.append(following)
    assert {step.phase for step in known} == set(Phase)


def following_is_refused(step: Extern, event: Event) -> bool:
    """Only what answers an effect that was not asked for is refused; what craned says never is."""
    del step
    return not isinstance(event, HookOrdered | HookStopOrdered | Terminate | Stop)


def test_a_hook_runs_once_however_often_it_is_asked_for() -> None:
    _, effects = after(Begin(), Opened())
    assert effects == [ReportReady()]
    _, effects = after(Begin(), Opened(), HookOrdered(PROLOG))
    assert effects == [RunHook(PROLOG)]
    _, effects = after(Begin(), Opened(), HookOrdered(PROLOG), HookOrdered(PROLOG))
    assert effects == []
    _, effects = after(Begin(), Opened(), HookOrdered(PROLOG), HookEnded(PROLOG), HookOrdered(PROLOG))
    assert effects == []
    _, effects = after(Begin(), Opened(), HookOrdered(PROLOG), HookEnded(PROLOG), HookOrdered(EPILOG))
    assert effects == [RunHook(EPILOG)]


def test_the_end_stops_what_runs_and_cleans_up_after_it() -> None:
    begun = (Begin(), Opened(), HookOrdered(PROLOG))
    _, effects = after(*begun, Terminate("the job is over"))
    assert effects == [StopHook(PROLOG)]
    _, effects = after(*begun, Terminate("the job is over"), HookEnded(PROLOG))
    assert effects == [CleanUp()]
    step, effects = after(*begun, Terminate("the job is over"), HookEnded(PROLOG), CleanedUp(("7 dd",)))
    assert (step.phase, effects) == (Phase.ENDED, [ReportEnd("the job is over", ("7 dd",))])


def test_a_step_that_cannot_be_opened_or_is_ended_before_ends_without_having_been_ready() -> None:
    assert after(Begin())[1] == [Open()]
    assert after(Begin(), OpeningFailed("no cgroup"))[1] == [CleanUp()]
    assert after(Begin(), Terminate("over"), Opened())[1] == [CleanUp()]


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_supervisor_that_is_asked_to_stop_waits_only_so_long_for_a_craned(is_delivered: bool) -> None:
    step, effects = after(Begin(), Opened(), Stop("shutdown"), CleanedUp())
    assert effects == [ReportEnd("shutdown", ()), BoundDelivery(step.deliver_within_s)]
    last = EndAcknowledged() if is_delivered else DeliveryTimeEnded()
    step, effects = after(Begin(), Opened(), Stop("shutdown"), CleanedUp(), last)
    assert (step.phase, effects) == (Phase.ACKNOWLEDGED if is_delivered else Phase.UNDELIVERED, [Exit()])
