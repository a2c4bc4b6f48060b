"""The ten hook points as they run for jobs that succeed: where, as whom, how often, in which order, with which environment."""

import os
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.scripted_cluster import TASK_EPILOG, TASK_PROLOG, ScriptedCluster, runs_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: jobs of another user than the daemons'")

CONTROLLER_VARIABLES = {
    "CRANE_JOB_ID", "CRANE_JOB_ATTEMPT", "CRANE_JOB_RESTART_COUNT", "CRANE_JOB_NAME", "CRANE_JOB_USER", "CRANE_JOB_UID",
    "CRANE_JOB_GID", "CRANE_JOB_PARTITION", "CRANE_JOB_NODELIST", "CRANE_JOB_NUM_NODES", "CRANE_JOB_START_TIME",
    "CRANE_JOB_WORK_DIR", "CRANE_SUBMIT_DIR", "CRANE_SUBMIT_HOST", "CRANE_CLUSTER_NAME", "CRANE_NTASKS", "CRANE_CPUS_PER_TASK",
    "CRANE_SCRIPT_CONTEXT", "CRANE_JOB_CPUS_PER_NODE", "CRANE_TASKS_PER_NODE", "CRANE_JOB_GROUP",
    "CRANE_JOB_EXCLUSIVE",
}  # fmt: skip
NODE_VARIABLES = CONTROLLER_VARIABLES | {"CRANE_NODENAME", "CRANE_NODEID", "CRANE_CPUS_ON_NODE"}
AFTER_VARIABLES = {"CRANE_JOB_EXIT_CODE", "CRANE_JOB_EXIT_CODE2", "CRANE_JOB_DERIVED_EC"}


def crun_all_points(stage: ScriptedCluster, label: str, *options: str) -> None:
    """A step of one traced task with hooks at all ten points."""
    own = ["--task-prolog", stage.hook(TASK_PROLOG), "--task-epilog", stage.hook(TASK_EPILOG)]
    result = stage.run("crun", *own, *options, str(stage.tracer), "task", label=label)
    assert result.returncode == 0, result.stderr
    assert stage.ended(label).state == "Completed"


def test_all_ten_points_run_once_each_in_order(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "ten")
    points = [call.point for call in stage.calls("ten")]
    assert points[:9] == [
        "CranectldProlog", "CrunProlog", "Prolog", "TaskProlog", TASK_PROLOG, "task", TASK_EPILOG, "TaskEpilog", points[8],
    ]  # fmt: skip
    # The launch node, the node and the controller end the job side by side.
    assert sorted(points[8:]) == ["CranectldEpilog", "CrunEpilog", "Epilog"]
    assert stage.ended("ten").nodes == ("cn01",)


def test_every_run_is_recorded_with_its_scripts(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "recorded")
    job = stage.ended("recorded")
    for point in HookPoint:
        (run,) = runs_of(job, point)
        assert run.outcome.ok, point
        (script,) = run.scripts
        assert len(script.sha256) == 64
        assert script.path.startswith(str(stage.hooks))


def test_controller_and_node_hooks_run_as_the_daemon(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "daemons")
    for call in stage.calls("daemons", "CranectldProlog", "Prolog", "Epilog", "CranectldEpilog"):
        assert (call.uid, call.gid) == (os.geteuid(), os.getegid()), call.point
        assert call.cwd == "/"
        assert call.session == call.pid
        assert call.descriptors == [0, 1, 2]
        assert call.argv == [stage.hook(call.point)]


@needs_root
def test_task_and_crun_hooks_run_as_the_user(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "users")
    calls = stage.calls("users", "CrunProlog", "TaskProlog", TASK_PROLOG, "task", TASK_EPILOG, "TaskEpilog", "CrunEpilog")
    assert len(calls) == 7
    for call in calls:
        assert (call.uid, call.gid) == (stage.uid, stage.uid), call.point
        assert 0 not in call.groups
        assert call.cwd == str(stage.work)


