"""cbatch as a process, against a daemon that speaks the wire protocol."""

import signal
from pathlib import Path

import pytest

from tests.component.cli.front_end import run, start
from tests.support.front_daemon import Call, Cluster, FrontDaemon, job_update

SCRIPT = "#!/bin/sh\n#CBATCH -N 2 --job-name=inner  # two nodes\n# a remark\n#CBATCH --time 1:30:00\n\necho\n#CBATCH -n 9\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    return path


def test_a_script_is_submitted_with_its_option_lines(daemon: FrontDaemon, cluster: Cluster, script: Path) -> None:
    result = run(daemon.path, "cbatch", "-J", "outer", "--mem=2G", str(script), "a", "b c", cwd=script.parent)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"Submitted batch job 42\n", b"")
    spec = daemon.called("SubmitJob")[0].body["spec"]
    assert spec["kind"] == "JOB_KIND_BATCH"
    assert (spec["num_nodes"], spec["name"], spec["time_limit"]) == (2, "outer", "5400s")
    assert spec["memory_per_node_bytes"] == str(2 << 30)
    assert (spec["script"], spec["script_name"], spec["script_arguments"]) == (SCRIPT, "job.sh", ["a", "b c"])
    assert (spec["requeue"], spec["cwd"]) == (True, str(script.parent))
    assert "ntasks" not in spec


def test_stdin_wrap_and_parsable(daemon: FrontDaemon, cluster: Cluster) -> None:
    daemon.handlers["SubmitJob"] = lambda call: call.ok({"job_ids": ["42", "43", "44"]})
    assert run(daemon.path, "cbatch", stdin=SCRIPT.encode()).stdout == b"Submitted batch jobs 42-44\n"
    assert run(daemon.path, "cbatch", "--parsable", "--array=0-2", "--wrap", "echo a\necho b").stdout == b"42,43,44\n"
    first, second = (call.body for call in daemon.called("SubmitJob"))
    assert first["spec"]["script_name"] == "stdin"
    assert second["spec"]["script"].startswith("#!/bin/sh\n")
    assert second["spec"]["script"].endswith("\necho a\necho b\n")
    assert second["array"] == "0-2"
    assert first["request_id"] != second["request_id"]


def test_export_none_and_no_requeue(daemon: FrontDaemon, cluster: Cluster) -> None:
    assert run(daemon.path, "cbatch", "--export=NONE", "--no-requeue", "--wrap", "true").returncode == 0
    spec = daemon.called("SubmitJob")[0].body["spec"]
    assert not spec.get("environment")
    assert not spec.get("requeue")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"echo\n", "does not look like a batch script"),
        (b"#!/bin/sh\n\0", "NUL byte"),
        (b"#!/bin/sh\r\necho\r\n", "DOS line breaks"),
        (b"#!/bin/sh\n" + b"#" * (4 << 20), "larger than 4 MiB"),
        (b"#!sh\n", "absolute path"),
        (b"#!/bin/sh\n\xff\n", "not UTF-8"),
    ],
)
def test_a_bad_script_is_refused_before_anything_is_sent(
    daemon: FrontDaemon, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "job.sh"
    path.write_bytes(content)
    result = run(daemon.path, "cbatch", str(path))
    assert result.returncode == 1
    assert message in result.stderr.decode()
    assert not daemon.calls


def test_a_missing_script_and_a_directory(daemon: FrontDaemon, tmp_path: Path) -> None:
    assert b"No such file" in run(daemon.path, "cbatch", str(tmp_path / "none")).stderr
    assert b"directory" in run(daemon.path, "cbatch", str(tmp_path)).stderr


def test_a_wrong_option_line_names_its_line(daemon: FrontDaemon, tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/sh\n#CBATCH -N 1\n#CBATCH --nodez 3\n")
    result = run(daemon.path, "cbatch", str(path))
    assert (result.returncode, result.stderr.splitlines()[0]) == (2, b"cbatch: error: job.sh:3: unknown option --nodez")


@pytest.mark.parametrize(
    ("state", "exit_status", "code"),
    [
        ("COMPLETED", {"code": 0, "signal": 0}, 0),
        ("FAILED", {"code": 7, "signal": 0}, 7),
        ("CANCELLED", {"code": 0, "signal": 15}, 143),
        ("CANCELLED", {"code": 0, "signal": 0}, 1),
    ],
)
def test_wait_exits_with_the_jobs_code(
    daemon: FrontDaemon, cluster: Cluster, state: str, exit_status: dict[str, int], code: int
) -> None:
    def follow(call: Call) -> None:
        call.item(job_update("RUNNING"))
        call.item(job_update(state, exit=exit_status, reason="why", final=True))
        call.end()

    daemon.handlers["FollowJob"] = follow
    result = run(daemon.path, "cbatch", "--wait", "--wrap", "true")
    assert result.returncode == code, result.stderr
    assert (b"why" in result.stderr) == (state != "COMPLETED")
    assert daemon.called("FollowJob")[0].body["bind"] is False


def test_wait_survives_a_broken_stream_and_a_broken_connection(daemon: FrontDaemon, cluster: Cluster) -> None:
    def follow(call: Call) -> None:
        match len(daemon.called("FollowJob")):
            case 1:
                call.error("UNAVAILABLE", "the controller has gone")
            case 2:
                call.connection.hang_up()
            case _:
                call.item(job_update("COMPLETED", exit={"code": 0, "signal": 0}, final=True))

    daemon.handlers["FollowJob"] = follow
    assert run(daemon.path, "cbatch", "--wait", "--wrap", "true").returncode == 0
    assert len(daemon.called("FollowJob")) == 3


def test_interrupting_the_wait_leaves_the_job_alone(daemon: FrontDaemon, cluster: Cluster) -> None:
    with start(daemon.path, "cbatch", ["--wait", "--wrap", "true"]) as cbatch:
        daemon.wait_for("FollowJob")
        cbatch.send_signal(signal.SIGINT)
        cbatch.communicate(timeout=30)
    assert cbatch.returncode == 130
    assert "CancelJob" not in daemon.methods()
    assert "CompleteAllocation" not in daemon.methods()


def test_a_refusal(daemon: FrontDaemon) -> None:
    daemon.handlers["SubmitJob"] = lambda call: call.error("RESOURCE_EXHAUSTED", "the queue is full")
    result = run(daemon.path, "cbatch", "--wrap", "true")
    assert (result.returncode, result.stderr) == (1, b"cbatch: error: the queue is full\n")


def test_no_daemon(tmp_path: Path) -> None:
    assert run(tmp_path / "none.sock", "cbatch", "--help").returncode == 0
    assert b"#CBATCH" in run(tmp_path / "none.sock", "cbatch", "--help").stdout
