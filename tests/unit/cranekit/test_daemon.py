import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cranekit import daemon
from cranekit.daemon import OOM_SCORE_ADJ, protect_from_oom_killer

_PROGRAM = """
import sys
from pathlib import Path
from cranekit import daemon
from cranekit.errors import CraneError, ErrorCode

async def reload():
    print("reloaded", flush=True)
    if {fail_reload}:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, "bad settings")

async def main(stop):
    print("serving", flush=True)
    {body}

sys.exit(daemon.run_daemon(main, reload=reload))
"""


def _start(body: str, *, fail_reload: bool = False) -> subprocess.Popen[str]:
    program = _PROGRAM.format(body=body, fail_reload=fail_reload)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_its_name_as_the_reason(number: signal.Signals) -> None:
    with _start("await stop.wait(); print('because', stop.reason, flush=True)") as process:
        assert _next_line(process) == "serving"
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert f"because {number.name}" in output
        assert process.returncode == 0


def test_a_second_signal_ends_at_once() -> None:
    body = "import asyncio; await stop.wait(); print('stopping', flush=True); await asyncio.Event().wait()"
    with _start(body) as process:
        assert _next_line(process) == "serving"
        process.terminate()
        while _next_line(process) != "stopping":
            pass
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM


def test_a_hangup_reloads_and_a_failing_reload_ends_nothing() -> None:
    with _start("await stop.wait()", fail_reload=True) as process:
        assert _next_line(process) == "serving"
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert _next_line(process) == "reloaded"
            assert "bad settings" in _next_line(process)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_an_error_of_main_is_told_without_a_traceback() -> None:
    with _start("raise CraneError(ErrorCode.UNAVAILABLE, 'no such port')") as process:
        output, _ = process.communicate(timeout=60)
    assert "no such port" in output
    assert "Traceback" not in output
    assert process.returncode == 1


def test_a_fault_of_main_is_told_with_its_traceback() -> None:
    with _start("1 / 0") as process:
        output, _ = process.communicate(timeout=60)
    assert "ZeroDivisionError" in output
    assert "Traceback" in output
    assert process.returncode == 1


def test_the_ready_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    daemon.write_ready(path, {"address": "127.0.0.1:1"})
    daemon.announce_ready(path, {"address": "127.0.0.1:2"})
    assert json.loads(path.read_text()) == {"address": "127.0.0.1:2"}
    with pytest.raises(TypeError):
        daemon.write_ready(path, {"address": object()})
    assert [entry.name for entry in tmp_path.iterdir()] == ["ready"]


def test_systemd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"crane-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert daemon.notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    assert not daemon.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not daemon.notify("READY=1")


@pytest.mark.parametrize(("found", "left"), [("0", str(OOM_SCORE_ADJ)), ("-500", "-500"), ("300", "300")])
def test_a_daemon_of_root_is_killed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, left: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = tmp_path / "oom_score_adj"
    path.write_text(found)
    assert protect_from_oom_killer(path)
    assert path.read_text() == left, "whoever started it has the first word"


def test_a_daemon_that_may_not_protect_itself_serves_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "oom_score_adj"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not protect_from_oom_killer(path)
    path.write_text("0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not protect_from_oom_killer(path)
    assert path.read_text() == "0"
