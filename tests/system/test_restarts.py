"""Daemons that are killed or restarted in the middle of a job: nothing runs twice, nothing that is owed is forgotten."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Two nodes that are Down soon after they fall silent."""
    with ScriptedCluster(HeartbeatInterval=0.5, NodeDownTimeout=3.0, LauncherGrace=20.0) as cluster:
        yield cluster


@pytest.fixture
def stage(shared_cluster: ScriptedCluster) -> Iterator[ScriptedCluster]:
    """As everywhere; daemons that a test left dead are started again."""
    yield shared_cluster
    cluster = shared_cluster.cluster
    for name, daemon in cluster.daemons.items():
        if not Path(f"/proc/{daemon.pid}").exists():
            cluster.restart(name)
    cluster.wait_until_up()
    shared_cluster.cancel_all()
    # A daemon that has come back has processes of its own again.
    eventually(
        lambda: not any(node.job_ids or node.owed_epilogs for node in shared_cluster.nodes().values()), deadline_s=PATIENCE_S
    )
    shared_cluster.note_idle_processes()
    shared_cluster.settle()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def restart(stage: ScriptedCluster, name: str, number: int = signal.SIGKILL) -> None:
    stage.cluster.kill(name, number)
    stage.cluster.restart(name)
    stage.cluster.wait_until_up()


# ---- a node


def test_node_killed_in_a_prolog_goes_down_and_its_job_runs_elsewhere(stage: ScriptedCluster) -> None:
    gate = stage.gate("lost-prolog")
    stage.plan("lost", "Prolog", gate.line, node="cn01")
    stage.submit("lost", "true")
    gate.await_arrivals()
    stage.cluster.kill("cn01")
    job = stage.ended("lost")
    assert (job.state, job.attempt, job.nodes) == ("Completed", 2, ("cn02",))
    node = stage.nodes()["cn01"]
    assert not node.up
    assert node.owed_epilogs == (job.job_id,)
    assert stage.calls("lost", "Prolog")[0].node == "cn01"
    assert [call.node for call in stage.calls("lost", "Epilog")] == ["cn02"]
    # It comes back: the Epilog that is owed runs before any new work.
    back = stage.gate("owed-epilog")
    stage.plan("lost", "Epilog", back.line, node="cn01")
    stage.submit("new-work", "true", "-w", "cn01")
    stage.cluster.restart("cn01")
    back.await_arrivals()
    assert stage.job("new-work").state == "Pending"
    assert stage.calls("new-work") == []
    back.open()
    stage.hookctl("resume", "cn01")
    assert stage.ended("new-work").nodes == ("cn01",)
    assert [(call.node, call.attempt) for call in stage.calls("lost", "Epilog")] == [("cn02", 2), ("cn01", 1)]
    assert len([call for call in stage.calls("lost", "Prolog") if call.node == "cn01"]) == 1


def test_interactive_job_of_a_lost_node_is_cancelled(stage: ScriptedCluster) -> None:
    gate = stage.gate("lost-crun")
    with stage.start("crun", "-w", "cn02", "sh", "-c", gate.line, label="lost-crun") as crun:
        (pid,) = gate.await_arrivals()
        stage.cluster.kill("cn02")
        assert crun.wait(60) != 0
    eventually(lambda: stage.job("lost-crun").has_ended, deadline_s=PATIENCE_S)
    assert stage.job("lost-crun").state in {"Cancelled", "NodeFail"}
    stage.cluster.restart("cn02")
    stage.cluster.wait_until_up()
    eventually(lambda: len(stage.calls("lost-crun", "Epilog")) == 1, deadline_s=PATIENCE_S)
    eventually(lambda: is_gone(pid), deadline_s=PATIENCE_S)


def test_step_survives_a_restart_of_its_craned(stage: ScriptedCluster) -> None:
    gate = stage.gate("survives")
    with stage.start("crun", "-w", "cn01", "sh", "-c", f"echo before; {gate.line}; echo after; exit 3", label="survives") as crun:
        (pid,) = gate.await_arrivals()
        restart(stage, "cn01")
        assert not is_gone(pid)
        gate.open()
        output, _ = crun.communicate(timeout=60)
        assert (crun.returncode, output) == (3, b"before\nafter\n")
    job = stage.ended("survives")
    assert (job.state, job.exit.code, job.attempt) == ("Failed", 3, 1)
    for point in ("Prolog", "TaskProlog", "TaskEpilog", "Epilog"):
        assert len(stage.calls("survives", point)) == 1, point


