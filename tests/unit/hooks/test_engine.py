"""Whole runs with real scripts, under every containment driver that works here."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cranehooks.execution.containment.cells import Cell, Containment
from cranehooks.execution.engine import Engine
from cranehooks.execution.process import SpawnRequest, spawn
from cranehooks.model.limits import LimitKind, Limits, words
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.run import Credentials, HookRun, Leftover, RunSpec, ScriptStarted, TimeoutScope
from cranehooks.testing.containment import StubbornCell, StubbornContainment
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec
from tests.support.eventually import eventually

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)


@pytest.fixture
def engine(containment: Containment) -> Iterator[Engine]:
    engine = Engine(containment, reaps_orphans=True)
    yield engine
    engine.close()


def finish(engine: Engine, spec: RunSpec, at_start: Callable[[ScriptStarted], None] | None = None) -> HookRun:
    records: list[HookRun] = []
    engine.start(spec, records.append, at_start)
    while not records:
        engine.poll(None)
    assert len(records) == 1
    assert engine.active == frozenset()
    assert engine.next_deadline() is None
    return records[0]


def run(engine: Engine, *scripts: str, **options: Any) -> HookRun:  # Any: fields of RunSpec
    return finish(engine, prolog_spec(*scripts, **options))


def test_stderr_may_be_heard_apart(engine: Engine, files: HookScripts) -> None:
    path = files.write("speaks", "echo out; echo err >&2; echo more >&2")
    heard: list[bytes] = []
    records: list[HookRun] = []
    engine.start(prolog_spec(path), records.append, on_stderr=heard.append)
    while not records:
        engine.poll(None)
    assert b"".join(heard) == b"err\nmore\n"
    [script] = records[0].scripts
    assert sorted(script.output.split()) == ["err", "more", "out"]
    assert script.output_bytes == 13


def outcomes(record: HookRun) -> list[Outcome]:
    return [script.outcome for script in record.scripts]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_output_that_is_no_utf8_can_be_had_back(containment: Containment, files: HookScripts) -> None:
    script = files.write("latin", r"printf 'M\374ller \303\244'")
    for keeps_undecodable, told in ((False, "M\ufffdller ä"), (True, b"M\xfcller \xc3\xa4".decode("utf-8", "surrogateescape"))):
        engine = Engine(containment, reaps_orphans=True, keeps_undecodable=keeps_undecodable)
        try:
            assert run(engine, script).output == told
        finally:
            engine.close()


def test_scripts_run_in_order_and_are_told(engine: Engine, files: HookScripts) -> None:
    started: list[ScriptStarted] = []
    spec = prolog_spec(files.ok("10-a", says="hello"), files.exits(3, "20-b", says="broken"), files.ok("30-c"))
    record = finish(engine, spec, started.append)
    assert record.outcome == EXIT_3
    assert outcomes(record) == [OK, EXIT_3]
    assert record.key == spec.key
    assert [(script.name, script.output, script.output_bytes) for script in record.scripts] == [
        ("10-a", "hello\n", 6), ("20-b", "broken\n", 7)
    ]  # fmt: skip
    assert [(start.index, start.path, start.sha256) for start in started] == [
        (index, script.path, script.sha256) for index, script in enumerate(record.scripts)
    ]
    assert all(start.pid > 0 and start.start_time > 0 for start in started)
    assert record.scripts[0].started_at <= record.scripts[1].started_at <= time.time()
    assert 0 < sum(script.duration_s for script in record.scripts) <= record.duration_s
    assert record.failed_script is record.scripts[1]
    assert record.failed_script.last_line == "broken"


def test_no_script_is_ok(engine: Engine) -> None:
    assert run(engine).outcome == OK


def test_all_run_when_told_to_go_on(engine: Engine, files: HookScripts) -> None:
    record = run(engine, files.exits(3), files.ok(), files.exits(4), continue_on_failure=True)
    assert outcomes(record) == [EXIT_3, OK, Outcome(OutcomeKind.EXIT, 4)]
    assert record.outcome == EXIT_3


def test_a_signal_of_somebody_else_is_told(engine: Engine, files: HookScripts) -> None:
    assert run(engine, files.kills_itself(signal.SIGKILL)).outcome == Outcome(OutcomeKind.SIGNAL, 9)


def test_exactly_the_environment_is_seen(engine: Engine, files: HookScripts) -> None:
    record = run(engine, files.prints_environment(), environment={"CRANE_JOB_ID": "42", "SLURM_JOB_ID": "42"})
    assert record.output.splitlines() == ["CRANE_JOB_ID=42", "SLURM_JOB_ID=42"]


@pytest.mark.parametrize("script", ["hangs", "ignores_term", "exits_0_on_term"])
def test_time_ends_every_script(engine: Engine, files: HookScripts, script: str) -> None:
    record = run(engine, getattr(files, script)(), files.ok(), timeout_s=0.3, grace_s=0.2)
    assert outcomes(record) == [Outcome(OutcomeKind.TIMEOUT, 1)]
    assert str(record.outcome) == "timeout after 1 s"


def test_the_whole_list_has_one_budget(engine: Engine, files: HookScripts) -> None:
    slow = files.write("slow", "sleep 0.2")
    record = run(engine, *[slow] * 20, timeout_s=1.5, grace_s=1)
    *before, last = [outcome.kind for outcome in outcomes(record)]
    assert last is OutcomeKind.TIMEOUT
    assert before == [OutcomeKind.OK] * len(before), "how many depends on the machine"
    assert len(before) < 8
    record = run(engine, slow, slow, timeout_s=10, timeout_scope=TimeoutScope.SCRIPT)
    assert outcomes(record) == [OK, OK]


def test_no_time_left_starts_nothing(engine: Engine, files: HookScripts, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    record = run(engine, files.appends("ran", trace, "traces"), timeout_s=0)
    assert record.outcome.kind is OutcomeKind.TIMEOUT
    assert not trace.exists()


def test_a_stopped_run_is_nobodys_failure(engine: Engine, files: HookScripts) -> None:
    spec = prolog_spec(files.hangs(), files.ok())
    records: list[HookRun] = []
    engine.start(spec, records.append)
    assert engine.active == {spec.key.run_id}
    assert engine.stop(spec.key.run_id)
    while not records:
        engine.poll(None)
    assert outcomes(records[0]) == [Outcome(OutcomeKind.STOPPED)]
    assert not engine.stop(spec.key.run_id)


def test_stop_now_does_not_wait_for_the_grace(engine: Engine, files: HookScripts) -> None:
    spec = prolog_spec(files.ignores_term(), grace_s=3600)
    records: list[HookRun] = []
    engine.start(spec, records.append)
    engine.stop(spec.key.run_id)
    engine.stop(spec.key.run_id, now=True)
    while not records:
        engine.poll(None)
    assert records[0].outcome.kind is OutcomeKind.STOPPED


def test_a_daemon_does_not_outlive_its_script(engine: Engine, files: HookScripts, tmp_path: Path) -> None:
    record = run(engine, files.leaves_daemon(tmp_path / "pid"), files.ok())
    daemon = int((tmp_path / "pid").read_text())
    assert outcomes(record) == [OK, OK]
    assert (daemon, "sleep 3600") in [(leftover.pid, leftover.command) for leftover in record.scripts[0].leftovers]
    assert record.scripts[1].leftovers == ()
    assert not is_alive(daemon)


def test_a_child_that_holds_the_pipe_delays_nothing(engine: Engine, files: HookScripts) -> None:
    record = run(engine, files.leaves_child_on_pipe())
    assert (record.outcome, record.output) == (OK, "gone\n")
    assert [leftover.command for leftover in record.scripts[0].leftovers] != []


def test_a_flood_is_bounded_and_counted(engine: Engine, files: HookScripts) -> None:
    record = run(engine, files.floods(3_000_000), output_limit_bytes=1000)
    script = record.scripts[0]
    assert script.outcome == OK
    assert script.output_bytes > 3_000_000
    assert len(script.output) < 1100
    assert script.output.startswith("first\n")
    assert script.output.endswith("last\n")
    assert f"[... {script.output_bytes - 1000} bytes dropped ...]" in script.output


def test_binary_output_is_made_text(engine: Engine, files: HookScripts) -> None:
    assert run(engine, files.writes_binary()).output == "\ufffd\ufffd\0\ufffd abc\n"


@pytest.mark.parametrize(
    ("script", "error", "detail"),
    [
        ("without_shebang", errno.ENOEXEC, "has no #! line and is no program"),
        ("without_interpreter", errno.ENOENT, "its interpreter /nonexistent/sh does not exist"),
        ("not_executable", errno.EACCES, "is not executable; chmod a+x {path}"),
        ("writable_by_others", 0, "is writable by group or others (mode 0777); chmod go-w {path}"),
    ],
)
def test_what_cannot_start_says_why(engine: Engine, files: HookScripts, script: str, error: int, detail: str) -> None:
    path = getattr(files, script)()
    record = run(engine, path, files.ok())
    assert outcomes(record) == [Outcome(OutcomeKind.SPAWN, error, detail.format(path=path))]


def test_missing_scripts_and_directories_say_so(engine: Engine, files: HookScripts) -> None:
    assert run(engine, str(files.directory / "missing")).outcome == Outcome(OutcomeKind.SPAWN, errno.ENOENT, "does not exist")
    files.ok()
    assert run(engine, str(files.directory)).outcome.code == errno.EISDIR


def test_a_script_may_delete_itself_once(engine: Engine, files: HookScripts) -> None:
    path = files.deletes_itself()
    assert run(engine, path).outcome == OK
    assert run(engine, path).outcome.code == errno.ENOENT


def test_a_directory_that_cannot_be_entered_is_named(engine: Engine, files: HookScripts) -> None:
    record = run(engine, files.ok(), cwd="/nonexistent")
    expected = "entering its working directory: no such file or directory"
    assert record.outcome == Outcome(OutcomeKind.SPAWN, errno.ENOENT, expected)


def test_arguments_follow_the_path(engine: Engine, files: HookScripts) -> None:
    assert run(engine, files.write("args", 'echo "$0" "$@"'), arguments=("-n", "2")).output.endswith("args -n 2\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes identity")
def test_runs_as_somebody_else(engine: Engine, files: HookScripts) -> None:
    for directory in files.directory.resolve().parents:
        if str(directory).startswith("/tmp/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    script = files.write("who", "id -u; echo told >/dev/stderr")
    record = run(engine, script, credentials=Credentials(65534, 65534), user="nobody")
    assert (record.user, record.output) == ("nobody", "65534\ntold\n")


def test_the_user_is_named_even_when_nobody_said_who(engine: Engine, files: HookScripts) -> None:
    assert run(engine, files.ok(), credentials=None).user not in ("", "None")


def test_runs_are_side_by_side_and_of_one_key_once(engine: Engine, files: HookScripts) -> None:
    slow = files.write("slow", "sleep 0.3; echo $CRANE_JOB_ID")
    specs = [prolog_spec(slow, environment={"CRANE_JOB_ID": str(number)}) for number in range(8)]
    records: list[HookRun] = []
    for spec in specs:
        engine.start(spec, records.append)
    with pytest.raises(ValueError, match="is under way"):
        engine.start(specs[0], records.append)
    while len(records) < len(specs):
        engine.poll(None)
    assert sorted(record.output for record in records) == [f"{number}\n" for number in range(8)]
    assert all(record.duration_s < 8 * 0.3 for record in records)


def test_a_run_is_reported_from_poll_only(engine: Engine) -> None:
    records: list[HookRun] = []
    engine.start(prolog_spec("/nonexistent"), records.append)
    assert not records
    assert engine.remaining_s() == 0
    engine.poll()
    assert len(records) == 1


def test_closing_kills_what_runs(containment: Containment, files: HookScripts) -> None:
    engine = Engine(containment, reaps_orphans=True)
    records: list[HookRun] = []
    engine.start(prolog_spec(files.ignores_term(), grace_s=3600), records.append)
    engine.close()
    assert [record.outcome.kind for record in records] == [OutcomeKind.STOPPED]


def test_orphans_are_reaped_without_taking_statuses_of_others(containment: Containment, files: HookScripts) -> None:
    engine = Engine(containment, reaps_orphans=True)
    ours = spawn(SpawnRequest(path := files.exits(7), (path,), {}))
    for _ in range(3):
        assert run(engine, files.ok()).outcome == OK
    assert ours.reap(block=True) == 7 << 8
    engine.close()


def test_in_a_cgroup_of_somebody_else_only_the_hook_is_killed(containment: Containment, files: HookScripts) -> None:
    task = containment.create_at("job_7", "step_0", "task_0")
    if task.cgroup is None:
        task.remove()
        pytest.skip("this driver has no cgroups")
    process = spawn(SpawnRequest(path := files.hangs(), (path,), {}, cgroup_fd=task.cgroup_fd, entry_fds=tuple(task.entry_fds)))
    engine = Engine(containment, reaps_orphans=True)
    record = run(engine, files.write("where", "cat /proc/self/cgroup", "sleep 3600 &"), cgroup=task.cgroup)
    assert "/job_7/step_0/task_0/" in record.output
    assert len(record.scripts[0].leftovers) == 1
    assert process.reap() is None, "the task lives"
    task.kill()
    process.reap(block=True)
    engine.close()
    task.remove()
    containment.sweep("job_7")


def test_what_survives_kill_is_told_and_ends_the_run(files: HookScripts) -> None:
    stuck = Leftover(7, "dd")
    containment = StubbornContainment(stuck)
    engine = Engine(containment)
    record = run(engine, files.ok(), files.ok(), unkillable_after_s=0.1)
    assert outcomes(record) == [Outcome(OutcomeKind.UNKILLABLE, 0, "alive 0.1 s after KILL: 7 (dd)")]
    assert record.scripts[0].leftovers == (stuck,)
    assert containment.cells[0].kills > 0
    assert containment.cells[0].is_removed
    engine.close()


def test_a_script_that_cannot_be_killed_is_left_to_itself(files: HookScripts) -> None:
    started: list[ScriptStarted] = []
    engine = Engine(StubbornContainment())
    spec = prolog_spec(files.hangs(), timeout_s=0.1, grace_s=0.1, unkillable_after_s=0.1)
    record = finish(engine, spec, started.append)
    assert record.outcome == Outcome(OutcomeKind.UNKILLABLE, 0, "alive 0.1 s after KILL: the script itself")
    assert record.scripts[0].duration_s > 0
    assert is_alive(started[0].pid)
    os.killpg(started[0].pid, signal.SIGKILL)
    engine.close()


def test_a_cell_that_cannot_be_made_is_a_spawn_failure(files: HookScripts) -> None:
    class Broken(StubbornContainment):
        def create(self, name: str, *, limits: Limits | None = None) -> StubbornCell:
            raise OSError(errno.ENOSPC, "No space left on device", name)

    engine = Engine(Broken())
    assert run(engine, files.ok()).outcome == Outcome(OutcomeKind.SPAWN, errno.ENOSPC, "containment: No space left on device")
    engine.close()


def test_a_script_that_may_keep_processes_leaves_them_alive_and_named(
    engine: Engine, containment: Containment, files: HookScripts, tmp_path: Path
) -> None:
    keeper, other = files.leaves_daemon(tmp_path / "pid", "20-keeps"), files.leaves_daemon(tmp_path / "other", "10-other")
    spec = prolog_spec(keeper, other, keeps=frozenset({keeper}))
    record = finish(engine, spec)
    daemon = int((tmp_path / "pid").read_text())
    assert record.outcome == OK
    assert [(script.kept, len(script.leftovers)) for script in record.scripts] == [
        ((Leftover(daemon, "sleep 3600"),), 0),
        ((), 1),
    ]
    assert is_alive(daemon)
    assert not is_alive(int((tmp_path / "other").read_text()))
    assert run(engine, files.leaves_daemon(tmp_path / "third", "30-third")).scripts[0].leftovers, "others are contained as ever"
    assert is_alive(daemon)
    assert containment.kept() == [Leftover(daemon, "sleep 3600")]
    assert containment.end_kept("another.1/prolog") == []
    assert containment.end_kept(spec.key.run_id) == [Leftover(daemon, "sleep 3600")]
    eventually(lambda: not is_alive(daemon))
    assert containment.kept() == []


@pytest.mark.parametrize("how", ["exit 3", "kill -9 $$", "sleep 3600"])
def test_a_script_that_went_wrong_keeps_nothing(engine: Engine, files: HookScripts, tmp_path: Path, how: str) -> None:
    files.leaves_daemon(tmp_path / "pid", "daemon")
    script = files.write("fails", str(files.directory / "daemon"), how)
    record = finish(engine, prolog_spec(script, keeps=frozenset({script}), timeout_s=0.5, grace_s=0.1))
    assert not record.outcome.ok
    assert record.scripts[0].kept == ()
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_what_cannot_be_kept_is_killed(
    files: HookScripts, containment: Containment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(containment, reaps_orphans=True)
    script = files.leaves_daemon(tmp_path / "pid")
    real = containment.create

    def create(name: str, *, limits: Limits | None = None) -> Cell:
        cell = real(name, limits=limits)
        monkeypatch.setattr(type(cell), "keep", no_room)
        return cell

    def no_room(_: Cell) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(containment, "create", create)
    record = finish(engine, prolog_spec(script, keeps=frozenset({script})))
    assert record.scripts[0].kept == ()
    assert [left.pid for left in record.scripts[0].leftovers] == [int((tmp_path / "pid").read_text())]
    engine.close()


def test_inherited_streams_are_the_hosts_own(files: HookScripts) -> None:
    script = files.write("talks", "echo out; echo err >&2; cat")
    program = (
        "from cranehooks.execution.engine import Engine\n"
        "from cranehooks.execution.containment.detect import detect\n"
        "from cranehooks.testing.specs import prolog_spec\n"
        "engine = Engine(detect('none')[0]); records = []\n"
        f"engine.start(prolog_spec({script!r}, inherit_stdio=True, trusted_owner=False), records.append)\n"
        "while not records: engine.poll(None)\n"
        "assert records[0].output == '' and records[0].outcome.ok, records\n"
        "engine.close()\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input="in\n", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("out\nin\n", "err\n")


# ---- limits


def test_want_of_memory_is_named_as_the_cause(engine: Engine, containment: Containment, files: HookScripts) -> None:
    if LimitKind.MEMORY not in containment.offers.enforced:
        pytest.skip(f"driver {containment.driver} offers no limits of memory here")
    hog = files.write("hog", "held = bytearray(256 << 20)", interpreter=f"#!{sys.executable} -IS")
    limits = Limits(memory_bytes=48 << 20, swap_bytes=0 if LimitKind.SWAP in containment.offers.enforced else None)
    record = run(engine, files.ok(), hog, files.ok("after"), limits=limits, continue_on_failure=True)
    killed = Outcome(OutcomeKind.SIGNAL, 9, "out of memory: the kernel killed 1 of its processes beyond its 48 MiB")
    assert outcomes(record) == [OK, killed, OK]
    assert record.notes == ()


def test_limits_that_do_not_hold_are_told_with_the_run(engine: Engine, containment: Containment, files: HookScripts) -> None:
    record = run(engine, files.ok(), limits=Limits(memory_bytes=1 << 30, pids=100))
    assert record.outcome == OK
    missing = words({LimitKind.MEMORY, LimitKind.PIDS} - containment.offers.enforced)
    assert record.notes == ((f"limits of {', '.join(missing)} do not hold here",) if missing else ())


def test_want_of_processes_is_named_as_the_cause(engine: Engine, containment: Containment, files: HookScripts) -> None:
    if LimitKind.PIDS not in containment.offers.enforced:
        pytest.skip(f"driver {containment.driver} offers no limits of processes here")
    lines = ("import os, signal", "for _ in range(50):", "    if not os.fork(): signal.pause()")
    bomb = files.write("bomb", *lines, interpreter=f"#!{sys.executable} -IS")
    record = run(engine, bomb, files.ok("after"), limits=Limits(pids=8), continue_on_failure=True)
    assert outcomes(record)[1] == OK
    assert record.scripts[0].outcome.kind is OutcomeKind.EXIT
    assert record.scripts[0].outcome.detail == "out of processes: its limit of 8 refused 1 more"
    assert len(record.scripts[0].leftovers) == 7