def test_controller_and_node_hooks_see_exactly_their_variables(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "exact", "--export=ALL")
    seen = {call.point: set(call.environment) for call in stage.calls("exact")}
    assert seen["CranectldProlog"] == CONTROLLER_VARIABLES
    assert seen["Prolog"] == NODE_VARIABLES
    assert seen["Epilog"] == NODE_VARIABLES | AFTER_VARIABLES
    assert seen["CranectldEpilog"] == CONTROLLER_VARIABLES | AFTER_VARIABLES


def test_users_environment_reaches_only_hooks_of_the_user(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "leaks")
    with_secret = {call.point for call in stage.calls("leaks") if "SECRET_OF_USER" in call.environment}
    assert with_secret == {"CrunProlog", "TaskProlog", TASK_PROLOG, "task", TASK_EPILOG, "TaskEpilog", "CrunEpilog"}


def test_names_from_the_user_are_values_only(stage: ScriptedCluster) -> None:
    name = "x; PATH=/evil $(touch pwned)"
    assert stage.run("crun", "-J", name, "true").returncode == 0
    stage.ended(name)
    (prolog,) = stage.calls(name, "Prolog")
    assert prolog.environment["CRANE_JOB_NAME"] == name
    assert set(prolog.environment) == NODE_VARIABLES


def test_script_context_names_the_point(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "context")
    contexts = {call.point: call.environment.get("CRANE_SCRIPT_CONTEXT") for call in stage.calls("context")}
    assert contexts == {
        "CranectldProlog": "prolog_cranectld", "Prolog": "prolog_craned", "CrunProlog": "prolog_crun", "TaskProlog": "prolog_task",
        TASK_PROLOG: "prolog_task", "task": None, TASK_EPILOG: "epilog_task", "TaskEpilog": "epilog_task",
        "CrunEpilog": "epilog_crun", "Epilog": "epilog_craned", "CranectldEpilog": "epilog_cranectld",
    }  # fmt: skip


def test_task_epilog_knows_the_task(stage: ScriptedCluster) -> None:
    crun_all_points(stage, "pid")
    (task,) = stage.calls("pid", "task")
    pids = {call.point: call.environment.get("CRANE_TASK_PID") for call in stage.calls("pid")}
    assert pids["TaskProlog"] is None
    assert pids[TASK_EPILOG] == pids["TaskEpilog"] == str(task.pid)


def test_batch_job_runs_its_six_points(stage: ScriptedCluster) -> None:
    stage.submit("batch", f"{stage.tracer} task echo hello")
    assert stage.ended("batch").state == "Completed"
    assert stage.output("batch") == "hello\n"
    calls = stage.calls("batch")
    assert [call.point for call in calls[:5]] == ["CranectldProlog", "Prolog", "TaskProlog", "task", "TaskEpilog"]
    assert sorted(call.point for call in calls[5:]) == ["CranectldEpilog", "Epilog"]
    assert {call.uid for call in calls if call.point in {"TaskProlog", "task", "TaskEpilog"}} == {stage.uid}


def test_options_take_the_place_of_crun_hooks(stage: ScriptedCluster) -> None:
    assert stage.run("crun", "--prolog", "none", "--epilog", stage.hook(TASK_EPILOG), "true", label="own").returncode == 0
    stage.ended("own")
    assert {call.point for call in stage.calls("own")} & {"CrunProlog", "CrunEpilog", TASK_EPILOG} == {TASK_EPILOG}


def test_task_hooks_run_for_every_task(stage: ScriptedCluster) -> None:
    assert stage.run("crun", "-N2", "-n4", str(stage.tracer), "task", label="four").returncode == 0
    stage.ended("four")
    for point in ("TaskProlog", "task", "TaskEpilog"):
        ranks = [(call.environment["CRANE_PROCID"], call.node) for call in stage.calls("four", point)]
        assert sorted(ranks) == [("0", "cn01"), ("1", "cn01"), ("2", "cn02"), ("3", "cn02")], point


def test_no_task_starts_before_its_prolog_succeeded(stage: ScriptedCluster) -> None:
    gate = stage.gate("slow-prolog")
    stage.plan("waits", "Prolog", gate.line, node="cn02")
    with stage.start("crun", "-N2", str(stage.tracer), "task", label="waits") as crun:
        gate.await_arrivals()
        assert stage.calls("waits", "TaskProlog") == [] or {call.node for call in stage.calls("waits", "TaskProlog")} == {"cn01"}
        gate.open()
        assert crun.wait(60) == 0
    points = [call.point for call in stage.calls("waits") if call.node == "cn02"]
    assert points[:3] == ["Prolog", "TaskProlog", "task"]


