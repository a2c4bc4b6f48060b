"""The table of variables: which exist, where, and what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cranehooks.environment import values
from cranehooks.environment.values import Value, exact, whole, words
from cranehooks.model.points import HookPoint

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
class Variable:
    """One row of the table."""

    name: str
    twins: tuple[str, ...]
    """SLURM_* names with the same value."""
    scopes: frozenset[Scope]
    meaning: str
    value: Value
    twin_value: Value | None = None
    """Where the twins' format differs."""
    special: Mapping[str, Value] = field(default_factory=dict)
    """Twins that have a value of their own."""
    after_only: bool = False
    """Set for after-points only."""
    is_shared: bool = False
    """Users may set it themselves: where it has no value of ours, theirs stays."""

    def value_of(self, twin: str) -> Value:
        return self.special.get(twin) or self.twin_value or self.value

    def twins_in(self, scope: Scope) -> tuple[str, ...]:
        """The twins that are set there."""
        return tuple(twin for twin in self.twins if scope in TWIN_SCOPES.get(twin, self.scopes))


_ALL = frozenset(Scope)
_ON_NODE = frozenset({Scope.NODE, Scope.TASK})
_HOOKS = frozenset({Scope.CONTROLLER, Scope.NODE})
_STEP = frozenset({Scope.LAUNCH, Scope.TASK})
_TASK = frozenset({Scope.TASK})
_ENDED = _ALL - _TASK

