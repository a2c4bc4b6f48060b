"""crun as a process, against a daemon that speaks the wire protocol."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.component.cli.front_end import command, environment, run, start
from tests.support.eventually import eventually
from tests.support.front_daemon import STDERR, Call, Cluster, Connection, FrontDaemon, job_update, task_end


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_one_task_runs_and_its_output_and_code_come_back(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        attached.output(0, b"out, no end of line")
        attached.output(0, b"err\n", STDERR)
        cluster.end_step(attached, {0: 3})

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "-n", "1", "-J", "name", "prog", "-x", "y")

    assert result.stdout == b"out, no end of line"
    assert result.stderr == b"err\ncrun: error: cn01: task 0: Exited with exit code 3\n"
    assert result.returncode == 3
    # The follow stream and the first call travel with the submission; the order of the rest is the contract.
    ordered = [method for method in daemon.methods() if method not in {"LaunchHooks", "AttachStep"}]
    assert ordered == ["SubmitJob", "FollowJob", "CreateStep", "StartStep", "CompleteAllocation"]
    assert daemon.called("FollowJob")[0].body == {"job_id": "42", "bind": True}
    assert daemon.called("CreateStep")[0].body["spec"]["argv"] == ["prog", "-x", "y"]
    assert daemon.called("CompleteAllocation")[0].body == {"job_id": "42", "exit": {"code": 3, "signal": 0}}
    attach = daemon.called("AttachStep")[0].body
    assert attach == {"job_id": "42", "attempt": 1, "step_id": "0", "nodes": [{"node": "cn01", "address": "unix:/cn01"}]}


def test_the_exit_code_is_the_highest_and_128_plus_the_signal(daemon: FrontDaemon) -> None:
    cluster = Cluster(daemon, ntasks=3, nodes=("cn01", "cn02"))

    def tasks(attached: Call) -> None:
        attached.node_ended("cn01", [task_end(0, 3), task_end(1, signal=9)])
        attached.node_ended("cn02", [task_end(2)])
        attached.end()

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "-N2", "-n3", "prog")
    assert result.returncode == 137
    assert b"cn01: task 1: Killed" in result.stderr


def test_labels_and_whole_lines(daemon: FrontDaemon) -> None:
    cluster = Cluster(daemon, ntasks=2)

    def tasks(attached: Call) -> None:
        attached.output(0, b"zero ")
        attached.output(1, b"one\nrest")
        attached.output(0, b"goes on\n")
        cluster.end_step(attached)

    cluster.run_tasks = tasks
    assert run(daemon.path, "crun", "-l", "-n2", "prog").stdout == b"1: one\n0: zero goes on\n1: rest"


def test_stdin_goes_to_the_task_within_its_credit(daemon: FrontDaemon, cluster: Cluster) -> None:
    text = os.urandom(1 << 20)
    largest = 0
    credited = 0

    def on_stdin(connection: Connection) -> None:
        nonlocal largest, credited
        largest = max(largest, len(connection.stdin) - credited)
        assert connection.attached is not None
        if connection.is_stdin_ended:
            cluster.end_step(connection.attached)
        elif len(connection.stdin) - credited >= 128 << 10:
            credit = len(connection.stdin) - credited
            credited += credit
            connection.attached.item({"stdin_credit": credit})

    daemon.on_stdin = on_stdin
    cluster.run_tasks = lambda attached: None
    result = run(daemon.path, "crun", "cat", stdin=text)
    assert result.returncode == 0, result.stderr
    assert bytes(daemon.called("AttachStep")[0].connection.stdin) == text
    assert largest <= 256 << 10


def test_no_input_means_an_end_of_input_at_once(daemon: FrontDaemon, cluster: Cluster) -> None:
    cluster.run_tasks = lambda attached: None
    daemon.on_stdin = lambda connection: cluster.end_step(daemon.called("AttachStep")[0])
    with start(daemon.path, "crun", ["--input", "none", "prog"]) as crun:
        crun.wait(30)
    assert crun.returncode == 0
    assert daemon.called("AttachStep")[0].connection.is_stdin_ended


def test_large_output_comes_complete_through_a_slow_pipe(daemon: FrontDaemon, cluster: Cluster) -> None:
    text = os.urandom(3 << 20)

    def tasks(attached: Call) -> None:
        for start_at in range(0, len(text), 1 << 16):
            attached.output(0, text[start_at : start_at + (1 << 16)])
        cluster.end_step(attached)

    cluster.run_tasks = tasks
    assert run(daemon.path, "crun", "prog").stdout == text


def test_a_closed_stdout_ends_the_step(daemon: FrontDaemon, cluster: Cluster) -> None:
    cluster.run_tasks = lambda attached: attached.output(0, b"line\n" * 1000)
    with start(daemon.path, "crun", ["yes"]) as crun:
        assert crun.stdout is not None
        crun.stdout.close()
        crun.wait(30)
    assert crun.returncode == 128 + signal.SIGPIPE
    assert daemon.called("CancelStep")


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [("INVALID_ARGUMENT", "partition: no partition gpu", 1), ("UNAVAILABLE", "the controller is not reached", 3)],
)
def test_a_refused_job(daemon: FrontDaemon, cluster: Cluster, code: str, message: str, status: int) -> None:
    daemon.handlers["SubmitJob"] = lambda call: call.error(code, message)
    result = run(daemon.path, "crun", "prog")
    assert (result.returncode, result.stderr) == (status, f"crun: error: {message}\n".encode())
    assert "CreateStep" not in daemon.methods()


def test_a_job_that_ends_before_it_runs(daemon: FrontDaemon, cluster: Cluster) -> None:
    def follow(call: Call) -> None:
        call.item(job_update("CONFIGURING", waiting_for="Prolog on cn01"))
        call.item(job_update("CANCELLED", reason="Prolog 20-gpu.sh exit 3 on cn01", final=True))

    daemon.handlers["FollowJob"] = follow
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 1
    assert result.stderr == b"crun: error: job 42 cancelled: Prolog 20-gpu.sh exit 3 on cn01\n"


def test_no_daemon(tmp_path: Path) -> None:
    result = run(tmp_path / "none.sock", "crun", "prog")
    assert result.returncode == 3
    assert b"none.sock does not exist; start craned" in result.stderr


@pytest.mark.parametrize("words", [[], ["--nope", "x"], ["-N", "zero", "x"], ["-t"], ["--label=1", "x"]])
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    result = run(tmp_path / "none.sock", "crun", *words)
    assert result.returncode == 2
    assert result.stderr.startswith(b"crun: error: ")


def test_own_hooks_run_around_the_step_with_its_command_as_arguments(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    hook = f'echo "$CRANE_SCRIPT_CONTEXT $CRANE_JOB_ID.$CRANE_STEP_ID $* $CRANE_JOB_EXIT_CODE2" >> {log}; echo to the user'
    path = script(tmp_path / "hook.sh", hook)

    def tasks(attached: Call) -> None:
        log.write_text(log.read_text() + "tasks\n")
        cluster.end_step(attached, {0: 5})

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "--prolog", path, "--epilog", path, "prog", "a b")
    assert result.returncode == 5, result.stderr
    assert log.read_text() == "prolog_crun 42.0 prog a b \ntasks\nepilog_crun 42.0 prog a b 5:0\n"
    assert result.stdout == b"to the user\n" * 2
    runs = [call.body["run"] for call in daemon.called("RecordLaunchHook")]
    assert [(record["point"], record["outcome"]["kind"]) for record in runs] == [
        ("HOOK_POINT_CRUN_PROLOG", "OUTCOME_KIND_OK"),
        ("HOOK_POINT_CRUN_EPILOG", "OUTCOME_KIND_OK"),
    ]


@pytest.mark.parametrize(
    ("profile", "overrides", "fate"),
    [
        ("crane-requeue", {}, "cancelled"),
        ("crane-fail", {}, "failed"),
        ("slurm", {}, "cancelled"),
        ("crane-requeue", {"OnCrunPrologFailure": "fail"}, "failed"),
        ("crane-fail", {"OnCrunPrologFailure": "cancel"}, "cancelled"),
    ],
)
def test_a_failing_prolog_sends_nothing(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, profile: str, overrides: dict[str, str], fate: str
) -> None:
    path = script(tmp_path / "setup.sh", "exit 4")
    cluster.site |= {"crun_prolog": {"patterns": [path], "timeout_s": None}, "profile": profile, "overrides": overrides}
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 1
    assert result.stderr.decode() == f"crun: error: step 42.0 {fate}, nothing was sent: CrunProlog {path} exit 4\n"
    assert {"CancelStep", "RecordLaunchHook"} <= set(daemon.methods())
    assert "StartStep" not in daemon.methods()
    assert daemon.called("CancelStep")[0].body["failed"] is (fate == "failed")
    ending = dict(daemon.called("CompleteAllocation")[0].body)
    assert ending == {
        "job_id": "42",
        "exit": {"code": 1},
        "fail_reason" if fate == "failed" else "cancel_reason": f"CrunProlog {path} exit 4",
    }


@pytest.mark.parametrize("profile", ["crane-requeue", "crane-fail", "slurm", "sunk"])
@pytest.mark.parametrize("is_own", [True, False], ids=["--prolog", "CrunProlog"])
def test_a_prolog_that_cannot_be_run_has_failed(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, profile: str, is_own: bool
) -> None:
    path = tmp_path / "setup.sh"
    path.write_text("#!/bin/sh\n")
    cluster.site["profile"] = profile
    if not is_own:
        cluster.site["crun_prolog"] = {"patterns": [str(path)], "timeout_s": None}
    result = run(daemon.path, "crun", *(["--prolog", str(path)] if is_own else []), "prog")
    assert result.returncode == 1
    assert f"CrunProlog {path} ".encode() in result.stderr
    assert not daemon.called("StartStep")


def test_none_replaces_the_configured_hook_by_nothing(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    cluster.site["crun_prolog"] = {"patterns": [script(tmp_path / "setup.sh", "exit 4")], "timeout_s": None}
    assert run(daemon.path, "crun", "--prolog", "none", "prog").returncode == 0
    assert not daemon.called("RecordLaunchHook")


def test_a_failing_epilog_is_a_warning(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    path = script(tmp_path / "clean.sh", "exit 4")
    result = run(daemon.path, "crun", "--epilog", path, "prog")
    assert result.returncode == 0
    assert f"warning: step 42.0: CrunEpilog {path} exit 4".encode() in result.stderr


def test_a_failing_epilog_is_cruns_where_the_site_says_so(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    path = script(tmp_path / "clean.sh", "exit 4")
    cluster.site["overrides"] = {"OnCrunEpilogFailure": "fail"}
    result = run(daemon.path, "crun", "--epilog", path, "prog")
    assert result.returncode == 1
    assert f"error: step 42.0: CrunEpilog {path} exit 4".encode() in result.stderr


def test_interrupt_during_the_prolog_stops_it_and_cancels(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path) -> None:
    started = tmp_path / "started"
    path = script(tmp_path / "slow.sh", f"touch {started}; exec sleep 600")
    with start(daemon.path, "crun", ["--prolog", path, "prog"]) as crun:
        eventually(started.exists)
        crun.send_signal(signal.SIGINT)
        crun.communicate(timeout=30)
    assert crun.returncode == 130
    assert daemon.called("CancelStep")
    assert daemon.called("CompleteAllocation")
    assert daemon.called("RecordLaunchHook")[0].body["run"]["outcome"]["kind"] == "OUTCOME_KIND_STOPPED"
    assert not daemon.called("StartStep")


def hooks_by_variables(prefix: str, directory: Path) -> dict[str, str]:
    """One script for each variable; each notes its name in `log`."""
    names = ("PROLOG", "EPILOG", "TASK_PROLOG", "TASK_EPILOG")
    return {f"{prefix}_{name}": script(directory / name, f"echo {name} >> {directory}/log") for name in names}


@pytest.mark.parametrize("prefix", ["CRANE", "SLURM"])
def test_variables_stand_in_for_the_options_of_hooks(daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    variables = hooks_by_variables(prefix, tmp_path)
    configured = script(tmp_path / "configured", f"echo configured >> {tmp_path}/log")
    cluster.site["crun_prolog"] = {"patterns": [configured], "timeout_s": None}

    assert run(daemon.path, "crun", "prog", extra=variables).returncode == 0
    assert (tmp_path / "log").read_text() == "PROLOG\nEPILOG\n"
    spec = daemon.called("CreateStep")[0].body["spec"]
    assert (spec["task_prolog"], spec["task_epilog"]) == (str(tmp_path / "TASK_PROLOG"), str(tmp_path / "TASK_EPILOG"))


def test_an_option_goes_before_its_variable_and_cranes_before_slurms(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path
) -> None:
    own = script(tmp_path / "own", f"echo own >> {tmp_path}/log")
    variables = {**hooks_by_variables("CRANE", tmp_path), "CRANE_PROLOG": "/nowhere", "CRANE_EPILOG": "none", "SLURM_EPILOG": own}

    result = run(daemon.path, "crun", "--prolog", own, "prog", extra=variables)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "log").read_text() == "own\n"


def test_a_variable_that_is_wrong_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "none.sock", "crun", "prog", extra={"SLURM_PROLOG": "/nowhere"})
    assert result.returncode == 2
    assert result.stderr.startswith(b"crun: error: environment variable SLURM_PROLOG: /nowhere does not exist")


def test_no_more_nodes_than_tasks(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = run(daemon.path, "crun", "-N2", "-n1", "prog")
    assert (result.returncode, result.stderr) == (0, b"crun: warning: can't run 1 processes on 2 nodes, setting nnodes to 1\n")
    spec = daemon.called("SubmitJob")[0].body["spec"]
    assert (spec["num_nodes"], spec["ntasks"]) == (1, 1)


@pytest.mark.parametrize("surroundings", [{}, {"CRANE_JOB_ID": "42"}], ids=["alone", "in an allocation"])
def test_overcommit_asks_for_few_cpus_and_many_tasks(daemon: FrontDaemon, cluster: Cluster, surroundings: dict[str, str]) -> None:
    assert run(daemon.path, "crun", "-O", "-n50", "prog", extra=surroundings).returncode == 0
    body = daemon.called("CreateStep")[0].body
    assert (body["overcommit"], body["spec"]["ntasks"]) == (True, 50)
    for submitted in daemon.called("SubmitJob"):
        assert "ntasks" not in submitted.body["spec"]


@pytest.mark.parametrize("surroundings", [{}, {"CRANE_JOB_ID": "42"}], ids=["alone", "in an allocation"])
def test_end_of_the_job_during_the_prolog_stops_it(
    daemon: FrontDaemon, cluster: Cluster, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    started = tmp_path / "started"
    path = script(tmp_path / "slow.sh", f"touch {started}; exec sleep 600")
    with start(daemon.path, "crun", ["--prolog", path, "prog"], extra=surroundings) as crun:
        eventually(started.exists)
        daemon.called("FollowJob")[0].item(job_update("COMPLETING", reason="time limit reached"))
        _, errors = crun.communicate(timeout=30)
    assert (crun.returncode, errors) == (1, b"crun: error: job 42 is over: time limit reached\n")
    assert daemon.called("CancelStep")
    assert daemon.called("RecordLaunchHook")[0].body["run"]["outcome"]["kind"] == "OUTCOME_KIND_STOPPED"
    assert not daemon.called("StartStep")


def test_a_step_that_was_ended_early_has_not_gone_well(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        attached.node_ended("cn01", [task_end(0)], "maintenance")
        attached.end()

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "prog")
    assert (result.returncode, result.stderr) == (1, b"crun: error: cn01: maintenance\n")


def _read_until(crun: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert crun.stderr is not None
    seen = b""
    while text not in seen:
        line = crun.stderr.readline()
        assert line, seen
        seen += line
    return seen


def test_one_interrupt_tells_and_the_step_goes_on(daemon: FrontDaemon, cluster: Cluster) -> None:
    with start(daemon.path, "crun", ["sleep"]) as crun:
        cluster.run_tasks = lambda attached: attached.output(0, b"started\n")
        assert crun.stdout is not None
        assert crun.stdout.readline() == b"started\n"
        crun.send_signal(signal.SIGINT)
        assert b"one more within 1 s" in _read_until(crun, b"task 0: running\n")
        cluster.end_step(daemon.called("AttachStep")[0])
        crun.communicate(timeout=30)
    assert crun.returncode == 0
    assert not daemon.called("CancelStep")


def test_two_interrupts_end_the_step(daemon: FrontDaemon, cluster: Cluster) -> None:
    cluster.run_tasks = lambda attached: attached.output(0, b"started\n")
    with start(daemon.path, "crun", ["sleep"]) as crun:
        assert crun.stdout is not None
        assert crun.stdout.readline() == b"started\n"
        crun.send_signal(signal.SIGINT)
        _read_until(crun, b"task 0: running\n")
        crun.send_signal(signal.SIGINT)
        crun.communicate(timeout=30)
    assert crun.returncode == 130
    assert daemon.called("CancelStep")[0].body["reason"] == "interrupted by its user"
    assert daemon.called("CompleteAllocation")[0].body["cancel_reason"] == "interrupted by its user"


def test_interrupt_while_waiting_cancels_the_job(daemon: FrontDaemon, cluster: Cluster) -> None:
    daemon.handlers["FollowJob"] = lambda call: call.item(job_update("PENDING", waiting_for="nodes"))
    with start(daemon.path, "crun", ["prog"]) as crun:
        assert b"waiting for resources: nodes" in _read_until(crun, b"\n")
        crun.send_signal(signal.SIGINT)
        crun.communicate(timeout=30)
    assert crun.returncode == 130
    assert daemon.called("CompleteAllocation")[0].body["cancel_reason"] == "interrupted by SIGINT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_cancels_the_step(daemon: FrontDaemon, cluster: Cluster, number: signal.Signals) -> None:
    cluster.run_tasks = lambda attached: attached.output(0, b"started\n")
    with start(daemon.path, "crun", ["sleep"]) as crun:
        assert crun.stdout is not None
        assert crun.stdout.readline() == b"started\n"
        crun.send_signal(number)
        crun.communicate(timeout=30)
    assert crun.returncode == 128 + number
    assert daemon.called("CancelStep")


def test_a_broken_connection_to_the_nodes_is_made_again(daemon: FrontDaemon, cluster: Cluster) -> None:
    def attach(call: Call) -> None:
        if len(daemon.called("AttachStep")) == 1:
            call.output(0, b"first\n")
            daemon.wait_for("StartStep")
            call.connection.hang_up()
        else:
            call.output(0, b"second\n")
            cluster.end_step(call)

    daemon.handlers["AttachStep"] = attach
    cluster.run_tasks = lambda attached: None
    result = run(daemon.path, "crun", "prog")
    assert (result.returncode, result.stdout) == (0, b"first\nsecond\n")
    assert b"attaching again" in result.stderr


def test_a_broken_control_connection_is_made_again(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        daemon.wait_for("FollowJob").connection.hang_up()
        daemon.wait_for("FollowJob", 2)
        cluster.end_step(attached)

    # Not from the thread of the connection that hangs up.
    cluster.run_tasks = lambda attached: None
    daemon.on_stdin = lambda connection: tasks(daemon.called("AttachStep")[0])
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 0, result.stderr
    assert [call.body["bind"] for call in daemon.called("FollowJob")] == [True, True]
    assert daemon.called("CompleteAllocation")


def test_a_cancelled_job_ends_crun_even_if_a_node_says_nothing(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        follow = daemon.called("FollowJob")[0]
        follow.item(job_update("CANCELLED", reason="Prolog 20-gpu.sh exit 3 on cn01", final=True))

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 1
    assert b"job 42 cancelled: Prolog 20-gpu.sh exit 3 on cn01" in result.stderr


def test_a_cancelled_task_fails_the_step(daemon: FrontDaemon, cluster: Cluster) -> None:
    def tasks(attached: Call) -> None:
        attached.node_ended("cn01", [task_end(0, cancelled=True, reason="TaskProlog setup.sh exit 1")])
        attached.end()

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 1
    assert b"cn01: task 0: Cancelled (TaskProlog setup.sh exit 1)" in result.stderr


def test_a_reason_is_said_once_for_each_task(daemon: FrontDaemon) -> None:
    cluster = Cluster(daemon, ntasks=4, nodes=("cn01", "cn02"))
    reason = "TaskProlog setup.sh exit 3"

    def tasks(attached: Call) -> None:
        for number in range(4):
            attached.item({"notice": f"task {number} cancelled: {reason}: no scratch"})
        for node, numbers in (("cn01", (0, 1)), ("cn02", (2, 3))):
            ends = [task_end(number, cancelled=True, reason=f"{reason}: no scratch") for number in numbers]
            attached.node_ended(node, ends, reason)
        attached.end()

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "-N2", "-n4", "prog")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        f"crun: error: cn01: task 0 cancelled: {reason}: no scratch",
        f"crun: error: cn01: task 1: Cancelled ({reason}: no scratch)",
        f"crun: error: cn02: tasks 2-3: Cancelled ({reason}: no scratch)",
    ]


def test_a_task_that_failed_by_its_hook_is_told_once_and_exits_with_its_code(daemon: FrontDaemon, cluster: Cluster) -> None:
    reason = "TaskProlog setup.sh exit 3: no scratch"

    def tasks(attached: Call) -> None:
        attached.item({"notice": f"task 0 failed: {reason}"})
        attached.node_ended("cn01", [task_end(0, 3, reason=reason)])
        attached.end()

    cluster.run_tasks = tasks
    result = run(daemon.path, "crun", "prog")
    assert (result.returncode, result.stderr.decode()) == (3, f"crun: error: cn01: task 0 failed: {reason}\n")


def test_within_an_allocation_only_a_step_is_made(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = run(daemon.path, "crun", "-n4", "prog", extra={"CRANE_JOB_ID": "7"})
    assert result.returncode == 0, result.stderr
    assert not {"SubmitJob", "CompleteAllocation"} & set(daemon.methods())
    assert daemon.called("FollowJob")[0].body == {"job_id": "7", "bind": False}
    assert daemon.called("CreateStep")[0].body["spec"]["ntasks"] == 4


def test_within_an_allocation_what_counts_for_jobs_is_warned_of(daemon: FrontDaemon, cluster: Cluster) -> None:
    result = run(daemon.path, "crun", "--mem=1G", "--gres=gpu:1", "-n2", "prog", extra={"CRANE_JOB_ID": "7"})
    assert result.returncode == 0
    assert result.stderr.decode() == "crun: warning: --mem, --gres: for jobs only, a step has what its job has\n"


def test_a_job_of_its_own_asks_for_all_that_was_given(daemon: FrontDaemon, cluster: Cluster) -> None:
    words = ("--mem-per-cpu=1G", "--gres=nic", "--gpus-per-node=a100:2", "--exclusive", "-c2")
    assert run(daemon.path, "crun", *words, "prog").returncode == 0
    spec = daemon.called("SubmitJob")[0].body["spec"]
    assert (spec["memory_per_cpu_bytes"], spec["gres"]) == (str(1 << 30), "nic:1,gpu:a100:2")
    assert (spec["exclusive"], spec["cpus_per_task"]) == (True, 2.0)
    assert "gpus" not in spec
    assert spec["memory_per_node_bytes"] == "0"


def test_a_refused_step_cancels_the_job(daemon: FrontDaemon, cluster: Cluster) -> None:
    daemon.handlers["CreateStep"] = lambda call: call.error("INVALID_ARGUMENT", "no")
    result = run(daemon.path, "crun", "prog")
    assert result.returncode == 1
    assert daemon.called("CompleteAllocation")[0].body["cancel_reason"] == "no"


def test_only_variables_that_are_utf8_are_sent(daemon: FrontDaemon, cluster: Cluster) -> None:
    env = {os.fsencode(name): os.fsencode(value) for name, value in environment(daemon.path, {"GOOD": "ü"}).items()}
    result = subprocess.run(
        command("crun", "prog"),
        env={**env, b"BAD": b"\xff"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0
    assert b"warning: environment variable BAD is not UTF-8" in result.stderr
    sent = daemon.called("CreateStep")[0].body["spec"]["environment"]
    assert sent["GOOD"] == "ü"
    assert "BAD" not in sent


def test_it_imports_little(daemon: FrontDaemon, cluster: Cluster) -> None:
    program = (
        "import json, sys; from cranecli.crun import main; sys.argv = ['crun', 'prog']; code = main();"
        "print(json.dumps(sorted(sys.modules))); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(daemon.path),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(result.stdout))
    heavy = {
        "grpc",
        "google",
        "pydantic",
        "yaml",
        "rich",
        "typer",
        "structlog",
        "asyncio",
        "argparse",
        "dataclasses",
        "inspect",
        "typing",
    }
    heavy |= {"subprocess", "pathlib", "logging", "threading", "cranehooks"}
    assert not loaded & heavy