def test_prolog_runs_once_per_node_though_eight_steps_start_at_once(stage: ScriptedCluster) -> None:
    gate = stage.gate("prolog-of-eight")
    stage.plan("eight", "Prolog", gate.line)
    steps = "for i in 1 2 3 4 5 6 7 8; do crun -n2 true & done; for pid in $(jobs -p); do wait $pid || exit 1; done"
    with stage.start("calloc", "-N2", "-n2", "bash", "-c", steps, label="eight") as calloc:
        gate.await_arrivals(2)
        gate.open()
        assert calloc.wait(60) == 0
    stage.ended("eight")
    assert sorted(call.node for call in stage.calls("eight", "Prolog")) == ["cn01", "cn02"]
    assert sorted(call.node for call in stage.calls("eight", "Epilog")) == ["cn01", "cn02"]
    assert len(stage.calls("eight", "CrunProlog")) == 8
    assert len(stage.calls("eight", "TaskProlog")) == 16


def test_epilog_runs_also_where_no_step_ran(stage: ScriptedCluster) -> None:
    assert stage.run("calloc", "-N2", "true", label="unused").returncode == 0
    stage.ended("unused")
    assert stage.calls("unused", "Prolog") == []
    assert sorted(call.node for call in stage.calls("unused", "Epilog")) == ["cn01", "cn02"]
    assert len(stage.calls("unused", "CranectldEpilog")) == 1


def test_epilog_waits_for_the_last_process_of_the_job(stage: ScriptedCluster) -> None:
    pid_file = stage.work / "stray.pid"
    stage.plan("stray", "Epilog", f"[ ! -d /proc/$(cat {pid_file}) ]")
    daemon = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 3600' </dev/null >/dev/null 2>&1 & while [ ! -s {pid_file} ]; do sleep 0.02; done"
    stage.submit("stray", daemon)
    job = stage.ended("stray")
    assert job.state == "Completed"
    (epilog,) = runs_of(job, HookPoint.EPILOG)
    assert epilog.outcome.ok
    assert int(pid_file.read_text()) > 0


def test_a_nodes_resources_are_free_when_its_own_epilog_ended(stage: ScriptedCluster) -> None:
    gate = stage.gate("slow-epilog")
    stage.plan("slow", "Epilog", gate.line, node="cn02")
    stage.submit("slow", "true", "-N2", "-n2", "-c4")
    gate.await_arrivals()
    stage.submit("next", "true", "-w", "cn01", "-c4")
    assert stage.ended("next").state == "Completed"
    assert stage.job("slow").state == "Completing"
    assert stage.job("slow").busy_nodes == ("cn02",)
    assert stage.nodes()["cn02"].use == "completing"
    gate.open()
    assert stage.ended("slow").state == "Completed"


def test_epilog_knows_how_the_job_ended(stage: ScriptedCluster) -> None:
    stage.submit("three", "exit 3")
    assert stage.ended("three").state == "Failed"
    for call in stage.calls("three", "Epilog", "CranectldEpilog"):
        assert call.environment["CRANE_JOB_EXIT_CODE2"] == "3:0"
        assert os.waitstatus_to_exitcode(int(call.environment["CRANE_JOB_EXIT_CODE"])) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: cgroups of its own")
def test_tasks_are_held_in_a_cgroup_of_their_job_while_it_runs(stage: ScriptedCluster) -> None:
    if not {node.containment for node in stage.nodes().values()} <= {"cgroup2", "hybrid"}:
        pytest.skip("this machine has no cgroup v2 tree to use")
    gate = stage.gate("contained")
    job_id = stage.submit("contained", gate.line)
    (pid,) = gate.await_arrivals()
    (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    assert f"/job_{job_id}" in line
    assert any(path.name.startswith(f"job_{job_id}") for path in stage.cgroups_of_jobs())
    gate.open()
    stage.ended("contained")
    eventually(lambda: not stage.cgroups_of_jobs())