VARIABLES: tuple[Variable, ...] = (
    Variable("CRANE_JOB_ID", ("SLURM_JOB_ID", "SLURM_JOBID"), _ALL, "number of the job", lambda f: str(f.job.job_id)),
    Variable("CRANE_JOB_ATTEMPT", (), _ALL, "which try of the job this is, from 1", lambda f: str(f.job.attempt)),
    Variable(
        "CRANE_JOB_RESTART_COUNT",
        ("SLURM_JOB_RESTART_COUNT", "SLURM_RESTART_COUNT"),
        _ALL,
        "how often the job was requeued",
        values.restarts,
        # Tasks learn from its presence that they run again.
        twin_value=lambda f: None if f.step is not None and f.job.attempt == 1 else values.restarts(f),
    ),
    Variable(
        "CRANE_JOB_NAME", ("SLURM_JOB_NAME",), _ALL, "the job's name, in the user's words", lambda f: words(f.job.spec.name)
    ),
    Variable("CRANE_JOB_COMMENT", ("SLURM_JOB_COMMENT",), _HOOKS, "the user's comment", lambda f: words(f.job.spec.comment)),
    Variable("CRANE_JOB_USER", ("SLURM_JOB_USER",), _ALL, "name of the job's user", lambda f: words(f.job.spec.user)),
    Variable("CRANE_JOB_UID", ("SLURM_JOB_UID", "SLURM_UID"), _ALL, "uid of the job's user", lambda f: str(f.job.spec.uid)),
    Variable("CRANE_JOB_GROUP", ("SLURM_JOB_GROUP",), _ALL, "name of the user's group", lambda f: words(f.job.spec.group)),
    Variable("CRANE_JOB_GID", ("SLURM_JOB_GID",), _ALL, "gid of the job's user", lambda f: str(f.job.spec.gid)),
    Variable("CRANE_JOB_ACCOUNT", ("SLURM_JOB_ACCOUNT",), _ALL, "account", lambda f: words(f.job.spec.account)),
    Variable("CRANE_JOB_PARTITION", ("SLURM_JOB_PARTITION",), _ALL, "partition", lambda f: words(f.job.spec.partition)),
    Variable("CRANE_JOB_QOS", ("SLURM_JOB_QOS",), _ALL, "quality of service", lambda f: words(f.job.spec.qos)),
    Variable(
        "CRANE_JOB_NODELIST",
        ("SLURM_JOB_NODELIST", "SLURM_NODELIST"),
        _ALL,
        "all nodes of the job as a hostlist: `cn[01-04]`",
        values.nodes,
    ),
    Variable(
        "CRANE_JOB_NUM_NODES",
        ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
        _ALL,
        "how many nodes the job has (SLURM_NNODES in a task of crun's: the step)",
        lambda f: str(len(f.job.nodes)),
        special={"SLURM_NNODES": values.node_count},
    ),
    Variable(
        "CRANE_JOB_CPUS_PER_NODE",
        ("SLURM_JOB_CPUS_PER_NODE",),
        _ALL,
        "CPUs held on each node of the job, in the nodes' order, equal neighbours together: `4(x2),8`",
        values.cpus_per_node,
        twin_value=values.whole_cpus_per_node,
    ),
    Variable(
        "CRANE_JOB_EXCLUSIVE",
        ("SLURM_JOB_EXCLUSIVE", "SLURM_JOB_OVERSUBSCRIBE"),
        _HOOKS,
        "whether the job has its nodes for itself: `NODE` or `NO` (SLURM_JOB_OVERSUBSCRIBE: `NO` or `OK`)",
        lambda f: "NODE" if f.job.spec.exclusive else "NO",
        special={"SLURM_JOB_OVERSUBSCRIBE": lambda f: "NO" if f.job.spec.exclusive else "OK"},
    ),
    Variable(
        "CRANE_JOB_START_TIME",
        ("SLURM_JOB_START_TIME",),
        _ALL,
        "when the attempt was allocated, seconds since the epoch",
        lambda f: str(int(f.job.start_time)) if f.job.start_time else None,
    ),
    Variable(
        "CRANE_JOB_END_TIME",
        ("SLURM_JOB_END_TIME",),
        _ALL,
        "when its time limit ends it, seconds since the epoch; not set without a limit",
        lambda f: str(int(f.job.end_time)) if f.job.end_time else None,
    ),
    Variable(
        "CRANE_JOB_WORK_DIR",
        ("SLURM_JOB_WORK_DIR", "SLURM_WORKING_DIR"),
        _ALL,
        "the job's working directory",
        lambda f: words(f.job.spec.cwd),
    ),
    Variable(
        "CRANE_SUBMIT_DIR",
        ("SLURM_SUBMIT_DIR",),
        _ALL,
        "as CRANE_JOB_WORK_DIR; where the job was submitted unless --chdir was given",
        lambda f: words(f.job.spec.cwd),
    ),
    Variable(
        "CRANE_SUBMIT_HOST", ("SLURM_SUBMIT_HOST",), _ALL, "where it was submitted", lambda f: words(f.job.spec.submit_host)
    ),
    Variable("CRANE_JOB_STDIN", ("SLURM_JOB_STDIN",), _HOOKS, "standard input of the batch script", values.stdin_path),
    Variable("CRANE_JOB_STDOUT", ("SLURM_JOB_STDOUT",), _HOOKS, "the batch script's output file", values.stdout_path),
    Variable(
        "CRANE_JOB_STDERR",
        ("SLURM_JOB_STDERR",),
        _HOOKS,
        "the batch script's error file; not set where it is the output file",
        values.stderr_path,
    ),
    Variable("CRANE_CLUSTER_NAME", ("SLURM_CLUSTER_NAME",), _ALL, "name of the cluster", lambda f: f.job.cluster or None),
    Variable("CRANE_NODENAME", ("SLURMD_NODENAME",), _ON_NODE, "name of this node", values.own_node),
    Variable("CRANE_NODEID", ("SLURM_NODEID",), _ON_NODE, "place of this node among the job's nodes, from 0", values.node_index),
    Variable(
        "CRANE_NTASKS",
        ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NTASKS"),
        _ALL,
        "tasks the job asked for (the Slurm names: the step's tasks, in a step of crun's)",
        lambda f: str(f.job.spec.ntasks),
        twin_value=values.tasks,
    ),
    Variable(
        "CRANE_NTASKS_PER_NODE",
        ("SLURM_NTASKS_PER_NODE",),
        _ALL,
        "tasks on each node; only when asked for",
        values.asked_tasks_per_node,
    ),
    Variable(
        "CRANE_TASKS_PER_NODE",
        ("SLURM_TASKS_PER_NODE",),
        _ALL,
        "tasks the job has room for on each of its nodes, as CRANE_JOB_CPUS_PER_NODE (the Slurm name: the step's, in a step of crun's)",
        values.job_tasks_per_node,
        twin_value=values.tasks_per_node,
    ),
    Variable(
        "CRANE_CPUS_PER_TASK",
        ("SLURM_CPUS_PER_TASK",),
        _ALL,
        "CPUs of each task",
        lambda f: exact(values.cpus_per_task(f)),
        twin_value=lambda f: whole(values.cpus_per_task(f)),
    ),
    Variable(
        "CRANE_CPUS_ON_NODE",
        ("SLURM_CPUS_ON_NODE",),
        _ON_NODE,
        "CPUs held on this node",
        lambda f: exact(f.job.share.cpus),
        twin_value=lambda f: whole(f.job.share.cpus),
    ),
    Variable(
        "CRANE_MEM_PER_NODE",
        ("SLURM_MEM_PER_NODE",),
        _ON_NODE,
        "memory held on this node in MiB, with the unit: `4096M`; not set without a request",
        values.memory_per_node,
        twin_value=values.bare_memory_per_node,
    ),
    Variable(
        "CRANE_MEM_PER_CPU", ("SLURM_MEM_PER_CPU",), _ON_NODE, "MiB of memory for each CPU held here", values.memory_per_cpu
    ),
    Variable(
        "CRANE_GPUS", ("SLURM_GPUS_ON_NODE",), _ON_NODE, "how many GPUs are held on this node; not set without", values.gpus
    ),
    Variable(
        "CRANE_JOB_GPUS",
        ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"),
        _ON_NODE,
        "which GPUs of this node are held, by their places in its configuration, from 0: `0,2`; not set without",
        values.gpu_indexes,
    ),
    *(
        Variable(
            name,
            (),
            _ON_NODE,
            "the same, for programs that use them; where a job can open its own only, tasks count those from 0",
            values.visible_gpus,
            is_shared=True,
        )
        for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
    ),
    Variable("CRANE_ARRAY_JOB_ID", ("SLURM_ARRAY_JOB_ID",), _ALL, "number of the array; array jobs only", values.array_job),
    Variable(
        "CRANE_ARRAY_TASK_ID", ("SLURM_ARRAY_TASK_ID",), _ALL, "which element of the array; array jobs only", values.array_task
    ),
    Variable(
        "CRANE_ARRAY_TASK_COUNT",
        ("SLURM_ARRAY_TASK_COUNT",),
        _ALL,
        "how many elements the array has; array jobs only",
        values.of_array(lambda array: array.count),
    ),
    Variable(
        "CRANE_ARRAY_TASK_MIN",
        ("SLURM_ARRAY_TASK_MIN",),
        _ALL,
        "its lowest index; array jobs only",
        values.of_array(lambda array: array.first),
    ),
    Variable(
        "CRANE_ARRAY_TASK_MAX",
        ("SLURM_ARRAY_TASK_MAX",),
        _ALL,
        "its highest index; array jobs only",
        values.of_array(lambda array: array.last),
    ),
    Variable(
        "CRANE_ARRAY_TASK_STEP",
        ("SLURM_ARRAY_TASK_STEP",),
        _ALL,
        "from one index to the next, 1 where the distances differ; array jobs only",
        values.of_array(lambda array: array.step),
    ),
    Variable(
        "CRANE_STEP_ID",
        ("SLURM_STEP_ID", "SLURM_STEPID"),
        _STEP,
        "the step: a number, or `batch` (no SLURM_STEP_ID then)",
        values.step_id,
        twin_value=values.of_numbered_step(values.step_id),
    ),
    Variable(
        "CRANE_STEP_NODELIST",
        ("SLURM_STEP_NODELIST",),
        _STEP,
        "nodes of the step as a hostlist",
        values.step_nodes,
        twin_value=values.of_numbered_step(values.step_nodes),
    ),
    Variable(
        "CRANE_STEP_NUM_TASKS",
        ("SLURM_STEP_NUM_TASKS",),
        _STEP,
        "tasks of the step",
        values.step_tasks,
        twin_value=values.of_numbered_step(values.step_tasks),
    ),
    Variable(
        "CRANE_STEP_NUM_NODES",
        ("SLURM_STEP_NUM_NODES",),
        _STEP,
        "how many nodes the step has",
        values.step_node_count,
        twin_value=values.of_numbered_step(values.step_node_count),
    ),
    Variable(
        "CRANE_STEP_TASKS_PER_NODE",
        ("SLURM_STEP_TASKS_PER_NODE",),
        _STEP,
        "tasks on each node of the step, in the nodes' order, equal neighbours together: `4(x2),8`",
        values.step_tasks_per_node,
        twin_value=values.of_numbered_step(values.step_tasks_per_node),
    ),
    Variable("CRANE_PROCID", ("SLURM_PROCID",), _TASK, "rank of the task in its step, from 0", values.rank),
    Variable(
        "CRANE_LOCALID",
        ("SLURM_LOCALID",),
        _TASK,
        "rank of the task among those of the step on this node, from 0",
        values.local_rank,
    ),
    Variable(
        "CRANE_GTIDS", ("SLURM_GTIDS",), _TASK, "ranks of the step's tasks on this node, comma separated", values.local_tasks
    ),
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
        lambda f: None if f.point is None else SCRIPT_CONTEXTS[f.point][0],
        twin_value=lambda f: None if f.point is None else SCRIPT_CONTEXTS[f.point][1],
    ),
    Variable(
        "CRANE_JOB_EXIT_CODE",
        ("SLURM_JOB_EXIT_CODE",),
        _ENDED,
        "how the job (crun: the step) ended, as wait(2) has it: exit 1 is 256",
        values.exit_code,
        after_only=True,
    ),
    Variable(
        "CRANE_JOB_EXIT_CODE2",
        ("SLURM_JOB_EXIT_CODE2",),
        _ENDED,
        "the same as `exit:signal`: `1:0`, `0:9`",
        values.exit_code_and_signal,
        after_only=True,
    ),
    Variable(
        "CRANE_JOB_DERIVED_EC",
        ("SLURM_JOB_DERIVED_EC",),
        _HOOKS,
        "the highest end of crun's steps in the job, as CRANE_JOB_EXIT_CODE; 0 without steps",
        values.derived_exit_code,
        after_only=True,
    ),
)
"""Every variable, in the order of the documentation."""

