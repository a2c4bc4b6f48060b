"""The machine of a step, by examples and by every short order of events."""

import pytest

from cranehooks.model.ids import TaskId
from cranehooks.model.job import ExitStatus, TaskEnd
from cranehooks.model.limits import Usage
from csupervisor import step as machine
from csupervisor.step import Phase, Step, StepEnd, Timer, advance
from csupervisor.task import STOPPED_EXIT, InvalidTransitionError

IDS = (TaskId(0), TaskId(1))
END = {task_id: TaskEnd(task_id, ExitStatus(task_id)) for task_id in IDS}


def step(*, has_launcher: bool = True) -> Step:
    return Step(IDS, has_launcher, launcher_grace_s=10.0, output_grace_s=5.0)


def play(state: Step, *events: machine.Event) -> tuple[Step, list[machine.Effect]]:
    effects: list[machine.Effect] = []
    for event in events:
        state, more = advance(state, event)
        state.check_invariants()
        effects += more
    return state, effects


RUNNING = (
    machine.Begin(),
    machine.LauncherAttached(),
    machine.Prepared(),
    machine.TaskRunning(IDS[0]),
    machine.TaskRunning(IDS[1]),
)
OVER = (machine.TaskOver(END[IDS[1]]), machine.TaskOver(END[IDS[0]]))


def test_a_step_from_its_launcher_to_its_end() -> None:
    state, effects = play(step(), *RUNNING, *OVER, machine.CleanedUp(), machine.OutputSent(), machine.EndAcknowledged())
    assert effects == [
        machine.SetTimer(Timer.ATTACH, 40.0),
        machine.CancelTimer(Timer.ATTACH),
        machine.Prepare(),
        machine.BeginTasks(),
        machine.ReportStarted(),
        machine.CleanUp(),
        machine.CancelTimer(Timer.LAUNCHER),
        machine.CancelTimer(Timer.OUTPUT),
        machine.ReportEnd(StepEnd((END[IDS[0]], END[IDS[1]]))),
        machine.Exit(),
    ]
    assert state.phase is Phase.ACKNOWLEDGED
    assert advance(state, machine.EndAcknowledged()) == (state, ())


def test_what_was_used_is_told_with_the_end() -> None:
    used = Usage(1.5, 64, 1)
    _, effects = play(step(), *RUNNING, *OVER, machine.CleanedUp((), used), machine.OutputSent())
    assert effects[-1] == machine.ReportEnd(StepEnd((END[IDS[0]], END[IDS[1]]), "", (), used))


def test_a_step_with_files_waits_for_nobody() -> None:
    _, effects = play(step(has_launcher=False), machine.Begin(), machine.LauncherLost())
    assert effects == [machine.Prepare()]


def test_no_launcher_in_time() -> None:
    state, effects = play(step(), machine.Begin(), machine.TimerEnded(Timer.ATTACH))
    assert state.reason == "the launcher did not attach within 40 s"
    assert machine.CleanUp() in effects
    assert {end.exit for end in state.ends} == {STOPPED_EXIT}
    assert all(end.cancelled for end in state.ends)


def test_started_means_that_each_task_has_started_or_ended() -> None:
    state, effects = play(step(), *RUNNING[:4])
    assert machine.ReportStarted() not in effects
    _, effects = play(state, machine.TaskOver(END[IDS[1]]))
    assert effects == [machine.ReportStarted()]


def test_a_step_whose_tasks_were_all_cancelled_never_started() -> None:
    _, effects = play(step(), *RUNNING[:3], *OVER)
    assert machine.ReportStarted() not in effects
    assert machine.CleanUp() in effects


def test_a_failed_preparation_cancels_every_task() -> None:
    state, _ = play(step(), *RUNNING[:2], machine.PreparationFailed("cannot enter working directory /x"))
    assert [(end.cancelled, end.exit, end.reason) for end in state.ends] == [
        (True, ExitStatus(1), "cannot enter working directory /x")
    ] * 2
    assert state.reason == "cannot enter working directory /x"


