"""Where the tasks of a step run within its job's allocation. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from math import floor

from cranectld.jobs import steps
from cranectld.jobs.model import Job
from cranehooks.model.ids import NodeName, StepId
from cranehooks.model.job import StepSpec
from cranekit.errors import CraneError, ErrorCode
from cranekit.hostlist import fold


def laid_out(job: Job, spec: StepSpec, step_id: StepId, *, overcommit: bool = False) -> StepSpec:
    """The step as its nodes get it: tasks in blocks over its nodes, what was left open taken from the job.

    Args:
        job: Whose allocation it runs in.
        spec: What was asked for.
        step_id: Its name.
        overcommit: Tasks may be more than the CPUs that they would have to themselves.

    Raises:
        CraneError: INVALID_ARGUMENT, it has no command or does not fit the allocation.
    """
    if not spec.argv:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, "the step has no command")
    nodes = _nodes(job, spec.nodelist, spec.num_nodes)
    ntasks = spec.ntasks or (job.spec.ntasks if len(nodes) == len(job.nodes) else len(nodes))
    if ntasks < len(nodes):
        if spec.num_nodes or spec.nodelist:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{ntasks} tasks for {len(nodes)} nodes: expected at least one each")
        nodes = nodes[:ntasks]
    cpus_per_task = spec.cpus_per_task or job.spec.cpus_per_task
    if not spec.cpus_per_task or spec.cpus_per_task == 1.0:
        # One CPU each where nothing else was asked for; less in a job whose tasks have less.
        cpus_per_task = min(1.0, job.spec.cpus_per_task)
    # What was left open was sized with the job.
    is_sized = not spec.ntasks and cpus_per_task <= job.spec.cpus_per_task
    rooms = None if overcommit or is_sized else _rooms(job, nodes, cpus_per_task)
    if rooms is not None and sum(rooms) < ntasks:
        cpus = sum(job.share_of(node).cpus for node in nodes)
        message = (
            f"more processors requested than permitted: {ntasks} tasks with {cpus_per_task:g} CPUs each, "
            f"and job {job.job_id} has {cpus:g} on {fold(nodes)} (--overcommit runs them all the same)"
        )
        raise CraneError(ErrorCode.INVALID_ARGUMENT, message)
    placed = steps.placed(spec, step_id, steps.place_tasks(ntasks, nodes, rooms))
    return replace(placed, cwd=spec.cwd or job.spec.cwd, cpus_per_task=spec.cpus_per_task or job.spec.cpus_per_task)


def _rooms(job: Job, nodes: Sequence[NodeName], cpus_per_task: float) -> list[int] | None:
    """How many tasks the job's CPUs on each node have room for; None: a scheduler has given it no CPUs to count."""
    shares = [job.share_of(node).cpus for node in nodes]
    if not cpus_per_task or not all(shares):
        return None
    # Shares of a CPU add up to a little less or more than they should.
    return [floor(cpus / cpus_per_task + 1e-6) for cpus in shares]


def _nodes(job: Job, nodelist: Sequence[NodeName], num_nodes: int) -> tuple[NodeName, ...]:
    strangers = [name for name in nodelist if name not in job.nodes]
    if strangers:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"node {strangers[0]} is not in the allocation of job {job.job_id}")
    nodes = tuple(name for name in job.nodes if not nodelist or name in nodelist)
    if num_nodes > len(nodes):
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{num_nodes} nodes are more than the {len(nodes)} of the allocation")
    return nodes[:num_nodes] if num_nodes else nodes
