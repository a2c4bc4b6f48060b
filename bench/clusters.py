"""The two clusters of a measurement: ours and Slurm's, side by side on this machine with the same hooks."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import LocalConfig, LocalNode
from cranecli.hookctl.local_daemons import program_path
from tests.support.commands import output_of, plain_environment
from tests.support.eventually import eventually
from tests.support.slurm_daemons import SlurmDaemons, missing_programs, program

CONTROLLER_HOOKS = {"CranectldProlog": "PrologSlurmctld", "CranectldEpilog": "EpilogSlurmctld"}
NODE_HOOKS = {"Prolog": "Prolog", "Epilog": "Epilog"}
TASK_HOOKS = {"TaskProlog": "TaskProlog", "TaskEpilog": "TaskEpilog"}
ALL_HOOKS = CONTROLLER_HOOKS | NODE_HOOKS | TASK_HOOKS
"""Six, by our names and Slurm's."""
TRUE = "/bin/true"
_CPUACCT = Path("/sys/fs/cgroup/cpuacct")


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a cluster."""

    nodes: int = 1
    cpus: int = 64
    hooks: tuple[str, ...] = ()
    """Our names of the points that have one script, which does nothing."""


class CraneSide:
    """Ours: durability, containment and checks of the scripts as anybody has them."""

    name = "here"

    def __init__(self, shape: Shape, directory: Path) -> None:
        script = _script(directory / "hooks")
        nodes = tuple(LocalNode(f"cn{number:02d}", shape.cpus) for number in range(1, shape.nodes + 1))
        hooks = {point: str(script) for point in shape.hooks}
        document: dict[str, Any] = {"Profile": "slurm", "JobLifecycleHook": hooks} if hooks else {"Profile": "slurm"}
        self.cluster = LocalCluster(config=LocalConfig(nodes, document))
        self.directory = directory
        self.account = CpuAccount.own("ours")

    def start(self) -> None:
        self.cluster.start()

    def stop(self) -> None:
        self.cluster.stop()

    @property
    def env(self) -> dict[str, str]:
        found = {name: value for name, value in self.cluster.env.items() if name.startswith("CRANE_")}
        return plain_environment() | found

    def command(self, name: str, *arguments: str) -> list[str]:
        """crun, cbatch or calloc, by Slurm's names."""
        ours = {"srun": "crun", "sbatch": "cbatch", "salloc": "calloc"}[name]
        return [program_path(ours), *arguments]

    def wait_until_idle(self, deadline_s: float = 300) -> None:
        """Until no job is left that has not ended."""
        states = [f"JOB_STATE_{name}" for name in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")]
        _poll(lambda: not self.cluster.call("ListJobs", {"states": states, "limit": 1}).get("jobs"), deadline_s)


class SlurmSide:
    """Slurm with a scheduler that reacts at once, quiet logs, no accounting."""

    name = "Slurm"

    def __init__(self, shape: Shape, directory: Path) -> None:
        script = _script(directory / "hooks")
        self.directory = directory
        self.account = CpuAccount.own("theirs")
        self._daemons = SlurmDaemons(
            directory / "slurm",
            [
                # Not cgroups: Slurm's have one name on a machine. It makes Slurm a little faster.
                "ProctrackType=proctrack/linuxproc",
                "TaskPlugin=task/none",
                "SchedulerType=sched/builtin",
                "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,defer_batch=0",
                "MaxJobCount=50000",
                "MinJobAge=600",
                "SlurmctldDebug=error",
                "SlurmdDebug=error",
                *(f"{ALL_HOOKS[point]}={script}" for point in shape.hooks),
            ],
            nodes=[f"cn{number:02d}" for number in range(1, shape.nodes + 1)],
            cpus=shape.cpus,
            cred_expire_s=120,
        )

    def start(self) -> None:
        self._daemons.directory.mkdir()
        self._daemons.start()

    def stop(self) -> None:
        self._daemons.stop()

    @property
    def env(self) -> dict[str, str]:
        return dict(self._daemons.environment)

    def command(self, name: str, *arguments: str) -> list[str]:
        return [program(name), *arguments]

    def wait_until_idle(self, deadline_s: float = 300) -> None:
        _poll(lambda: not output_of([program("squeue"), "--noheader", "--format=%i"], self.env).strip(), deadline_s)


Side = CraneSide | SlurmSide


@contextmanager
def sides(shape: Shape) -> Iterator[tuple[CraneSide, SlurmSide | None]]:
    """Both clusters, up; None where Slurm is not installed."""
    with tempfile.TemporaryDirectory(prefix="crane-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        ours = CraneSide(shape, _made(directory / "ours"))
        theirs = None if missing_programs() else SlurmSide(shape, _made(directory / "theirs"))
        up: list[Side] = [ours] if theirs is None else [ours, theirs]
        for side in up:
            stack.callback(side.account.remove)
            stack.callback(side.stop)
            with side.account:
                side.start()
        yield ours, theirs


class CpuAccount:
    """The CPU time of everything that was started while it was entered, and of all their children."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._home: Path | None = None

    @classmethod
    def own(cls, name: str) -> Self:
        """A new one; one that knows nothing where the machine has no such cgroups, or does not let us."""
        home = _own_cgroup("cpuacct")
        if home is None:
            return cls(None)
        directory = home / f"crane-bench-{os.getpid()}-{name}"
        try:
            directory.mkdir()
        except OSError:
            return cls(None)
        account = cls(directory)
        account._home = home
        return account

    @property
    def cpu_s(self) -> float | None:
        """So far; None where it is not known."""
        if self._directory is None:
            return None
        return int((self._directory / "cpuacct.usage").read_text()) / 1e9

    def __enter__(self) -> Self:
        if self._directory is not None:
            (self._directory / "cgroup.procs").write_text(str(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._home is not None:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Once everything that ran in it has ended."""
        if self._directory is not None:
            directory = self._directory
            eventually(lambda: not (directory / "cgroup.procs").read_text(), deadline_s=30)
            directory.rmdir()


def _own_cgroup(controller: str) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and _CPUACCT.is_dir():
            return _CPUACCT / path.strip("/")
    return None


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _script(directory: Path) -> Path:
    directory.mkdir()
    script = directory / "nothing.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    return script


def _poll(is_over: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not is_over():
        assert time.monotonic() < deadline, f"not over within {deadline_s:g} s"
        time.sleep(0.05)
