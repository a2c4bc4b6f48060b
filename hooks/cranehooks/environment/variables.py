"""The table of variables: which exist, where, what they mean, and how they are computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from cranehooks.model.ids import BATCH_STEP, TaskId
from cranehooks.model.job import ExitStatus, JobOnNode, StepSpec
from cranehooks.model.points import HookPoint
from cranekit import hostlist

_MIB = 1 << 20

SCRIPT_CONTEXTS: Mapping[HookPoint, tuple[str, str]] = {
    HookPoint.CRANECTLD_PROLOG: ("prolog_cranectld", "prolog_slurmctld"),
    HookPoint.PROLOG: ("prolog_craned", "prolog_slurmd"),
    HookPoint.CRUN_PROLOG: ("prolog_crun", "prolog_srun"),
    HookPoint.TASK_PROLOG: ("prolog_task", "prolog_task"),
    HookPoint.STEP_TASK_PROLOG: ("prolog_task", "prolog_task"),
    HookPoint.STEP_TASK_EPILOG: ("epilog_task", "epilog_task"),
    HookPoint.TASK_EPILOG: ("epilog_task", "epilog_task"),
    HookPoint.CRUN_EPILOG: ("epilog_crun", "epilog_srun"),
    HookPoint.EPILOG: ("epilog_craned", "epilog_slurmd"),
    HookPoint.CRANECTLD_EPILOG: ("epilog_cranectld", "epilog_slurmctld"),
}
"""Values of CRANE_SCRIPT_CONTEXT and SLURM_SCRIPT_CONTEXT."""


class Scope(Enum):
    """Where a variable is set."""

    CONTROLLER = "controller hooks"
    NODE = "node hooks"
    LAUNCH = "crun hooks"
    TASK = "tasks and their hooks"


@dataclass(frozen=True, slots=True)
class Facts:
    """What variables are computed from; None: not known in this place, so the variables are not set."""

    job: JobOnNode
    point: HookPoint | None = None
    exit_status: ExitStatus | None = None
    step: StepSpec | None = None
    task_id: TaskId | None = None
    task_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the table."""

    name: str
    twins: tuple[str, ...]
    """SLURM_* names with the same value."""
    scopes: frozenset[Scope]
    meaning: str
    value: Callable[[Facts], str | None]
    """None: not set."""
    twin_value: Callable[[Facts], str | None] | None = None
    """Where the twins' format differs."""
    after_only: bool = False
    """Set for after-points only."""

    def twins_in(self, scope: Scope) -> tuple[str, ...]:
        """The twins that are set there."""
        return tuple(twin for twin in self.twins if scope in TWIN_SCOPES.get(twin, self.scopes))


def _exact(number: float) -> str:
    """A count that may be fractional, without a useless `.0`."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _clean(text: str) -> str:
    """A user's words as one line: control characters would let them look like something else in a log."""
    return "".join(character if character.isprintable() or "\udc80" <= character <= "\udcff" else " " for character in text)


def _words(text: str) -> str | None:
    return _clean(text) or None


def _nodes(facts: Facts) -> str:
    return hostlist.fold(facts.job.nodes)


def _node_index(facts: Facts) -> str | None:
    nodes = facts.job.nodes
    return str(nodes.index(facts.job.share.node)) if facts.job.share.node in nodes else None


def _memory_per_node(facts: Facts) -> str | None:
    bytes_here = facts.job.share.memory_bytes
    return f"{bytes_here // _MIB}M" if bytes_here else None


def _memory_per_cpu(facts: Facts) -> str | None:
    share = facts.job.share
    return f"{share.memory_bytes / _MIB / share.cpus:.2f}" if share.memory_bytes and share.cpus else None


def _gpus(facts: Facts) -> str | None:
    """GPUs held on the node, of all types: `gpu:a100:2,nic:1` counts 2."""
    held = [part.split(":") for part in facts.job.share.gres.split(",") if part]
    counts = [int(part[-1]) if len(part) > 1 and part[-1].isdigit() else 1 for part in held if part[0] == "gpu"]
    return str(sum(counts)) if counts else None


def _own_node(facts: Facts) -> str:
    return facts.job.share.node


def _tasks_per_node(facts: Facts) -> str | None:
    return str(facts.job.spec.ntasks_per_node) if facts.job.spec.ntasks_per_node else None


def _local_id(facts: Facts) -> str | None:
    if facts.step is None or facts.task_id is None:
        return None
    here = facts.step.tasks_per_node.get(facts.job.share.node, ())
    return str(here.index(facts.task_id)) if facts.task_id in here else None


