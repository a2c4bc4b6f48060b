"""What variables are computed from, and how, where that takes more than a look: one function for each value."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from cranehooks.model.gres import GPU
from cranehooks.model.ids import BATCH_STEP, TaskId
from cranehooks.model.job import ArrayBounds, ExitStatus, JobEnd, JobKind, JobOnNode, StepSpec
from cranehooks.model.output_files import output_path
from cranehooks.model.points import HookPoint, Runner, points_of
from cranekit import hostlist

_MIB = 1 << 20

NO_INPUT = "/dev/null"
"""Standard input of a batch script."""


LAUNCH_POINTS = frozenset(points_of(Runner.CRUN))


@dataclass(frozen=True, slots=True)
class Facts:
    """What variables are computed from; None: not known in this place, so the variables are not set."""

    job: JobOnNode
    point: HookPoint | None = None
    end: JobEnd | None = None
    step: StepSpec | None = None
    task_id: TaskId | None = None
    task_pid: int | None = None
    constrains_devices: bool = False
    """Whether the job's processes can open none but its own devices of this node, so that programs count those alone."""


Value = Callable[[Facts], str | None]
"""The text of a variable; None: it is not set."""


# ---- formats


def exact(number: float) -> str:
    """A count that may be fractional, without a useless `.0`."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def whole(number: float) -> str:
    """For names whose readers expect a whole number: parts of a CPU are rounded up."""
    return str(math.ceil(round(number, 2)))


def folded(counts: Iterable[tuple[str, int]]) -> str:
    """Counts per node in the nodes' order, equal neighbours together: `4(x2),8`.

    Args:
        counts: Each count, and how many neighbours have it.
    """
    runs = ((count, sum(times for _, times in same)) for count, same in groupby(counts, key=lambda each: each[0]))
    return ",".join(count if times == 1 else f"{count}(x{times})" for count, times in runs if times)


def words(text: str) -> str | None:
    """A user's words as one line: control characters would let them look like something else in a log."""
    return "".join(each if each.isprintable() or "\udc80" <= each <= "\udcff" else " " for each in text) or None


# ---- the job


def nodes(facts: Facts) -> str:
    # In their order: the counts of CPUs and tasks, and CRANE_NODEID, follow it.
    return hostlist.fold_in_order(facts.job.nodes)


def restarts(facts: Facts) -> str:
    # Not the count that MaxRequeueCount bounds: a release begins that one anew.
    return str(facts.job.attempt - 1)


def node_count(facts: Facts) -> str:
    """As Slurm counts: the step's own in a task of crun's, the job's elsewhere."""
    is_task = facts.point not in LAUNCH_POINTS and is_numbered_step(facts)
    return (step_node_count(facts) if is_task else None) or str(len(facts.job.nodes))


def cpus_per_node(facts: Facts) -> str | None:
    return folded((exact(part.cpus), part.nodes) for part in facts.job.layout) or None


def whole_cpus_per_node(facts: Facts) -> str | None:
    return folded((whole(part.cpus), part.nodes) for part in facts.job.layout) or None


def job_tasks_per_node(facts: Facts) -> str | None:
    return folded((str(part.ntasks), part.nodes) for part in facts.job.layout) or None


def asked_tasks_per_node(facts: Facts) -> str | None:
    return str(facts.job.spec.ntasks_per_node) if facts.job.spec.ntasks_per_node else None


def cpus_per_task(facts: Facts) -> float:
    return facts.job.spec.cpus_per_task if facts.step is None else facts.step.cpus_per_task


def array_job(facts: Facts) -> str | None:
    return None if facts.job.spec.array_job_id is None else str(facts.job.spec.array_job_id)


def array_task(facts: Facts) -> str | None:
    return None if facts.job.spec.array_task_id is None else str(facts.job.spec.array_task_id)


def of_array(value: Callable[[ArrayBounds], int]) -> Value:
    """One of the array's bounds, for its elements."""
    return lambda facts: None if facts.job.spec.array is None else str(value(facts.job.spec.array))


def stdin_path(facts: Facts) -> str | None:
    return NO_INPUT if facts.job.spec.kind is JobKind.BATCH else None


def stdout_path(facts: Facts) -> str | None:
    return _output_path(facts, facts.job.spec.stdout_path)


def stderr_path(facts: Facts) -> str | None:
    """Not set where stderr goes with stdout."""
    return _output_path(facts, facts.job.spec.stderr_path) if facts.job.spec.stderr_path else None


def _output_path(facts: Facts, pattern: str) -> str | None:
    job = facts.job
    if job.spec.kind is not JobKind.BATCH or not job.nodes:
        return None
    return words(output_path(pattern, job.spec, job.job_id, job.nodes[0]))