def test_batch_job_survives_a_stop_and_start_of_its_craned(stage: ScriptedCluster) -> None:
    gate = stage.gate("batch-survives")
    stage.submit("batch-survives", f"{gate.line}; echo done", "-w", "cn01")
    (pid,) = gate.await_arrivals()
    restart(stage, "cn01", signal.SIGTERM)
    assert not is_gone(pid)
    gate.open()
    job = stage.ended("batch-survives")
    assert (job.state, job.attempt) == ("Completed", 1)
    assert stage.output("batch-survives") == "done\n"
    assert len(stage.calls("batch-survives", "Epilog")) == 1


def test_job_that_ends_while_its_craned_is_away_is_told_when_it_is_back(stage: ScriptedCluster) -> None:
    gate = stage.gate("away")
    stage.submit("away", f"{gate.line}; exit 4", "-w", "cn01")
    (pid,) = gate.await_arrivals()
    stage.cluster.kill("cn01")
    gate.open()
    eventually(lambda: is_gone(pid), deadline_s=PATIENCE_S)
    stage.cluster.restart("cn01")
    job = stage.ended("away")
    assert (job.state, job.exit.code, job.attempt) == ("Failed", 4, 1)
    assert len(stage.calls("away", "Epilog")) == 1


def test_prolog_that_outlives_its_craned_is_not_run_again(stage: ScriptedCluster) -> None:
    gate = stage.gate("adopted")
    stage.plan("adopted", "Prolog", gate.line, node="cn01")
    stage.submit("adopted", "true", "-w", "cn01", "--no-requeue")
    gate.await_arrivals()
    restart(stage, "cn01")
    gate.open()
    job = stage.ended("adopted")
    assert len(stage.calls("adopted", "Prolog")) == 1
    assert len(stage.calls("adopted", "Epilog")) == 1
    # Nobody saw how it ended: no task follows, and the node is looked at by a person.
    assert stage.calls("adopted", "TaskProlog") == []
    assert job.state == "Cancelled"
    assert stage.nodes()["cn01"].drains


def test_epilog_interrupted_by_a_kill_is_not_run_twice(stage: ScriptedCluster) -> None:
    gate = stage.gate("lost-epilog")
    stage.plan("lost-epilog", "Epilog", gate.line)
    stage.submit("lost-epilog", "true", "-w", "cn01")
    gate.await_arrivals()
    restart(stage, "cn01")
    gate.open()
    job = stage.ended("lost-epilog")
    assert job.state == "Completed"
    assert len(stage.calls("lost-epilog", "Epilog")) == 1
    assert "lost" in stage.nodes()["cn01"].drains[0].reason


# ---- the controller


def test_job_goes_on_while_the_controller_is_restarted(stage: ScriptedCluster) -> None:
    gate = stage.gate("ctld")
    with stage.start("cbatch", "--wait", "-o", "ctld.out", "--wrap", f"{gate.line}; echo done; exit 6", label="ctld") as cbatch:
        gate.await_arrivals()
        restart(stage, "cranectld")
        gate.open()
        assert cbatch.wait(60) == 6
    job = stage.ended("ctld")
    assert (job.state, job.attempt, job.exit.code) == ("Failed", 1, 6)
    for point in ("CranectldProlog", "Prolog", "TaskProlog", "TaskEpilog", "Epilog", "CranectldEpilog"):
        assert len(stage.calls("ctld", point)) == 1, point
    assert {run.key.point for run in job.runs} >= {HookPoint.CRANECTLD_PROLOG, HookPoint.PROLOG, HookPoint.EPILOG}


def test_job_that_ends_while_the_controller_is_away_is_told_later(stage: ScriptedCluster) -> None:
    gate = stage.gate("silence")
    stage.submit("silence", f"{gate.line}; exit 4")
    (pid,) = gate.await_arrivals()
    stage.cluster.kill("cranectld")
    gate.open()
    eventually(lambda: is_gone(pid), deadline_s=PATIENCE_S)
    stage.cluster.restart("cranectld")
    stage.cluster.wait_until_up()
    job = stage.ended("silence")
    assert (job.state, job.exit.code, job.attempt) == ("Failed", 4, 1)
    assert len(stage.calls("silence", "Epilog")) == 1
    assert len(stage.calls("silence", "CranectldEpilog")) == 1


def test_crun_goes_on_while_the_controller_is_restarted(stage: ScriptedCluster) -> None:
    gate = stage.gate("crun-ctld")
    with stage.start("crun", "sh", "-c", f"{gate.line}; echo done; exit 5", label="crun-ctld") as crun:
        gate.await_arrivals()
        restart(stage, "cranectld")
        gate.open()
        output, _ = crun.communicate(timeout=60)
        assert (crun.returncode, output) == (5, b"done\n")
    assert stage.ended("crun-ctld").attempt == 1


