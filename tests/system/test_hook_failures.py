"""What a failure at each hook point does to the node, the job, the step and the task, in the default profile."""

from collections.abc import Iterator

import pytest

from cranehooks.model.points import HookPoint
from tests.support.scripted_cluster import TASK_EPILOG, TASK_PROLOG, ScriptedCluster, runs_of, texts_of

FAIL_ONCE = 'if [ "$CRANE_JOB_ATTEMPT" = 1 ]; then echo "not today" >&2; exit 7; fi'


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Two nodes; a job is held after its second requeue."""
    with ScriptedCluster(MaxRequeueCount=2) as cluster:
        yield cluster


# ---- CranectldProlog


def test_failing_controller_prolog_requeues_a_batch_job(stage: ScriptedCluster) -> None:
    stage.plan("ctld-once", "CranectldProlog", FAIL_ONCE)
    stage.submit("ctld-once", "echo done")
    job = stage.ended("ctld-once")
    assert (job.state, job.attempt, job.requeue_count) == ("Completed", 2, 1)
    assert stage.output("ctld-once") == "done\n"
    assert {call.attempt for call in stage.calls("ctld-once", "Prolog")} == {2}
    # Each attempt ends with the controller's epilog; the node of the first was allocated, so its Epilog runs as well.
    assert [call.attempt for call in stage.calls("ctld-once", "CranectldEpilog")] == [1, 2]
    assert [call.attempt for call in stage.calls("ctld-once", "Epilog")] == [1, 2]
    assert not any(node.drains for node in stage.nodes().values())
    assert "not today" in texts_of(job)


def test_job_is_held_after_its_last_requeue_and_can_be_released(stage: ScriptedCluster) -> None:
    allowed = stage.work / "controller-is-well"
    stage.plan("ctld-always", "CranectldProlog", f"[ -e {allowed} ]")
    job_id = stage.submit("ctld-always", "true")
    job = stage.await_state("ctld-always", "Held")
    assert job.attempt == 3
    assert "requeued 2 times, MaxRequeueCount" in job.reason
    assert [call.attempt for call in stage.calls("ctld-always", "CranectldProlog")] == [1, 2, 3]
    allowed.touch()
    assert stage.hookctl("release", str(job_id)).returncode == 0
    assert stage.ended("ctld-always").state == "Completed"


def test_failing_controller_prolog_cancels_an_interactive_job(stage: ScriptedCluster) -> None:
    stage.plan("ctld-crun", "CranectldProlog", "echo licence server is away; exit 9")
    result = stage.run("crun", str(stage.tracer), "task", label="ctld-crun")
    assert result.returncode == 1
    assert "CranectldProlog" in result.stderr or "cranectld prolog" in result.stderr
    assert "licence server is away" in result.stderr
    job = stage.ended("ctld-crun")
    assert (job.state, job.requeue_count) == ("Cancelled", 0)
    assert {call.point for call in stage.calls("ctld-crun")} == {"CranectldProlog", "CranectldEpilog", "Epilog"}


# ---- Prolog


def test_failing_prolog_drains_the_node_and_sends_the_job_to_another(stage: ScriptedCluster) -> None:
    stage.plan("gpu", "Prolog", "echo checking; echo no GPU found >&2; exit 3", node="cn01")
    job_id = stage.submit("gpu", "echo trained on $CRANE_NODENAME")
    job = stage.ended("gpu")
    assert (job.state, job.attempt, job.nodes) == ("Completed", 2, ("cn02",))
    assert stage.output("gpu") == "trained on cn02\n"
    (cause,) = stage.nodes()["cn01"].drains
    assert (cause.owner, cause.reason) == ("hooks", f"prolog Prolog exit 3 (job {job_id}, attempt 1): no GPU found")
    kinds = [event.kind for event in job.history]
    assert kinds.index("drained") < kinds.index("requeued")
    assert [(call.node, call.attempt) for call in stage.calls("gpu", "Epilog")] == [("cn01", 1), ("cn02", 2)]
    assert [call.attempt for call in stage.calls("gpu", "CranectldEpilog")] == [1, 2]


def test_failing_prolog_on_one_node_ends_the_attempt_on_all(stage: ScriptedCluster) -> None:
    stage.plan("pair", "Prolog", 'test "$CRANE_JOB_ATTEMPT" = 2', node="cn02")
    with stage.start("cbatch", "--wait", "-N2", "-n2", "--wrap", f"crun {stage.tracer} task", label="pair"):
        # The batch step is on cn01 alone: the Prolog of cn02 runs, and fails, at the first crun.
        drained = stage.await_state("pair", "Pending")
        assert drained.requeue_count == 1
        assert stage.nodes()["cn02"].drains
        assert [(call.node, call.attempt) for call in stage.calls("pair", "task")] == []
        assert stage.hookctl("resume", "cn02").returncode == 0
        assert stage.ended("pair").state == "Completed"
    assert sorted(call.node for call in stage.calls("pair", "task")) == ["cn01", "cn02"]
    assert sorted((call.node, call.attempt) for call in stage.calls("pair", "Epilog")) == [
        ("cn01", 1), ("cn01", 2), ("cn02", 1), ("cn02", 2),
    ]  # fmt: skip


def test_failing_prolog_cancels_a_batch_job_that_may_not_run_again(stage: ScriptedCluster) -> None:
    stage.plan("only-once", "Prolog", "exit 4")
    stage.submit("only-once", "true", "--no-requeue")
    job = stage.ended("only-once")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert stage.calls("only-once", "TaskProlog") == []
    assert [node.name for node in stage.nodes().values() if node.drains] == ["cn01"]


def test_failing_prolog_cancels_an_interactive_job(stage: ScriptedCluster) -> None:
    stage.plan("crun-prolog", "Prolog", "echo scratch is full; exit 5")
    result = stage.run("crun", str(stage.tracer), "task", label="crun-prolog")
    assert result.returncode == 1
    assert "scratch is full" in result.stderr
    job = stage.ended("crun-prolog")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert stage.calls("crun-prolog", "TaskProlog", "task") == []
    assert len(stage.calls("crun-prolog", "Epilog")) == 1
    assert [node.name for node in stage.nodes().values() if node.drains] == ["cn01"]


def test_prolog_killed_by_a_signal_is_named(stage: ScriptedCluster) -> None:
    stage.plan("killed", "Prolog", "kill -9 $$", node="cn01")
    stage.submit("killed", "true")
    assert stage.ended("killed").nodes == ("cn02",)
    (cause,) = stage.nodes()["cn01"].drains
    assert "signal 9 (KILL)" in cause.reason


# ---- CrunProlog and CrunEpilog


def test_failing_crun_prolog_cancels_the_step_before_it_is_sent(stage: ScriptedCluster) -> None:
    stage.plan("no-launch", "CrunProlog", "exit 6")
    result = stage.run("crun", str(stage.tracer), "task", label="no-launch")
    assert result.returncode == 1
    assert "CrunProlog" in result.stderr
    job = stage.ended("no-launch")
    assert job.state == "Cancelled"
    assert {call.point for call in stage.calls("no-launch")} & {"Prolog", "TaskProlog", "task"} == set()
    (run,) = runs_of(job, HookPoint.CRUN_PROLOG)
    assert str(run.outcome) == "exit 6"


def test_failing_crun_prolog_in_an_allocation_leaves_the_job_alone(stage: ScriptedCluster) -> None:
    bad = stage.script("bad-crun-prolog", "exit 6")
    command = f"crun --prolog {bad} true; echo first=$?; crun true; echo second=$?"
    result = stage.run("calloc", "sh", "-c", command, label="goes-on")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "first=1\nsecond=0\n"
    assert stage.ended("goes-on").state == "Completed"


def test_failing_crun_epilog_changes_no_exit_code(stage: ScriptedCluster) -> None:
    stage.plan("late", "CrunEpilog", "exit 6")
    result = stage.run("crun", "sh", "-c", "exit 4", label="late")
    assert result.returncode == 4
    assert "CrunEpilog" in result.stderr
    (run,) = runs_of(stage.ended("late"), HookPoint.CRUN_EPILOG)
    assert str(run.outcome) == "exit 6"


# ---- task hooks


def test_failing_task_prolog_cancels_that_task_alone(stage: ScriptedCluster) -> None:
    stage.plan("one-of-three", "TaskProlog", 'if [ "$CRANE_PROCID" = 1 ]; then echo print not me; exit 8; fi')
    result = stage.run("crun", "-n3", str(stage.tracer), "task", label="one-of-three")
    assert result.returncode == 1
    assert "task 1 cancelled: TaskProlog" in result.stderr
    job = stage.ended("one-of-three")
    assert sorted(call.environment["CRANE_PROCID"] for call in stage.calls("one-of-three", "task")) == ["0", "2"]
    assert not any(node.drains for node in stage.nodes().values())
    outcomes = {run.key.task_id: str(run.outcome) for run in runs_of(job, HookPoint.TASK_PROLOG)}
    assert outcomes == {0: "ok", 1: "exit 8", 2: "ok"}
    # The task that never ran is cleaned up after as well.
    assert len(stage.calls("one-of-three", "TaskEpilog")) == 3


def test_failing_task_prolog_of_the_user_cancels_the_task(stage: ScriptedCluster) -> None:
    stage.plan("own-fails", TASK_PROLOG, "exit 8")
    result = stage.run("crun", "--task-prolog", stage.hook(TASK_PROLOG), str(stage.tracer), "task", label="own-fails")
    assert result.returncode == 1
    assert stage.calls("own-fails", "task") == []
    assert len(stage.calls("own-fails", "TaskProlog")) == 1


def test_failing_task_prolog_of_a_batch_script_ends_the_job(stage: ScriptedCluster) -> None:
    stage.plan("batch-task", "TaskProlog", "echo user quota exceeded; exit 8")
    stage.submit("batch-task", "echo never")
    job = stage.ended("batch-task")
    assert job.state in {"Failed", "Cancelled"}
    assert "TaskProlog" in job.reason or "task prolog" in job.reason
    assert "never" not in stage.output("batch-task")
    assert not any(node.drains for node in stage.nodes().values())


@pytest.mark.parametrize("point", [TASK_EPILOG, "TaskEpilog", "CranectldEpilog"])
def test_failing_epilogs_are_recorded_only(stage: ScriptedCluster, point: str) -> None:
    label = f"after-{point}"
    stage.plan(label, point, "echo oh dear; exit 8")
    result = stage.run("crun", "--task-epilog", stage.hook(TASK_EPILOG), "sh", "-c", "exit 3", label=label)
    assert result.returncode == 3
    job = stage.ended(label)
    assert (job.state, job.exit.code) == ("Failed", 3)
    assert not any(node.drains for node in stage.nodes().values())
    wanted = {TASK_EPILOG: "--task-epilog"}.get(point, point)
    (run,) = runs_of(job, HookPoint(wanted))
    assert (str(run.outcome), run.scripts[0].last_line) == ("exit 8", "oh dear")


# ---- Epilog


def test_failing_epilog_drains_the_node_and_changes_no_result(stage: ScriptedCluster) -> None:
    stage.plan("dirty", "Epilog", "echo scratch cannot be unmounted; exit 8", node="cn02")
    job_id = stage.submit("dirty", "true", "-N2", "-n2")
    job = stage.ended("dirty")
    assert (job.state, job.attempt) == ("Completed", 1)
    nodes = stage.nodes()
    assert not nodes["cn01"].drains
    (cause,) = nodes["cn02"].drains
    assert cause.reason == f"epilog Epilog exit 8 (job {job_id}, attempt 1): scratch cannot be unmounted"
    stage.submit("elsewhere", "true", "-w", "cn02")
    stage.submit("here", "true")
    assert stage.ended("here").nodes == ("cn01",)
    assert stage.job("elsewhere").state == "Pending"
    assert stage.hookctl("resume", "cn02").returncode == 0
    assert stage.ended("elsewhere").nodes == ("cn02",)


def test_cancelled_job_stays_cancelled_whatever_its_hooks_do_later(stage: ScriptedCluster) -> None:
    gate = stage.gate("cancelled-epilog")
    stage.plan("stays", "Epilog", gate.line, "exit 8")
    stage.plan("stays", "CranectldEpilog", "exit 8")
    job_id = stage.submit("stays", "sleep 3600")
    stage.await_state("stays", "Running")
    assert stage.hookctl("cancel", str(job_id), "--reason", "enough").returncode == 0
    gate.await_arrivals()
    gate.open()
    job = stage.ended("stays")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert "enough" in job.reason
    assert stage.nodes()["cn01"].drains


# ---- other profiles


@pytest.mark.parametrize(("profile", "code"), [("slurm", 8), ("sunk", 8), ("crane-fail", 1)])
def test_failing_task_prolog_fails_the_task_as_the_profile_says(profile: str, code: int) -> None:
    with ScriptedCluster(1, Profile=profile) as cluster:
        cluster.plan("fails", "TaskProlog", "echo no licence left; exit 8")
        result = cluster.run("crun", str(cluster.tracer), "task", label="fails")
        assert result.returncode == code
        assert "task 0 failed: TaskProlog TaskProlog exit 8: no licence left" in result.stderr
        job = cluster.ended("fails")
        assert (job.state, job.exit.code) == ("Failed", code)
        assert cluster.calls("fails", "task") == []
        cluster.settle()
