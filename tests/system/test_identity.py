"""Who hooks and tasks are, and what they inherit, read from inside of them; users whom a node cannot serve."""

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.support.eventually import eventually
from tests.support.scripted_cluster import CONFIGURED, ORDINARY_UID, PATIENCE_S, ScriptedCluster

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: jobs of another user than the daemons'")
STRANGER = 3_210_987
"""A uid that no account has."""
NO_CAPABILITY = "0" * 16
_CAP_SYS_RESOURCE = 24

# A shell reads files by itself, so that nothing of what is told belongs to another program.
TELLS_ALL = """#!/bin/sh
PATH=/usr/bin:/bin
out=DIRECTORY/${CRANE_SCRIPT_CONTEXT:-$1}.$$
{
  while read -r line; do echo "$line"; done < /proc/$$/status
  read -r adj < /proc/$$/oom_score_adj; echo "oom:$adj"
  read -r stat < /proc/$$/stat; set -- ${stat##*) }; echo "session:$4"; echo "terminal:$5"; echo "nice:${17}"
  echo "cwd:$(pwd)"
  cd /proc/$$/fd; echo "descriptors:" *
  echo "soft:$(ulimit -S -n)"; echo "hard:$(ulimit -H -n)"; echo "core:$(ulimit -S -c)"
} > $out.new
chmod 644 $out.new
mv $out.new $out.told
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What one process has told of itself."""

    facts: dict[str, str]

    @property
    def ids(self) -> tuple[set[str], set[str], list[int]]:
        groups = sorted(map(int, self.facts["Groups"].split()))
        return set(self.facts["Uid"].split()), set(self.facts["Gid"].split()), groups

    @property
    def capabilities(self) -> dict[str, str]:
        return {name: self.facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


class Witnesses:
    """A cluster whose hooks tell of themselves, all ten."""

    def __init__(self) -> None:
        self.directory = Path(mkdtemp(prefix="crane-witness-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.told = self.directory / "told"
        self.told.mkdir()
        self.told.chmod(0o777)
        self.script = self.directory / "tell"
        self.script.write_text(TELLS_ALL.replace("DIRECTORY", str(self.told)))
        self.script.chmod(0o755)
        hooks: dict[str, object] = dict.fromkeys(CONFIGURED, str(self.script))
        self.cluster = ScriptedCluster(nodes=1, hooks=hooks)

    def ask(self, command: str) -> dict[str, Told]:
        """Runs it as the user; what each hook, by its context, and the task told."""
        for path in self.told.iterdir():
            path.unlink()
        result = self.cluster.run_shell(command)
        assert result.returncode == 0, result.stderr
        # The controller and the node end the job side by side with crun.
        contexts = {
            "prolog_cranectld",
            "prolog_craned",
            "prolog_task",
            "epilog_task",
            "epilog_craned",
            "epilog_cranectld",
            "task",
        }
        eventually(lambda: contexts <= {path.name.split(".")[0] for path in self.told.glob("*.told")}, deadline_s=PATIENCE_S)
        return {path.name.split(".")[0]: _read(path) for path in self.told.glob("*.told")}


def _read(path: Path) -> Told:
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return Told({name: " ".join(value.split()) for name, value in pairs} | {"pid": path.name.split(".")[1]})


@pytest.fixture(scope="module")
def witnesses() -> Iterator[Witnesses]:
    witnesses = Witnesses()
    try:
        with witnesses.cluster:
            yield witnesses
    finally:
        shutil.rmtree(witnesses.directory)


@pytest.fixture(scope="module")
def testimony(witnesses: Witnesses) -> dict[str, Told]:
    """Of one step with a hook at every point, asked for with a umask and limits of its own."""
    own = f"--task-prolog {witnesses.script} --task-epilog {witnesses.script}"
    return witnesses.ask(f"umask 027; ulimit -S -n 99; ulimit -S -c 0; crun {own} {witnesses.script} task")


OF_THE_DAEMONS = ("prolog_cranectld", "epilog_cranectld", "prolog_craned", "epilog_craned")
OF_THE_USER = ("prolog_task", "epilog_task", "task")
OF_CRUN = ("prolog_crun", "epilog_crun")


@pytest.mark.parametrize("point", [*OF_THE_DAEMONS, *OF_THE_USER, *OF_CRUN])
def test_every_process_starts_afresh(testimony: dict[str, Told], point: str) -> None:
    facts = testimony[point].facts
    assert (facts["SigIgn"], facts["SigBlk"]) == (NO_CAPABILITY, NO_CAPABILITY), "also SIGPIPE and the real-time signals"
    assert facts["NoNewPrivs"] == "0"
    assert facts["session"] == facts["pid"]
    assert facts["terminal"] == "0"
    assert facts["oom"] == "0"
    # 3 is the list of descriptors itself; a shell keeps its script, and what it has put aside, from 10 on.
    assert [number for number in map(int, facts["descriptors"].split()) if number < 10] == [0, 1, 2, 3]
    if point not in OF_CRUN:
        assert facts["nice"] == "0"
        assert facts["Umask"] == ("0027" if point == "task" else "0022")


@pytest.mark.parametrize("point", OF_THE_DAEMONS)
def test_hooks_of_the_daemons_have_their_identity_and_limits(testimony: dict[str, Told], point: str) -> None:
    told = testimony[point]
    assert told.ids == ({str(os.geteuid())}, {str(os.getegid())}, sorted(os.getgroups()))
    assert told.facts["CapEff"] == _own("CapEff")
    assert told.facts["cwd"] == "/"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (told.facts["soft"], told.facts["hard"]) == (_limit(soft), _limit(hard))


@needs_root
@pytest.mark.parametrize("point", OF_THE_USER)
def test_tasks_and_their_hooks_have_the_users_identity_and_no_capability(testimony: dict[str, Told], point: str) -> None:
    told = testimony[point]
    assert told.ids == ({str(ORDINARY_UID)}, {str(ORDINARY_UID)}, [ORDINARY_UID])
    assert told.capabilities == dict.fromkeys(told.capabilities, NO_CAPABILITY)


def test_tasks_take_over_umask_and_soft_limits(testimony: dict[str, Told]) -> None:
    task, hook = testimony["task"].facts, testimony["prolog_task"].facts
    assert (task["soft"], task["core"], task["Umask"]) == ("99", "0", "0027")
    assert task["hard"] == _limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert hook["soft"] == _limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), "a hook has the daemon's"


def test_a_batch_script_takes_over_umask_and_soft_limits(witnesses: Witnesses) -> None:
    told = witnesses.ask(f"umask 077; ulimit -S -n 77; cbatch --wrap '{witnesses.script} task'")
    assert (told["task"].facts["soft"], told["task"].facts["Umask"]) == ("77", "0077")


@needs_root
def test_the_daemons_are_protected_from_the_kernels_killer(witnesses: Witnesses) -> None:
    if not int(_own("CapEff"), 16) >> _CAP_SYS_RESOURCE & 1:
        pytest.skip("needs CAP_SYS_RESOURCE")
    for daemon in witnesses.cluster.cluster.daemons.values():
        assert Path(f"/proc/{daemon.pid}/oom_score_adj").read_text().strip() == "-900"


def _own(name: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


# ---- users whom the node cannot serve


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    with ScriptedCluster(nodes=1) as cluster:
        yield cluster


@needs_root
def test_a_user_whom_the_node_does_not_know_has_the_job_failed(stage: ScriptedCluster) -> None:
    known, stage.user = stage.user, STRANGER
    try:
        stage.submit("stranger", "true")
        result = stage.run("crun", "true", label="stranger-too")
    finally:
        stage.user = known
    job = stage.ended("stranger")
    assert job.state == "Failed"
    assert f"user {STRANGER} (uid {STRANGER}) is unknown on cn01" in job.reason
    assert job.requeue_count == 0
    assert result.returncode == 1
    assert f"(uid {STRANGER}) is unknown on cn01" in result.stderr
    assert not any(node.drains for node in stage.nodes().values())


@pytest.mark.parametrize("directory", ["/nonexistent/work", pytest.param("/root", marks=needs_root)])
def test_a_working_directory_that_is_not_there_has_the_job_failed(stage: ScriptedCluster, directory: str) -> None:
    label = f"cwd{directory.replace('/', '-')}"
    stage.submit(label, "true", "-D", directory)
    job = stage.ended(label)
    assert job.state == "Failed"
    assert f"cannot enter working directory {directory} on cn01" in job.reason
    assert job.requeue_count == 0
    assert not any(node.drains for node in stage.nodes().values())


@needs_root
def test_a_user_without_account_may_run_where_the_site_says_so() -> None:
    with ScriptedCluster(nodes=1, UnknownUsers="run", AllowSetuidPrograms=True, PropagateResourceLimits="none") as cluster:
        cluster.user = STRANGER
        cluster.submit("runs", "id -u; ulimit -S -n; grep CapBnd /proc/self/status; echo $USER")
        assert cluster.ended("runs").state == "Completed"
        uid, limit, bounding, login = cluster.output("runs").splitlines()
        assert uid == str(STRANGER)
        assert limit == _limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        assert bounding.split()[1] == _own("CapBnd")
        assert login == str(STRANGER)
