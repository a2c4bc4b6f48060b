"""Where the tasks of a step run within its job's allocation. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from cranectld.jobs import steps
from cranectld.jobs.model import Job
from cranehooks.model.ids import NodeName, StepId
from cranehooks.model.job import StepSpec
from cranekit.errors import CraneError, ErrorCode


def laid_out(job: Job, spec: StepSpec, step_id: StepId) -> StepSpec:
    """The step as its nodes get it: tasks in blocks over its nodes, what was left open taken from the job.

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
    placed = steps.placed(spec, step_id, steps.place_tasks(ntasks, nodes))
    return replace(placed, cwd=spec.cwd or job.spec.cwd, cpus_per_task=spec.cpus_per_task or job.spec.cpus_per_task)


def _nodes(job: Job, nodelist: Sequence[NodeName], num_nodes: int) -> tuple[NodeName, ...]:
    strangers = [name for name in nodelist if name not in job.nodes]
    if strangers:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"node {strangers[0]} is not in the allocation of job {job.job_id}")
    nodes = tuple(name for name in job.nodes if not nodelist or name in nodelist)
    if num_nodes > len(nodes):
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{num_nodes} nodes are more than the {len(nodes)} of the allocation")
    return nodes[:num_nodes] if num_nodes else nodes