def test_queue_drains_and_history_survive_the_controller(stage: ScriptedCluster) -> None:
    assert stage.hookctl("drain", "cn02", "--reason", "new disk").returncode == 0
    stage.submit("running", "sleep 3600", "-w", "cn01", "-c4")
    stage.await_state("running", "Running")
    stage.submit("queued", "true", "-w", "cn01", "-c4")
    before = stage.job("queued").history
    restart(stage, "cranectld")
    assert stage.nodes()["cn02"].drains[0].reason == "new disk"
    assert stage.job("queued").state == "Pending"
    assert stage.job("queued").history[: len(before)] == before
    assert stage.job("running").state == "Running"


def test_controller_hook_interrupted_by_a_kill_is_settled(stage: ScriptedCluster) -> None:
    gate = stage.gate("ctld-prolog")
    stage.plan("ctld-prolog", "CranectldProlog", f'[ "$CRANE_JOB_ATTEMPT" != 1 ] || {{ {gate.line}; }}')
    stage.submit("ctld-prolog", "true")
    gate.await_arrivals()
    restart(stage, "cranectld")
    gate.open()
    job = stage.ended("ctld-prolog")
    assert job.state == "Completed"
    attempts = [call.attempt for call in stage.calls("ctld-prolog", "CranectldProlog")]
    assert attempts == sorted(set(attempts)), "once per attempt"


def test_front_ends_say_that_the_controller_is_away(stage: ScriptedCluster) -> None:
    stage.cluster.kill("cranectld")
    for command in (["hookctl", "jobs"], ["crun", "true"]):
        result = stage.run(*command, as_admin=command[0] == "hookctl")
        assert result.returncode == 3
        assert f"{command[0]}: error: the controller does not answer" in result.stderr


# ---- the launch host


def test_crun_ends_cleanly_when_its_local_daemon_is_restarted(stage: ScriptedCluster) -> None:
    gate = stage.gate("login")
    with stage.start("crun", "sh", "-c", f"{gate.line}; echo done", label="login") as crun:
        gate.await_arrivals()
        restart(stage, "login")
        gate.open()
        output, _ = crun.communicate(timeout=80)
        assert (crun.returncode, output) == (0, b"done\n")
    assert stage.ended("login").state == "Completed"


def test_runs_are_told_once_though_reports_are_repeated(stage: ScriptedCluster) -> None:
    gate = stage.gate("reports")
    stage.submit("reports", gate.line)
    gate.await_arrivals()
    restart(stage, "cranectld", signal.SIGTERM)
    gate.open()
    job = stage.ended("reports")
    assert [len(runs_of(job, point)) for point in (HookPoint.PROLOG, HookPoint.TASK_PROLOG, HookPoint.EPILOG)] == [1, 1, 1]


# ---- a supervisor


def test_killed_supervisor_ends_its_step_and_everything_after_runs(stage: ScriptedCluster) -> None:
    gate = stage.gate("supervisor")
    with stage.start("crun", "-w", "cn01", "sh", "-c", gate.line, label="supervisor") as crun:
        (task,) = gate.await_arrivals()
        os.kill(parent_of(task), signal.SIGKILL)
        assert crun.wait(60) != 0
    job = stage.ended("supervisor")
    assert job.state in {"Failed", "Cancelled"}
    assert is_gone(task)
    assert len(stage.calls("supervisor", "Epilog")) == 1
    stage.submit("next", "true", "-w", "cn01")
    assert stage.ended("next").state == "Completed"


def test_running_batch_job_of_a_lost_node_runs_again_and_leaves_nothing_there(stage: ScriptedCluster) -> None:
    gate = stage.gate("lost-batch")
    # Only the first attempt waits; it must end although nobody opens the gate.
    stage.submit("lost-batch", f'[ "$CRANE_JOB_ATTEMPT" != 1 ] || {{ {gate.line}; }}; echo attempt $CRANE_JOB_ATTEMPT')
    (task,) = gate.await_arrivals()
    (lost,) = stage.job("lost-batch").nodes
    stage.cluster.kill(lost)
    job = stage.ended("lost-batch")
    assert (job.state, job.attempt) == ("Completed", 2)
    assert job.nodes != (lost,)
    assert stage.nodes()[lost].owed_epilogs == (job.job_id,)
    stage.cluster.restart(lost)
    stage.cluster.wait_until_up()
    eventually(lambda: not stage.nodes()[lost].owed_epilogs, deadline_s=PATIENCE_S)
    assert is_gone(task)
    assert sorted((call.node == lost, call.attempt) for call in stage.calls("lost-batch", "Epilog")) == [(False, 2), (True, 1)]
