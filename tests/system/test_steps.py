"""Steps as crun and calloc show them: output, input, exit codes, signals, and what TaskProlog does to a task."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, TASK_PROLOG, ScriptedCluster

HUNDRED_MB = 100_000_000
# The interpreter with its libraries is some 40 MiB; the output must not be in there.
MOST_RESIDENT_KIB = 120 * 1024


def peak_resident_kib(pid: int) -> int:
    """The most memory that a process ever had; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def interrupt(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> None:
    os.kill(process.pid, number)


# ---- TaskProlog's directives


def test_task_prolog_edits_its_task(stage: ScriptedCluster) -> None:
    stage.plan(
        "edits", "TaskProlog", "echo export GREETING=hello world", "echo unset SECRET_OF_USER", "echo print prepared $CRANE_PROCID", "echo other",
    )  # fmt: skip
    command = 'echo "[$GREETING] [${SECRET_OF_USER-unset}]"'
    result = stage.run("crun", "sh", "-c", command, label="edits")
    assert (result.returncode, result.stdout) == (0, "prepared 0\n[hello world] [unset]\n")


def test_own_task_prolog_sees_what_task_prolog_exported(stage: ScriptedCluster) -> None:
    stage.plan("chain", "TaskProlog", "echo export FIRST=1")
    stage.plan("chain", TASK_PROLOG, "echo export SECOND=$FIRST$FIRST")
    result = stage.run("crun", "--task-prolog", stage.hook(TASK_PROLOG), "sh", "-c", "echo $FIRST $SECOND", label="chain")
    assert result.stdout == "1 11\n"


def test_binary_output_of_task_prolog_does_no_harm(stage: ScriptedCluster) -> None:
    binary = r"printf '\377\376\001\200 abc\n\001export EVIL=1\nexport GOOD=\303\244\n'"
    noise = "head -c 100000 /dev/urandom | tr -d '\\000'"
    # A NUL byte ends what is read, as in Slurm.
    end = r"printf '\nexport LAST=here\n\000\nexport LATE=1\n'"
    stage.plan("binary", "TaskProlog", binary, noise, end)
    result = stage.run("crun", "sh", "-c", 'echo "${EVIL-none} $GOOD $LAST ${LATE-none}"', label="binary")
    assert (result.returncode, result.stdout) == (0, "none ä here none\n"), result.stderr
    assert stage.ended("binary").state == "Completed"


def test_exported_value_that_is_no_utf8_reaches_the_task_as_it_is(stage: ScriptedCluster) -> None:
    stage.plan("latin", "TaskProlog", r"printf 'export NAME=M\374ller\n'")
    result = stage.run("crun", "sh", "-c", 'printf %s "$NAME" | od -An -c', label="latin")
    assert result.stdout.split() == ["M", "374", "l", "l", "e", "r"]


# ---- output and input


def test_task_prints_100_mb_and_all_of_it_arrives_in_little_memory(stage: ScriptedCluster) -> None:
    command = f"head -c {HUNDRED_MB} /dev/zero | tr '\\0' x"
    with stage.start("crun", "-w", "cn01", "sh", "-c", command, label="flood") as crun:
        assert crun.stdout is not None
        received = 0
        supervisors: set[int] = set()
        while chunk := os.read(crun.stdout.fileno(), 1 << 20):
            if received == 0:
                supervisors = set(stage.processes_of_jobs())
            received += len(chunk)
            assert chunk == b"x" * len(chunk)
            if received > HUNDRED_MB // 2 and supervisors:
                assert max(map(peak_resident_kib, [*supervisors, crun.pid])) < MOST_RESIDENT_KIB
                supervisors = set()
        assert crun.wait(30) == 0
    assert received == HUNDRED_MB
    assert peak_resident_kib(stage.cluster.daemons["cn01"].pid) < MOST_RESIDENT_KIB
    assert peak_resident_kib(stage.cluster.daemons["login"].pid) < MOST_RESIDENT_KIB


def test_reader_that_stops_stops_the_task_and_nothing_grows(stage: ScriptedCluster) -> None:
    with stage.start("crun", "yes", label="stalled") as crun:
        assert crun.stdout is not None
        assert os.read(crun.stdout.fileno(), 4) == b"y\ny\n"
        crun.stdout.close()
        # Nobody reads any more: crun sees a broken pipe and ends the step.
        assert crun.wait(60) != 0
    assert stage.ended("stalled").has_ended


def test_input_goes_to_task_0_alone(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "-n2", "sh", "-c", "wc -c", label="input", stdin=b"x" * 1_000_000)
    assert result.returncode == 0
    assert sorted(result.stdout.split()) == ["0", "1000000"]


def test_labelled_lines_of_many_tasks_stay_whole(stage: ScriptedCluster) -> None:
    command = "i=0; while [ $i -lt 300 ]; do echo line $i of $CRANE_PROCID; i=$((i+1)); done"
    result = stage.run("crun", "-l", "-N2", "-n4", "sh", "-c", command, label="labels")
    assert result.returncode == 0
    expected = {f"{task}: line {number} of {task}" for task in range(4) for number in range(300)}
    lines = result.stdout.splitlines()
    assert len(lines) == 1200
    assert set(lines) == expected


def test_streams_stay_apart(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "sh", "-c", "echo out; echo err >&2", label="apart")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(("closed", "shown"), [("<&-", ["out"]), (">&-", []), ("2>&-", ["out"]), ("<&- >&- 2>&-", [])])
def test_closed_standard_streams_do_no_harm(stage: ScriptedCluster, closed: str, shown: list[str]) -> None:
    result = stage.run_shell(f"crun sh -c 'cat; echo out; echo err >&2; exit 3' {closed}; echo ended $?")
    assert result.stdout.splitlines() == [*shown, "ended 3"]
    submitted = stage.run_shell(f"cbatch -o /dev/null --wrap true {closed}; echo ended $?")
    assert submitted.stdout.splitlines()[-1] == "ended 0"


# ---- exit codes


def test_exit_code_is_the_highest_of_the_tasks(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "-n3", "sh", "-c", "exit $((CRANE_PROCID * 5))", label="highest")
    assert result.returncode == 10
    assert stage.ended("highest").state == "Failed"


def test_signalled_task_is_128_and_the_signal(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "sh", "-c", "kill -KILL $$", label="signalled")
    assert result.returncode == 128 + signal.SIGKILL
    assert "Killed" in result.stderr


def test_program_that_does_not_exist_is_127(stage: ScriptedCluster) -> None:
    result = stage.run("crun", "/nonexistent/program", label="missing-program")
    assert result.returncode == 127
    assert "/nonexistent/program" in result.stderr


def test_batch_wait_exits_as_the_job(stage: ScriptedCluster) -> None:
    assert stage.run("cbatch", "--wait", "--wrap", "exit 5", label="wait").returncode == 5


# ---- signals


def test_ctrl_c_once_asks_and_the_step_goes_on(stage: ScriptedCluster) -> None:
    gate = stage.gate("once")
    with stage.start("crun", "sh", "-c", gate.line, label="once") as crun:
        gate.await_arrivals()
        interrupt(crun)
        assert crun.stderr is not None
        assert b"running" in crun.stderr.readline() + crun.stderr.readline()
        gate.open()
        assert crun.wait(60) == 0


def test_ctrl_c_twice_ends_the_step(stage: ScriptedCluster) -> None:
    gate = stage.gate("twice")
    with stage.start("crun", "sh", "-c", gate.line, label="twice") as crun:
        gate.await_arrivals()
        interrupt(crun)
        assert crun.stderr is not None
        assert crun.stderr.readline()
        interrupt(crun)
        assert crun.wait(60) == 130
    assert stage.ended("twice").state == "Cancelled"
    assert len(stage.calls("twice", "TaskEpilog")) == 1
    assert len(stage.calls("twice", "Epilog")) == 1


def test_ctrl_c_while_the_job_waits_cancels_it(stage: ScriptedCluster) -> None:
    stage.submit("blocks", "sleep 3600", "-N2", "-n2", "-c4")
    stage.await_state("blocks", "Running")
    with stage.start("crun", "true", label="queued") as crun:
        stage.await_state("queued", "Pending")
        interrupt(crun)
        assert crun.wait(60) == 130
    assert stage.ended("queued").state == "Cancelled"
    assert stage.calls("queued") == []


def test_step_ends_after_a_grace_when_crun_is_killed(stage: ScriptedCluster) -> None:
    gate = stage.gate("orphan")
    with stage.start("crun", "sh", "-c", gate.line, label="orphan") as crun:
        (task,) = gate.await_arrivals()
        crun.kill()
    job = stage.ended("orphan")
    assert job.state == "Cancelled"
    eventually(lambda: not Path(f"/proc/{task}").exists(), deadline_s=PATIENCE_S)
    assert len(stage.calls("orphan", "Epilog")) == 1


# ---- inside an allocation


def test_crun_inside_calloc_makes_steps_of_the_job(stage: ScriptedCluster) -> None:
    command = "crun sh -c 'echo $CRANE_JOB_ID.$CRANE_STEP_ID'; crun sh -c 'echo $CRANE_JOB_ID.$CRANE_STEP_ID; exit 4'"
    result = stage.run("calloc", "-n1", "sh", "-c", command, label="steps")
    job = stage.ended("steps")
    assert result.returncode == 4
    assert result.stdout.split() == [f"{job.job_id}.0", f"{job.job_id}.1"]
    assert [step.step_id for step in job.steps] == ["0", "1"]
    assert len(stage.calls("steps", "Prolog")) == 1
    assert len(stage.calls("steps", "CrunProlog")) == 2


def test_crun_inside_a_batch_job_is_a_step_of_it(stage: ScriptedCluster) -> None:
    stage.submit("inner", "crun -n2 sh -c 'echo $CRANE_JOB_ID.$CRANE_STEP_ID'", "-n2")
    job = stage.ended("inner")
    assert job.state == "Completed"
    assert stage.output("inner").split() == [f"{job.job_id}.0"] * 2
    assert len(stage.calls("inner", "Prolog")) == 1


def test_steps_beyond_the_allocation_are_refused(stage: ScriptedCluster) -> None:
    result = stage.run("calloc", "-n1", "sh", "-c", "crun -w cn02 true", label="beyond")
    assert result.returncode == 1
    assert "cn02" in result.stderr


def test_array_runs_one_job_for_each_index(stage: ScriptedCluster) -> None:
    result = stage.run("cbatch", "--array=1-3", "-o", "array-%a.out", "--wrap", "echo $CRANE_ARRAY_TASK_ID", label="array")
    assert result.returncode == 0, result.stderr
    eventually(lambda: [job.has_ended for job in stage.jobs("array")] == [True] * 3, deadline_s=PATIENCE_S)
    assert [(stage.work / f"array-{index}.out").read_text() for index in (1, 2, 3)] == ["1\n", "2\n", "3\n"]


def test_more_tasks_than_cpus_run_only_where_it_is_asked_for(stage: ScriptedCluster) -> None:
    job = ["calloc", "-N1", "-n2", str(stage.bin / "crun")]
    refused = stage.run(*job, "-n50", "true", label="too-many")
    assert refused.returncode == 1
    assert "more processors requested than permitted: 50 tasks" in refused.stderr
    allowed = stage.run(*job, "-O", "-n5", "echo", "here", label="overcommit")
    assert (allowed.returncode, allowed.stdout) == (0, "here\n" * 5), allowed.stderr
    alone = stage.run("crun", "-O", "-n9", "echo", "here", label="overcommit-alone")
    assert (alone.returncode, alone.stdout) == (0, "here\n" * 9), alone.stderr
