"""Daemons that hooks may leave behind (KeepProcesses): they live as long as they should, are named, and hold up nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of

KEPT_COMMAND = "sleep 3591"


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Prologs, Epilogs and the controller's Epilog may leave processes behind."""
    with ScriptedCluster(nodes=1, hooks={"KeepProcesses": "Prolog, Epilog, CranectldEpilog", "PrologTimeout": 3}) as cluster:
        yield cluster


@pytest.fixture
def stage(shared_cluster: ScriptedCluster) -> Iterator[ScriptedCluster]:
    yield shared_cluster
    shared_cluster.settle()


def daemon_lines(pid_file: Path, output: str = ">/dev/null 2>&1") -> tuple[str, ...]:
    """Of a shell script: starts a daemon in a session of its own, and waits until it runs."""
    return (
        f"(setsid sh -c 'echo $$ > {pid_file}; exec {KEPT_COMMAND}' </dev/null {output} &)",
        f"while [ ! -s {pid_file} ]; do sleep 0.02; done",
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def end(pid: int) -> None:
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid))


def test_what_prolog_keeps_lives_until_the_epilog_has_ended(stage: ScriptedCluster) -> None:
    pid_file, gate = stage.work / "prolog.pid", stage.gate("kept")
    stage.plan("kept", "Prolog", *daemon_lines(pid_file))
    stage.plan("kept", "Epilog", f"kill -0 $(cat {pid_file}) && echo alive")
    job_id = stage.submit("kept", gate.line)
    gate.await_arrivals()
    pid = int(pid_file.read_text())
    assert is_alive(pid)
    (prolog,) = runs_of(stage.job("kept"), HookPoint.PROLOG)
    assert [(left.pid, left.command) for left in prolog.scripts[0].kept] == [(pid, KEPT_COMMAND)]
    assert prolog.scripts[0].leftovers == ()
    for number in (signal.SIGTERM, signal.SIGKILL):
        stage.cluster.kill("cn01", number)
        stage.cluster.restart("cn01")
        assert is_alive(pid), "a restart of craned ends it not"
    gate.open()
    job = stage.ended("kept")
    assert job.state == "Completed"
    (epilog,) = runs_of(job, HookPoint.EPILOG)
    assert epilog.output == "alive\n"
    assert epilog.outcome.ok
    assert epilog.notes == (f"kept by Prolog and killed now: {pid} {KEPT_COMMAND}",)
    eventually(lambda: not is_alive(pid))
    shown = stage.hookctl("job", str(job_id)).stdout
    assert f"left behind and kept: {KEPT_COMMAND} (pid {pid})" in shown
    assert "kept by Prolog and killed now" in shown
    assert not any(node.drains for node in stage.nodes().values())
    stage.note_idle_processes()


def test_what_the_epilog_script_ends_itself_is_not_mentioned(stage: ScriptedCluster) -> None:
    pid_file = stage.work / "stopped.pid"
    stage.plan("stopped", "Prolog", *daemon_lines(pid_file))
    stage.plan("stopped", "Epilog", f"kill $(cat {pid_file}); while kill -0 $(cat {pid_file}) 2>/dev/null; do sleep 0.02; done")
    stage.submit("stopped", "true")
    (epilog,) = runs_of(stage.ended("stopped"), HookPoint.EPILOG)
    assert epilog.outcome.ok
    assert epilog.notes == ()


@pytest.mark.parametrize("point", [HookPoint.EPILOG, HookPoint.CRANECTLD_EPILOG])
def test_what_an_epilog_keeps_stays_and_holds_up_nothing(stage: ScriptedCluster, point: HookPoint) -> None:
    label = f"stays-{point.value}"
    pid_file = stage.work / f"{label}.pid"
    # It holds the pipe of its script's output.
    stage.plan(label, point.value, *daemon_lines(pid_file, output=""))
    stage.submit(label, "true")
    job = stage.ended(label)
    pid = int(pid_file.read_text())
    try:
        eventually(lambda: runs_of(stage.job(label), point), deadline_s=PATIENCE_S)
        (run,) = runs_of(stage.job(label), point)
        assert run.outcome.ok
        assert [left.pid for left in run.scripts[0].kept] == [pid]
        assert job.state == "Completed"
        assert is_alive(pid)
    finally:
        end(pid)


def test_a_prolog_that_fails_or_hangs_keeps_nothing(stage: ScriptedCluster) -> None:
    for label, last in (("keeps-and-fails", "exit 3"), ("keeps-and-hangs", "sleep 3600")):
        pid_file = stage.work / f"{label}.pid"
        stage.plan(label, "Prolog", *daemon_lines(pid_file), last)
        stage.submit(label, "true", "--no-requeue")
        stage.ended(label)
        assert not is_alive(int(pid_file.read_text()))
        (run,) = runs_of(stage.job(label), HookPoint.PROLOG)
        assert not run.outcome.ok
        assert run.scripts[0].kept == ()
        stage.settle()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: control groups of its own")
def test_without_control_groups_it_is_the_same() -> None:
    with ScriptedCluster(nodes=1, hooks={"KeepProcesses": {"Prolog": True}}, Containment="none") as cluster:
        pid_file, gate = cluster.work / "none.pid", cluster.gate("none")
        cluster.plan("none", "Prolog", *daemon_lines(pid_file))
        cluster.submit("none", gate.line)
        gate.await_arrivals()
        pid = int(pid_file.read_text())
        cluster.cluster.kill("cn01")
        cluster.cluster.restart("cn01")
        assert is_alive(pid)
        gate.open()
        (epilog,) = runs_of(cluster.ended("none"), HookPoint.EPILOG)
        assert epilog.notes == (f"kept by Prolog and killed now: {pid} {KEPT_COMMAND}",)
        eventually(lambda: not is_alive(pid))
