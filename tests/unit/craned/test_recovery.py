"""A crash after any event: the journal gives the state back, and what follows keeps the promises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craned.attempts.attempt import AttemptState, ExternState, Phase, PrologState, advance
from craned.attempts.effects import (
    Effect,
    EndExtern,
    KillProcesses,
    ReportReleased,
    ResumeEpilog,
    ResumeProlog,
    RunEpilog,
    RunProlog,
    StartExtern,
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
    StepRequested,
)
from craned.attempts.records import (
    AttemptForgotten,
    AttemptSeen,
    Booted,
    EventHappened,
    RecordError,
    ReportQueued,
    ReportsAcknowledged,
    to_record,
)
from craned.attempts.recovery import Continuation, continuation, remember, tombstone
from craned.attempts.reports import Report, ReportHook
from cranehooks.journal import Record
from cranehooks.model.ids import EXTERN_STEP
from cranehooks.model.job import JobKind, JobOnNode, JobSpec, NodeShare
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from tests.unit.craned.test_attempt import (
    BATCH,
    EPILOG_OK,
    EVENTS,
    KEY,
    NODE,
    PROLOG_OK,
    RELEASE,
    STEP_0,
    Watched,
    a_run,
    after,
    new,
    reachable,
    watch,
)

JOB = JobOnNode(
    KEY.job_id,
    KEY.attempt,
    JobSpec(JobKind.BATCH, 1000, 1000, "alice", environment={"A": "b"}, script="#!/bin/sh\n"),
    (NODE,),
    NodeShare(NODE, 1, 1.0, 0),
    "test",
)
HOOKS = HookSettings(
    "crane-requeue",
    {HookPoint.PROLOG: ("/etc/crane/p.sh",)},
    {HookPoint.PROLOG: 60.0, HookPoint.EPILOG: None},
    frozenset({"Serial"}),
)


def written(*events: Event) -> list[Record]:
    """A journal of these events, as `Ledger` writes it, through JSON."""
    records = [to_record(Booted("boot-1")), to_record(AttemptSeen(JOB, HOOKS, new()))]
    state, next_id = new(), 1
    for event in events:
        state, effects = advance(state, event)
        told = sum(type(effect).__name__.startswith("Report") for effect in effects)
        records.append(to_record(EventHappened(KEY, event, 1.5, tuple(range(next_id, next_id + told)))))
        next_id += told
    parsed: list[Record] = json.loads(json.dumps(records))
    return parsed


def go_on(state: AttemptState, *, has_rebooted: bool = False) -> tuple[AttemptState, Continuation]:
    after_restart = continuation(state, "root", 2.5, has_rebooted=has_rebooted)
    for event in after_restart.events:
        state, _ = advance(state, event)
    return state, after_restart


@given(st.lists(st.sampled_from([event for event in EVENTS if not isinstance(event, NodeRebooted)]), max_size=20), st.booleans())
def test_a_restart_at_any_point_keeps_the_promises(events: list[Event], has_rebooted: bool) -> None:
    watched = Watched(new())
    for event in events:
        watched = watch(watched, event)
    memory = remember(written(*events))
    assert memory.problems == []
    state = memory.attempts[KEY].state
    assert state == watched.state
    after_restart = continuation(state, "root", 2.5, has_rebooted=has_rebooted)
    for event in after_restart.events:
        watched = watch(watched, event)
    assert watched.state.phase is not Phase.EPILOG_RUNNING
    assert watched.state.prolog is not PrologState.RUNNING
    for effect in after_restart.effects:
        match effect:
            case RunProlog():
                assert watched.state.prolog is PrologState.QUEUED
            case RunEpilog():
                assert watched.state.phase is Phase.EPILOG_QUEUED
            case KillProcesses():
                assert watched.state.phase is Phase.CLEANING
            case _:
                assert isinstance(effect, TerminateStep)
    if has_rebooted:
        assert after_restart.awaited_steps == ()
    # Nothing waits for something that does not come.
    if watched.state.phase is Phase.EPILOG_QUEUED:
        assert any(isinstance(effect, RunEpilog) for effect in after_restart.effects)
    if watched.state.prolog is PrologState.QUEUED:
        assert RunProlog() in after_restart.effects


@pytest.mark.parametrize("has_rebooted", [False, True])
@pytest.mark.parametrize("first", [new(contains=True), new(runs_in_job=True)], ids=["Contain", "RunInJob"])
def test_a_restart_goes_on_with_the_extern_step_and_what_runs_in_it(first: AttemptState, has_rebooted: bool) -> None:
    for watched in reachable(first):
        before = watched.state
        after_restart = continuation(before, "root", 2.5, has_rebooted=has_rebooted)
        events_did: list[Effect] = []
        state = before
        for event in after_restart.events:
            state, effects = advance(state, event)
            events_did += effects
        done = [*events_did, *after_restart.effects]
        lives_on = before.runs_in_job and before.extern.is_alive and not has_rebooted
        assert state.prolog is not PrologState.RUNNING or (lives_on and ResumeProlog() in done)
        assert state.phase is not Phase.EPILOG_RUNNING or (lives_on and ResumeEpilog(state.unkillable) in done)
        # Nothing waits for something that does not come.
        if state.extern.is_alive:
            assert StartExtern() in done if has_rebooted else EXTERN_STEP in after_restart.awaited_steps
        else:
            assert EXTERN_STEP not in after_restart.awaited_steps
        if state.extern is ExternState.ENDING:
            assert any(isinstance(effect, EndExtern) for effect in done)
        if state.phase is Phase.CLEANING or (state.phase is Phase.CLOSING and not state.extern.is_alive):
            assert KillProcesses() in done
        if state.prolog is PrologState.RUNNING and state.phase is not Phase.HELD:
            assert StopProlog() in done, "it was asked for before"


def test_a_prolog_broken_off_is_lost_and_fails_its_steps() -> None:
    state, _ = go_on(remember(written(StepRequested(BATCH), PrologStarted())).attempts[KEY].state)
    assert state.prolog is PrologState.FAILED
    assert state.steps == ()
    assert "lost" in state.prolog_failure


def test_a_prolog_that_only_waited_for_its_turn_runs_now() -> None:
    state, after_restart = go_on(remember(written(PrepareRequested())).attempts[KEY].state)
    assert after_restart == Continuation(effects=(RunProlog(),))
    assert state.prolog is PrologState.QUEUED


def test_an_epilog_broken_off_is_lost_in_this_boot_and_runs_again_in_the_next() -> None:
    broken_off = remember(written(RELEASE, *after_cleaning())).attempts[KEY].state
    state, after_restart = go_on(broken_off)
    assert state.phase is Phase.RELEASED
    assert isinstance(after_restart.events[0], EpilogEnded)
    assert state.epilog is not None
    assert state.epilog.outcome.kind is OutcomeKind.LOST
    state, after_restart = go_on(broken_off, has_rebooted=True)
    assert state.phase is Phase.EPILOG_QUEUED
    assert [type(effect) for effect in after_restart.effects] == [RunEpilog]


def after_cleaning() -> tuple[Event, ...]:
    return ProcessesGone(), EpilogStarted()


def test_a_step_whose_supervisor_may_live_is_awaited_and_ended_again() -> None:
    state, after_restart = go_on(remember(written(StepRequested(STEP_0), PROLOG_OK, RELEASE)).attempts[KEY].state)
    assert after_restart.awaited_steps == (STEP_0.step_id,)
    assert after_restart.effects == (TerminateStep(STEP_0.step_id, RELEASE.reason),)
    assert state.phase is Phase.RELEASING


def test_reports_come_back_with_their_ids_until_they_are_acknowledged() -> None:
    records = written(StepRequested(BATCH), PrologStarted(), PrologEnded(PROLOG_OK.run), RELEASE)
    hook = Report(7, 2.0, KEY, ReportHook(a_run(HookPoint.TASK_PROLOG)))
    memory = remember([*records, to_record(ReportQueued(hook))])
    assert [report.report_id for report in memory.reports] == [1, 7]
    assert memory.next_report_id == 8
    assert memory.reports[1] == hook
    memory = remember([*records, to_record(ReportQueued(hook)), to_record(ReportsAcknowledged(1))])
    assert memory.reports == [hook]


def test_a_released_attempt_stays_known_until_it_is_forgotten() -> None:
    records = written(RELEASE, *after_cleaning(), EPILOG_OK)
    state = remember(records).attempts[KEY].state
    assert after(RELEASE, state=state)[1] == [ReportReleased(EPILOG_OK.run)]
    assert remember([*records, to_record(AttemptForgotten(KEY))]).attempts == {}


def test_an_attempt_keeps_its_hooks_and_its_tombstone_drops_what_is_large() -> None:
    remembered = remember(written(PrepareRequested())).attempts[KEY]
    assert remembered.hooks == HOOKS
    assert remembered.job == JOB
    assert tombstone(remembered).job.spec.script == ""


def test_events_of_an_attempt_whose_record_was_damaged_are_told_as_a_problem() -> None:
    records = written(PrepareRequested())
    assert remember([records[0], *records[2:]]).problems == ["PrepareRequested of attempt 42.1, which was never seen"]


def test_a_journal_of_another_version_is_refused() -> None:
    with pytest.raises(RecordError, match="format 99"):
        remember([to_record(Booted("b", format=99))])
    with pytest.raises(RecordError, match="another version"):
        remember([{"is": "event", "key": [1, 1], "at": 0, "event": {"is": "Nonsense"}, "reports": []}])
