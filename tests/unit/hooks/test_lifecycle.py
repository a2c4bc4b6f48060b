"""The machine of one run: single stories, and every order of events against what must always hold."""

import itertools
from collections.abc import Iterator

import pytest

from cranehooks.lifecycle import (
    Begin,
    CancelTimer,
    ContainmentEmpty,
    DeadlineReached,
    Effect,
    Event,
    Finish,
    GraceEnded,
    InvalidTransitionError,
    KeepLeftovers,
    KillWaitEnded,
    LeftoversKept,
    Limits,
    Phase,
    ProcessExited,
    ReapLeftovers,
    Run,
    ScriptEnd,
    SetTimer,
    SignalAll,
    SpawnFailed,
    SpawnScript,
    Started,
    StopRequested,
    Strength,
    Timer,
)
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.run import Leftover, TimeoutScope

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)
TIMEOUT = Outcome(OutcomeKind.TIMEOUT, 60)
STOPPED = Outcome(OutcomeKind.STOPPED)


def play(limits: Limits, *events: Event) -> tuple[Run, list[tuple[Effect, ...]]]:
    run, history = Run(limits), []
    for event in events:
        run, effects = run.advance(event)
        run.check_invariants()
        history.append(effects)
    return run, history


def outcomes(run: Run) -> list[Outcome]:
    return [end.outcome for end in run.ends]


def test_scripts_run_one_after_another() -> None:
    run, history = play(
        Limits(2, 60), Begin(), Started(), ProcessExited(0), ContainmentEmpty(), Started(), ProcessExited(0), ContainmentEmpty()
    )
    assert history == [
        (SetTimer(Timer.DEADLINE, 60), SpawnScript(0)),
        (),
        (SetTimer(Timer.KILL_WAIT, 30.0), ReapLeftovers()),
        (CancelTimer(Timer.KILL_WAIT), SpawnScript(1)),
        (),
        (SetTimer(Timer.KILL_WAIT, 30.0), ReapLeftovers()),
        (CancelTimer(Timer.KILL_WAIT), CancelTimer(Timer.DEADLINE), Finish((ScriptEnd(0, OK), ScriptEnd(1, OK)))),
    ]
    assert run.phase is Phase.FINISHED


def test_no_script_is_no_run() -> None:
    _, history = play(Limits(0, 60), Begin())
    assert history == [(Finish(()),)]


@pytest.mark.parametrize(("goes_on", "expected"), [(False, [EXIT_3]), (True, [EXIT_3, OK])])
def test_first_failure_ends_the_list_unless_told_otherwise(goes_on: bool, expected: list[Outcome]) -> None:
    events: list[Event] = [Begin(), Started(), ProcessExited(3 << 8), ContainmentEmpty()]
    if goes_on:
        events += [Started(), ProcessExited(0), ContainmentEmpty()]
    run, _ = play(Limits(2, 60, continue_on_failure=goes_on), *events)
    assert run.phase is Phase.FINISHED
    assert outcomes(run) == expected


def test_a_script_that_does_not_start_is_a_failure() -> None:
    run, history = play(Limits(2, 60), Begin(), SpawnFailed(2, "does not exist"))
    failure = Outcome(OutcomeKind.SPAWN, 2, "does not exist")
    assert history[-1] == (CancelTimer(Timer.DEADLINE), Finish((ScriptEnd(0, failure),)))
    assert outcomes(run) == [failure]


def test_timeout_is_term_then_grace_then_kill_and_stays_a_timeout() -> None:
    run, history = play(
        Limits(1, 59.5, grace_s=7, unkillable_after_s=9),
        *(Begin(), Started(), DeadlineReached(), GraceEnded(), ProcessExited(0), ContainmentEmpty()),
    )
    assert history[2:4] == [
        (SignalAll(Strength.TERM), SetTimer(Timer.GRACE, 7)),
        (SignalAll(Strength.KILL), SetTimer(Timer.KILL_WAIT, 9)),
    ]
    assert outcomes(run) == [TIMEOUT]


def test_exit_0_on_term_is_still_a_timeout() -> None:
    run, history = play(Limits(1, 60), Begin(), Started(), DeadlineReached(), ProcessExited(0), ContainmentEmpty())
    assert history[3] == (CancelTimer(Timer.GRACE), SetTimer(Timer.KILL_WAIT, 30.0), ReapLeftovers())
    assert outcomes(run) == [TIMEOUT]


def test_a_list_has_one_budget() -> None:
    run, _ = play(
        Limits(3, 60, continue_on_failure=True),
        *(Begin(), Started(), ProcessExited(0), ContainmentEmpty(), Started(), DeadlineReached(), ProcessExited(15)),
        ContainmentEmpty(),
    )
    assert [end.outcome.kind for end in run.ends] == [OutcomeKind.OK, OutcomeKind.TIMEOUT, OutcomeKind.TIMEOUT]
    assert run.ends[2].outcome.detail == "not started: the time was used up before"


