"""Prolog inside the job's cgroup (Contain), and both node hooks run by the job's extern step (RunInJob), as administrators and users see them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cranehooks.execution.containment.hierarchies import of_instances
from cranehooks.model.limits import LimitKind
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.offered import needs
from tests.support.scripted_cluster import ScriptedCluster, runs_of, texts_of

PROFILES = ("crane-requeue", "slurm", "crane-fail")
PLACE = "cat /proc/self/cgroup"


@contextmanager
def contained(flag: str, profile: str = "crane-requeue", **hooks: object) -> Iterator[ScriptedCluster]:
    section = {"PrologFlags": flag, **hooks}
    with ScriptedCluster(points=("Prolog", "Epilog", "TaskProlog"), hooks=section, Profile=profile) as cluster:
        yield cluster
        cluster.settle()


def has_cgroups(stage: ScriptedCluster) -> bool:
    return bool(list(of_instances(f"{stage.cluster._cluster_name}.*")))


def place_of(stage: ScriptedCluster, label: str, point: HookPoint) -> list[str]:
    """Where a hook said it was, one line per hierarchy, by node."""
    return [run.scripts[0].output for run in runs_of(stage.job(label), point)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("flag", "inside"), [("contain", {HookPoint.PROLOG}), ("RunInJob", {HookPoint.PROLOG, HookPoint.EPILOG})]
)
def test_where_the_hooks_run(flag: str, inside: set[HookPoint], profile: str) -> None:
    with contained(flag, profile) as stage:
        stage.plan("placed", "Prolog", PLACE)
        stage.plan("placed", "Epilog", PLACE)
        job_id = stage.submit("placed", "true", "-N2", "-n2")
        job = stage.ended("placed")
        assert job.state == "Completed", texts_of(job)
        extern = next(step for step in job.steps if step.step_id == "extern")
        assert (extern.state.lower(), set(extern.nodes)) == ("ended", {"cn01", "cn02"})
        for point in (HookPoint.PROLOG, HookPoint.EPILOG):
            runs = runs_of(job, point)
            assert sorted(run.key.node or "" for run in runs) == ["cn01", "cn02"]
            assert {(run.user, run.outcome.kind) for run in runs} == {(runs[0].user, OutcomeKind.OK)}
            if has_cgroups(stage):
                expected = point in inside
                assert [f"/job_{job_id}/step_extern/" in place for place in place_of(stage, "placed", point)] == [expected] * 2


@needs(LimitKind.MEMORY)
@pytest.mark.parametrize("flag", ["Contain", "RunInJob"])
def test_a_prolog_within_the_job_that_takes_too_much_memory_says_so(flag: str) -> None:
    with contained(flag) as stage:
        stage.plan("greedy", "Prolog", f"{stage.interpreter} -c 'b = bytearray(256 << 20)'")
        stage.submit("greedy", "true", "--mem=64M", "--no-requeue")
        job = stage.ended("greedy")
        assert "out of memory" in job.reason
        assert any("out of memory" in run.outcome.detail for run in runs_of(job, HookPoint.PROLOG))
        assert not any(step.reason.startswith("killed") for step in job.steps), "no task has run"


AFTER_A_FAILURE = {"crane-requeue": ("Completed", 2), "slurm": ("Held", 1), "crane-fail": ("Failed", 1)}


@pytest.mark.parametrize("profile", PROFILES)
def test_failures_in_the_job_mean_what_they_mean_elsewhere(profile: str) -> None:
    with contained("RunInJob", profile, PrologTimeout=2) as stage:
        for label, line, words in (
            ("failing", "echo no GPU; exit 3", "Prolog Prolog exit 3 on cn01: no GPU"),
            ("slow", "exec sleep 60", "Prolog Prolog timeout"),
        ):
            stage.plan(label, "Prolog", line, node="cn01")
            stage.submit(label, "true", *(() if profile == "crane-requeue" else ("-w", "cn01")))
            job = stage.await_state(label, AFTER_A_FAILURE[profile][0])
            assert (job.state, job.attempt) == AFTER_A_FAILURE[profile], texts_of(job)
            assert words in texts_of(job), texts_of(job)
            failed = runs_of(job, HookPoint.PROLOG)[0]
            expected = (OutcomeKind.EXIT, 3) if label == "failing" else (OutcomeKind.TIMEOUT, 2)
            assert (failed.outcome.kind, failed.outcome.code, failed.key.node) == (*expected, "cn01")
            assert [node.name for node in stage.nodes().values() if node.drains] == ["cn01"]
            # Its Epilog ran on the node nevertheless.
            assert "cn01" in {run.key.node for run in runs_of(job, HookPoint.EPILOG)}
            stage.cancel_all()
            stage.settle()
        stage.plan("dirty", "Epilog", "exit 5")
        stage.submit("dirty", "exit 7", "-w", "cn01")
        job = stage.ended("dirty")
        assert (job.state, job.exit.code) == ("Failed", 7)
        assert [(run.outcome.kind, run.outcome.code) for run in runs_of(job, HookPoint.EPILOG)] == [(OutcomeKind.EXIT, 5)]
        assert [node.name for node in stage.nodes().values() if node.drains] == ["cn01"]


@pytest.mark.parametrize("flag", ["Contain", "RunInJob"])
def test_nothing_that_hooks_or_tasks_leave_in_the_job_outlives_it(flag: str) -> None:
    with contained(flag) as stage:
        note = stage.work / "leftover"
        leave = f"/usr/bin/setsid /bin/sleep 1000 & echo $! > {note}.{{}}"
        stage.plan("untidy", "Prolog", leave.format("prolog"))
        # What lives when the Epilog begins would be seen by it.
        stage.plan("untidy", "Epilog", f"kill -0 $(cat {note}.task) 2>/dev/null && echo alive; {leave.format('epilog')}")
        stage.submit("untidy", f"setsid sleep 1000 & echo $! > {note}.task", "-w", "cn01")
        job = stage.ended("untidy")
        for point in (HookPoint.PROLOG, HookPoint.EPILOG):
            (run,) = runs_of(job, point)
            assert run.outcome.kind is OutcomeKind.OK
            left = int(Path(f"{note}.{point.value.lower()}").read_text())
            assert [each.pid for each in run.scripts[0].leftovers] == [left]
            assert "alive" not in run.output
        assert not Path(f"/proc/{Path(f'{note}.task').read_text().strip()}").exists()


@pytest.mark.parametrize(("profile", "is_stopped"), [("crane-requeue", True), ("slurm", False)])
def test_a_cancel_during_either_hook_in_the_job(profile: str, is_stopped: bool) -> None:
    with contained("RunInJob", profile) as stage:
        gate = stage.gate("prolog")
        stage.plan("early", "Prolog", gate.line, "exit 4")
        stage.submit("early", "true", "-w", "cn01")
        gate.await_arrivals()
        stage.cancel_all()
        if is_stopped:
            eventually(lambda: runs_of(stage.job("early"), HookPoint.PROLOG))
            assert runs_of(stage.job("early"), HookPoint.PROLOG)[0].outcome.kind is OutcomeKind.STOPPED
        else:
            assert stage.await_state("early", "Completing").state == "Completing"
            assert runs_of(stage.job("early"), HookPoint.PROLOG) == []
            gate.open()
        job = stage.ended("early")
        assert (job.state, job.attempt) == ("Cancelled", 1)
        assert len(stage.calls("early", "Epilog")) == 1
        assert [node.name for node in stage.nodes().values() if node.drains] == ([] if is_stopped else ["cn01"])
        stage.settle()
        gate = stage.gate("epilog")
        stage.plan("late", "Epilog", gate.line)
        stage.submit("late", "true", "-w", "cn01")
        gate.await_arrivals()
        stage.cancel_all()
        gate.open()
        assert stage.ended("late").state == "Completed"
        assert len(stage.calls("late", "Epilog")) == 1


def supervisor_of(stage: ScriptedCluster, job_id: int) -> int:
    """The process of the job's extern step, found by its name."""

    def found() -> int | None:
        named = (pid for pid in stage._processes() if name_of(pid) == f"csup {job_id}.extern")
        return next(named, None)

    pid = eventually(found)
    assert pid is not None
    return pid


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def test_when_the_extern_step_dies_its_hook_is_lost_and_an_epilog_to_come_runs_without_it() -> None:
    with contained("RunInJob") as stage:
        gate = stage.gate("task")
        stage.plan("widowed", "Epilog", PLACE)
        job_id = stage.submit("widowed", gate.line, "-w", "cn01")
        gate.await_arrivals()
        os.kill(supervisor_of(stage, job_id), signal.SIGKILL)
        eventually(lambda: next(s for s in stage.job("widowed").steps if s.step_id == "extern").state.lower() == "ended")
        gate.open()
        job = stage.ended("widowed")
        assert job.state == "Completed", texts_of(job)
        (epilog,) = runs_of(job, HookPoint.EPILOG)
        assert epilog.outcome.kind is OutcomeKind.OK
        assert any("outside the job's cgroup" in note for note in epilog.notes)
        assert "step_extern" not in epilog.output
        gate = stage.gate("epilog")
        stage.plan("lost", "Epilog", gate.line)
        job_id = stage.submit("lost", "true", "-w", "cn01")
        gate.await_arrivals()
        os.kill(supervisor_of(stage, job_id), signal.SIGKILL)
        job = stage.ended("lost")
        assert job.state == "Completed"
        assert [run.outcome.kind for run in runs_of(job, HookPoint.EPILOG)] == [OutcomeKind.LOST]
        assert len(stage.calls("lost", "Epilog")) == 1, "it is not repeated in this boot"
        assert [node.name for node in stage.nodes().values() if node.drains] == ["cn01"]


