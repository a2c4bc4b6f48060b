"""crun's own hooks on a real terminal, and signals to crun in each of its phases."""

import os
import pty
import shutil
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.component.cli.front_end import command, environment, start
from tests.support.eventually import eventually
from tests.support.front_daemon import Call, Cluster, FrontDaemon

INTERRUPT_KEY = b"\x03"


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return str(path)


def is_gone(pid_file: Path) -> bool:
    return not Path(f"/proc/{pid_file.read_text().strip()}").exists()


class Terminal:
    """A pseudo terminal with a program in its foreground."""

    def __init__(self, socket: Path, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.program = subprocess.Popen(
            ["setsid", "--ctty", *command("crun", *words)], stdin=slave, stdout=slave, stderr=slave, env=environment(socket)
        )

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            seen += os.read(self.master, 4096)
        return seen


@contextmanager
def terminal(socket: Path, *words: str) -> Iterator[Terminal]:
    screen = Terminal(socket, list(words))
    try:
        yield screen
        assert termios.tcgetattr(screen.slave) == screen.before, "the terminal is as it was"
    finally:
        if screen.program.poll() is None:
            screen.program.kill()
            screen.program.wait()
        os.close(screen.master)
        os.close(screen.slave)


needs_setsid = pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid program")


@needs_setsid
def test_hooks_talk_with_the_user_on_the_terminal(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    asks = script(
        tmp_path / "asks", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && pwd", "echo 'which project?'; read name; echo \"it is $name\""
    )
    with terminal(daemon.path, "--prolog", asks, "--epilog", "none", "prog") as screen:
        seen = screen.read_until(b"which project?")
        assert str(Path.cwd()).encode() in seen
        screen.type(b"apollo\n")
        screen.read_until(b"it is apollo")
        assert screen.program.wait(30) == 0
    assert daemon.called("StartStep")


@needs_setsid
@pytest.mark.parametrize("reads", [True, False], ids=["reads the terminal", "has stopped reading it"])
def test_interrupt_typed_during_the_prolog_stops_it(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, reads: bool) -> None:
    pid = tmp_path / "pid"
    waits = "read line" if reads else "exec </dev/null; while :; do sleep 0.1; done"
    hook = script(tmp_path / "hook", f"echo $$ > {pid}; echo here; {waits}")
    with terminal(daemon.path, "--prolog", hook, "prog") as screen:
        screen.read_until(b"here")
        screen.type(INTERRUPT_KEY)
        assert screen.program.wait(30) == 130
    assert is_gone(pid)
    assert daemon.called("RecordLaunchHook")[0].body["run"]["outcome"]["kind"] == "OUTCOME_KIND_STOPPED"
    assert daemon.called("CompleteAllocation")[0].body["cancel_reason"] == "interrupted by SIGINT"
    assert not daemon.called("StartStep")


@needs_setsid
def test_a_second_interrupt_kills_a_prolog_that_does_not_heed_the_first(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    hook = script(tmp_path / "deaf", f"trap 'echo deaf' TERM INT HUP; echo $$ > {pid}; echo here", "while :; do sleep 0.05; done")
    cluster.site["grace_s"] = 600.0
    with terminal(daemon.path, "--prolog", hook, "prog") as screen:
        screen.read_until(b"here")
        screen.type(INTERRUPT_KEY)
        screen.read_until(b"deaf")
        screen.type(INTERRUPT_KEY)
        assert screen.program.wait(30) == 130
    assert is_gone(pid)
    assert not daemon.called("StartStep")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("surroundings", [{}, {"CRANE_JOB_ID": "42"}], ids=["alone", "in an allocation"])
def test_a_signal_during_the_prolog_ends_crun_and_sends_nothing(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, number: signal.Signals, surroundings: dict[str, str]
) -> None:
    pid = tmp_path / "pid"
    hook = script(tmp_path / "slow", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600")
    with start(daemon.path, "crun", ["--prolog", hook, "prog"], extra=surroundings) as crun:
        eventually(pid.exists)
        crun.send_signal(number)
        crun.communicate(timeout=30)
    assert crun.returncode == 128 + number
    assert is_gone(pid)
    assert daemon.called("CancelStep")
    assert bool(daemon.called("CompleteAllocation")) is not bool(surroundings), "an allocation is its owner's"
    assert not daemon.called("StartStep")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_epilog_stops_it_and_leaves_the_steps_code(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    def tasks(attached: Call) -> None:
        cluster.end_step(attached, {0: 7})

    pid = tmp_path / "pid"
    hook = script(tmp_path / "slow", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600")
    cluster.run_tasks = tasks
    with start(daemon.path, "crun", ["--epilog", hook, "prog"]) as crun:
        eventually(pid.exists)
        crun.send_signal(number)
        crun.communicate(timeout=30)
    assert crun.returncode == 7
    assert is_gone(pid)
    assert daemon.called("RecordLaunchHook")[0].body["run"]["outcome"]["kind"] == "OUTCOME_KIND_STOPPED"
    assert daemon.called("CompleteAllocation")[0].body["exit"] == {"code": 7, "signal": 0}