def test_a_budget_that_ends_between_scripts_starts_no_further_one() -> None:
    run, history = play(Limits(2, 60), Begin(), Started(), ProcessExited(0), DeadlineReached(), ContainmentEmpty())
    assert SpawnScript(1) not in history[-1]
    assert [end.outcome.kind for end in run.ends] == [OutcomeKind.OK, OutcomeKind.TIMEOUT]


def test_each_script_has_its_own_time_when_the_scope_is_script() -> None:
    _, history = play(
        Limits(2, 60, TimeoutScope.SCRIPT), Begin(), Started(), ProcessExited(0), ContainmentEmpty(), Started(), ProcessExited(0)
    )
    assert history[2] == (CancelTimer(Timer.DEADLINE), SetTimer(Timer.KILL_WAIT, 30.0), ReapLeftovers())
    assert history[3][-2:] == (SetTimer(Timer.DEADLINE, 60), SpawnScript(1))


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_no_time_left_spawns_nothing(timeout_s: float) -> None:
    run, history = play(Limits(2, timeout_s), Begin())
    assert [type(effect) for effect in history[0]] == [Finish]
    assert [end.outcome.kind for end in run.ends] == [OutcomeKind.TIMEOUT]


def test_no_limit_sets_no_deadline() -> None:
    _, history = play(Limits(1, None), Begin())
    assert history == [(SpawnScript(0),)]


def test_what_survives_kill_is_unkillable_and_ends_the_run() -> None:
    stuck = Leftover(7, "dd")
    for events in (
        (Started(), ProcessExited(0), KillWaitEnded((stuck,))),
        (Started(), StopRequested(now=True), KillWaitEnded((stuck,))),
    ):
        run, _ = play(Limits(2, 60, continue_on_failure=True), Begin(), *events)
        assert run.phase is Phase.FINISHED
        assert run.ends == (ScriptEnd(0, Outcome(OutcomeKind.UNKILLABLE, 0, "alive 30 s after KILL: 7 (dd)"), (stuck,)),)


def test_leftovers_are_named_and_change_no_outcome() -> None:
    daemon = Leftover(7, "sleep 3600")
    run, _ = play(Limits(1, 60), Begin(), Started(), ProcessExited(0), ContainmentEmpty((daemon,)))
    assert run.ends == (ScriptEnd(0, OK, (daemon,)),)


def test_what_a_script_may_keep_is_left_alone_and_told() -> None:
    daemon = Leftover(7, "exporter")
    run, history = play(
        Limits(2, 60, keeping=frozenset({0})),
        Begin(), Started(), ProcessExited(0), LeftoversKept((daemon,)), Started(), ProcessExited(0), ContainmentEmpty(),
    )  # fmt: skip
    assert history[2][-1] == KeepLeftovers()
    assert history[5][-1] == ReapLeftovers(), "the other script keeps nothing"
    assert run.ends == (ScriptEnd(0, OK, (), (daemon,)), ScriptEnd(1, OK))


@pytest.mark.parametrize(
    "story",
    [
        (ProcessExited(3 << 8),),
        (ProcessExited(9),),
        (DeadlineReached(), ProcessExited(0)),
        (StopRequested(), ProcessExited(0)),
    ],
)
def test_a_script_that_went_wrong_keeps_nothing(story: tuple[Event, ...]) -> None:
    run, history = play(Limits(1, 60, keeping=frozenset({0})), Begin(), Started(), *story)
    assert history[-1][-1] == ReapLeftovers()
    with pytest.raises(InvalidTransitionError):
        run.advance(LeftoversKept())


@pytest.mark.parametrize("goes_on", [False, True])
def test_stop_is_nobodys_failure_and_starts_nothing_further(goes_on: bool) -> None:
    run, history = play(
        Limits(2, 60, continue_on_failure=goes_on), Begin(), Started(), StopRequested(), ProcessExited(15), ContainmentEmpty()
    )
    assert history[2] == (CancelTimer(Timer.DEADLINE), SignalAll(Strength.TERM), SetTimer(Timer.GRACE, 5.0))
    assert outcomes(run) == [STOPPED]


def test_a_second_stop_kills_now() -> None:
    _, history = play(Limits(1, 60), Begin(), Started(), StopRequested(), StopRequested(now=True))
    assert history[-1] == (CancelTimer(Timer.GRACE), SignalAll(Strength.KILL), SetTimer(Timer.KILL_WAIT, 30.0))


def test_stop_between_scripts_tells_that_the_next_was_not_started() -> None:
    run, _ = play(Limits(2, 60), Begin(), Started(), ProcessExited(0), StopRequested(), ContainmentEmpty())
    assert [end.outcome.kind for end in run.ends] == [OutcomeKind.OK, OutcomeKind.STOPPED]


def test_stop_after_the_last_script_ended_comes_too_late() -> None:
    run, _ = play(Limits(1, 60), Begin(), Started(), ProcessExited(0), StopRequested(), ContainmentEmpty())
    assert outcomes(run) == [OK]


