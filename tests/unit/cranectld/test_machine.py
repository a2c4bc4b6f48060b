import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cranectld.jobs import machine
from cranectld.jobs.events import (
    CancelRequested,
    CompletionRequested,
    CtldHookEnded,
    Decide,
    DecisionKind,
    DrainNode,
    Effect,
    Event,
    FreeNode,
    HoldReleased,
    HoldRequested,
    InvalidTransitionError,
    NodeLost,
    NodeReleased,
    OweEpilog,
    PrepareNode,
    PrologEnded,
    Record,
    ReleaseNode,
    RunCtldHook,
    SendStep,
    StartTimeLimit,
    StepCancelRequested,
    StepEnded,
    StepRequested,
    StepSendRequested,
    StepStarted,
    StopCtldHook,
    TaskHookEnded,
    TimeLimitReached,
)
from cranectld.jobs.model import Job, JobState, NodeProgress, StepState
from cranehooks.model.ids import BATCH_STEP, EXTERN_STEP, Attempt, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, JobKind, StepSpec, TaskEnd
from cranehooks.model.points import HookPoint
from tests.unit.cranectld.builders import CN1, CN2, EXIT_1, REQUEUE, STOPPED, allocated, job, run, settings, spec

ONE = Attempt(1)
CTLD_PROLOG_OK = CtldHookEnded(2.0, ONE, run(HookPoint.CRANECTLD_PROLOG))
CTLD_PROLOG_FAILED = CtldHookEnded(2.0, ONE, run(HookPoint.CRANECTLD_PROLOG, EXIT_1))
CTLD_EPILOG_OK = CtldHookEnded(9.0, ONE, run(HookPoint.CRANECTLD_EPILOG))
CTLD_EPILOG_FAILED = CtldHookEnded(9.0, ONE, run(HookPoint.CRANECTLD_EPILOG, EXIT_1))
PROLOG_FAILED = PrologEnded(3.0, ONE, CN1, run(HookPoint.PROLOG, EXIT_1, CN1, last_line="no GPU found"))
RELEASED_1 = NodeReleased(8.0, ONE, CN1, run(HookPoint.EPILOG, node=CN1))
RELEASED_2 = NodeReleased(8.0, ONE, CN2, run(HookPoint.EPILOG, node=CN2))
BATCH_OK = StepEnded(5.0, ONE, CN1, BATCH_STEP, (TaskEnd(TaskId(0), ExitStatus()),))
CANCEL = CancelRequested(4.0, "cancelled by alice")


def play(start: Job, events: Sequence[Event]) -> tuple[Job, list[Effect]]:
    """All events in order; requests that the state refuses are dropped, as the services do."""
    effects: list[Effect] = []
    for event in events:
        try:
            start, more = machine.advance(start, event, REQUEUE)
        except InvalidTransitionError:
            continue
        effects += more
        assert machine.check_invariants(start) == [], event
    return start, effects