TWIN_SCOPES: Mapping[str, frozenset[Scope]] = {
    "SLURM_JOB_GROUP": frozenset({Scope.CONTROLLER}),
    "SLURM_JOB_NAME": frozenset({Scope.CONTROLLER, Scope.LAUNCH, Scope.TASK}),
    "SLURM_JOB_NTASKS": frozenset({Scope.NODE}),
    "SLURM_UID": frozenset({Scope.NODE}),
    **dict.fromkeys(("SLURM_JOB_RESTART_COUNT", "SLURM_JOB_WORK_DIR"), _HOOKS),
    **dict.fromkeys(("SLURM_JOB_END_TIME", "SLURM_JOB_GID", "SLURM_JOB_START_TIME", "SLURM_WORKING_DIR"), _ALL - {Scope.LAUNCH}),
    **dict.fromkeys(
        ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"), _ALL - {Scope.NODE}
    ),
    **dict.fromkeys(
        (
            "SLURM_NNODES", "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST",
            "SLURM_TASKS_PER_NODE",
        ),
        _STEP,
    ),
    **dict.fromkeys(
        (
            "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE",
            "SLURM_RESTART_COUNT", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS",
            "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_GPUS",
        ),
        _TASK,
    ),
}  # fmt: skip
"""Where Slurm has a name in fewer places than we have its variable: hooks see no SLURM_* name that Slurm's own would not show there."""
