"""Bad input gets a clear answer and loses nothing: scripts that cannot run, wrong options, unknown names, a full queue."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from tests.support.scripted_cluster import ScriptedCluster, runs_of


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Three jobs may wait."""
    with ScriptedCluster(MaxQueuedJobs=3) as cluster:
        yield cluster


def delete(path: Path) -> None:
    path.unlink()


def make_not_executable(path: Path) -> None:
    path.chmod(0o644)


def make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def leave_out_the_shebang(path: Path) -> None:
    path.write_text("exit 0\n")


def ask_for_a_missing_interpreter(path: Path) -> None:
    path.write_text("#!/nonexistent/sh\nexit 0\n")


def let_others_write(path: Path) -> None:
    path.chmod(0o777)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/target")


Breakage = Callable[[Path], None]
BREAKAGES: list[tuple[Breakage, str]] = [
    (delete, "ENOENT"),
    (make_not_executable, "EACCES"),
    (make_a_directory, "EISDIR"),
    (leave_out_the_shebang, "ENOEXEC"),
    (ask_for_a_missing_interpreter, "ENOENT"),
    (let_others_write, "refused"),
    (link_to_nothing, "ENOENT"),
]
each_breakage = pytest.mark.parametrize(("breakage", "cause"), BREAKAGES, ids=[breakage.__name__ for breakage, _ in BREAKAGES])


@contextmanager
def broken(script: str, breakage: Breakage) -> Iterator[None]:
    """The installed script as the breakage leaves it; whole again at the end."""
    path = Path(script)
    content = path.read_text()
    breakage(path)
    try:
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o755)


# ---- scripts that break while the cluster runs


@each_breakage
def test_prolog_that_cannot_start_drains_and_the_job_is_not_lost(stage: ScriptedCluster, breakage: Breakage, cause: str) -> None:
    label = f"prolog-{breakage.__name__}"
    with broken(stage.hook("Prolog"), breakage):
        job_id = stage.submit(label, "true", "-w", "cn01")
        job = stage.await_state(label, "Pending")
        (drain,) = stage.nodes()["cn01"].drains
        assert drain.reason.startswith(f"prolog Prolog spawn failed: {cause} (job {job_id}, attempt 1)")
        assert job.requeue_count == 1
        assert stage.calls(label, "TaskProlog") == []
    assert stage.hookctl("resume", "cn01").returncode == 0
    assert stage.ended(label).state == "Completed"


@pytest.mark.parametrize("point", ["CranectldProlog", "CrunProlog", "TaskProlog"])
def test_other_before_hooks_that_are_missing_cancel_an_interactive_job(stage: ScriptedCluster, point: str) -> None:
    with broken(stage.hook(point), delete):
        result = stage.run("crun", str(stage.tracer), "task", label=f"missing-{point}")
    assert result.returncode == 1
    assert f"{point} spawn failed: ENOENT" in result.stderr
    stage.ended(f"missing-{point}")
    assert stage.calls(f"missing-{point}", "task") == []


@pytest.mark.parametrize("point", ["TaskEpilog", "CrunEpilog", "CranectldEpilog"])
def test_after_hooks_that_are_missing_are_recorded_only(stage: ScriptedCluster, point: str) -> None:
    with broken(stage.hook(point), delete):
        assert stage.run("crun", "true", label=f"missing-{point}").returncode == 0
        job = stage.ended(f"missing-{point}")
    assert job.state == "Completed"
    (run,) = runs_of(job, HookPoint(point))
    assert str(run.outcome) == "spawn failed: ENOENT"


def test_epilog_that_is_missing_drains_the_node(stage: ScriptedCluster) -> None:
    with broken(stage.hook("Epilog"), delete):
        stage.submit("no-epilog", "true")
        assert stage.ended("no-epilog").state == "Completed"
    assert "epilog Epilog spawn failed: ENOENT" in stage.nodes()["cn01"].drains[0].reason


def test_script_that_deletes_itself_fails_at_its_next_run(stage: ScriptedCluster) -> None:
    script = stage.script("once", '/bin/rm -- "$0"')
    assert stage.run("crun", "--task-prolog", str(script), "true", label="self-1").returncode == 0
    result = stage.run("crun", "--task-prolog", str(script), "true", label="self-2")
    assert result.returncode != 0
    assert "ENOENT" in result.stderr