def exit_code(facts: Facts) -> str | None:
    return _wait_status(facts.end.exit) if facts.end is not None else None


def exit_code_and_signal(facts: Facts) -> str | None:
    return str(facts.end.exit) if facts.end is not None and facts.end.exit is not None else None


def derived_exit_code(facts: Facts) -> str | None:
    return _wait_status(facts.end.derived_exit) if facts.end is not None else None


def _wait_status(status: ExitStatus | None) -> str | None:
    return None if status is None else str(status.wait_status)


# ---- the node


def own_node(facts: Facts) -> str:
    return facts.job.share.node


def node_index(facts: Facts) -> str | None:
    names = facts.job.nodes
    return str(names.index(facts.job.share.node)) if facts.job.share.node in names else None


def memory_per_node(facts: Facts) -> str | None:
    bytes_here = facts.job.share.memory_bytes
    return f"{bytes_here // _MIB}M" if bytes_here else None


def bare_memory_per_node(facts: Facts) -> str | None:
    bytes_here = facts.job.share.memory_bytes
    return str(bytes_here // _MIB) if bytes_here else None


def memory_per_cpu(facts: Facts) -> str | None:
    share = facts.job.share
    return f"{share.memory_bytes / _MIB / share.cpus:.2f}" if share.memory_bytes and share.cpus else None


def gpus(facts: Facts) -> str | None:
    """GPUs held on the node, of all types: `gpu:a100:2,nic:1` counts 2."""
    held = [part.split(":") for part in facts.job.share.gres.split(",") if part]
    counts = [int(part[-1]) if len(part) > 1 and part[-1].isdigit() else 1 for part in held if part[0] == "gpu"]
    return str(sum(counts)) if counts else None


def gpu_indexes(facts: Facts) -> str | None:
    """Those held on the node, by their places among all of the node's."""
    return ",".join(map(str, facts.job.share.devices_named(GPU))) or None


def visible_gpus(facts: Facts) -> str | None:
    """As programs count: all of the node's, or, where they see no others, those that are held."""
    held = facts.job.share.devices_named(GPU)
    seen = range(len(held)) if facts.constrains_devices and facts.step is not None else held
    return ",".join(map(str, seen)) or None


# ---- the step


def step_id(facts: Facts) -> str | None:
    return None if facts.step is None else str(facts.step.step_id)


def is_numbered_step(facts: Facts) -> bool:
    """Whether this is a step of crun's: to Slurm the batch script is none."""
    return facts.step is not None and facts.step.step_id != BATCH_STEP


def of_numbered_step(value: Value) -> Value:
    """The same for crun's steps only."""
    return lambda facts: value(facts) if is_numbered_step(facts) else None


def step_nodes(facts: Facts) -> str | None:
    if facts.step is None:
        return None
    placed = facts.step.tasks_per_node
    return hostlist.fold_in_order([node for node in facts.job.nodes if node in placed] if placed else facts.job.nodes)


def step_tasks(facts: Facts) -> str | None:
    return None if facts.step is None else str(facts.step.ntasks)


def step_node_count(facts: Facts) -> str | None:
    return str(len(facts.step.tasks_per_node)) if facts.step is not None and facts.step.tasks_per_node else None


def step_tasks_per_node(facts: Facts) -> str | None:
    if facts.step is None:
        return None
    return folded((str(len(tasks)), 1) for tasks in facts.step.tasks_per_node.values()) or None


def tasks(facts: Facts) -> str:
    """As Slurm counts: the step's own in a step of crun's, the job's elsewhere."""
    return str(facts.step.ntasks if facts.step is not None and is_numbered_step(facts) else facts.job.spec.ntasks)


def tasks_per_node(facts: Facts) -> str | None:
    """As Slurm counts: see `tasks`."""
    return step_tasks_per_node(facts) if is_numbered_step(facts) else job_tasks_per_node(facts)


# ---- the task


def rank(facts: Facts) -> str | None:
    return None if facts.task_id is None else str(facts.task_id)


def local_rank(facts: Facts) -> str | None:
    if facts.step is None or facts.task_id is None:
        return None
    here = facts.step.tasks_per_node.get(facts.job.share.node, ())
    return str(here.index(facts.task_id)) if facts.task_id in here else None


def local_tasks(facts: Facts) -> str | None:
    """Ids of the step's tasks on the node."""
    if facts.step is None:
        return None
    here = facts.step.tasks_per_node.get(facts.job.share.node, ())
    return ",".join(map(str, here)) or None
