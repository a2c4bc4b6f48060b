"""calloc as a process, against a daemon that speaks the wire protocol."""

import os
import pty
import signal
import subprocess
from pathlib import Path

from tests.component.cli.front_end import command, environment, run, start
from tests.support.eventually import eventually
from tests.support.front_daemon import Call, Cluster, FrontDaemon, job_update


def test_a_command_runs_in_the_allocation(daemon: FrontDaemon, cluster: Cluster) -> None:
    def follow(call: Call) -> None:
        call.item(job_update("RUNNING", nodes=["cn01", "cn02"], spec={"ntasks": 4, "name": "n"}))

    daemon.handlers["FollowJob"] = follow
    text = "echo $CRANE_JOB_ID $CRANE_JOB_NODELIST $CRANE_JOB_NUM_NODES $CRANE_NTASKS $CRANE_CLUSTER_NAME; exit 6"
    result = run(daemon.path, "calloc", "-N2", "sh", "-c", text)
    assert result.returncode == 6, result.stderr
    assert result.stdout == b"42 cn[01-02] 2 4 test\n"
    assert result.stderr == b"calloc: Granted job allocation 42\ncalloc: Relinquishing job allocation 42\n"
    assert daemon.called("SubmitJob")[0].body["spec"]["kind"] == "JOB_KIND_ALLOCATION"
    assert daemon.called("FollowJob")[0].body["bind"] is True
    assert daemon.called("CompleteAllocation")[0].body["exit"] == {"code": 6, "signal": 0}


def test_without_a_command_the_users_shell_runs(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = run(daemon.path, "calloc", stdin=b"echo $CRANE_JOB_ID; kill -9 $$\n", extra={"SHELL": "/bin/sh"})
    assert (result.returncode, result.stdout) == (137, b"42\n")
    assert daemon.called("CompleteAllocation")[0].body["exit"] == {"code": 0, "signal": 9}


def test_a_command_that_does_not_exist(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = run(daemon.path, "calloc", "/nonexistent/program")
    assert result.returncode == 127
    assert b"cannot run /nonexistent/program: No such file" in result.stderr
    assert daemon.called("CompleteAllocation")


def test_a_revoked_allocation_ends_the_commands_whole_group(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    with start(
        daemon.path, "calloc", ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/ready; wait"]
    ) as calloc:
        eventually((tmp_path / "ready").exists)
        daemon.called("FollowJob")[0].item(job_update("CANCELLED", reason="time limit", final=True))
        _, errors = calloc.communicate(timeout=30)
    assert calloc.returncode == 1
    assert b"job 42 cancelled: time limit: the allocation has been revoked" in errors
    pid = int((tmp_path / "ready").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text())


def test_interrupt_while_waiting(daemon: FrontDaemon, cluster: Cluster) -> None:
    daemon.handlers["FollowJob"] = lambda call: call.item(job_update("PENDING"))
    with start(daemon.path, "calloc", ["true"]) as calloc:
        daemon.wait_for("FollowJob")
        calloc.send_signal(signal.SIGINT)
        calloc.communicate(timeout=30)
    assert calloc.returncode == 130
    assert daemon.called("CompleteAllocation")[0].body["cancel_reason"] == "interrupted by SIGINT"


def test_a_refused_allocation(daemon: FrontDaemon, cluster: Cluster) -> None:
    daemon.handlers["FollowJob"] = lambda call: call.item(job_update("CANCELLED", reason="Prolog failed", final=True))
    result = run(daemon.path, "calloc", "true")
    assert (result.returncode, result.stderr) == (1, b"calloc: error: job 42 cancelled: Prolog failed\n")


def test_the_command_is_in_the_foreground_of_the_terminal(daemon: FrontDaemon, cluster: Cluster) -> None:
    """Ctrl-C reaches the command and not calloc; the terminal comes back afterwards."""
    pid, terminal = pty.fork()
    if pid == 0:
        shell = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
        words = command("calloc", "sh", "-c", shell)
        os.execve(words[0], words, environment(daemon.path))
    seen = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        while b"ready" not in seen:
            seen += screen.read(1024)
        screen.write(b"\x03")
        try:
            while chunk := screen.read(1024):
                seen += chunk
        except OSError:
            # A terminal whose last process has gone reads as an error.
            pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9, seen
    assert b"caught" in seen
    assert b"Relinquishing job allocation 42" in seen


def test_stopping_the_command_stops_calloc_and_both_go_on(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    """As a shell with job control sees it: Ctrl-Z gives its prompt back, fg continues."""
    outer = f"set -m; {' '.join(_quoted(word) for word in command('calloc', 'sh', '-c', 'kill -STOP $$; echo went on'))}; fg; echo code $?"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve("/bin/bash", ["bash", "--norc", "-c", outer], environment(daemon.path))
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        try:
            while chunk := screen.read(1024):
                seen += chunk
        except OSError:
            pass
    os.waitpid(pid, 0)
    assert seen.index(b"Stopped") < seen.index(b"\nwent on") < seen.index(b"code 0"), seen


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_help(tmp_path: Path) -> None:
    result = subprocess.run(command("calloc", "--help"), capture_output=True, timeout=60, check=True)
    assert b"Usage: calloc" in result.stdout