# ---- scripts that are broken before anything starts


@pytest.mark.parametrize("program", ["cranectld", "craned"])
def test_configuration_with_bad_scripts_starts_nothing_and_names_them_all(stage: ScriptedCluster, program: str) -> None:
    bad = stage.directory / f"bad-{program}"
    bad.mkdir()
    (bad / "plain").write_text("#!/bin/sh\n")
    places: dict[str, int] = {}
    points = ("CranectldProlog", "CranectldEpilog") if program == "cranectld" else ("Prolog", "Epilog")
    text = stage.cluster.config_file.read_text()
    for point, name in zip(points, ("missing", "plain"), strict=True):
        text = re.sub(rf"( {point}:) .*", rf"\1 {bad / name}", text)
        places[point] = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(f"  {point}:"))
    config = bad / "config.yaml"
    config.write_text(text)
    for mode in (
        ["--check-config", str(config)],
        ["--config", str(config), *(["--node", "cn01"] if program == "craned" else [])],
    ):
        command = [str(Path(sys.executable).with_name(program)), *mode]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2, result.stderr
        first, second = result.stderr.splitlines()
        assert re.match(rf"{config}:{places[points[0]]}:\d+: {points[0]}: {bad}/missing does not exist$", first)
        assert re.match(rf"{config}:{places[points[1]]}:\d+: {points[1]}: {bad}/plain is not executable;", second)


# ---- batch scripts


def test_batch_script_may_change_between_submission_and_run(stage: ScriptedCluster) -> None:
    stage.submit("holds-all", "sleep 3600", "-N2", "-n2", "-c4")
    stage.await_state("holds-all", "Running")
    script = stage.script("job.sh", "#CBATCH -J changed -o changed.out", "echo as submitted $1")
    assert stage.run("cbatch", str(script), "by me").returncode == 0
    script.unlink()
    stage.cancel_all_but("changed")
    assert stage.ended("changed").state == "Completed"
    assert stage.output("changed") == "as submitted by me\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("echo no shebang\n", "does not look like a batch script"),
        ("", "is empty"),
        ("#!/bin/sh\r\necho dos\r\n", "DOS line breaks"),
        ("#!sh\n", "no interpreter by its absolute path"),
        ("#!/bin/sh\n#CBATCH --nodes=many\n", "job.sh:2"),
        ("#!/bin/sh\n#CBATCH --no-such-option\n", "unknown option --no-such-option"),
    ],
)
def test_bad_batch_script_is_refused_with_what_is_wrong(stage: ScriptedCluster, content: str, complaint: str) -> None:
    path = stage.work / "job.sh"
    path.write_bytes(content.encode())
    result = stage.run("cbatch", str(path))
    assert result.returncode in {1, 2}
    assert complaint in result.stderr
    assert result.stdout == ""
    assert stage.jobs("job.sh") == []


@pytest.mark.parametrize("path", ["/nonexistent/job.sh", "/tmp"])
def test_missing_batch_script_is_refused(stage: ScriptedCluster, path: str) -> None:
    result = stage.run("cbatch", path)
    assert result.returncode == 1
    assert path in result.stderr


def test_missing_interpreter_of_a_batch_script_fails_the_job_with_words(stage: ScriptedCluster) -> None:
    script = stage.script("lost.sh", "true", interpreter="#!/nonexistent/sh")
    result = stage.run("cbatch", "-o", "lost.out", "--wait", str(script), label="lost-interpreter")
    assert result.returncode not in {0, 1}
    assert stage.ended("lost-interpreter").state == "Failed"
    assert "/nonexistent/sh" in stage.output("lost") or "lost.sh" in stage.output("lost")


# ---- requests


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-p", "nowhere"], "nowhere"),
        (["-w", "cn99"], "cn99"),
        (["-N", "3"], "3"),
        (["-c", "1000"], "1000"),
        (["--mem", "1000G"], "1024000 MiB"),
        (["--gres", "gpu:1"], "gpu"),
    ],
)
def test_job_that_can_never_run_is_refused(stage: ScriptedCluster, arguments: list[str], complaint: str) -> None:
    for program in (["cbatch", *arguments, "--wrap", "true"], ["crun", *arguments, "true"], ["calloc", *arguments, "true"]):
        result = stage.run(*program, label="never")
        assert result.returncode == 1, result
        assert complaint in result.stderr
    assert stage.jobs("never") == []


