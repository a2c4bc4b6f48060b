"""One process, with exactly what it was asked to have."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cranehooks.execution.child import Stage
from cranehooks.execution.process import (
    OWNED_PIDS,
    OutputFile,
    SpawnError,
    SpawnRequest,
    bounded_capabilities,
    spawn,
    start_time_of,
)
from cranehooks.model.run import Credentials
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.eventually import eventually

NOBODY = Credentials(65534, 65534, (65533, 65534))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes identity")


def open_to_all(path: Path) -> None:
    """Lets other users in, from the temporary directory down."""
    for directory in (path, *path.parents):
        if (
            directory.exists()
            and directory != Path("/tmp")
            and directory.stat().st_uid == 0
            and str(directory).startswith("/tmp")
        ):
            directory.chmod(directory.stat().st_mode | 0o055)


def run(path: str, environment: Mapping[str, str] | None = None, **options: Any) -> tuple[int, str]:  # Any: of SpawnRequest
    """Wait status and output."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    options = {"stdout": write_fd, **options}
    try:
        process = spawn(SpawnRequest(path, (path,), environment or {}, **options))
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        output = os.fsdecode(pipe.read())
    status = process.reap(block=True)
    assert status is not None
    return status, output


def failure(path: str, **options: Any) -> SpawnError:  # Any: of SpawnRequest
    before = set(OWNED_PIDS)
    with pytest.raises(SpawnError) as caught:
        spawn(SpawnRequest(path, (path,), {}, **options))
    assert before == OWNED_PIDS
    return caught.value


def test_sees_the_given_environment_and_nothing_else(files: HookScripts) -> None:
    environment = {"CRANE_JOB_ID": "42", "ODD": "ä=\udcff"}
    status, output = run(files.prints_environment(), environment)
    assert status == 0
    assert output.splitlines() == ["CRANE_JOB_ID=42", "ODD=ä=\udcff"]


def test_has_its_own_session_umask_directory_and_descriptors(files: HookScripts, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    inherited = os.dup2(directory, 200, inheritable=True)
    os.close(directory)
    try:
        status, output = run(files.prints_identity(), cwd=str(tmp_path))
    finally:
        os.close(inherited)
    assert status == 0
    said = dict(word.split("=", 1) for word in output.split() if "=" in word)
    assert said["umask"] == "0022"
    assert said["cwd"] == str(tmp_path)
    assert said["pid"] == said["session"]
    assert said["stdin"] == "/dev/null"
    assert "200" not in output.rpartition("fds=")[2].split()


def test_signals_are_as_new(files: HookScripts) -> None:
    script = files.write("mask", "grep -E 'Sig(Blk|Ign)' /proc/self/status")
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        _, output = run(script)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, before)
    assert [int(line.split()[1], 16) for line in output.splitlines()] == [0, 0]
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_our_own_mask_is_as_before(files: HookScripts) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run(files.ok())
    failure("/nonexistent")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_status_is_told_once(files: HookScripts) -> None:
    assert run(files.exits(3))[0] == 3 << 8
    assert run(files.kills_itself(signal.SIGKILL))[0] == signal.SIGKILL
    process = spawn(SpawnRequest(path := files.ok(), (path,), {}))
    assert process.pid in OWNED_PIDS
    process.reap(block=True)
    assert process.pid not in OWNED_PIDS


def test_a_process_is_known_by_pid_and_start_time(files: HookScripts) -> None:
    path = files.hangs()
    process = spawn(SpawnRequest(path, (path,), {}))
    assert process.reap() is None
    assert process.start_time == start_time_of(process.pid) > 0
    os.killpg(process.pid, signal.SIGTERM)
    assert process.reap(block=True) == signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        start_time_of(process.pid)


def test_output_files_are_emptied_or_added_to(files: HookScripts, tmp_path: Path) -> None:
    script = files.write("both", "echo out", "echo err >&2")
    log = tmp_path / "log"
    log.write_text("before\n")
    run(script, stdout=OutputFile(str(log), append=True))
    assert log.read_text() == "before\nout\nerr\n"
    run(script, stdout=OutputFile("log"), stderr=OutputFile("errors"), cwd=str(tmp_path))
    assert (log.read_text(), (tmp_path / "errors").read_text()) == ("out\n", "err\n")
    assert (tmp_path / "errors").stat().st_mode & 0o777 == 0o644