def _local_tasks(facts: Facts) -> str | None:
    """Ids of the step's tasks on the node."""
    if facts.step is None:
        return None
    here = facts.step.tasks_per_node.get(facts.job.share.node, ())
    return ",".join(map(str, here)) or None


def _step_nodes(facts: Facts) -> str | None:
    if facts.step is None:
        return None
    chosen = (
        [node for node in facts.job.nodes if node in facts.step.tasks_per_node] if facts.step.tasks_per_node else facts.job.nodes
    )
    return hostlist.fold(chosen)


def _array_job(facts: Facts) -> str | None:
    return None if facts.job.spec.array_job_id is None else str(facts.job.spec.array_job_id)


def _array_task(facts: Facts) -> str | None:
    return None if facts.job.spec.array_task_id is None else str(facts.job.spec.array_task_id)


def _restarts(facts: Facts) -> str:
    # Not the count that MaxRequeueCount bounds: a release begins that one anew.
    return str(facts.job.attempt - 1)


def _context(facts: Facts) -> str | None:
    return None if facts.point is None else SCRIPT_CONTEXTS[facts.point][0]


def _slurm_context(facts: Facts) -> str | None:
    return None if facts.point is None else SCRIPT_CONTEXTS[facts.point][1]


def _step_id(facts: Facts) -> str | None:
    return None if facts.step is None else str(facts.step.step_id)


def _slurm_step_id(facts: Facts) -> str | None:
    """Slurm sets none for the batch script."""
    return None if facts.step is None or facts.step.step_id == BATCH_STEP else str(facts.step.step_id)


def _of_numbered_step(value: Callable[[Facts], str | None]) -> Callable[[Facts], str | None]:
    """The same for crun's steps only: to Slurm the batch script is none."""
    return lambda facts: None if facts.step is None or facts.step.step_id == BATCH_STEP else value(facts)


def _step_tasks(facts: Facts) -> str | None:
    return None if facts.step is None else str(facts.step.ntasks)


def _step_node_count(facts: Facts) -> str | None:
    return str(len(facts.step.tasks_per_node)) if facts.step is not None and facts.step.tasks_per_node else None


def _step_tasks_per_node(facts: Facts) -> str | None:
    if facts.step is None or not facts.step.tasks_per_node:
        return None
    counts = groupby(len(tasks) for tasks in facts.step.tasks_per_node.values())
    folded = ((count, sum(1 for _ in same)) for count, same in counts)
    return ",".join(str(count) if times == 1 else f"{count}(x{times})" for count, times in folded)


_ALL = frozenset(Scope)
_NO_LAUNCH = _ALL - {Scope.LAUNCH}
_ON_NODE = frozenset({Scope.NODE, Scope.TASK})
_HOOKS = frozenset({Scope.CONTROLLER, Scope.NODE})
_STEP = frozenset({Scope.LAUNCH, Scope.TASK})
_TASK = frozenset({Scope.TASK})