@pytest.mark.parametrize("program", ["crun", "cbatch", "calloc", "hookctl"])
def test_unknown_option_is_wrong_usage(stage: ScriptedCluster, program: str) -> None:
    result = stage.run(program, "--no-such-option", "true", as_admin=program == "hookctl")
    assert result.returncode == 2
    assert "--no-such-option" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["-n", "0"], ["-N", "many"], ["-t", "soon"], ["--mem", "lots"], ["-n"]])
def test_wrong_value_is_wrong_usage(stage: ScriptedCluster, arguments: list[str]) -> None:
    result = stage.run("crun", *arguments)
    assert result.returncode == 2
    assert arguments[0] in result.stderr or "--" in result.stderr


def test_unknown_things_are_exit_5(stage: ScriptedCluster) -> None:
    for arguments in (
        ["job", "999"],
        ["node", "cn99"],
        ["explain", "job", "999"],
        ["explain", "node", "cn99"],
        ["cancel", "999"],
    ):
        result = stage.hookctl(*arguments)
        assert result.returncode == 5, (arguments, result)
        assert arguments[-1] in result.stderr


def test_full_queue_lets_front_ends_wait_and_loses_nothing(stage: ScriptedCluster) -> None:
    stage.submit("occupies", "sleep 3600", "-N2", "-n2", "-c4")
    stage.await_state("occupies", "Running")
    accepted = [f"waits-{number}" for number in range(3)]
    for label in accepted:
        stage.submit(label, "true")
    with stage.start("cbatch", "--wrap", "true", label="late") as late:
        assert late.stderr is not None
        told = late.stderr.readline().decode()
        assert "the queue is full" in told
        assert "MaxQueuedJobs 3" in told
        assert late.poll() is None
        assert stage.jobs("late") == []
        stage.cancel_all_but(*accepted)
        assert late.wait(60) == 0
    assert [stage.ended(label).state for label in (*accepted, "late")] == ["Completed"] * 4
    assert stage.submit("again", "true") > 0


def test_environment_and_arguments_of_any_bytes_are_answered(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "sh", "-c", 'printf "%s" "$ODD"', label="odd", env={"ODD": "a\nb=c;$(x) ü"})
    assert (result.returncode, result.stdout) == (0, "a\nb=c;$(x) ü")
    huge = stage.run("crun", "true", label="huge", env={f"BIG_{number}": "x" * 100_000 for number in range(10)})
    assert huge.returncode in {0, 1}
    assert "Traceback" not in huge.stderr


def test_directory_that_does_not_exist_is_told(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "-D", "/nonexistent/directory", "true", label="nowhere-to-work")
    assert result.returncode != 0
    assert "/nonexistent/directory" in result.stderr
    assert stage.run("crun", "true", label="still-works").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: two users")
def test_user_may_not_touch_what_is_not_theirs(stage: ScriptedCluster) -> None:
    result = stage.run("cbatch", "--parsable", "--wrap", "sleep 3600", as_admin=True)
    assert result.returncode == 0, result.stderr
    job_id = int(result.stdout)
    for method, body in (
        ("CancelJob", {"job_ids": [str(job_id)], "reason": "mine now"}),
        ("DrainNodes", {"nodes": "cn01", "reason": "because"}),
        ("ResumeNodes", {"nodes": "cn01", "owner": "DRAIN_OWNER_UNSPECIFIED"}),
        ("ResetBreaker", {"sha256": ""}),
    ):
        call = (
            "import sys, os, json; from cranecli.front.client import FrontClient, FrontError\n"
            "try: FrontClient.connect().call(sys.argv[1], json.loads(sys.argv[2]))\nexcept FrontError as error: sys.exit(error.code)"
        )
        answer = stage.run_python(call, method, json.dumps(body))
        assert answer.returncode == 1, method
        assert answer.stderr.strip() == "PERMISSION_DENIED", method
    assert stage.job_by_id(job_id).state == "Running"
