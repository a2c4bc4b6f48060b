"""Cancel, time limit and timeout at every moment of a job: what runs is stopped, what must follow follows, nothing is left."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of

DEAF = ("trap '' TERM INT HUP", "echo deaf; while :; do sleep 0.05; done")


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Two nodes whose hooks have little time."""
    with ScriptedCluster(
        hooks={"PrologTimeout": 3.0, "EpilogTimeout": 3.0, "CrunPrologTimeout": 1.0, "KillGrace": 0.2}
    ) as cluster:
        yield cluster


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def cancel(stage: ScriptedCluster, job_id: int) -> None:
    result = stage.hookctl("cancel", str(job_id))
    assert result.returncode == 0, result.stderr


# ---- cancel


def test_cancel_during_controller_prolog_stops_it_and_starts_nothing(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-ctld")
    stage.plan("c-ctld", "CranectldProlog", gate.line)
    job_id = stage.submit("c-ctld", "true")
    (pid,) = gate.await_arrivals()
    assert stage.job("c-ctld").state == "Configuring"
    cancel(stage, job_id)
    job = stage.ended("c-ctld")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert is_gone(pid)
    (run,) = runs_of(job, HookPoint.CRANECTLD_PROLOG)
    assert run.outcome.kind is OutcomeKind.STOPPED
    assert stage.calls("c-ctld", "Prolog", "TaskProlog") == []
    assert len(stage.calls("c-ctld", "CranectldEpilog")) == 1
    assert len(stage.calls("c-ctld", "Epilog")) == 1


def test_cancel_during_prolog_stops_it_and_drains_nothing(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-prolog")
    stage.plan("c-prolog", "Prolog", gate.line)
    job_id = stage.submit("c-prolog", "true")
    (pid,) = gate.await_arrivals()
    cancel(stage, job_id)
    job = stage.ended("c-prolog")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert is_gone(pid)
    (run,) = runs_of(job, HookPoint.PROLOG)
    assert run.outcome.kind is OutcomeKind.STOPPED
    assert not any(node.drains for node in stage.nodes().values())
    assert stage.calls("c-prolog", "TaskProlog") == []
    assert len(stage.calls("c-prolog", "Epilog")) == 1


def test_crun_interrupted_twice_during_prolog_returns_and_the_prolog_is_stopped(stage: ScriptedCluster) -> None:
    gate = stage.gate("i-prolog")
    # Its step waits for it on this node; that a signal for its tasks comes meanwhile is of no effect.
    stage.plan("i-prolog", "Prolog", gate.line)
    with stage.start("crun", str(stage.tracer), "task", label="i-prolog") as crun:
        (pid,) = gate.await_arrivals()
        crun.send_signal(signal.SIGUSR1)
        crun.send_signal(signal.SIGINT)
        assert crun.stderr is not None
        while b"one more within" not in (line := crun.stderr.readline()):
            assert line, "crun ended at its first interrupt"
        crun.send_signal(signal.SIGINT)
        assert crun.wait(PATIENCE_S) == 130
    job = stage.ended("i-prolog")
    assert (job.state, job.attempt) == ("Cancelled", 1)
    assert is_gone(pid)
    (run,) = runs_of(job, HookPoint.PROLOG)
    assert run.outcome.kind is OutcomeKind.STOPPED
    assert not any(node.drains for node in stage.nodes().values())
    assert stage.calls("i-prolog", "TaskProlog", "task") == []
    assert len(stage.calls("i-prolog", "Epilog")) == 1


def test_step_interrupted_during_prolog_ends_and_its_allocation_keeps_the_prolog(stage: ScriptedCluster) -> None:
    gate = stage.gate("i-step")
    stage.plan("i-step", "Prolog", gate.line)
    # The shell interrupts its first step as a user would, and then lets the Prolog end for the second.
    script = stage.script(
        "i-step",
        f"crun {stage.tracer} task 2> first.err & first=$!",
        f"while [ ! -e {gate.path}.reached ]; do sleep 0.02; done",
        "kill -INT $first",
        "while ! grep -q 'one more within' first.err; do sleep 0.02; done",
        f"kill -INT $first; wait $first; echo $? > first.code; touch {gate.path}",
        "crun echo second",
    )
    result = stage.run("calloc", str(script), label="i-step")
    assert (result.returncode, result.stdout) == (0, "second\n"), result.stderr
    assert (stage.work / "first.code").read_text() == "130\n"
    job = stage.ended("i-step")
    assert job.state == "Completed"
    (run,) = runs_of(job, HookPoint.PROLOG)
    assert run.outcome.ok
    assert stage.calls("i-step", "task") == []
    assert len(stage.calls("i-step", "Epilog")) == 1


def test_cancel_during_a_task_ends_it_and_runs_its_epilogs(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-task")
    job_id = stage.submit("c-task", f"trap '' TERM; {gate.line}")
    (pid,) = gate.await_arrivals()
    cancel(stage, job_id)
    job = stage.ended("c-task")
    assert job.state == "Cancelled"
    assert is_gone(pid)
    for point in ("TaskEpilog", "Epilog", "CranectldEpilog"):
        assert len(stage.calls("c-task", point)) == 1, point


def test_cancel_during_epilog_lets_it_run_to_its_end(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-epilog")
    stage.plan("c-epilog", "Epilog", gate.line)
    job_id = stage.submit("c-epilog", "true")
    gate.await_arrivals()
    stage.hookctl("cancel", str(job_id))
    assert stage.job("c-epilog").state == "Completing"
    gate.open()
    job = stage.ended("c-epilog")
    assert job.state == "Completed"
    (run,) = runs_of(job, HookPoint.EPILOG)
    assert run.outcome.ok


def test_cancel_of_a_waiting_job_runs_no_hook(stage: ScriptedCluster) -> None:
    stage.submit("first", "sleep 3600", "-N2", "-n2", "-c4")
    stage.await_state("first", "Running")
    job_id = stage.submit("second", "true")
    cancel(stage, job_id)
    assert stage.ended("second").state == "Cancelled"
    assert stage.calls("second") == []


def test_cancelled_crun_says_so(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-crun")
    with stage.start("crun", "sh", "-c", gate.line, label="c-crun") as crun:
        gate.await_arrivals()
        assert stage.hookctl("cancel", str(stage.job("c-crun").job_id), "--reason", "maintenance").returncode == 0
        assert crun.wait(60) != 0
        assert crun.stderr is not None
        assert b"maintenance" in crun.stderr.read()
    assert stage.ended("c-crun").state == "Cancelled"


def test_revoked_allocation_ends_its_command(stage: ScriptedCluster) -> None:
    gate = stage.gate("c-calloc")
    with stage.start("calloc", "sh", "-c", gate.line, label="c-calloc") as calloc:
        (pid,) = gate.await_arrivals()
        cancel(stage, stage.job("c-calloc").job_id)
        assert calloc.wait(60) == 1
    assert is_gone(pid)
    assert stage.ended("c-calloc").state == "Cancelled"


def test_crun_in_an_allocation_says_which_prolog_failed_before_the_command_is_ended(stage: ScriptedCluster) -> None:
    stage.plan("p-calloc", "Prolog", "echo no GPU found; exit 3", node="cn02")
    script = stage.script(
        "p-calloc", "crun -N2 -n2 true 2> p-calloc.err", "echo $? > p-calloc.code", "echo $$ > p-calloc.pid", "exec sleep 3579"
    )
    result = stage.run("calloc", "-N2", str(script), label="p-calloc")
    assert result.returncode == 1
    assert "Prolog Prolog exit 3 on cn02: no GPU found: the allocation has been revoked" in result.stderr
    assert (stage.work / "p-calloc.code").read_text() == "1\n"
    assert "crun: error: cn02: task 1: Cancelled (prolog Prolog exit 3" in (stage.work / "p-calloc.err").read_text()
    assert is_gone(int((stage.work / "p-calloc.pid").read_text()))
    assert stage.ended("p-calloc").state == "Cancelled"
    assert list(stage.nodes()["cn01"].drains) == []
    assert len(stage.nodes()["cn02"].drains) == 1


# ---- time limits


def test_time_limit_ends_the_job_and_its_epilogs_run(stage: ScriptedCluster) -> None:
    gate = stage.gate("limit")
    stage.submit("limit", gate.line, "-t", "0:0:1")
    (pid,) = gate.await_arrivals()
    job = stage.ended("limit")
    assert job.state == "TimedOut"
    assert is_gone(pid)
    for point in ("TaskEpilog", "Epilog", "CranectldEpilog"):
        assert len(stage.calls("limit", point)) == 1, point


# ---- timeouts of hooks


def test_prolog_that_hangs_and_ignores_term_times_out(stage: ScriptedCluster) -> None:
    child = stage.directory / "child-of-prolog"
    stage.plan(
        "hangs", "Prolog", f"setsid sh -c 'trap \"\" TERM; echo $$ > {child}; while :; do sleep 0.05; done' &", *DEAF, node="cn01"
    )
    stage.submit("hangs", "true")
    job = stage.ended("hangs")
    assert (job.state, job.attempt, job.nodes) == ("Completed", 2, ("cn02",))
    (cause,) = stage.nodes()["cn01"].drains
    assert "timeout after 3 s" in cause.reason
    assert cause.reason.endswith(": deaf")
    assert is_gone(int(child.read_text()))
    assert {call.attempt for call in stage.calls("hangs", "TaskProlog")} == {2}


def test_prolog_that_exits_0_on_term_has_timed_out_all_the_same(stage: ScriptedCluster) -> None:
    stage.plan("polite", "Prolog", "trap 'exit 0' TERM", "sleep 3600 & wait", node="cn01")
    stage.submit("polite", "true")
    assert stage.ended("polite").nodes == ("cn02",)
    assert "timeout" in stage.nodes()["cn01"].drains[0].reason
    assert {call.node for call in stage.calls("polite", "TaskProlog")} == {"cn02"}


def test_controller_prolog_that_hangs_requeues_the_job(stage: ScriptedCluster) -> None:
    stage.plan("ctld-hangs", "CranectldProlog", 'if [ "$CRANE_JOB_ATTEMPT" = 1 ]; then', *DEAF, "fi")
    stage.submit("ctld-hangs", "true")
    job = stage.ended("ctld-hangs")
    assert (job.state, job.attempt) == ("Completed", 2)
    assert [run.outcome.kind for run in runs_of(job, HookPoint.CRANECTLD_PROLOG)] == [OutcomeKind.TIMEOUT, OutcomeKind.OK]


def test_epilog_that_hangs_drains_the_node(stage: ScriptedCluster) -> None:
    stage.plan("epilog-hangs", "Epilog", *DEAF)
    stage.submit("epilog-hangs", "true")
    assert stage.ended("epilog-hangs").state == "Completed"
    assert "epilog Epilog timeout after 3 s" in stage.nodes()["cn01"].drains[0].reason


def test_crun_prolog_that_hangs_cancels_the_step(stage: ScriptedCluster) -> None:
    stage.plan("crun-hangs", "CrunProlog", *DEAF)
    result = stage.run("crun", "true", label="crun-hangs")
    assert result.returncode == 1
    assert "timeout after 1 s" in result.stderr
    assert stage.calls("crun-hangs", "Prolog") == []


def test_task_prolog_that_hangs_cancels_the_task(stage: ScriptedCluster) -> None:
    stage.plan("task-hangs", "TaskProlog", "sleep 3600")
    result = stage.run("crun", str(stage.tracer), "task", label="task-hangs")
    assert result.returncode == 1
    assert "timeout after 3 s" in result.stderr
    assert stage.calls("task-hangs", "task") == []
    assert not any(node.drains for node in stage.nodes().values())


# ---- what hooks leave behind


@pytest.mark.parametrize("point", ["CranectldProlog", "Prolog", "Epilog", "CranectldEpilog"])
def test_daemon_that_a_hook_leaves_behind_is_killed_and_named(stage: ScriptedCluster, point: str) -> None:
    label = f"daemon-{point}"
    pid_file = stage.work / f"{label}.pid"
    daemon = f"(setsid sh -c 'echo $$ > {pid_file}; exec sleep 3579' </dev/null >/dev/null 2>&1 &)"
    stage.plan(label, point, daemon, f"while [ ! -s {pid_file} ]; do sleep 0.02; done")
    job_id = stage.submit(label, "true")
    assert stage.ended(label).state == "Completed"
    pid = int(pid_file.read_text())
    eventually(lambda: is_gone(pid), deadline_s=PATIENCE_S)
    runs = stage.hookctl_json("job", str(job_id))["job"]["runs"]
    (leftover,) = next(run for run in runs if run["point"] == point)["scripts"][0]["leftovers"]
    assert leftover == {"pid": pid, "command": "sleep 3579"}
    assert not any(node.drains for node in stage.nodes().values())


@pytest.mark.parametrize("point", ["CrunProlog", "TaskProlog", "TaskEpilog", "CrunEpilog"])
def test_daemon_that_a_hook_of_the_user_leaves_behind_is_gone(stage: ScriptedCluster, point: str) -> None:
    label = f"daemon-{point}"
    pid_file = stage.work / f"{label}.pid"
    daemon = f"(setsid sh -c 'echo $$ > {pid_file}; exec sleep 3579' </dev/null >/dev/null 2>&1 &)"
    stage.plan(label, point, daemon, f"while [ ! -s {pid_file} ]; do sleep 0.02; done")
    assert stage.run("crun", "true", label=label).returncode == 0
    assert stage.ended(label).state == "Completed"
    pid = int(pid_file.read_text())
    eventually(lambda: is_gone(pid), deadline_s=PATIENCE_S)
