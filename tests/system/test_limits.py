"""What jobs may use, what they used, and who is told when it was too much."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranecli.hookctl.warden import descendants
from cranehooks.model.limits import LimitKind, Usage
from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.offered import needs
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of, texts_of

MIB = 1 << 20
LIMIT_MIB = 64
HOG = "b = bytearray(256 << 20); print(len(b))"
OUT_OF_MEMORY = f"killed: out of memory (limit {LIMIT_MIB} MiB)"


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """One node whose jobs may have few processes."""
    with ScriptedCluster(nodes=1, JobLimits={"MaxProcesses": 40}, LauncherGrace=20.0) as cluster:
        yield cluster


def hog(stage: ScriptedCluster) -> str:
    """A shell command that needs more memory than it may have."""
    return f"{stage.interpreter} -c '{HOG}'"


def usage_of_job(stage: ScriptedCluster, label: str) -> Usage:
    return stage.ended(label).usage["cn01"]


# ---- memory


@needs(LimitKind.MEMORY)
def test_a_task_that_takes_too_much_memory_is_killed_and_says_so(stage: ScriptedCluster) -> None:
    result = stage.run("crun", f"--mem={LIMIT_MIB}M", stage.interpreter, "-c", HOG, label="hog")
    assert (result.returncode, result.stdout) == (128 + signal.SIGKILL, "")
    assert f"cn01: task 0: Killed: out of memory (limit {LIMIT_MIB} MiB)" in result.stderr

    job = stage.ended("hog")
    assert (job.state, job.reason) == ("Failed", OUT_OF_MEMORY)
    [step] = job.steps
    assert step.reason == OUT_OF_MEMORY
    for used in (job.usage["cn01"], step.usage["cn01"]):
        assert used.oom_kills == 1
        assert used.memory_peak_bytes is not None
        assert LIMIT_MIB * MIB // 2 < used.memory_peak_bytes <= LIMIT_MIB * MIB
        assert used.cpu_s is not None
        assert used.cpu_s > 0
    assert "1 process killed for want of memory" in texts_of(job)

    told = stage.hookctl("job", str(job.job_id)).stdout
    assert OUT_OF_MEMORY in told
    assert "1 process killed for want of memory" in told
    document = stage.hookctl_json("job", str(job.job_id))["job"]
    assert [(used["node"], used["oom_kills"]) for used in document["usage"]] == [("cn01", 1)]
    assert document["steps"][0]["usage"][0]["oom_kills"] == 1
    assert document["shares"][0]["memory_bytes"] == LIMIT_MIB * MIB


@needs(LimitKind.MEMORY)
def test_a_task_whose_child_was_killed_may_go_on(stage: ScriptedCluster) -> None:
    command = f"{hog(stage)}; echo child $?; exit 0"
    result = stage.run("crun", f"--mem={LIMIT_MIB}M", "sh", "-c", command, label="survivor")
    assert (result.returncode, result.stdout) == (0, "child 137\n")
    assert "memory" not in result.stderr
    job = stage.ended("survivor")
    assert (job.state, job.reason) == ("Completed", "")
    assert job.usage["cn01"].oom_kills == 1


@needs(LimitKind.MEMORY)
def test_a_batch_script_whose_program_was_killed_names_the_cause(stage: ScriptedCluster) -> None:
    stage.submit("batch-hog", hog(stage), f"--mem-per-cpu={LIMIT_MIB}M")
    job = stage.ended("batch-hog")
    assert job.state == "Failed"
    assert OUT_OF_MEMORY in job.reason
    assert job.exit.code == 137


@needs(LimitKind.MEMORY)
def test_a_task_prolog_that_takes_too_much_memory_says_so(stage: ScriptedCluster) -> None:
    stage.plan("hook-hog", "TaskProlog", hog(stage))
    result = stage.run("crun", f"--mem={LIMIT_MIB}M", "echo", "never", label="hook-hog")
    assert result.returncode != 0
    assert result.stdout == ""
    assert "out of memory" in result.stderr
    [run] = runs_of(stage.ended("hook-hog"), HookPoint.TASK_PROLOG)
    assert OUT_OF_MEMORY in run.outcome.detail
    assert not stage.nodes()["cn01"].drains


@needs(LimitKind.MEMORY)
def test_a_job_that_asked_for_no_memory_has_all_of_the_node(stage: ScriptedCluster) -> None:
    result = stage.run("crun", stage.interpreter, "-c", HOG, label="free")
    assert (result.returncode, result.stdout) == (0, f"{256 << 20}\n")


# ---- CPU and processes


@needs(LimitKind.CPU)
def test_cpus_that_were_asked_for_are_a_limit_and_others_are_not(stage: ScriptedCluster) -> None:
    show = (
        "import pathlib; rows = [line.split(':', 2) for line in open('/proc/self/cgroup')]\n"
        "path = {c: p for _, cs, p in rows for c in cs.split(',')}\n"
        "for name in ('cpu.max', 'cpu.cfs_quota_us'):\n"
        "    for line in open('/proc/self/mountinfo'):\n"
        "        front, _, back = line.partition(' - ')\n"
        "        if back.startswith('cgroup'):\n"
        "            for part in ('', 'cpu'):\n"
        "                place = pathlib.Path(front.split()[4] + path.get(part, '/none'))\n"
        "                for each in (place, *place.parents):\n"
        "                    if 'job_' in str(each) and (each / name).exists():\n"
        "                        print(each.name, (each / name).read_text().split()[0])\n"
    )
    asked = stage.run("crun", "-c", "0.5", stage.interpreter, "-c", show, label="asked").stdout.split("\n")
    assert any(line.startswith("job_") and line.endswith(" 50000") for line in asked), asked
    not_asked = stage.run("crun", stage.interpreter, "-c", show, label="not-asked").stdout.split("\n")
    assert not [line for line in not_asked if line and line.split()[1] not in ("-1", "max")], not_asked


def test_cpu_time_is_told(stage: ScriptedCluster) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    assert stage.run("crun", stage.interpreter, "-c", burn, label="burn").returncode == 0
    used = usage_of_job(stage, "burn")
    assert used.cpu_s is not None
    assert 0.5 <= used.cpu_s < 5


@needs(LimitKind.PIDS)
def test_a_job_cannot_have_more_processes_than_allowed(stage: ScriptedCluster) -> None:
    bomb = "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0:\n            time.sleep(60)\n            os._exit(0)\n        n += 1\nexcept BlockingIOError:\n    pass\nprint(n)"
    result = stage.run("crun", stage.interpreter, "-c", bomb, label="bomb")
    assert result.returncode == 0, result.stderr
    assert 10 <= int(result.stdout) < 40
    assert stage.ended("bomb").state == "Completed"


# ---- nothing is left, whoever dies


def parent_of(pid: int) -> int:
    """0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def helper_of(stage: ScriptedCluster, node: str, module: str) -> int:
    """One of the small processes of a node's daemon."""
    daemon = stage.cluster.daemons[node].pid
    children = [pid for pid in descendants(daemon) if parent_of(pid) == daemon]
    [found] = [pid for pid in children if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    return found


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "killed",
    [
        "supervisor",
        "craned",
        "spawner",
        "parent",
        # Half a minute, until the step that nobody keeps is given up.
        pytest.param("supervisor+craned", marks=pytest.mark.long),
        pytest.param("spawner+parent+supervisor+craned", marks=pytest.mark.long),
    ],
)
def test_nothing_is_left_of_a_job_whose_keepers_are_killed(stage: ScriptedCluster, killed: str) -> None:
    victims = killed.split("+")
    label = f"orphan-{len(victims)}-{victims[0]}"
    gate = stage.gate(label)
    stage.submit(label, f"setsid sleep 600 & {gate.line}", "--mem=200M", "-c", "1", "--no-requeue")
    [task] = gate.await_arrivals()
    supervisor = parent_of(task)
    pids = {
        "supervisor": supervisor,
        "spawner": helper_of(stage, "cn01", "cranehooks.execution.spawner"),
        "parent": helper_of(stage, "cn01", "csupervisor"),
    }
    for victim in victims:
        if victim in pids:
            os.kill(pids[victim], signal.SIGKILL)
    if "craned" in victims:
        stage.cluster.kill("cn01", signal.SIGKILL)
        stage.cluster.restart("cn01")
        stage.cluster.wait_until_up()
    gate.open()
    job = stage.ended(label)
    assert job.state == ("Failed" if "supervisor" in victims else "Completed"), job.reason
    # Without control groups the supervisor alone knows what its tasks have used.
    is_known = stage.nodes()["cn01"].containment != "none" or "supervisor" not in victims
    assert bool("cn01" in job.usage and job.usage["cn01"].cpu_s) == is_known
    eventually(lambda: not stage.cgroups_of_jobs(), deadline_s=PATIENCE_S)
    eventually(lambda: is_gone(task), deadline_s=PATIENCE_S)
    assert not [pid for pid, command in stage.processes_of_jobs().items() if "sleep 600" in command]
    # What is at hand after a crash works as before.
    assert stage.run("crun", "--mem=200M", "true", label=f"{label}-next").returncode == 0
    stage.ended(f"{label}-next")
    stage.note_idle_processes()


# ---- without control groups


def test_without_control_groups_the_tasks_themselves_tell() -> None:
    with ScriptedCluster(nodes=1, points=(), Containment="none") as stage:
        work = "import time; b = bytearray(80 << 20)\nwhile time.process_time() < 0.3: pass"
        assert stage.run("crun", "--mem=64M", stage.interpreter, "-c", work, label="plain").returncode == 0
        used = usage_of_job(stage, "plain")
        assert used.cpu_s is not None
        assert 0.3 <= used.cpu_s < 5
        assert used.memory_peak_bytes is not None
        assert used.memory_peak_bytes > 80 * MIB
        assert used.oom_kills is None
