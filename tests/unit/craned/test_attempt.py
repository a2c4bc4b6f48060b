"""The promises of an attempt on its node, over every order in which anything can happen."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craned.attempts.attempt import AttemptState, Phase, PrologState, StepPhase, advance
from craned.attempts.effects import (
    Effect,
    EndExtern,
    KillProcesses,
    ReportProlog,
    ReportReleased,
    ReportStepEnded,
    ReportStepStarted,
    ResumeEpilog,
    ResumeProlog,
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
from cranehooks.model.ids import EXTERN_STEP, Attempt, AttemptKey, JobId, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun

KEY = AttemptKey(JobId(42), Attempt(1))
NODE = NodeName("cn01")


def a_step(step_id: str, *tasks: int) -> StepSpec:
    return StepSpec(StepId(step_id), ("true",), len(tasks), {NODE: tuple(TaskId(task) for task in tasks)})


def a_run(point: HookPoint, outcome: Outcome = OK) -> HookRun:
    return HookRun(HookKey(point, KEY.job_id, KEY.attempt, NODE), "root", 0.0, 0.0, outcome)


BATCH, STEP_0 = a_step("batch", 0), a_step("0", 0, 1)
PROLOG_OK = PrologEnded(a_run(HookPoint.PROLOG))
PROLOG_FAILED = PrologEnded(a_run(HookPoint.PROLOG, Outcome(OutcomeKind.TIMEOUT, 60)), "Prolog 20-gpu.sh timeout after 60 s")
PROLOG_STOPPED = PrologEnded(a_run(HookPoint.PROLOG, Outcome(OutcomeKind.STOPPED)))
EPILOG_OK = EpilogEnded(a_run(HookPoint.EPILOG))
RELEASE = ReleaseRequested(ExitStatus(3), "cancelled by its user")
REQUESTS = (
    PrepareRequested(),
    StepRequested(BATCH),
    StepRequested(STEP_0),
    SignalRequested(STEP_0.step_id, terminate=True),
    RELEASE,
)
EVENTS: tuple[Event, ...] = (
    *REQUESTS,
    SignalRequested(STEP_0.step_id, signal=10),
    PrologStarted(),
    PROLOG_OK,
    PROLOG_FAILED,
    PROLOG_STOPPED,
    TasksStarted(BATCH.step_id),
    TasksStarted(STEP_0.step_id),
    StepEnded(BATCH.step_id, (TaskEnd(TaskId(0)),)),
    StepEnded(STEP_0.step_id, (), "supervisor died"),
    ProcessesGone(),
    EpilogStarted(),
    EPILOG_OK,
    NodeRebooted(),
)
EXTERN_STARTED, EXTERN_ENDED = TasksStarted(EXTERN_STEP), StepEnded(EXTERN_STEP, (), "supervisor died")
ALL_EVENTS = (*EVENTS, EXTERN_STARTED, EXTERN_ENDED)


def new(*, awaits_prolog: bool = False, contains: bool = False, runs_in_job: bool = False) -> AttemptState:
    return AttemptState(KEY, NODE, awaits_prolog, contains=contains or runs_in_job, runs_in_job=runs_in_job)


def after(*events: Event, state: AttemptState | None = None) -> tuple[AttemptState, list[Effect]]:
    """The state after `events`, and the effects of the last one."""
    state = new() if state is None else state
    effects: tuple[Effect, ...] = ()
    for event in events:
        state, effects = advance(state, event)
    return state, list(effects)


@dataclass(frozen=True)
class Watched:
    """A state with what has been seen on the way to it."""

    state: AttemptState
    prologs: int = 0
    epilogs: int = 0
    started: tuple[StepId, ...] = ()
    ended: tuple[StepId, ...] = ()
    is_released: bool = False
    externs: int = 0
    is_extern_alive: bool = False


def watch(before: Watched, event: Event) -> Watched:
    """Advances and checks every promise on the way."""
    state, effects = advance(before.state, event)
    seen = replace(before, state=state, is_released=before.is_released or isinstance(event, ReleaseRequested))
    for effect in effects:
        match effect:
            case RunProlog():
                seen = replace(seen, prologs=seen.prologs + 1)
                assert not seen.is_released
            case RunEpilog():
                seen = replace(seen, epilogs=seen.epilogs + 1)
                assert seen.is_released
                assert not state.steps
                assert not state.prolog.is_in_progress
                assert state.runs_in_job or not seen.is_extern_alive
            case StartExtern():
                # A reboot before anything has run in it brings a new one.
                seen = replace(seen, externs=seen.externs + 1, is_extern_alive=True)
                assert state.contains
                assert seen.externs == 1 or isinstance(event, NodeRebooted)
            case EndExtern():
                assert seen.is_released
                assert not state.steps
                assert seen.is_extern_alive
                assert seen.epilogs == 1 if state.runs_in_job else seen.epilogs == 0
            case ResumeProlog() | ResumeEpilog():
                raise AssertionError("only a restart resumes anything")
            case ReportStepEnded(step_id) if step_id == EXTERN_STEP:
                assert seen.is_extern_alive
                seen = replace(seen, is_extern_alive=False)
            case StartSupervisor(step):
                assert state.prolog is PrologState.SUCCEEDED
                assert not seen.is_released
                assert step.step_id not in seen.started + seen.ended
                seen = replace(seen, started=(*seen.started, step.step_id))
            case ReportStepEnded(step_id, tasks, reason):
                assert step_id not in seen.ended
                seen = replace(seen, ended=(*seen.ended, step_id))
                if step_id not in seen.started:
                    assert reason
                    assert all(task.cancelled and task.reason for task in tasks)
            case ReportReleased():
                assert state.phase is Phase.RELEASED
                assert not seen.is_extern_alive
                assert set(seen.started) <= set(seen.ended)
            case TerminateStep(step_id) | SignalStep(step_id):
                assert step_id in seen.started
                assert step_id not in seen.ended
            case StopProlog() | KillProcesses():
                assert seen.is_released
            case ReportProlog() | ReportStepStarted():
                pass
    assert seen.prologs <= 1
    assert seen.epilogs <= 1
    return seen


def identity(watched: Watched) -> Hashable:
    """All that can make a difference to what follows."""
    state = watched.state
    steps = tuple((step.spec.step_id, step.phase, step.is_terminating, step.reason) for step in state.steps)
    return (
        (state.prolog, state.prolog_failure, state.extern, steps, state.ended_steps),
        (state.phase, state.reason, state.exit, state.unkillable, state.usage, state.epilog is None),
        (watched.prologs, watched.epilogs, frozenset(watched.started), frozenset(watched.ended)),
        (watched.is_released, min(watched.externs, 1), watched.is_extern_alive),
    )


def reachable(first: AttemptState) -> Iterator[Watched]:
    """Every state that any order of any events leads to."""
    start = Watched(first)
    known, fresh = {identity(start)}, [start]
    while fresh:
        watched = fresh.pop()
        yield watched
        for event in ALL_EVENTS if first.contains else EVENTS:
            following = watch(watched, event)
            if identity(following) not in known:
                known.add(identity(following))
                fresh.append(following)


@pytest.mark.parametrize(
    "first",
    [new(), new(awaits_prolog=True), new(contains=True), new(runs_in_job=True), new(awaits_prolog=True, runs_in_job=True)],
    ids=["plain", "awaits", "Contain", "RunInJob", "RunInJob, awaits"],
)
def test_every_order_of_events_keeps_the_promises_and_can_still_be_released(first: AttemptState) -> None:
    states = list(reachable(first))
    assert len(states) > 100
    for watched in states:
        events: tuple[Event, ...] = (
            RELEASE,
            PROLOG_STOPPED,
            *(StepEnded(step.step_id, ()) for step in (BATCH, STEP_0)),
            *(() if first.runs_in_job else (EXTERN_ENDED,)),
            ProcessesGone(),
            EpilogStarted(),
            EPILOG_OK,
            EXTERN_ENDED,
            ProcessesGone(),
        )
        end = watched
        for event in events:
            end = watch(end, event)
        assert end.state.phase is Phase.RELEASED
        assert end.epilogs == 1
        assert set(end.started) <= set(end.ended)


@pytest.mark.parametrize("awaits_prolog", [False, True])
def test_a_release_at_any_moment_stops_what_runs_and_only_that(awaits_prolog: bool) -> None:
    for watched in reachable(new(awaits_prolog=awaits_prolog)):
        before = watched.state
        if before.phase is not Phase.HELD:
            continue
        _, effects = advance(before, RELEASE)
        is_stopped = before.prolog.is_in_progress and not (awaits_prolog and before.prolog is PrologState.RUNNING)
        assert effects.count(StopProlog()) == is_stopped
        terminated = [effect.step_id for effect in effects if isinstance(effect, TerminateStep)]
        assert terminated == [
            step.spec.step_id for step in before.steps if step.phase is not StepPhase.WAITING and not step.is_terminating
        ]
        is_idle = not before.prolog.is_in_progress and all(step.phase is StepPhase.WAITING for step in before.steps)
        assert effects.count(KillProcesses()) == is_idle, "the clean-up waits for what still runs"


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_long_random_histories_keep_the_promises(events: list[Event]) -> None:
    watched = Watched(new())
    for event in events:
        watched = watch(watched, event)
    for request in REQUESTS:
        if watched.state.phase is Phase.RELEASED:
            assert advance(watched.state, request) == (watched.state, (ReportReleased(watched.state.epilog),))


def test_a_repeat_of_any_request_changes_nothing() -> None:
    for watched in reachable(new()):
        for request in REQUESTS:
            once, _ = advance(watched.state, request)
            again, effects = advance(once, request)
            assert again == once
            assert all(isinstance(effect, ReportReleased) for effect in effects)


def test_the_first_step_starts_the_prolog_and_the_second_waits_for_it() -> None:
    state, effects = after(StepRequested(BATCH))
    assert effects == [RunProlog()]
    state, effects = after(PrologStarted(), StepRequested(STEP_0), state=state)
    assert effects == []
    state, effects = after(PROLOG_OK, state=state)
    assert effects == [ReportProlog(PROLOG_OK.run), StartSupervisor(BATCH), StartSupervisor(STEP_0)]
    assert [step.phase for step in state.steps] == [StepPhase.STARTING, StepPhase.STARTING]


def test_a_failed_prolog_ends_the_waiting_steps_and_every_later_one() -> None:
    state, effects = after(StepRequested(STEP_0), PrologStarted(), PROLOG_FAILED)
    ends = tuple(TaskEnd(TaskId(task), ExitStatus(1), cancelled=True, reason=PROLOG_FAILED.failure) for task in (0, 1))
    assert effects == [ReportProlog(PROLOG_FAILED.run), ReportStepEnded(STEP_0.step_id, ends, PROLOG_FAILED.failure)]
    _, effects = after(StepRequested(BATCH), state=state)
    assert [type(effect) for effect in effects] == [ReportStepEnded]


def test_a_release_during_the_prolog_stops_it_and_runs_the_epilog_after_it() -> None:
    state, effects = after(StepRequested(BATCH), PrologStarted(), RELEASE)
    assert effects[0] == StopProlog()
    assert isinstance(effects[1], ReportStepEnded)
    assert effects[1].reason == RELEASE.reason
    state, effects = after(PROLOG_STOPPED, state=state)
    assert effects == [ReportProlog(PROLOG_STOPPED.run), KillProcesses()]
    _, effects = after(ProcessesGone(("7 dd",)), state=state)
    assert effects == [RunEpilog(RELEASE.exit, RELEASE.reason, ("7 dd",))]


def test_with_slurms_way_a_running_prolog_is_awaited_and_a_queued_one_stopped() -> None:
    _, effects = after(PrepareRequested(), PrologStarted(), RELEASE, state=new(awaits_prolog=True))
    assert effects == []
    _, effects = after(PrepareRequested(), RELEASE, state=new(awaits_prolog=True))
    assert effects == [StopProlog()]


def test_a_release_ends_running_steps_before_anything_is_cleaned() -> None:
    state, effects = after(StepRequested(STEP_0), PROLOG_OK, TasksStarted(STEP_0.step_id), RELEASE)
    assert effects == [TerminateStep(STEP_0.step_id, RELEASE.reason)]
    _, effects = after(StepEnded(STEP_0.step_id, ()), state=state)
    assert effects == [ReportStepEnded(STEP_0.step_id, (), RELEASE.reason), KillProcesses()]


def test_an_attempt_that_was_never_here_gets_its_epilog() -> None:
    _, effects = after(RELEASE)
    assert effects == [KillProcesses()]


def test_after_the_release_every_request_repeats_its_report() -> None:
    state, _ = after(RELEASE, ProcessesGone(), EpilogStarted(), EPILOG_OK)
    for request in REQUESTS:
        assert after(request, state=state) == (state, [ReportReleased(EPILOG_OK.run)])


def test_a_reboot_ends_steps_and_lets_a_broken_off_epilog_run_again() -> None:
    state, effects = after(StepRequested(BATCH), PROLOG_OK, TasksStarted(BATCH.step_id), NodeRebooted())
    assert effects == [
        ReportStepEnded(
            BATCH.step_id, (TaskEnd(TaskId(0), ExitStatus(signal=9), reason="the node rebooted"),), "the node rebooted"
        )
    ]
    _, effects = after(StepRequested(STEP_0), state=state)
    assert isinstance(effects[0], ReportStepEnded)
    state, _ = after(RELEASE, ProcessesGone(), EpilogStarted(), NodeRebooted())
    assert state.phase is Phase.EPILOG_QUEUED


def test_what_steps_used_adds_up_and_the_whole_job_tells_more() -> None:
    first, second = Usage(1.0, 100, 1), Usage(2.0, 50, 0)
    started = (PrepareRequested(), PrologStarted(), PROLOG_OK, StepRequested(BATCH), StepRequested(STEP_0))
    state, effects = after(*started, StepEnded(BATCH.step_id, (), "", first))
    assert effects[0] == ReportStepEnded(BATCH.step_id, (), "", first)
    state, _ = after(StepEnded(STEP_0.step_id, (), "", second), RELEASE, state=state)
    assert state.usage == Usage(3.0, 100, 1)
    ended = (EpilogStarted(), EPILOG_OK)
    silent, effects = after(ProcessesGone(), *ended, state=state)
    assert effects == [ReportReleased(EPILOG_OK.run, Usage(3.0, 100, 1))]
    assert advance(silent, RELEASE)[1] == (ReportReleased(EPILOG_OK.run, Usage(3.0, 100, 1)),)
    # Of the kills some controllers tell in the parts only.
    _, effects = after(ProcessesGone((), Usage(3.5, 120, 0)), *ended, state=state)
    assert effects == [ReportReleased(EPILOG_OK.run, Usage(3.5, 120, 1))]


def test_contain_has_its_extern_step_from_the_first_request_to_the_end_of_the_last_step() -> None:
    state, effects = after(StepRequested(BATCH), state=new(contains=True))
    assert effects == [StartExtern(), RunProlog()]
    state, effects = after(EXTERN_STARTED, state=state)
    assert effects == [ReportStepStarted(EXTERN_STEP)]
    state, _ = after(PrologStarted(), PROLOG_OK, TasksStarted(BATCH.step_id), state=state)
    assert [step.spec for step in state.steps] == [BATCH], "it is no step of the user's"
    state, effects = after(RELEASE, state=state)
    assert effects == [TerminateStep(BATCH.step_id, RELEASE.reason)]
    state, effects = after(StepEnded(BATCH.step_id, ()), state=state)
    assert effects == [ReportStepEnded(BATCH.step_id, (), RELEASE.reason), EndExtern(RELEASE.reason)]
    _, effects = after(StepEnded(EXTERN_STEP, (), RELEASE.reason), state=state)
    assert effects == [ReportStepEnded(EXTERN_STEP, (), RELEASE.reason), KillProcesses()]


def test_under_run_in_job_the_extern_step_goes_last() -> None:
    state, effects = after(PrepareRequested(), EXTERN_STARTED, PrologStarted(), PROLOG_OK, RELEASE, state=new(runs_in_job=True))
    assert effects == [KillProcesses()]
    state, effects = after(ProcessesGone(), state=state)
    assert effects == [RunEpilog(RELEASE.exit, RELEASE.reason)]
    state, effects = after(EpilogStarted(), EPILOG_OK, state=state)
    assert (state.phase, effects) == (Phase.CLOSING, [EndExtern(RELEASE.reason)])
    state, effects = after(StepEnded(EXTERN_STEP, ()), state=state)
    assert effects == [ReportStepEnded(EXTERN_STEP, (), ""), KillProcesses()]
    state, effects = after(ProcessesGone(), state=state)
    assert (state.phase, effects) == (Phase.RELEASED, [ReportReleased(EPILOG_OK.run)])


def test_run_in_job_gets_its_step_for_the_epilog_where_nothing_was_asked_for_before() -> None:
    _, effects = after(RELEASE, ProcessesGone(), state=new(runs_in_job=True))
    assert effects == [StartExtern(), RunEpilog(RELEASE.exit, RELEASE.reason)]
    _, effects = after(RELEASE, ProcessesGone(), state=new(contains=True))
    assert effects == [RunEpilog(RELEASE.exit, RELEASE.reason)]


def test_an_extern_step_that_dies_is_told_and_the_job_goes_on() -> None:
    state, effects = after(PrepareRequested(), EXTERN_STARTED, PROLOG_OK, EXTERN_ENDED, state=new(runs_in_job=True))
    assert effects == [ReportStepEnded(EXTERN_STEP, (), "supervisor died")]
    state, effects = after(StepRequested(STEP_0), state=state)
    assert effects == [StartSupervisor(STEP_0)]
    state, effects = after(RELEASE, StepEnded(STEP_0.step_id, ()), ProcessesGone(), state=state)
    assert effects == [RunEpilog(RELEASE.exit, RELEASE.reason)]
    _, effects = after(EPILOG_OK, state=state)
    assert effects == [KillProcesses()]
