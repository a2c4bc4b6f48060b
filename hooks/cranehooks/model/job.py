"""Jobs and steps as their owners asked for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, pairwise

from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.run import Credentials


class JobKind(Enum):
    """How the job was asked for, which decides what a failing before-hook does to it."""

    BATCH = "batch"
    """cbatch: a script that runs on the first node."""
    ALLOCATION = "allocation"
    """calloc: nodes for steps to come."""
    RUN = "run"
    """crun outside an allocation: one step."""

    @property
    def is_interactive(self) -> bool:
        return self is not JobKind.BATCH


SOFT_LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "RSS", "STACK")
"""Resource limits that tasks may take over, as setrlimit(2) names them after `RLIMIT_`."""

UNLIMITED = (1 << 64) - 1
"""Of a resource limit."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What tasks take over from the shell of whoever asked for them."""

    umask: int | None = None
    """None: 022."""
    soft_limits: Mapping[str, int] = field(default_factory=dict)
    """Of those in `SOFT_LIMITS`."""


@dataclass(frozen=True, slots=True)
class ArrayBounds:
    """The array that a job is an element of."""

    count: int
    first: int
    last: int
    step: int
    """From one index to the next; 1 where the distances differ."""

    @classmethod
    def of(cls, indexes: Iterable[int]) -> "ArrayBounds":
        """Those of an array with these indexes, of which there is at least one."""
        ordered = sorted(set(indexes))
        distances = {after - before for before, after in pairwise(ordered)}
        return cls(len(ordered), ordered[0], ordered[-1], distances.pop() if len(distances) == 1 else 1)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was asked for. Identity fields come from the authenticated caller, never from the request."""

    kind: JobKind
    uid: int
    gid: int
    user: str
    groups: tuple[int, ...] = ()
    name: str = ""
    account: str = ""
    partition: str = ""
    qos: str = ""
    num_nodes: int = 1
    ntasks: int = 1
    ntasks_per_node: int = 0
    """0: as many as ntasks and nodes give."""
    cpus_per_task: float = 1.0
    memory_per_node_bytes: int = 0
    """0: no request."""
    gres: str = ""
    nodelist: tuple[NodeName, ...] = ()
    exclude: tuple[NodeName, ...] = ()
    time_limit_s: float | None = None
    cwd: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    script: str = ""
    """Text of the batch script; empty for interactive jobs."""
    script_name: str = ""
    script_arguments: tuple[str, ...] = ()
    stdout_path: str = ""
    stderr_path: str = ""
    requeue: bool = True
    submit_host: str = ""
    comment: str = ""
    array_job_id: JobId | None = None
    array_task_id: int | None = None
    memory_per_cpu_bytes: int = 0
    """For each CPU held, in place of `memory_per_node_bytes`; 0: no request."""
    gpus: str = ""
    """GPUs on all nodes together, `[type:]count`, each node at least one; empty: what `gres` says."""
    exclusive: bool = False
    """Whole nodes: all their CPUs and gres, and nobody else there."""
    cpus_requested: bool = False
    """Whether `cpus_per_task` was asked for, and so is a limit too."""
    group: str = ""
    """Name of `gid`; empty where it has none."""
    array: ArrayBounds | None = None
    inherited: Inherited | None = None
    """By the batch script, and by steps that bring nothing of their own."""

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.uid, self.gid, self.groups)


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What a job holds on one node."""

    node: NodeName
    ntasks: int
    cpus: float
    memory_bytes: int
    gres: str = ""
    devices: tuple[HeldDevices, ...] = ()
    """Which ones of what `gres` counts."""

    def devices_named(self, name: str) -> tuple[int, ...]:
        """Indexes of the devices of that name."""
        return next((held.indexes for held in self.devices if held.name == name), ())


@dataclass(frozen=True, slots=True)
class EqualShares:
    """Neighbours among the nodes of an allocation that hold as much each."""

    nodes: int
    ntasks: int
    cpus: float


def equal_shares(shares: Iterable[NodeShare]) -> tuple[EqualShares, ...]:
    """What the nodes hold, in their order, in as few words as possible."""
    held = groupby((share.ntasks, share.cpus) for share in shares)
    return tuple(EqualShares(sum(1 for _ in same), ntasks, cpus) for (ntasks, cpus), same in held)


@dataclass(frozen=True, slots=True)
class JobOnNode:
    """All a node must know of a job: travels with every message about it, so that no message depends on an earlier one."""

    job_id: JobId
    attempt: Attempt
    spec: JobSpec
    nodes: tuple[NodeName, ...]
    """All nodes of the allocation, in order."""
    share: NodeShare
    """This node's part."""
    cluster: str
    start_time: float = 0.0
    """Seconds since the epoch when the attempt was allocated."""
    end_time: float = 0.0
    """When its time limit ends it; 0 without a limit."""
    restart_count: int = 0
    layout: tuple[EqualShares, ...] = ()
    """What all nodes of the allocation hold, in their order; empty: not known."""


class StdioMode(Enum):
    FILES = "files"
    """Batch: the job's output files, opened as the user."""
    ATTACHED = "attached"
    """crun: streamed to the launcher; the tasks start when it has attached."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step. `task_prolog` and `task_epilog` are paths of the user's own scripts, or empty."""

    step_id: StepId
    argv: tuple[str, ...]
    """Empty for the batch step, which runs the job's script."""
    ntasks: int
    tasks_per_node: Mapping[NodeName, tuple[int, ...]] = field(default_factory=dict)
    """Task ids placed on each node of the step, filled by the controller."""
    cpus_per_task: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """Empty: the job's."""
    stdio: StdioMode = StdioMode.ATTACHED
    task_prolog: str = ""
    task_epilog: str = ""
    name: str = ""
    nodelist: tuple[NodeName, ...] = ()
    """Nodes it must run on, within the allocation; empty: any."""
    num_nodes: int = 0
    """How many nodes it runs on; 0: all of the allocation, or of `nodelist`."""
    inherited: Inherited | None = None
    """None: the job's."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a task, a step or a job ended: exit code, or the signal that killed it."""

    code: int = 0
    signal: int = 0

    @property
    def ok(self) -> bool:
        return self.code == 0 and self.signal == 0

    @property
    def shell_code(self) -> int:
        """As a shell reports it: 128 + signal for a killed process."""
        return 128 + self.signal if self.signal else self.code

    @property
    def wait_status(self) -> int:
        """As wait(2) returns it."""
        return self.signal or self.code << 8

    def __str__(self) -> str:
        return f"{self.code}:{self.signal}"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended, as its after-hooks are told."""

    exit: ExitStatus | None
    """None: it never ran."""
    derived_exit: ExitStatus = ExitStatus()
    """The highest of its numbered steps."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How one task ended."""

    task_id: TaskId
    exit: ExitStatus = field(default_factory=ExitStatus)
    cancelled: bool = False
    """It never ran: its step was ended first, or a before-hook failed and the profile cancels it for that."""
    reason: str = ""
    """For a person; empty for an ordinary end."""
