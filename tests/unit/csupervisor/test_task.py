"""The machine of a task, by examples and by every short order of events."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cranehooks.model.ids import TaskId
from cranehooks.model.job import ExitStatus, TaskEnd
from cranehooks.model.points import HookPoint
from csupervisor import task as machine
from csupervisor.task import Phase, Task, Timer, advance

TASK_PROLOG, STEP_TASK_PROLOG = HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_PROLOG
STEP_TASK_EPILOG, TASK_EPILOG = HookPoint.STEP_TASK_EPILOG, HookPoint.TASK_EPILOG
ALL_HOOKS = frozenset({TASK_PROLOG, STEP_TASK_PROLOG, STEP_TASK_EPILOG, TASK_EPILOG})
OK = ExitStatus()


def task(*hooks: HookPoint) -> Task:
    return Task(TaskId(0), frozenset(hooks), kill_grace_s=5.0, unkillable_after_s=30.0)


def play(state: Task, *events: machine.Event) -> tuple[Task, list[machine.Effect]]:
    effects: list[machine.Effect] = []
    for event in events:
        state, more = advance(state, event)
        state.check_invariants()
        effects += more
    return state, effects


def end_of(effects: list[machine.Effect]) -> TaskEnd:
    (end,) = [effect.end for effect in effects if isinstance(effect, machine.ReportEnd)]
    return end


def hooks_of(effects: list[machine.Effect]) -> list[HookPoint]:
    return [effect.point for effect in effects if isinstance(effect, machine.RunHook)]


def ended(point: HookPoint, failure: str = "", *, cancels: bool = True) -> machine.HookEnded:
    return machine.HookEnded(point, failure, ExitStatus(3), cancels)


def test_a_task_without_hooks() -> None:
    state, effects = play(task(), machine.Begin(), machine.Spawned(), machine.ProcessExited(ExitStatus(4)), machine.Cleared())
    assert effects == [
        machine.SpawnTask(),
        machine.ReportRunning(),
        machine.KillRest(),
        machine.CancelTimer(Timer.GRACE),
        machine.ReportEnd(TaskEnd(TaskId(0), ExitStatus(4))),
    ]
    assert state.phase is Phase.ENDED


def test_all_hooks_run_in_order() -> None:
    _, effects = play(
        task(*ALL_HOOKS),
        machine.Begin(),
        ended(TASK_PROLOG),
        ended(STEP_TASK_PROLOG),
        machine.Spawned(),
        machine.ProcessExited(OK),
        machine.Cleared(),
        ended(STEP_TASK_EPILOG, "exit 1"),
        ended(TASK_EPILOG, "exit 1"),
    )
    assert hooks_of(effects) == [TASK_PROLOG, STEP_TASK_PROLOG, STEP_TASK_EPILOG, TASK_EPILOG]
    assert end_of(effects) == TaskEnd(TaskId(0), OK)


def test_after_hooks_pair_with_the_before_hooks_that_were_started() -> None:
    _, effects = play(task(*ALL_HOOKS), machine.Begin(), ended(TASK_PROLOG, "TaskProlog a.sh exit 3"), ended(TASK_EPILOG))
    assert hooks_of(effects) == [TASK_PROLOG, TASK_EPILOG]
    assert end_of(effects) == TaskEnd(TaskId(0), ExitStatus(3), cancelled=True, reason="TaskProlog a.sh exit 3")


@pytest.mark.parametrize(("cancels", "word"), [(True, "cancelled"), (False, "failed")])
def test_a_task_that_its_hook_keeps_from_starting_is_cancelled_or_fails(cancels: bool, word: str) -> None:
    state, effects = play(task(TASK_PROLOG), machine.Begin(), ended(TASK_PROLOG, "TaskProlog a.sh exit 3", cancels=cancels))
    assert end_of(effects) == TaskEnd(TaskId(0), ExitStatus(3), cancels, "TaskProlog a.sh exit 3")
    assert state.notice == f"task 0 {word}: TaskProlog a.sh exit 3"


def test_what_a_task_says_of_itself_needs_no_notice() -> None:
    state, _ = play(task(), machine.Begin(), machine.SpawnFailed(ExitStatus(127), "x: command not found"))
    assert state.notice == ""


def test_who_else_is_to_blame_for_its_end_is_told_unless_it_was_being_ended() -> None:
    killed = machine.ProcessExited(ExitStatus(signal=9), "killed: out of memory")
    started = (machine.Begin(), machine.Spawned())
    _, effects = play(task(), *started, killed, machine.Cleared())
    assert end_of(effects).reason == "killed: out of memory"
    _, effects = play(task(), *started, machine.Terminate("time limit"), killed, machine.Cleared())
    assert end_of(effects).reason == "time limit"


def test_a_hook_that_is_not_configured_counts_as_passed() -> None:
    _, effects = play(task(STEP_TASK_EPILOG), machine.Begin(), machine.SpawnFailed(ExitStatus(127), "x: command not found"))
    assert hooks_of(effects) == [STEP_TASK_EPILOG]
    _, effects = play(task(STEP_TASK_PROLOG, TASK_EPILOG), machine.Begin(), ended(STEP_TASK_PROLOG, "exit 1"), ended(TASK_EPILOG))
    assert hooks_of(effects) == [STEP_TASK_PROLOG, TASK_EPILOG]


def test_a_termination_before_the_turn_came_runs_nothing() -> None:
    state, effects = play(task(*ALL_HOOKS), machine.Terminate("cancelled"))
    assert effects == [machine.ReportEnd(TaskEnd(TaskId(0), machine.STOPPED_EXIT, cancelled=True, reason="cancelled"))]
    assert state.phase is Phase.ENDED


def test_a_termination_stops_a_before_hook_whatever_that_answers() -> None:
    for failure in ("", "TaskProlog stopped"):
        _, effects = play(task(TASK_PROLOG), machine.Begin(), machine.Terminate("cancelled"), ended(TASK_PROLOG, failure))
        assert machine.StopHook() in effects
        assert end_of(effects) == TaskEnd(TaskId(0), machine.STOPPED_EXIT, cancelled=True, reason="cancelled")


def test_the_ladder() -> None:
    state, effects = play(task(), machine.Begin(), machine.Spawned(), machine.Terminate("time limit"), machine.Terminate("again"))
    assert effects[2:] == [machine.SignalTask(15), machine.SignalTask(18), machine.SetTimer(Timer.GRACE, 5.0)]
    state, effects = play(state, machine.TimerEnded(Timer.GRACE))
    assert effects == [machine.KillTask(), machine.SetTimer(Timer.KILL_WAIT, 30.0)]
    state, effects = play(state, machine.ProcessExited(ExitStatus(signal=9)), machine.Cleared())
    assert machine.CancelTimer(Timer.KILL_WAIT) in effects
    assert end_of(effects) == TaskEnd(TaskId(0), ExitStatus(signal=9), reason="time limit")


def test_the_rest_has_the_remaining_grace() -> None:
    state, effects = play(
        task(), machine.Begin(), machine.Spawned(), machine.Terminate("x"), machine.ProcessExited(ExitStatus(signal=15))
    )
    assert effects[-1] == machine.AwaitRest()
    _, effects = play(state, machine.TimerEnded(Timer.GRACE))
    assert effects == [machine.KillRest()]


def test_what_cannot_be_killed_is_given_up_and_epilogs_run() -> None:
    state, effects = play(
        task(TASK_EPILOG),
        machine.Begin(),
        machine.Spawned(),
        machine.Terminate("x"),
        machine.TimerEnded(Timer.GRACE),
        machine.TimerEnded(Timer.KILL_WAIT),
    )
    assert hooks_of(effects) == [TASK_EPILOG]
    # It may end at last.
    _, effects = play(state, machine.ProcessExited(ExitStatus(signal=9)), ended(TASK_EPILOG))
    assert end_of(effects) == TaskEnd(TaskId(0), ExitStatus(signal=9), reason="x; its process cannot be killed")


@pytest.mark.parametrize(("number", "ends"), [(2, True), (9, True), (15, True), (10, False), (18, False)])
def test_a_signal_before_the_process_means_what_it_does_by_default(number: int, ends: bool) -> None:
    _, effects = play(task(TASK_PROLOG), machine.Begin(), machine.Signal(number))
    assert (machine.StopHook() in effects) is ends


def test_a_signal_goes_to_the_running_task() -> None:
    _, effects = play(task(), machine.Begin(), machine.Spawned(), machine.Signal(10))
    assert effects[-1] == machine.SignalTask(10)


@pytest.mark.parametrize(
    "event",
    [machine.Spawned(), machine.Cleared(), machine.ProcessExited(OK), machine.TimerEnded(Timer.GRACE), ended(TASK_PROLOG)],
)
def test_what_cannot_happen_is_refused(event: machine.Event) -> None:
    with pytest.raises(machine.InvalidTransitionError, match="waiting"):
        advance(task(), event)


# ---- every order


def possible(state: Task, pending: frozenset[str]) -> Iterator[tuple[machine.Event, frozenset[str]]]:
    """What a faithful interpreter may say next, given the answers that it owes (`pending`), and what it owes afterwards."""
    hooks = {**machine._BEFORE_HOOKS, **machine._AFTER_HOOKS}
    for answer in pending:
        rest = pending - {answer}
        match answer:
            case "hook" if state.phase in hooks:
                yield ended(hooks[state.phase]), rest
                yield ended(hooks[state.phase], "failed"), rest
            case "spawn":
                yield machine.Spawned(), rest | {"exit"}
                yield machine.SpawnFailed(ExitStatus(127), "missing"), rest
            case "exit":
                yield machine.ProcessExited(ExitStatus(5)), rest
            case "rest":
                yield machine.Cleared(), rest
            case "grace":
                yield machine.TimerEnded(Timer.GRACE), rest
            case "kill wait":
                yield machine.TimerEnded(Timer.KILL_WAIT), rest
            case _:
                pass
    yield machine.Terminate("cancelled"), pending
    yield machine.Signal(15), pending


OWED = {
    machine.RunHook: "hook",
    machine.SpawnTask: "spawn",
    machine.AwaitRest: "rest",
    machine.KillRest: "rest",
}


@pytest.mark.parametrize(
    "hooks", [frozenset(chosen) for size in range(5) for chosen in itertools.combinations(sorted(ALL_HOOKS, key=str), size)]
)
def test_the_promises_hold_in_every_order(hooks: frozenset[HookPoint]) -> None:
    endings = 0
    start, begun = advance(task(*hooks), machine.Begin())
    frontier = [(start, frozenset({OWED[type(begun[0])]}), tuple(begun))]
    seen = set()
    while frontier:
        state, pending, history = frontier.pop()
        for event, left in possible(state, pending):
            after, effects = advance(state, event)
            after.check_invariants()
            owed = left
            for effect in effects:
                match effect:
                    case machine.SetTimer(timer):
                        owed |= {timer.value}
                    case machine.CancelTimer(timer):
                        owed -= {timer.value}
                    case _ if type(effect) in OWED:
                        owed |= {OWED[type(effect)]}
                    case _:
                        pass
            past = history + effects
            check_promises(hooks, past, after)
            endings += any(isinstance(effect, machine.ReportEnd) for effect in effects)
            node = (after, owed, tuple(effect for effect in past if not isinstance(effect, machine.SignalTask)))
            if node not in seen:
                seen.add(node)
                frontier.append((after, owed, past))
    assert endings > 0


def check_promises(hooks: frozenset[HookPoint], history: tuple[machine.Effect, ...], state: Task) -> None:
    ran = [effect.point for effect in history if isinstance(effect, machine.RunHook)]
    assert len(ran) == len(set(ran)), "a hook ran twice"
    assert ran == sorted(ran, key=[TASK_PROLOG, STEP_TASK_PROLOG, STEP_TASK_EPILOG, TASK_EPILOG].index)
    spawns = [place for place, effect in enumerate(history) if isinstance(effect, machine.SpawnTask)]
    ends = [place for place, effect in enumerate(history) if isinstance(effect, machine.ReportEnd)]
    assert len(spawns) <= 1
    assert len(ends) <= 1
    if spawns:
        before = [effect.point for effect in history[: spawns[0]] if isinstance(effect, machine.RunHook)]
        assert set(before) == hooks & {TASK_PROLOG, STEP_TASK_PROLOG}, "a task before its before-hooks"
    if ends:
        assert ends[0] == len(history) - 1 or all(isinstance(effect, machine.SignalTask) for effect in history[ends[0] + 1 :])
        if TASK_EPILOG in hooks:
            assert TASK_EPILOG in ran, "TaskEpilog is owed by every task that had its turn"
        if STEP_TASK_EPILOG in hooks and spawns:
            assert STEP_TASK_EPILOG in ran
        assert not state.cancelled or not spawns


def test_invariants_notice_a_broken_state() -> None:
    with pytest.raises(AssertionError):
        replace(task(), cancelled=True).check_invariants()