def test_stdin_may_be_a_file(files: HookScripts, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("hello")
    assert run(files.write("reads", "cat"), stdin=str(tmp_path / "input"))[1] == "hello"


def test_standard_descriptors_may_be_swapped(files: HookScripts) -> None:
    # In a process of its own, whose 1 and 2 can be told apart.
    script = files.write("both", "echo out", "echo err >&2")
    program = (
        "from cranehooks.execution.process import *\n"
        f"spawn(SpawnRequest({script!r}, ({script!r},), {{}}, stdout=2, stderr=1)).reap(block=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("err\n", "out\n")


def test_works_with_all_standard_descriptors_closed(files: HookScripts, tmp_path: Path) -> None:
    script = files.write("both", "echo out", "echo err >&2")
    program = (
        "import os; from cranehooks.execution.process import *\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        f"spawn(SpawnRequest({script!r}, ({script!r},), {{}}, stdout=OutputFile({str(tmp_path / 'log')!r}))).reap(block=True)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_limits_apply(files: HookScripts) -> None:
    script = files.write("limits", "ulimit -Sn", "ulimit -Hn", "cat /proc/self/oom_score_adj", "umask")
    options: dict[str, Any] = {"rlimits": {resource.RLIMIT_NOFILE: (77, 88)}, "oom_score_adj": 500, "umask": 0o077}  # Any: mixed
    assert run(script, **options)[1].split() == ["77", "88", "500", "0077"]


def test_no_new_privileges_when_asked(files: HookScripts) -> None:
    script = files.write("privileges", "grep -E 'NoNewPrivs|CapInh|CapAmb' /proc/self/status")
    _, output = run(script, no_new_privileges=True, drops_capabilities=True)
    assert {line.split()[0]: int(line.split()[1], 16) for line in output.splitlines()} == {
        "CapInh:": 0, "CapAmb:": 0, "NoNewPrivs:": 1
    }  # fmt: skip


@as_root
def test_a_user_gets_no_capability_in_any_set(files: HookScripts) -> None:
    open_to_all(files.directory)
    script = files.write("capabilities", "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    options: dict[str, Any] = {"credentials": NOBODY, "drops_capabilities": True}  # Any: fields of SpawnRequest
    _, output = run(script, **options, empties_bounding_set=True)
    assert {line.split()[0]: int(line.split()[1], 16) for line in output.splitlines()} == {
        "CapInh:": 0, "CapPrm:": 0, "CapEff:": 0, "CapBnd:": 0, "CapAmb:": 0, "NoNewPrivs:": 0
    }  # fmt: skip
    _, output = run(script, **options)
    bounding = next(line.split()[1] for line in output.splitlines() if line.startswith("CapBnd"))
    assert int(bounding, 16) == sum(1 << number for number in bounded_capabilities()) > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may take capabilities away")
def test_an_ordinary_user_takes_no_capability_away(files: HookScripts) -> None:
    assert bounded_capabilities() == ()
    assert run(files.ok(), empties_bounding_set=True)[0] == 0


@as_root
def test_the_scheduling_of_a_favoured_daemon_is_not_passed_on(files: HookScripts) -> None:
    script = files.write("favour", "cut -d' ' -f19,41 /proc/self/stat; cat /proc/self/personality")
    program = (
        "import os; from cranehooks.execution import syscalls; from cranehooks.execution.process import *\n"
        "os.setpriority(os.PRIO_PROCESS, 0, -7); syscalls.personality(0x40000)\n"
        f"spawn(SpawnRequest({script!r}, ({script!r},), {{}}, stdout=1)).reap(block=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "00000000"]


def test_limits_bind_the_program_alone(files: HookScripts, tmp_path: Path) -> None:
    script = files.write("limits", "ulimit -S -n; ulimit -S -f")
    limits = {
        number: (soft, resource.getrlimit(number)[1])
        for number, soft in ((resource.RLIMIT_NOFILE, 20), (resource.RLIMIT_FSIZE, 0))
    }
    status, output = run(script, rlimits={resource.RLIMIT_NOFILE: limits[resource.RLIMIT_NOFILE]}, cwd=str(tmp_path))
    assert (status, output.split()[0]) == (0, "20")
    assert run(files.ok(), rlimits=limits)[0] == 0


@as_root
def test_takes_on_the_identity(files: HookScripts, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    _, output = run(files.prints_identity(), credentials=NOBODY)
    said = output.splitlines()[0]
    assert said.startswith("uid=65534 gid=65534")
    assert sorted(said.rpartition("=")[2].split()) == ["65533", "65534"]


@as_root
def test_output_files_are_opened_with_the_new_identity(files: HookScripts, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(0o700)
    refused = failure(files.ok(), credentials=NOBODY, stdout=OutputFile(str(secret / "log")))
    assert (refused.stage, refused.errno) == (Stage.FILES, errno.EACCES)


def test_our_own_identity_may_be_named_by_anybody(files: HookScripts) -> None:
    own = Credentials(os.getuid(), os.getgid(), tuple(os.getgroups()))
    assert run(files.ok(), credentials=own)[0] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may be anybody")
def test_another_identity_is_refused_to_an_ordinary_user(files: HookScripts) -> None:
    assert failure(files.ok(), credentials=Credentials(0, 0)).stage is Stage.IDENTITY


def test_failures_name_their_stage(files: HookScripts, tmp_path: Path) -> None:
    ok = files.ok()
    for path, options, stage, error in (
        ("/nonexistent", {}, Stage.EXEC, errno.ENOENT),
        (files.without_shebang(), {}, Stage.EXEC, errno.ENOEXEC),
        (files.not_executable(), {}, Stage.EXEC, errno.EACCES),
        (str(tmp_path), {}, Stage.EXEC, errno.EACCES),
        (ok, {"cwd": "/nonexistent"}, Stage.CWD, errno.ENOENT),
        (ok, {"stdout": OutputFile("/nonexistent/log")}, Stage.FILES, errno.ENOENT),
        (ok, {"stdin": 987}, Stage.STDIO, errno.EBADF),
        (ok, {"rlimits": {resource.RLIMIT_NOFILE: (9, 8)}}, Stage.LIMITS, errno.EINVAL),
    ):
        refused = failure(path, **options)
        assert (refused.stage, refused.errno) == (stage, error)
    assert str(failure("/nonexistent")) == "cannot start /nonexistent: exec: No such file or directory"


def test_a_nul_is_refused_before_anything_starts(files: HookScripts) -> None:
    path = files.ok()
    with pytest.raises(SpawnError) as caught:
        spawn(SpawnRequest(path, (path,), {"A": "b\0c"}))
    assert caught.value.stage is Stage.PREPARE


def test_there_may_be_a_second_choice_of_directory(files: HookScripts) -> None:
    script = files.write("where", "pwd")
    assert run(script, cwd="/nonexistent", cwd_fallback="/")[1] == "/\n"
    assert failure(script, cwd="/nonexistent", cwd_fallback="/neither").stage is Stage.CWD


def test_works_beside_other_threads(files: HookScripts) -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        assert run(files.exits(3))[0] == 3 << 8
        assert failure("/nonexistent").errno == errno.ENOENT
    finally:
        gate.set()
        thread.join()


def test_dies_with_the_one_that_started_it(files: HookScripts, tmp_path: Path) -> None:
    script = files.write("lives", "exec sleep 3600")
    program = (
        "import os; from cranehooks.execution.process import *\n"
        f"process = spawn(SpawnRequest({script!r}, ({script!r},), {{}}, parent_death_signal=9))\n"
        "print(process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split())


def test_handlers_of_ours_do_not_run_in_the_child(files: HookScripts) -> None:
    # A signal sent to the child's process group before its exec must not act on descriptors that we share.
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        status, _ = run(files.kills_itself(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (status, seen) == (signal.SIGUSR1, [])
