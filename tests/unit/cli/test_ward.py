"""The warden with real processes: nothing it started, or that those started, outlives it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cranecli.hookctl.ward import Ward, WardError
from cranecli.hookctl.warden import descendants
from tests.support.eventually import eventually

PYTHON = sys.executable
ENV = {"PATH": "/usr/bin:/bin"}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_tells_what_has_ended(tmp_path: Path) -> None:
    ward = Ward()
    try:
        pid = ward.start("short", ["/bin/sh", "-c", "echo hello; exit 7"], ENV, tmp_path / "log")
        assert pid > 0
        assert ward.wait("short", 10) == 7 << 8
        assert (tmp_path / "log").read_text() == "hello\n"
        assert ward.pids == {}
    finally:
        assert ward.close() == 0


def test_gives_programs_default_signals_and_their_own_session(tmp_path: Path) -> None:
    code = "import os,signal; print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)"
    ward = Ward()
    try:
        ward.start("probe", [PYTHON, "-c", code], ENV, tmp_path / "log")
        assert ward.wait("probe", 20) == 0
        assert (tmp_path / "log").read_text() == "True True\n"
    finally:
        ward.close()


def test_signals_one_of_several(tmp_path: Path) -> None:
    ward = Ward()
    try:
        ward.start("one", ["/bin/sleep", "600"], ENV, tmp_path / "log")
        two = ward.start("two", ["/bin/sleep", "600"], ENV, tmp_path / "log")
        ward.signal("one", signal.SIGKILL)
        assert ward.wait("one", 10) == signal.SIGKILL
        assert ward.pids == {"two": two}
    finally:
        ward.close()


def test_close_ends_orphans_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "orphan"
    script = f"(setsid sh -c 'echo $$ > {pid_file}; trap \"\" TERM; while :; do sleep 1; done' &) ; exec sleep 600"
    ward = Ward()
    ward.start("parent", ["/bin/sh", "-c", script], ENV, tmp_path / "log")
    orphan = int(eventually(lambda: pid_file.exists() and pid_file.read_text().strip()))
    assert ward.close(5.0) >= 1
    assert not _alive(orphan)
    assert ward.close() >= 1  # A repeat does nothing and says the same.


def test_death_of_the_launcher_ends_everything(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os,signal,sys; from pathlib import Path; from cranecli.hookctl.ward import Ward; w = Ward();"
        f"Path({str(pid_file)!r}).write_text(str(w.start('a', ['/bin/sleep', '600'], {{}}, Path(os.devnull))));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([PYTHON, "-c", code], check=False).returncode == -signal.SIGKILL
    pid = int(pid_file.read_text())
    eventually(lambda: not _alive(pid))


def test_refuses_what_cannot_be_started(tmp_path: Path) -> None:
    ward = Ward()
    try:
        with pytest.raises(WardError, match="cannot start /nonexistent"):
            ward.start("ghost", ["/nonexistent"], ENV, tmp_path / "log")
    finally:
        ward.close()


def test_descendants_are_found_over_generations() -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 600 & echo ok; wait"], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ok\n"
        found = descendants(os.getpid())
        assert child.pid in found
        assert descendants(child.pid) <= found
        assert descendants(child.pid)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