def of(effects: Sequence[Effect], kind: type) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_batch_job_from_allocation_to_completed() -> None:
    done, effects = play(job(), [allocated(), CTLD_PROLOG_OK, BATCH_OK, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is JobState.COMPLETED
    order = [effect for effect in effects if isinstance(effect, RunCtldHook | SendStep | ReleaseNode | FreeNode)]
    assert order == [
        RunCtldHook(HookPoint.CRANECTLD_PROLOG),
        SendStep(CN1, BATCH_STEP),
        ReleaseNode(CN1, ExitStatus(), ""),
        ReleaseNode(CN2, ExitStatus(), ""),
        RunCtldHook(HookPoint.CRANECTLD_EPILOG),
        FreeNode(CN1),
        FreeNode(CN2),
    ]


def test_nothing_reaches_a_node_before_cranectldprolog_succeeded() -> None:
    waiting, effects = play(job(), [allocated()])

    assert waiting.state is JobState.CONFIGURING
    assert not of(effects, SendStep)
    assert not of(effects, PrepareNode)


def test_job_without_hooks_runs_and_ends_without_them() -> None:
    done, effects = play(job(), [allocated(hooks=settings(())), BATCH_OK, RELEASED_1, RELEASED_2])

    assert done.state is JobState.COMPLETED
    assert not of(effects, RunCtldHook)


@pytest.mark.parametrize(
    ("kind", "requeue", "state"),
    [
        (JobKind.BATCH, True, JobState.PENDING),
        (JobKind.BATCH, False, JobState.CANCELLED),
        (JobKind.ALLOCATION, True, JobState.CANCELLED),
        (JobKind.RUN, True, JobState.CANCELLED),
    ],
)
@pytest.mark.parametrize("failure", [PROLOG_FAILED, CTLD_PROLOG_FAILED])
def test_failing_before_hook_by_kind_of_job(kind: JobKind, requeue: bool, state: JobState, failure: Event) -> None:
    first = [allocated()] if failure is CTLD_PROLOG_FAILED else [allocated(), CTLD_PROLOG_OK]

    done, effects = play(job(spec(kind, requeue=requeue)), [*first, failure, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is (JobState.PENDING if failure is CTLD_PROLOG_FAILED and kind is JobKind.BATCH and requeue else state)
    assert {effect.node for effect in effects if isinstance(effect, ReleaseNode)} == {CN1, CN2}
    assert len(of(effects, DrainNode)) == (failure is PROLOG_FAILED)


def test_node_is_drained_before_its_job_can_come_back() -> None:
    _, effects = play(job(), [allocated(), CTLD_PROLOG_OK, PROLOG_FAILED, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    drain = next(index for index, effect in enumerate(effects) if isinstance(effect, DrainNode))
    requeue = next(index for index, e in enumerate(effects) if isinstance(e, Decide) and e.kind is DecisionKind.REQUEUE)
    assert drain < requeue
    assert effects[drain] == DrainNode(CN1, "prolog prolog.sh exit 1 (job 1, attempt 1): no GPU found")


def test_prolog_failure_over_the_drain_budget_holds_the_job_and_drains_nothing() -> None:
    over = PrologEnded(3.0, ONE, CN1, PROLOG_FAILED.run, over_budget="prolog.sh")

    held, effects = play(job(), [allocated(), CTLD_PROLOG_OK, over, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert held.state is JobState.HELD
    assert "prolog.sh" in held.reason
    assert not of(effects, DrainNode)


def test_each_node_is_free_at_its_own_release() -> None:
    half, effects = play(job(), [allocated(), CTLD_PROLOG_OK, BATCH_OK, RELEASED_2])

    assert of(effects, FreeNode) == [FreeNode(CN2)]
    assert half.busy_nodes == (CN1,)
    assert half.state is JobState.COMPLETING


def test_failing_epilog_drains_and_leaves_the_result() -> None:
    failed = NodeReleased(8.0, ONE, CN1, run(HookPoint.EPILOG, EXIT_1, CN1))

    done, effects = play(job(), [allocated(), CTLD_PROLOG_OK, BATCH_OK, failed, RELEASED_2, CTLD_EPILOG_FAILED])

    assert done.state is JobState.COMPLETED
    drained, freed = effects.index(of(effects, DrainNode)[0]), effects.index(FreeNode(CN1))
    assert drained < freed


def test_failing_cranectld_epilog_drains_all_nodes_where_the_site_says_so() -> None:
    strict = replace(settings(), overrides={"OnCranectldEpilogFailure": "drain"})
    spared = replace(CTLD_EPILOG_FAILED, undrained=frozenset({CN2}), over_budget="release.sh")

    effects: list[Effect] = []
    for failed, drained in ((CTLD_EPILOG_FAILED, [CN1, CN2]), (spared, [CN1])):
        done, effects = play(job(), [allocated(hooks=strict), CTLD_PROLOG_OK, BATCH_OK, RELEASED_1, RELEASED_2, failed])
        assert done.state is JobState.COMPLETED
        assert [effect.node for effect in effects if isinstance(effect, DrainNode)] == drained
    assert "release.sh" in next(effect.text for effect in effects if isinstance(effect, Record) and effect.kind == "breaker")


def test_requeue_is_counted_delayed_and_held_in_the_end() -> None:
    current = job()
    delays = []
    for attempt in range(1, REQUEUE.max_count + 2):
        number = Attempt(attempt)
        events: list[Event] = [
            allocated(attempt, settings((HookPoint.PROLOG,))),
            PrologEnded(3.0, number, CN1, run(HookPoint.PROLOG, EXIT_1, CN1, attempt)),
            NodeReleased(8.0, number, CN1, None),
            NodeReleased(8.0, number, CN2, None),
        ]
        current, _ = play(current, events)
        delays.append(current.not_before - 8.0)

    assert delays[: REQUEUE.max_count] == [5.0, 10.0, 20.0, 40.0, 80.0]
    assert current.state is JobState.HELD
    assert str(REQUEUE.max_count) in current.reason
    released, effects = play(current, [HoldReleased(9.0, "root")])
    assert released.state is JobState.PENDING
    assert released.requeue_count == 0
    assert of(effects, Decide) == [Decide(DecisionKind.RELEASED)]


def test_alloc_waits_for_every_prolog() -> None:
    hooks = settings((HookPoint.PROLOG,), flags=("Alloc",))
    start, effects = play(job(), [allocated(hooks=hooks)])
    assert of(effects, PrepareNode) == [PrepareNode(CN1), PrepareNode(CN2)]
    assert start.state is JobState.CONFIGURING

    half, effects = play(start, [PrologEnded(3.0, ONE, CN1, run(HookPoint.PROLOG, node=CN1))])
    assert half.state is JobState.CONFIGURING
    ready, effects = play(half, [PrologEnded(3.0, ONE, CN2, run(HookPoint.PROLOG, node=CN2))])
    assert ready.state is JobState.RUNNING
    assert of(effects, SendStep) == [SendStep(CN1, BATCH_STEP)]


def prolog_ended(node: NodeName) -> PrologEnded:
    return PrologEnded(3.0, ONE, node, run(HookPoint.PROLOG, node=node))


@pytest.mark.parametrize(
    ("profile", "flags", "kind", "runs_after"),
    [
        ("slurm", ("Alloc",), JobKind.BATCH, 1),
        ("slurm", ("Alloc", "DeferBatch"), JobKind.BATCH, 2),
        ("slurm", ("Alloc",), JobKind.RUN, 2),
        ("slurm", ("Alloc",), JobKind.ALLOCATION, 2),
        ("sunk", ("Alloc", "ForceRequeueOnFail"), JobKind.BATCH, 1),
        ("sunk", ("Alloc", "DeferBatch"), JobKind.BATCH, 2),
        ("crane-requeue", ("Alloc",), JobKind.BATCH, 2),
    ],
)
def test_which_prologs_a_job_waits_for(profile: str, flags: tuple[str, ...], kind: JobKind, runs_after: int) -> None:
    hooks = settings((HookPoint.PROLOG,), flags, profile)
    current, effects = play(job(spec(kind)), [allocated(hooks=hooks)])
    for done, node in enumerate((CN1, CN2), start=1):
        assert current.state is JobState.CONFIGURING or done > runs_after
        current, effects = play(current, [prolog_ended(node)])
        sent = [SendStep(CN1, BATCH_STEP)] if kind is JobKind.BATCH and done == runs_after else []
        assert of(effects, SendStep) == sent
    assert current.state is JobState.RUNNING
    assert set(current.progress.values()) == {NodeProgress.READY}


def test_a_batch_script_waits_for_the_prolog_of_its_own_node() -> None:
    start, _ = play(job(), [allocated(hooks=settings((HookPoint.PROLOG,), ("Alloc",), "slurm")), prolog_ended(CN2)])
    assert start.state is JobState.CONFIGURING
    running, effects = play(start, [prolog_ended(CN1)])
    assert of(effects, SendStep) == [SendStep(CN1, BATCH_STEP)]
    assert running.state is JobState.RUNNING


def test_a_prolog_that_fails_beside_the_running_batch_script_ends_the_attempt() -> None:
    hooks = settings((HookPoint.PROLOG,), ("Alloc",), "slurm")
    failed = PrologEnded(4.0, ONE, CN2, run(HookPoint.PROLOG, EXIT_1, CN2))
    ended, effects = play(job(), [allocated(hooks=hooks), prolog_ended(CN1), failed, RELEASED_1, RELEASED_2])
    assert ended.state is JobState.HELD
    assert [effect.node for effect in effects if isinstance(effect, DrainNode)] == [CN2]


def extern_ended(node: NodeName) -> StepEnded:
    return StepEnded(8.0, ONE, node, EXTERN_STEP, (), "the job is over")


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("points", [(HookPoint.PROLOG,), ()])
def test_the_extern_step_is_seen_and_decides_nothing(kind: JobKind, points: tuple[HookPoint, ...]) -> None:
    hooks = settings(points, ("Alloc", "Contain"))
    start, effects = play(job(spec(kind)), [allocated(hooks=hooks)])
    assert of(effects, PrepareNode) == [PrepareNode(CN1), PrepareNode(CN2)], "with or without a Prolog"
    assert start.steps[EXTERN_STEP].nodes == (CN1, CN2)
    assert machine.outstanding(start) == [PrepareNode(CN1), PrepareNode(CN2)]
    started = [StepStarted(2.0, ONE, node, EXTERN_STEP) for node in (CN1, CN2)]
    running, _ = play(start, [*started, prolog_ended(CN1), prolog_ended(CN2)])
    assert (running.state, running.steps[EXTERN_STEP].state) == (JobState.RUNNING, StepState.RUNNING)
    # It may die before its job, which goes on.
    half, effects = play(running, [extern_ended(CN1), extern_ended(CN2)])
    assert (half.state, half.steps[EXTERN_STEP].state) == (JobState.RUNNING, StepState.ENDED)
    assert not of(effects, Decide)
    # Nor does it keep a job from ending.
    done, _ = play(
        running,
        [CompletionRequested(7.0), BATCH_OK, RELEASED_1, extern_ended(CN2), RELEASED_2],
    )
    assert done.state is JobState.COMPLETED
    assert {step.exit for step_id, step in done.steps.items() if step_id == EXTERN_STEP} == {ExitStatus()}


def test_without_contain_there_is_no_extern_step() -> None:
    start, _ = play(job(), [allocated(hooks=settings((HookPoint.PROLOG,), ("Alloc",)))])
    assert EXTERN_STEP not in start.steps


def test_nohold_runs_at_once() -> None:
    start, effects = play(job(), [allocated(hooks=settings((HookPoint.PROLOG,), flags=("Alloc", "NoHold")))])

    assert start.state is JobState.RUNNING
    assert len(of(effects, PrepareNode)) == 2


def test_time_limit_starts_with_running_and_ends_the_job() -> None:
    limited = job(spec(time_limit_s=60.0))
    start, effects = play(limited, [allocated()])
    assert not of(effects, StartTimeLimit)
    running, effects = play(start, [CTLD_PROLOG_OK])
    assert of(effects, StartTimeLimit) == [StartTimeLimit(60.0)]

    done, _ = play(running, [TimeLimitReached(7.0, ONE), RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is JobState.TIMED_OUT


def test_cancel_during_cranectldprolog_stops_it_and_runs_the_epilog_after_it() -> None:
    cancelled, effects = play(job(), [allocated(), CANCEL])
    assert of(effects, StopCtldHook) == [StopCtldHook(HookPoint.CRANECTLD_PROLOG)]
    assert of(effects, RunCtldHook) == [RunCtldHook(HookPoint.CRANECTLD_PROLOG)]

    stopped = CtldHookEnded(5.0, ONE, run(HookPoint.CRANECTLD_PROLOG, STOPPED))
    ending, effects = play(cancelled, [stopped])
    assert of(effects, RunCtldHook) == [RunCtldHook(HookPoint.CRANECTLD_EPILOG)]
    done, _ = play(ending, [CTLD_EPILOG_OK, RELEASED_1, RELEASED_2])
    assert done.state is JobState.CANCELLED


def test_lost_node_owes_its_epilog_and_the_attempt_goes_on_without_it() -> None:
    done, effects = play(job(), [allocated(), CTLD_PROLOG_OK, NodeLost(4.0, CN1), RELEASED_2, CTLD_EPILOG_OK])

    assert of(effects, OweEpilog) == [OweEpilog(CN1)]
    assert FreeNode(CN1) not in effects
    assert done.state is JobState.PENDING
    assert "cn01" in done.reason


@pytest.mark.parametrize(("kind", "state"), [(JobKind.RUN, JobState.CANCELLED), (JobKind.BATCH, JobState.NODE_FAIL)])
def test_lost_node_without_requeue(kind: JobKind, state: JobState) -> None:
    done, _ = play(job(spec(kind, requeue=False)), [allocated(), CTLD_PROLOG_OK, NodeLost(4.0, CN1), RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is state


def test_cancel_of_a_job_that_would_be_requeued_wins() -> None:
    done, _ = play(job(), [allocated(), CTLD_PROLOG_OK, PROLOG_FAILED, CANCEL, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is JobState.CANCELLED


def test_cancel_of_a_completing_job_leaves_its_result() -> None:
    done, _ = play(job(), [allocated(), CTLD_PROLOG_OK, BATCH_OK, CANCEL, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert done.state is JobState.COMPLETED


def test_waiting_and_held_jobs_end_at_once_when_cancelled() -> None:
    assert play(job(), [CANCEL])[0].state is JobState.CANCELLED
    assert play(job(), [HoldRequested(1.0, "breaker"), CANCEL])[0].state is JobState.CANCELLED


def interactive(*events: Event) -> tuple[Job, list[Effect]]:
    step = StepSpec(StepId("0"), ("true",), 2, {CN1: (0,), CN2: (1,)})
    return play(job(spec(JobKind.ALLOCATION)), [allocated(), CTLD_PROLOG_OK, StepRequested(3.0, step, (CN1, CN2)), *events])


def test_step_is_not_sent_before_it_is_asked_to() -> None:
    current, effects = interactive()
    assert not of(effects, SendStep)
    assert current.next_step == 1

    _, effects = interactive(StepSendRequested(4.0, ONE, StepId("0")), StepSendRequested(4.0, ONE, StepId("0")))
    assert of(effects, SendStep) == [SendStep(CN1, StepId("0")), SendStep(CN2, StepId("0"))]


@pytest.mark.parametrize("failed", [False, True])
def test_step_given_up_before_it_was_sent_never_is(failed: bool) -> None:
    given_up, effects = interactive(
        StepCancelRequested(4.0, ONE, StepId("0"), "CrunProlog exit 1", failed), StepSendRequested(4.0, ONE, StepId("0"))
    )

    assert not of(effects, SendStep)
    step = given_up.steps[StepId("0")]
    assert (step.state, step.cancelled, step.exit) == (StepState.ENDED, not failed, ExitStatus(code=1))
    fate = "failed" if failed else "cancelled"
    assert Record("step", f"step 0 {fate}, never sent: CrunProlog exit 1") in effects
    assert given_up.state is JobState.RUNNING


@pytest.mark.parametrize("failed", [False, True])
def test_job_of_a_crun_whose_prolog_failed(failed: bool) -> None:
    step = StepSpec(StepId("0"), ("true",), 1, {CN1: (0,)})
    reason = "CrunProlog exit 1"
    gives_up = CompletionRequested(5.0, ExitStatus(code=1), reason) if failed else CancelRequested(5.0, reason)
    done, effects = play(
        job(spec(JobKind.RUN, num_nodes=1)),
        [
            allocated(nodes=(CN1,)),
            CTLD_PROLOG_OK,
            StepRequested(3.0, step, (CN1,)),
            StepCancelRequested(4.0, ONE, StepId("0"), reason, failed),
            gives_up,
            RELEASED_1,
            CTLD_EPILOG_OK,
        ],
    )

    state, exit_status = (JobState.FAILED, ExitStatus(code=1)) if failed else (JobState.CANCELLED, ExitStatus(signal=15))
    assert (done.state, done.reason, done.exit) == (state, reason, exit_status)
    assert not of(effects, SendStep)


def test_step_ends_with_its_last_node_and_the_highest_code() -> None:
    sent = StepSendRequested(4.0, ONE, StepId("0"))
    started = [StepStarted(4.5, ONE, node, StepId("0")) for node in (CN1, CN2)]
    first = StepEnded(5.0, ONE, CN1, StepId("0"), (TaskEnd(TaskId(0), ExitStatus(code=3)),))
    last = StepEnded(6.0, ONE, CN2, StepId("0"), (TaskEnd(TaskId(1), ExitStatus(signal=9)),))

    running, _ = interactive(sent, *started)
    assert running.steps[StepId("0")].state is StepState.RUNNING
    ended, _ = interactive(sent, *started, first, first, last)

    assert ended.steps[StepId("0")].exit == ExitStatus(signal=9)
    assert ended.state is JobState.RUNNING
    done, _ = play(ended, [CompletionRequested(7.0, ExitStatus(code=3)), RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])
    assert done.state is JobState.FAILED
    assert done.exit == ExitStatus(code=3)


def test_job_of_a_cancelled_crun_is_cancelled() -> None:
    step = StepSpec(StepId("0"), ("sleep", "100"), 1, {CN1: (0,)})
    done, _ = play(
        job(spec(JobKind.RUN, num_nodes=1)),
        [
            allocated(nodes=(CN1,)),
            CTLD_PROLOG_OK,
            StepRequested(3.0, step, (CN1,)),
            StepSendRequested(4.0, ONE, StepId("0")),
            StepCancelRequested(5.0, ONE, StepId("0"), "interrupted"),
            StepEnded(6.0, ONE, CN1, StepId("0"), (TaskEnd(TaskId(0), ExitStatus(signal=15)),)),
            RELEASED_1,
            CTLD_EPILOG_OK,
        ],
    )

    assert (done.state, done.reason) == (JobState.CANCELLED, "interrupted")


def test_end_of_a_crun_job_is_what_its_nodes_say() -> None:
    step = StepSpec(StepId("0"), ("id",), 1, {CN1: (0,)})
    start: list[Event] = [
        allocated(nodes=(CN1,)),
        CTLD_PROLOG_OK,
        StepRequested(3.0, step, (CN1,)),
        StepSendRequested(4.0, ONE, StepId("0")),
        CompletionRequested(5.0, ExitStatus(code=1)),
    ]
    early, _ = play(job(spec(JobKind.RUN, num_nodes=1)), start)
    assert early.state is JobState.RUNNING

    ended = StepEnded(6.0, ONE, CN1, StepId("0"), (TaskEnd(TaskId(0), ExitStatus(code=1), cancelled=True),), "user unknown")
    done, _ = play(early, [ended, RELEASED_1, CTLD_EPILOG_OK])

    assert (done.state, done.reason) == (JobState.FAILED, "user unknown")


@pytest.mark.parametrize(
    ("cancelled", "reason", "state"),
    [
        (True, "", JobState.CANCELLED),
        (False, "", JobState.FAILED),
        # The node refused the step: that is no hook's doing.
        (True, "user unknown", JobState.FAILED),
    ],
)
def test_batch_job_whose_task_prolog_cancels_its_task_is_cancelled(cancelled: bool, reason: str, state: JobState) -> None:
    end = TaskEnd(TaskId(0), ExitStatus(code=1), cancelled=cancelled, reason="TaskProlog exit 8")
    ended = StepEnded(5.0, ONE, CN1, BATCH_STEP, (end,), reason)
    done, _ = play(job(), [allocated(), CTLD_PROLOG_OK, ended, RELEASED_1, RELEASED_2, CTLD_EPILOG_OK])

    assert (done.state, done.exit) == (state, ExitStatus(code=1))
    assert done.reason == (reason or "TaskProlog exit 8")


@pytest.mark.parametrize(
    ("overrides", "over_budget", "kinds"),
    [
        ({}, "", []),
        ({"OnTaskEpilogFailure": "drain"}, "", ["drained"]),
        ({"OnTaskEpilogFailure": "drain"}, "task.sh", ["breaker"]),
    ],
)
def test_failing_task_epilog_drains_where_the_site_wants_it(
    overrides: dict[str, str], over_budget: str, kinds: list[str]
) -> None:
    running, _ = play(job(), [allocated(), CTLD_PROLOG_OK])
    running = replace(running, hooks=replace(running.hooks, overrides=overrides))
    failed = run(HookPoint.TASK_EPILOG, EXIT_1, CN1)
    after, effects = play(running, [TaskHookEnded(5.0, ONE, CN1, failed, over_budget)])

    assert after == running
    assert [effect.kind for effect in effects if isinstance(effect, Record)] == kinds
    assert [effect.node for effect in effects if isinstance(effect, DrainNode)] == ([CN1] if kinds == ["drained"] else [])


def test_step_is_refused_outside_running() -> None:
    with pytest.raises(InvalidTransitionError, match="running job"):
        machine.advance(job(), StepRequested(3.0, StepSpec(StepId("0"), ("true",), 1), (CN1,)), REQUEUE)


def test_outstanding_repeats_what_a_node_must_know() -> None:
    running, _ = play(job(), [allocated(), CTLD_PROLOG_OK])
    assert machine.outstanding(running) == [SendStep(CN1, BATCH_STEP)]
    completing, _ = play(running, [BATCH_OK, RELEASED_2])
    assert machine.outstanding(completing) == [ReleaseNode(CN1, ExitStatus(), "")]
    assert machine.outstanding(play(completing, [RELEASED_1, CTLD_EPILOG_OK])[0]) == []


EVERY_EVENT: tuple[Event, ...] = (
    allocated(1),
    allocated(2),
    CTLD_PROLOG_OK,
    CTLD_PROLOG_FAILED,
    PROLOG_FAILED,
    BATCH_OK,
    CANCEL,
    NodeLost(4.0, CN1),
    RELEASED_1,
    RELEASED_2,
    CTLD_EPILOG_OK,
    TimeLimitReached(7.0, ONE),
)


@pytest.mark.parametrize("first", EVERY_EVENT[2:], ids=lambda event: type(event).__name__)
def test_promises_hold_over_every_order_of_events(first: Event) -> None:
    """All sequences of four events after the allocation, with repeats."""
    start, opening = play(job(), [allocated()])
    for rest in itertools.product(EVERY_EVENT, repeat=3):
        current, effects = start, list(opening)
        cancelled = False
        for event in (first, *rest):
            before = current
            current, more = play(current, [event])
            effects += more
            if event is CANCEL and before.state.is_allocated and not before.state.is_final:
                # A job that had a result of its own keeps it.
                own_result = before.ending is not None and not before.ending.kind.comes_back
                cancelled = cancelled or not own_result
            if cancelled:
                assert current.state in (JobState.COMPLETING, JobState.CANCELLED), "a cancelled job stays cancelled"
            if before.state is JobState.COMPLETING and not current.state.is_allocated:
                assert not before.busy_nodes or not current.busy_nodes
        released = [effect.node for effect in effects if isinstance(effect, ReleaseNode)]
        attempts = 1 + any(isinstance(e, Decide) and e.kind is DecisionKind.REQUEUE for e in effects)
        assert released.count(CN1) <= attempts, "each node is released at most once per attempt"
        freed = [effect.node for effect in effects if isinstance(effect, FreeNode)]
        assert freed.count(CN2) <= released.count(CN2), "a node is free only after its own release"
        drains = [index for index, effect in enumerate(effects) if isinstance(effect, DrainNode)]
        requeues = [i for i, e in enumerate(effects) if isinstance(e, Decide) and e.kind is DecisionKind.REQUEUE]
        if drains and requeues and current.requeue_count == 1:
            assert drains[0] < requeues[-1] or NodeProgress.LOST in current.progress.values()