@pytest.mark.parametrize("point", [HookPoint.PROLOG, HookPoint.EPILOG])
def test_hooks_in_the_job_live_through_a_restart_of_craned(point: HookPoint) -> None:
    with contained("RunInJob") as stage:
        gate = stage.gate("restart")
        stage.plan("lasting", point.value, gate.line, "echo survived")
        stage.submit("lasting", "true", "-w", "cn01")
        (pid,) = gate.await_arrivals()
        stage.cluster.kill("cn01")
        stage.cluster.restart("cn01")
        assert Path(f"/proc/{pid}").exists()
        gate.open()
        job = stage.ended("lasting")
        assert job.state == "Completed", texts_of(job)
        (run,) = runs_of(job, point)
        assert (run.outcome.kind, run.scripts[0].last_line) == (OutcomeKind.OK, "survived")
        assert len(stage.calls("lasting", point.value)) == 1
        assert not [node for node in stage.nodes().values() if node.drains]
        stage.note_idle_processes()


@pytest.mark.parametrize("flag", ["Contain", "RunInJob"])
def test_without_control_groups_sessions_hold_hooks_together_and_craned_says_what_is_lost(flag: str) -> None:
    section = {"PrologFlags": flag}
    with ScriptedCluster(nodes=1, points=("Prolog", "Epilog"), hooks=section, Containment="none") as stage:
        assert any("flags_without_control_groups" in line for line in stage.cluster.log_tail("cn01", 200))
        note = stage.work / "leftover"
        for name in ("Prolog", "Epilog"):
            stage.plan("bare", name, f"/usr/bin/setsid /bin/sleep 1000 & echo $! > {note}.{name}")
        stage.submit("bare", "true")
        job = stage.ended("bare")
        assert job.state == "Completed", texts_of(job)
        for point in (HookPoint.PROLOG, HookPoint.EPILOG):
            (run,) = runs_of(job, point)
            left = int(Path(f"{note}.{point.value}").read_text())
            assert [each.pid for each in run.scripts[0].leftovers] == [left]
        assert next(step for step in job.steps if step.step_id == "extern").state.lower() == "ended"
        stage.settle()
