"""What a comparison asks of a cluster, whichever system runs it: hooks to install, jobs to run, states to read."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.conformance.front_ends import job_user
from tests.support.eventually import eventually

NODES = ("cn01", "cn02")
CPUS = 4
PATIENCE_S = 60.0
"""For whatever takes a moment on an idle machine."""
REQUEUE_DELAY_S = 8
"""Before a requeued job may start again: long enough to look at it."""
HOOK_FILES: Mapping[str, str] = {
    "PrologSlurmctld": "ctld-prolog",
    "Prolog": "prolog.d/50-main",
    "prolog-last": "prolog-last",
    "SrunProlog": "srun-prolog",
    "TaskProlog": "task-prolog",
    "TaskEpilog": "task-epilog",
    "SrunEpilog": "srun-epilog",
    "Epilog": "epilog.d/50-main",
    "epilog-last": "epilog-last",
    "EpilogSlurmctld": "ctld-epilog",
}
"""Where the script of each hook is below the directory of the hooks. Those of Prolog and Epilog are found by a glob."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What differs between the clusters that comparisons need."""

    name: str
    hold_on_prolog_fail: bool = True
    prolog_epilog_timeout_s: int | None = None
    flags: str = ""
    lines: tuple[str, ...] = ("{point}.d/*",)
    """Of Prolog and of Epilog, below the directory of the hooks."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job, in Slurm's words."""

    job_id: int
    state: str
    held: bool
    restarts: int
    exit: str
    """`code:signal`."""

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, or waits after a requeue."""
        if self.state == "PENDING":
            return self.held or self.restarts > 0
        return self.state not in {"CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: whether it still works for a job, and why it takes none (empty: it does)."""

    is_busy: bool
    drain_reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A front end that has ended."""

    code: int
    stdout: str
    stderr: str


class System(ABC):
    """A running cluster. Use as a context manager; nothing is left of it at the end."""

    title: str
    programs: Mapping[str, str]
    """srun, sbatch and salloc, by those names."""

    def __init__(self, directory: Path, configuration: Configuration) -> None:
        self.directory = directory
        self.configuration = configuration
        for name, mode in (("", 0o755), ("hooks", 0o755), ("hooks/prolog.d", 0o755), ("hooks/epilog.d", 0o755), ("notes", 0o777)):
            path = directory / name
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)

    @property
    def hooks(self) -> Path:
        return self.directory / "hooks"

    @property
    def notes(self) -> Path:
        """What scripts write, whoever runs them; also where the users are."""
        return self.directory / "notes"

    def hook_patterns(self, point: str) -> list[str]:
        """As the configuration names the scripts of a hook."""
        match point:
            case "Prolog" | "Epilog":
                return [f"{self.hooks}/{line.format(point=point.lower())}" for line in self.configuration.lines]
            case _:
                return [f"{self.hooks}/{HOOK_FILES[point]}"]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def popen(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts srun, sbatch or salloc (or what takes its place), as the user."""
        user = job_user()
        return subprocess.Popen(
            [self.programs[program], *arguments],
            env={**self.user_environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self.notes,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            start_new_session=True,
        )

    def await_idle(self) -> None:
        """Returns when no node works for any job."""
        eventually(lambda: not any(node.is_busy for node in self.nodes().values()), deadline_s=PATIENCE_S)

    @abstractmethod
    def start(self) -> None:
        """Returns when all nodes are up."""

    @abstractmethod
    def stop(self) -> None:
        """Ends every process. A repeat does nothing."""

    @abstractmethod
    def user_environment(self) -> dict[str, str]:
        """Of front ends."""

    @abstractmethod
    def jobs(self, name: str) -> list[JobFacts]:
        """All of that name."""

    @abstractmethod
    def nodes(self) -> Mapping[str, NodeFacts]:
        """All, by name."""

    @abstractmethod
    def cancel(self, job_id: int) -> None:
        """As an administrator; returns at once."""

    @abstractmethod
    def cancel_all(self) -> None:
        """Whatever has not ended."""

    @abstractmethod
    def release(self, job_id: int) -> None:
        """Lets a held job run again."""

    @abstractmethod
    def resume_nodes(self) -> None:
        """Puts drained nodes back into service."""

    @abstractmethod
    def variables_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Those of an environment that are compared, with what differs between any two clusters replaced."""