def test_a_launcher_that_comes_back_in_time() -> None:
    _, effects = play(step(), *RUNNING, machine.LauncherLost(), machine.LauncherAttached())
    assert effects[-2:] == [machine.SetTimer(Timer.LAUNCHER, 10.0), machine.CancelTimer(Timer.LAUNCHER)]


def test_a_launcher_that_stays_away_ends_the_tasks_once() -> None:
    state, effects = play(
        step(), *RUNNING, machine.LauncherLost(), machine.TimerEnded(Timer.LAUNCHER), machine.Terminate("later")
    )
    assert effects[-1] == machine.TerminateTasks("launcher gone")
    assert state.reason == "launcher gone"


def test_a_termination_during_preparation_begins_no_task() -> None:
    state, effects = play(step(), *RUNNING[:2], machine.Terminate("cancelled"), machine.Prepared())
    assert machine.BeginTasks() not in effects
    assert state.phase is Phase.ENDING


def test_output_is_dropped_when_nobody_takes_it_after_a_termination() -> None:
    state, effects = play(step(), *RUNNING, machine.Terminate("cancelled"), *OVER, machine.CleanedUp())
    assert machine.SetTimer(Timer.OUTPUT, 5.0) in effects
    _, effects = play(state, machine.TimerEnded(Timer.OUTPUT), machine.OutputSent())
    assert effects[0] == machine.DropOutput()
    assert isinstance(effects[-1], machine.ReportEnd)


def test_a_step_that_ends_by_itself_waits_for_its_output_as_long_as_the_launcher_is_there() -> None:
    state, effects = play(step(), *RUNNING, *OVER, machine.CleanedUp())
    assert not [effect for effect in effects if effect == machine.SetTimer(Timer.OUTPUT, 5.0)]
    _, effects = play(state, machine.LauncherLost(), machine.TimerEnded(Timer.LAUNCHER))
    assert effects[-1] == machine.DropOutput()


def test_what_cannot_be_killed_holds_no_stream_open() -> None:
    state, effects = play(step(), *RUNNING, *OVER, machine.CleanedUp(("77 stuck",)))
    assert effects[-1] == machine.SetTimer(Timer.OUTPUT, 5.0)
    _, effects = play(state, machine.OutputSent())
    assert effects[-1] == machine.ReportEnd(StepEnd((END[IDS[0]], END[IDS[1]]), "", ("77 stuck",)))


def test_signals_reach_tasks_that_have_begun() -> None:
    _, effects = play(step(), *RUNNING, machine.Signal(10))
    assert effects[-1] == machine.SignalTasks(10)
    state, effects = play(step(), machine.Begin(), machine.Signal(10))
    assert state.phase is Phase.WAITING
    state, _ = play(step(), machine.Begin(), machine.Signal(2))
    assert state.reason == "signal 2 before the step started"


@pytest.mark.parametrize(
    "event", [machine.Prepared(), machine.CleanedUp(), machine.OutputSent(), machine.TimerEnded(Timer.OUTPUT)]
)
def test_what_cannot_happen_is_refused(event: machine.Event) -> None:
    with pytest.raises(InvalidTransitionError):
        advance(step(), event)


def test_one_that_is_asked_to_stop_waits_only_so_long_for_somebody_who_takes_the_end() -> None:
    state, effects = play(step(), *RUNNING, machine.Stop("asked to stop"), *OVER, machine.CleanedUp(), machine.OutputSent())
    assert machine.TerminateTasks("asked to stop") in effects
    assert effects[-1] == machine.SetTimer(Timer.DELIVERY, machine.DELIVER_WITHIN_S)
    assert advance(state, machine.EndAcknowledged())[1] == (machine.CancelTimer(Timer.DELIVERY), machine.Exit())
    state, effects = play(state, machine.TimerEnded(Timer.DELIVERY))
    assert (state.phase, effects) == (Phase.UNDELIVERED, [machine.Exit()])
    assert advance(state, machine.EndAcknowledged()) == (state, ())


