"""What the front ends do where stdout is closed, full, given up by its reader, or of an encoding without the letters it needs."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.component.cli.front_end import command, environment
from tests.support.front_daemon import Call, Cluster, FrontDaemon, job_update

HOOKCTL = [sys.executable, "-c", "import sys; from cranecli.hookctl.main import main; sys.argv[0] = 'hookctl'; main()"]


def shell(
    daemon: FrontDaemon, argv: list[str], redirection: str, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs a front end below a shell, for its redirections; the exit status is the front end's."""
    return subprocess.run(
        ["/bin/bash", "-c", f"{shlex.join(argv)} {redirection}; exit ${{PIPESTATUS[0]}}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(daemon.path, extra),
        timeout=60,
        check=False,
    )


@pytest.fixture
def one_job(daemon: FrontDaemon) -> FrontDaemon:
    job = {**job_update("COMPLETED")["job"], "spec": {"name": "müsli", "user": "alice"}}
    daemon.handlers["ListJobs"] = lambda call: call.ok({"jobs": [job]})
    return daemon


def test_hookctl_with_a_closed_stdout_says_nothing(one_job: FrontDaemon) -> None:
    result = shell(one_job, [*HOOKCTL, "jobs"], ">&-")
    assert (result.returncode, result.stderr) == (0, b"")


def test_hookctl_with_a_full_disk_says_so_in_one_line(one_job: FrontDaemon) -> None:
    result = shell(one_job, [*HOOKCTL, "jobs"], ">/dev/full")
    assert (result.returncode, result.stderr) == (1, b"hookctl: error: cannot write the output: no space left on device\n")


def test_hookctl_ends_well_when_its_reader_has_seen_enough(daemon: FrontDaemon) -> None:
    def events(call: Call) -> None:
        for cursor in range(1, 2000):
            call.item({"event": {"cursor": str(cursor), "kind": "state", "text": "x" * 200}})
        call.end()

    daemon.handlers["WatchEvents"] = events
    result = shell(daemon, [*HOOKCTL, "events"], "| head -1")
    assert (result.returncode, result.stderr, result.stdout.count(b"\n")) == (0, b"", 1)


def test_letters_that_an_encoding_lacks_are_written_as_numbers(one_job: FrontDaemon) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    table = shell(one_job, [*HOOKCTL, "jobs"], "", ascii_only)
    assert table.returncode == 0, table.stderr
    assert rb"m\xfcsli" in table.stdout
    document = shell(one_job, [*HOOKCTL, "jobs", "-o", "json"], "", ascii_only)
    assert json.loads(document.stdout)["jobs"][0]["name"] == "müsli"


def test_cbatch_names_the_job_that_it_cannot_print(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = shell(daemon, command("cbatch", "--wrap", "true"), ">/dev/full")
    assert result.returncode == 1
    assert result.stderr == b"cbatch: error: submitted job 42, but cannot write that to stdout: No space left on device\n"


def test_crun_whose_output_cannot_be_written_fails(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        attached.output(0, b"out\n")
        cluster.end_step(attached, {0: 0})

    cluster.run_tasks = tasks
    result = shell(daemon, command("crun", "prog"), ">/dev/full")
    assert result.returncode == 1
    assert result.stderr == b"crun: error: cannot write the step's output: No space left on device\n"


@pytest.mark.parametrize("program", ["crun", "cbatch", "calloc"])
def test_help_that_cannot_be_written(daemon: FrontDaemon, program: str) -> None:
    result = shell(daemon, command(program, "--help"), ">/dev/full")
    assert result.returncode == 1
    assert result.stderr == f"{program}: error: cannot write to stdout: No space left on device\n".encode()