@pytest.mark.parametrize("event", [Started(), ProcessExited(0), DeadlineReached(), GraceEnded(), ContainmentEmpty()])
def test_what_cannot_happen_is_an_error_that_names_both(event: Event) -> None:
    with pytest.raises(InvalidTransitionError, match="phase ready") as caught:
        Run(Limits(1, 60)).advance(event)
    assert caught.value.event is event


ALPHABET: tuple[Event, ...] = (
    Begin(),
    Started(),
    SpawnFailed(13),
    ProcessExited(0),
    ProcessExited(3 << 8),
    DeadlineReached(),
    GraceEnded(),
    KillWaitEnded(),
    StopRequested(),
    StopRequested(now=True),
    ContainmentEmpty(),
    LeftoversKept(),
)


class World:
    """What the effects of a run amount to outside of the machine."""

    def __init__(self) -> None:
        self.timers: set[Timer] = set()
        self.spawned: list[int] = []
        self.signals: list[Strength] = []
        self.finished: Finish | None = None

    def carry_out(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            assert self.finished is None, "nothing follows the end"
            match effect:
                case SetTimer(timer, after_s):
                    assert timer not in self.timers, "a timer is set once"
                    assert after_s > 0
                    self.timers.add(timer)
                case CancelTimer(timer):
                    self.timers.remove(timer)
                case SpawnScript(index):
                    self.spawned.append(index)
                    self.signals.clear()
                case SignalAll(strength):
                    self.signals.append(strength)
                case Finish():
                    self.finished = effect
                case ReapLeftovers() | KeepLeftovers():
                    pass


def stories(limits: Limits, length: int) -> Iterator[tuple[Run, World, tuple[Event, ...]]]:
    """Every sequence of events up to `length` that can happen, with what came of it."""

    def extend(
        run: Run, told: tuple[Event, ...], effects: tuple[tuple[Effect, ...], ...]
    ) -> Iterator[tuple[Run, World, tuple[Event, ...]]]:
        world = World()
        timers_of = {DeadlineReached: Timer.DEADLINE, GraceEnded: Timer.GRACE, KillWaitEnded: Timer.KILL_WAIT}
        for event, answer in zip(told, effects, strict=True):
            timer = timers_of.get(type(event))
            if timer is not None:
                world.timers.remove(timer)
            world.carry_out(answer)
        yield run, world, told
        if len(told) == length:
            return
        for event in ALPHABET:
            try:
                after, answer = run.advance(event)
            except InvalidTransitionError:
                continue
            yield from extend(after, (*told, event), (*effects, answer))

    yield from extend(Run(limits), (), ())


@pytest.mark.parametrize("scope", TimeoutScope)
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(("timeout_s", "keeping"), [(60.0, ()), (None, ()), (60.0, (0,)), (60.0, (1,))])
def test_every_short_story_keeps_the_promises(
    scope: TimeoutScope, goes_on: bool, timeout_s: float | None, keeping: tuple[int, ...]
) -> None:
    limits = Limits(2, timeout_s, scope, continue_on_failure=goes_on, keeping=frozenset(keeping))
    ended = 0
    for run, world, told in stories(limits, 7):
        run.check_invariants()
        assert world.timers == run.timers
        assert (world.finished is not None) == (run.phase is Phase.FINISHED)
        assert world.spawned == sorted(set(world.spawned)), "each script starts at most once, in order"
        assert world.signals in ([], [Strength.TERM], [Strength.KILL], [Strength.TERM, Strength.KILL]), "gentle first, each once"
        stop = next((at for at, event in enumerate(told) if isinstance(event, StopRequested)), None)
        if stop is not None:
            _, before = play(limits, *told[:stop])
            spawned_before = [effect for effects in before for effect in effects if isinstance(effect, SpawnScript)]
            assert len(world.spawned) == len(spawned_before), "nothing starts after a stop"
        if world.finished is not None:
            ended += 1
            assert world.finished.ends == run.ends
            assert run.ends, "a run of scripts tells of at least one"
            assert len(world.spawned) <= len(run.ends)
        elif run.phase is not Phase.READY:
            assert any(_goes_on(run, event) for event in ALPHABET), "no state is a dead end"
    assert ended > 100


def _goes_on(run: Run, event: Event) -> bool:
    try:
        after, _ = run.advance(event)
    except InvalidTransitionError:
        return False
    return after != run


def test_a_deadline_while_a_script_runs_always_makes_a_timeout() -> None:
    tails: list[Event] = [
        ProcessExited(0),
        ProcessExited(9),
        GraceEnded(),
        ContainmentEmpty(),
        StopRequested(),
        StopRequested(now=True),
    ]
    seen = 0
    for tail in itertools.product(tails, repeat=4):
        run, _ = play(Limits(1, 60), Begin(), Started(), DeadlineReached())
        try:
            for event in tail:
                run, _ = run.advance(event)
        except InvalidTransitionError:
            continue
        if run.phase is Phase.FINISHED:
            seen += 1
            assert [end.outcome.kind for end in run.ends] == [OutcomeKind.TIMEOUT]
    assert seen > 0
