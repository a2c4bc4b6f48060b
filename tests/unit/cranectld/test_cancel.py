"""A cancel at every position of every course that a job can take: it ends Cancelled, and what was started is cleaned exactly once.

The course is closed: only what the job has asked for is answered, each time in every way it can be answered.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    NodeLost,
    NodeReleased,
    OweEpilog,
    PrepareNode,
    PrologEnded,
    ReleaseNode,
    RunCtldHook,
    SendStep,
    StartTimeLimit,
    StepEnded,
    StepRequested,
    StepSendRequested,
    StepStarted,
    StopCtldHook,
    StopTimeLimit,
    TimeLimitReached,
)
from cranectld.jobs.model import Job, JobState
from cranehooks.model.ids import NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, JobKind, StepSpec, TaskEnd
from cranehooks.model.outcome import OK, Outcome
from cranehooks.model.points import HookPoint
from cranehooks.policy import RequeuePolicy
from cranehooks.profiles import PROFILES, CancelDuringProlog, PrologFlag
from tests.unit.cranectld.builders import CN1, CN2, EXIT_1, STOPPED, allocated, job, run, settings, spec

CANCEL = CancelRequested(1.0, "cancelled by alice")
ONCE = RequeuePolicy(max_count=1)
STEP = StepSpec(StepId("0"), ("true",), 2, {CN1: (0,), CN2: (1,)})


@dataclass(frozen=True)
class Course:
    """A job with what it has asked for and has not been answered yet."""

    job: Job
    hooks: frozenset[HookPoint] = frozenset()
    """Controller hooks that run."""
    prologs: frozenset[NodeName] = frozenset()
    """Nodes on which Prolog runs."""
    prepared: frozenset[NodeName] = frozenset()
    """Nodes on which it has run, well or not."""
    steps: frozenset[tuple[NodeName, StepId]] = frozenset()
    releases: frozenset[NodeName] = frozenset()
    lost: frozenset[NodeName] = frozenset()
    is_timed: bool = False
    is_stopped: bool = False
    """CranectldProlog has been asked to stop."""
    done: tuple[tuple[str, int], ...] = ()
    """How often each effect has been asked for in this attempt."""
    was_cancelled: bool = False

    @property
    def count(self) -> Counter[str]:
        return Counter(dict(self.done))


def identity(course: Course) -> str:
    """What tells courses of one job apart; what never changes is left out, for it takes long to write."""
    current = course.job
    told = (current.state, current.attempt, current.reason, current.progress, current.ctld_prolog, current.ctld_epilog)
    steps = [(step.state, step.sent, step.started_nodes, step.ended_nodes, step.tasks) for step in current.steps.values()]
    rest = (current.ending, current.requeue_count, steps, course.hooks, course.prologs, course.prepared, course.steps)
    return repr((told, rest, course.releases, course.lost, course.is_timed, course.is_stopped, course.done, course.was_cancelled))


def follow(course: Course, event: Event) -> Course:
    """The course after an event, with what the job asks for noted."""
    before = course
    after, effects = machine.advance(course.job, event, ONCE)
    assert machine.check_invariants(after) == [], event
    if after.attempt != course.job.attempt:
        course = Course(after)
    course = replace(course, job=after)
    for effect in effects:
        course = _asked(course, effect)
    if before.was_cancelled:
        assert not after.state.is_waiting, f"a cancelled job comes back by {event}"
    return course


@functools.cache
def _name(effect: Effect) -> str:
    return str(effect)


def _asked(course: Course, effect: Effect) -> Course:
    count = course.count
    count[_name(effect)] += 1
    course = replace(course, done=tuple(sorted(count.items())))
    match effect:
        case RunCtldHook(point):
            return replace(course, hooks=course.hooks | {point})
        case StopCtldHook():
            assert HookPoint.CRANECTLD_PROLOG in course.hooks, "only what runs is stopped"
            return replace(course, is_stopped=True)
        case PrepareNode(node):
            return replace(course, prologs=course.prologs | {node})
        case SendStep(node, step_id):
            assert not course.was_cancelled, "nothing is started for a cancelled job"
            # Without Alloc the first step on a node brings its Prolog.
            prologs = course.prologs if node in course.prepared else course.prologs | {node}
            return replace(course, steps=course.steps | {(node, step_id)}, prologs=prologs)
        case ReleaseNode(node):
            return replace(course, releases=course.releases | {node})
        case StartTimeLimit():
            return replace(course, is_timed=True)
        case StopTimeLimit():
            return replace(course, is_timed=False)
        case _:
            return course


def answers(course: Course) -> Iterator[tuple[Course, Event]]:
    """Whatever can happen next, with what it answers taken away."""
    current = course.job
    if current.state is JobState.PENDING and current.attempt < 2 and not course.was_cancelled:
        yield course, allocated(current.attempt + 1, current.hooks)
    for point in sorted(course.hooks, key=lambda point: point.name):
        rest = replace(course, hooks=course.hooks - {point})
        stopped = [STOPPED] if course.is_stopped and point is HookPoint.CRANECTLD_PROLOG else []
        for outcome in (OK, EXIT_1, *stopped):
            yield rest, CtldHookEnded(1.0, current.attempt, run(point, outcome, attempt=current.attempt))
    yield from _answers_of_nodes(course)
    if course.is_timed:
        yield replace(course, is_timed=False), TimeLimitReached(1.0, current.attempt)
    if current.state is JobState.RUNNING and current.spec.kind is not JobKind.BATCH and not course.was_cancelled:
        yield from _acts_of_a_user(course)
    if current.state.is_allocated and not course.lost:
        without_cn2 = replace(
            course,
            lost=frozenset({CN2}),
            prologs=course.prologs - {CN2},
            releases=course.releases - {CN2},
            steps=frozenset(step for step in course.steps if step[0] != CN2),
        )
        yield without_cn2, NodeLost(1.0, CN2)


def _answers_of_nodes(course: Course) -> Iterator[tuple[Course, Event]]:
    attempt = course.job.attempt
    cancels = PROFILES[course.job.hooks.profile].cancel_during_prolog
    for node in sorted(course.prologs):
        rest = replace(course, prologs=course.prologs - {node}, prepared=course.prepared | {node})
        is_stopped = node in course.releases and cancels is CancelDuringProlog.STOPS
        for outcome in (OK, EXIT_1, *([STOPPED] if is_stopped else [])):
            yield rest, PrologEnded(1.0, attempt, node, run(HookPoint.PROLOG, outcome, node, attempt))
    for node, step_id in sorted(course.steps):
        if node in course.prologs:
            continue
        step = course.job.steps.get(step_id)
        if step is not None and node not in step.started_nodes and node not in course.releases:
            yield course, StepStarted(1.0, attempt, node, step_id)
        rest = replace(course, steps=course.steps - {(node, step_id)})
        for status in (ExitStatus(), ExitStatus(code=3)):
            yield rest, StepEnded(1.0, attempt, node, step_id, (TaskEnd(TaskId(0), status),))
    for node in sorted(course.releases):
        # A node has ended all else before.
        if node not in course.prologs and not any(where == node for where, _ in course.steps):
            rest = replace(course, releases=course.releases - {node})
            for outcome in (OK, EXIT_1):
                yield rest, NodeReleased(1.0, attempt, node, run(HookPoint.EPILOG, outcome, node, attempt))


def _acts_of_a_user(course: Course) -> Iterator[tuple[Course, Event]]:
    step = course.job.steps.get(STEP.step_id)
    if step is None:
        yield course, StepRequested(1.0, STEP, (CN1, CN2))
    elif not step.sent:
        yield course, StepSendRequested(1.0, course.job.attempt, STEP.step_id)
    else:
        yield course, CompletionRequested(1.0)


def reachable(*starts: Course) -> Iterator[Course]:
    """Every course from these on."""
    known = {identity(start) for start in starts}
    fresh = list(starts)
    while fresh:
        course = fresh.pop()
        yield course
        for rest, event in answers(course):
            following = follow(rest, event)
            if (name := identity(following)) not in known:
                known.add(name)
                fresh.append(following)


def cancelled(course: Course) -> Course:
    """Right after a cancel that takes effect."""
    return replace(follow(course, CANCEL), was_cancelled=True)


def check_cleaned(course: Course) -> None:
    """Nothing more can happen: what was begun has been ended, each thing once."""
    current, count = course.job, course.count
    assert current.state is JobState.CANCELLED, current
    assert current.reason == CANCEL.reason
    assert count[str(Decide(DecisionKind.CANCEL, CANCEL.reason))] == 1
    assert max([times for what, times in course.done if what.startswith("StopCtldHook")], default=1) == 1
    # A job that waited for its next attempt has nothing to clean any more.
    for node in current.nodes:
        releases = sum(times for what, times in course.done if what.startswith(f"ReleaseNode(node={node!r}"))
        if node in course.lost:
            assert releases <= 1
            assert count[str(OweEpilog(node))] + count[str(FreeNode(node))] == 1
        else:
            assert releases == 1
            assert count[str(FreeNode(node))] == 1
    if current.attempt:
        assert count[str(RunCtldHook(HookPoint.CRANECTLD_EPILOG))] == 1


COURSES: tuple[tuple[str, tuple[str, ...], JobKind, bool], ...] = (
    ("crane-requeue", (), JobKind.BATCH, True),
    ("crane-requeue", (), JobKind.RUN, True),
    ("crane-requeue", ("Alloc",), JobKind.BATCH, False),
    ("crane-requeue", ("Alloc", "NoHold"), JobKind.ALLOCATION, True),
    ("crane-fail", (), JobKind.BATCH, True),
    ("crane-fail", (), JobKind.ALLOCATION, True),
    ("slurm", (), JobKind.BATCH, True),
    ("slurm", ("Alloc",), JobKind.BATCH, True),
    ("slurm", ("Alloc",), JobKind.RUN, True),
    ("sunk", ("Alloc", "ForceRequeueOnFail"), JobKind.BATCH, False),
)


@pytest.mark.parametrize(
    ("profile", "flags", "kind", "requeue"),
    COURSES,
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(getattr(value, "value", value)),
)
def test_a_cancel_at_any_moment_ends_the_job_for_good(profile: str, flags: tuple[str, ...], kind: JobKind, requeue: bool) -> None:
    assert {PrologFlag(flag) for flag in flags} <= PROFILES[profile].flags
    hooks = settings(flags=flags, profile=profile)
    start = Course(replace(job(spec(kind, requeue=requeue, time_limit_s=60.0)), hooks=hooks))
    moments: list[Course] = []
    for course in reachable(start):
        state, ending = course.job.state, course.job.ending
        if state.is_final or (state is JobState.COMPLETING and ending is not None and not ending.kind.comes_back):
            # How it ends has been decided: a cancel comes too late, and changes nothing.
            assert follow(course, CANCEL) == course
        else:
            moments.append(cancelled(course))
    assert {moment.job.state for moment in moments} >= {JobState.CANCELLED, JobState.COMPLETING}
    ends = 0
    for course in reachable(*moments):
        assert follow(course, CANCEL) == course, "a second cancel is of no effect"
        if not any(True for _ in answers(course)):
            check_cleaned(course)
            ends += 1
    assert ends


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("flags", [(), ("Alloc",)], ids=["first step", "Alloc"])
@pytest.mark.parametrize(("outcome", "drains"), [(EXIT_1, 1), (STOPPED, 0), (OK, 0)], ids=["fails", "stopped", "succeeds"])
def test_a_prolog_that_ends_after_the_cancel(profile: str, flags: tuple[str, ...], outcome: Outcome, drains: int) -> None:
    """It drains its node where it failed by itself, and never where the cancel stopped it; the job stays cancelled in any case."""
    hooks = settings((HookPoint.PROLOG,), flags=flags, profile=profile)
    course = follow(Course(replace(job(), hooks=hooks)), allocated(hooks=hooks))
    course = cancelled(course)
    assert CN1 in course.prologs

    course = follow(
        replace(course, prologs=course.prologs - {CN1}),
        PrologEnded(1.0, course.job.attempt, CN1, run(HookPoint.PROLOG, outcome, CN1)),
    )

    assert sum(times for what, times in course.done if what.startswith(DrainNode.__name__)) == drains
    for end in reachable(course):
        assert end.job.state in (JobState.COMPLETING, JobState.CANCELLED)