def test_one_that_is_asked_to_stop_after_its_end_does_not_start_anew() -> None:
    state, _ = play(step(), *RUNNING, *OVER, machine.CleanedUp(), machine.OutputSent())
    state, effects = play(state, machine.Stop("asked to stop"), machine.Stop("asked to stop"))
    assert (state.phase, effects) == (Phase.ENDED, [machine.SetTimer(Timer.DELIVERY, machine.DELIVER_WITHIN_S)])


# ---- every order


def possible(state: Step, owed: frozenset[object]) -> list[tuple[machine.Event, frozenset[object]]]:
    """What a faithful interpreter may say next, given what it owes, and what it owes afterwards."""
    events: list[tuple[machine.Event, frozenset[object]]] = [
        (machine.LauncherAttached(), owed),
        (machine.LauncherLost(), owed),
        (machine.Terminate("cancelled"), owed),
        (machine.Stop("asked to stop"), owed),
        (machine.Signal(15), owed),
    ]
    for answer in owed:
        rest = owed - {answer}
        match answer:
            case Timer():
                events.append((machine.TimerEnded(answer), rest))
            case "prepare":
                events += [(machine.Prepared(), rest), (machine.PreparationFailed("no"), rest)]
            case "clean up":
                events += [(machine.CleanedUp(), rest | {"output"}), (machine.CleanedUp(("7 x",)), rest | {"output"})]
            case "output":
                events.append((machine.OutputSent(), rest))
            case ("start", int(number)):
                task_id = TaskId(number)
                events.append((machine.TaskRunning(task_id), rest | {("end", task_id)}))
                events.append((machine.TaskOver(END[task_id]), rest))
            case ("end", int(number)):
                events.append((machine.TaskOver(END[TaskId(number)]), rest))
            case "acknowledge":
                events.append((machine.EndAcknowledged(), rest))
            case _:
                raise AssertionError(answer)
    return events


def owed_after(owed: frozenset[object], effects: tuple[machine.Effect, ...]) -> frozenset[object]:
    for effect in effects:
        match effect:
            case machine.SetTimer(timer):
                owed |= {timer}
            case machine.CancelTimer(timer):
                owed -= {timer}
            case machine.Prepare():
                owed |= {"prepare"}
            case machine.BeginTasks():
                owed |= {("start", task_id) for task_id in IDS}
            case machine.CleanUp():
                owed |= {"clean up"}
            case machine.ReportEnd():
                owed |= {"acknowledge"}
            case _:
                pass
    return owed


@pytest.mark.parametrize("has_launcher", [True, False])
def test_the_promises_hold_in_every_order(has_launcher: bool) -> None:
    start, effects = advance(step(has_launcher=has_launcher), machine.Begin())
    frontier = [(start, owed_after(frozenset(), effects), 0, 0)]
    seen = set(frontier)
    exits = 0
    while frontier:
        state, owed, reports, cleanups = frontier.pop()
        for event, rest in possible(state, owed):
            after, effects = advance(state, event)
            after.check_invariants()
            begun = [effect for effect in effects if isinstance(effect, machine.BeginTasks)]
            assert not begun or (isinstance(event, machine.Prepared) and not after.is_terminated)
            now_reports = reports + sum(isinstance(effect, machine.ReportEnd) for effect in effects)
            now_cleanups = cleanups + sum(isinstance(effect, machine.CleanUp) for effect in effects)
            assert now_reports <= 1, "the step ended twice"
            assert now_cleanups <= 1
            assert not now_reports or now_cleanups == 1, "ended before it was cleaned up"
            exits += any(isinstance(effect, machine.Exit) for effect in effects)
            now_owed = owed_after(rest, effects)
            if after.phase not in (Phase.ENDED, Phase.ACKNOWLEDGED, Phase.UNDELIVERED):
                assert now_owed, f"nothing moves it on: {after}"
            if after.phase is Phase.ENDED and after.is_stopping:
                assert Timer.DELIVERY in now_owed, f"it may wait for ever: {after}"
            node = (after, now_owed, now_reports, now_cleanups)
            if node not in seen:
                seen.add(node)
                frontier.append(node)
    assert exits > 0