VARIABLES: tuple[Variable, ...] = (
    Variable("CRANE_JOB_ID", ("SLURM_JOB_ID", "SLURM_JOBID"), _ALL, "number of the job", lambda f: str(f.job.job_id)),
    Variable("CRANE_JOB_ATTEMPT", (), _ALL, "which try of the job this is, from 1", lambda f: str(f.job.attempt)),
    Variable(
        "CRANE_JOB_RESTART_COUNT",
        ("SLURM_JOB_RESTART_COUNT", "SLURM_RESTART_COUNT"),
        _NO_LAUNCH,
        "how often the job was requeued",
        _restarts,
        # Tasks learn from its presence that they run again.
        twin_value=lambda f: None if f.step is not None and f.job.attempt == 1 else _restarts(f),
    ),
    Variable(
        "CRANE_JOB_NAME",
        ("SLURM_JOB_NAME",),
        _NO_LAUNCH,
        "the job's name, in the user's words",
        lambda f: _words(f.job.spec.name),
    ),
    Variable("CRANE_JOB_COMMENT", ("SLURM_JOB_COMMENT",), _HOOKS, "the user's comment", lambda f: _words(f.job.spec.comment)),
    Variable("CRANE_JOB_USER", ("SLURM_JOB_USER",), _NO_LAUNCH, "name of the job's user", lambda f: _words(f.job.spec.user)),
    Variable("CRANE_JOB_UID", ("SLURM_JOB_UID", "SLURM_UID"), _NO_LAUNCH, "uid of the job's user", lambda f: str(f.job.spec.uid)),
    Variable("CRANE_JOB_GID", ("SLURM_JOB_GID",), _NO_LAUNCH, "gid of the job's user", lambda f: str(f.job.spec.gid)),
    Variable("CRANE_JOB_ACCOUNT", ("SLURM_JOB_ACCOUNT",), _NO_LAUNCH, "account", lambda f: _words(f.job.spec.account)),
    Variable("CRANE_JOB_PARTITION", ("SLURM_JOB_PARTITION",), _NO_LAUNCH, "partition", lambda f: _words(f.job.spec.partition)),
    Variable("CRANE_JOB_QOS", ("SLURM_JOB_QOS",), _NO_LAUNCH, "quality of service", lambda f: _words(f.job.spec.qos)),
    Variable(
        "CRANE_JOB_NODELIST",
        ("SLURM_JOB_NODELIST", "SLURM_NODELIST"),
        _ALL,
        "all nodes of the job as a hostlist: `cn[01-04]`",
        _nodes,
    ),
    Variable(
        "CRANE_JOB_NUM_NODES",
        ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
        _ALL,
        "how many nodes the job has",
        lambda f: str(len(f.job.nodes)),
    ),
    Variable(
        "CRANE_JOB_START_TIME",
        ("SLURM_JOB_START_TIME",),
        _NO_LAUNCH,
        "when the attempt was allocated, seconds since the epoch",
        lambda f: str(int(f.job.start_time)) if f.job.start_time else None,
    ),
    Variable(
        "CRANE_JOB_END_TIME",
        ("SLURM_JOB_END_TIME",),
        _NO_LAUNCH,
        "when its time limit ends it, seconds since the epoch; not set without a limit",
        lambda f: str(int(f.job.end_time)) if f.job.end_time else None,
    ),
    Variable(
        "CRANE_JOB_WORK_DIR",
        ("SLURM_JOB_WORK_DIR", "SLURM_WORKING_DIR"),
        _NO_LAUNCH,
        "the job's working directory",
        lambda f: _words(f.job.spec.cwd),
    ),
    Variable(
        "CRANE_SUBMIT_DIR",
        ("SLURM_SUBMIT_DIR",),
        _NO_LAUNCH,
        "as CRANE_JOB_WORK_DIR; where the job was submitted unless --chdir was given",
        lambda f: _words(f.job.spec.cwd),
    ),
    Variable(
        "CRANE_SUBMIT_HOST",
        ("SLURM_SUBMIT_HOST",),
        _NO_LAUNCH,
        "where it was submitted",
        lambda f: _words(f.job.spec.submit_host),
    ),
    Variable("CRANE_CLUSTER_NAME", ("SLURM_CLUSTER_NAME",), _ALL, "name of the cluster", lambda f: f.job.cluster or None),
    Variable("CRANE_NODENAME", ("SLURMD_NODENAME",), _ON_NODE, "name of this node", _own_node),
    Variable("CRANE_NODEID", ("SLURM_NODEID",), _ON_NODE, "place of this node among the job's nodes, from 0", _node_index),
    Variable(
        "CRANE_NTASKS",
        ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NTASKS"),
        _NO_LAUNCH,
        "tasks asked for",
        lambda f: str(f.job.spec.ntasks),
    ),
    Variable(
        "CRANE_NTASKS_PER_NODE",
        ("SLURM_NTASKS_PER_NODE",),
        _NO_LAUNCH,
        "tasks on each node; only when asked for",
        _tasks_per_node,
    ),
    Variable(
        "CRANE_CPUS_PER_TASK",
        ("SLURM_CPUS_PER_TASK",),
        _NO_LAUNCH,
        "CPUs of each task",
        lambda f: _exact(f.job.spec.cpus_per_task if f.step is None else f.step.cpus_per_task),
    ),
    Variable(
        "CRANE_CPUS_ON_NODE", ("SLURM_CPUS_ON_NODE",), _ON_NODE, "CPUs held on this node", lambda f: _exact(f.job.share.cpus)
    ),
    Variable(
        "CRANE_MEM_PER_NODE",
        ("SLURM_MEM_PER_NODE",),
        _ON_NODE,
        "memory held on this node in MiB, with the unit: `4096M`; not set without a request",
        _memory_per_node,
        twin_value=lambda f: (_memory_per_node(f) or "").removesuffix("M") or None,
    ),
    Variable("CRANE_MEM_PER_CPU", ("SLURM_MEM_PER_CPU",), _ON_NODE, "MiB of memory for each CPU held here", _memory_per_cpu),
    Variable("CRANE_GPUS", ("SLURM_GPUS_ON_NODE",), _ON_NODE, "how many GPUs are held on this node; not set without", _gpus),
    Variable("CRANE_ARRAY_JOB_ID", ("SLURM_ARRAY_JOB_ID",), _NO_LAUNCH, "number of the array; array jobs only", _array_job),
    Variable(
        "CRANE_ARRAY_TASK_ID", ("SLURM_ARRAY_TASK_ID",), _NO_LAUNCH, "which element of the array; array jobs only", _array_task
    ),
    Variable(
        "CRANE_STEP_ID",
        ("SLURM_STEP_ID", "SLURM_STEPID"),
        _STEP,
        "the step: a number, or `batch` (no SLURM_STEP_ID then)",
        _step_id,
        twin_value=_slurm_step_id,
    ),
    Variable(
        "CRANE_STEP_NODELIST",
        ("SLURM_STEP_NODELIST",),
        _STEP,
        "nodes of the step as a hostlist",
        _step_nodes,
        twin_value=_of_numbered_step(_step_nodes),
    ),
    Variable(
        "CRANE_STEP_NUM_TASKS",
        ("SLURM_STEP_NUM_TASKS",),
        _STEP,
        "tasks of the step",
        _step_tasks,
        twin_value=_of_numbered_step(_step_tasks),
    ),
    Variable(
        "CRANE_STEP_NUM_NODES",
        ("SLURM_STEP_NUM_NODES",),
        _TASK,
        "how many nodes the step has",
        _step_node_count,
        twin_value=_of_numbered_step(_step_node_count),
    ),
    Variable(
        "CRANE_STEP_TASKS_PER_NODE",
        ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
        _TASK,
        "tasks on each node of the step, in the nodes' order, equal neighbours folded: `4(x2),8`",
        _step_tasks_per_node,
        twin_value=_of_numbered_step(_step_tasks_per_node),
    ),
    Variable(
        "CRANE_PROCID",
        ("SLURM_PROCID",),
        _TASK,
        "rank of the task in its step, from 0",
        lambda f: None if f.task_id is None else str(f.task_id),
    ),
    Variable(
        "CRANE_LOCALID", ("SLURM_LOCALID",), _TASK, "rank of the task among those of the step on this node, from 0", _local_id
    ),
    Variable("CRANE_GTIDS", ("SLURM_GTIDS",), _TASK, "ranks of the step's tasks on this node, comma separated", _local_tasks),
    Variable(
        "CRANE_TASK_PID",
        ("SLURM_TASK_PID",),
        _TASK,
        "process id of the task, in hooks where it is known",
        lambda f: None if f.task_pid is None else str(f.task_pid),
    ),
    Variable(
        "CRANE_SCRIPT_CONTEXT",
        ("SLURM_SCRIPT_CONTEXT",),
        _ALL,
        "which point this is, hooks only: `prolog_craned`, `epilog_task`, …",
        _context,
        twin_value=_slurm_context,
    ),
    Variable(
        "CRANE_JOB_EXIT_CODE",
        ("SLURM_JOB_EXIT_CODE",),
        _ALL - _TASK,
        "how the job (crun: the step) ended, as wait(2) has it: exit 1 is 256",
        lambda f: None if f.exit_status is None else str(f.exit_status.wait_status),
        after_only=True,
    ),
    Variable(
        "CRANE_JOB_EXIT_CODE2",
        ("SLURM_JOB_EXIT_CODE2",),
        _ALL - _TASK,
        "the same as `exit:signal`: `1:0`, `0:9`",
        lambda f: None if f.exit_status is None else str(f.exit_status),
        after_only=True,
    ),
)
"""Every variable, in the order of the documentation."""

TWIN_SCOPES: Mapping[str, frozenset[Scope]] = {
    "SLURM_JOB_NAME": frozenset({Scope.CONTROLLER, Scope.TASK}),
    "SLURM_JOB_NTASKS": frozenset({Scope.NODE}),
    "SLURM_JOB_RESTART_COUNT": _HOOKS,
    "SLURM_JOB_WORK_DIR": _HOOKS,
    "SLURM_NNODES": frozenset({Scope.LAUNCH, Scope.TASK}),
    "SLURM_STEP_NODELIST": _TASK,
    "SLURM_STEP_NUM_TASKS": _TASK,
    "SLURM_UID": frozenset({Scope.NODE}),
    **dict.fromkeys(
        (
            "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE",
            "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_RESTART_COUNT", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST",
        ),
        _TASK,
    ),
}  # fmt: skip
"""Where Slurm has a name in fewer places than we have its variable: hooks see no SLURM_* name that Slurm's own would not show there."""
