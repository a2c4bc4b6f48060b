"""What calloc's command finds in its environment: the variables of the job that hold on no node in particular."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cranehooks.environment import VARIABLES, Facts, Scope
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import JobKind, JobOnNode, JobSpec, NodeShare

if TYPE_CHECKING:
    from cranecli.front.client import Body


def allocation_environment(job: Body, site: Body) -> dict[str, str]:
    """The variables, from a JobStatus and the answer to LaunchHooks."""
    facts = Facts(_job_of(job, str(site.get("cluster", ""))))
    slurm = bool(site.get("slurm_compatible_env"))
    found: dict[str, str] = {}
    for variable in VARIABLES:
        if Scope.CONTROLLER not in variable.scopes or variable.after_only:
            continue
        value = variable.value(facts)
        if value is not None:
            found[variable.name] = value
            if slurm:
                found.update(dict.fromkeys(variable.twins, value))
    return found


def _job_of(job: Body, cluster: str) -> JobOnNode:
    spec: Body = job.get("spec") or {}
    nodes = tuple(NodeName(str(name)) for name in job.get("nodes") or ())
    asked = JobSpec(
        kind=JobKind.ALLOCATION,
        uid=int(spec.get("uid", 0)),
        gid=int(spec.get("gid", 0)),
        user=str(spec.get("user", "")),
        name=str(spec.get("name", "")),
        account=str(spec.get("account", "")),
        partition=str(spec.get("partition", "")),
        qos=str(spec.get("qos", "")),
        num_nodes=len(nodes),
        ntasks=int(spec.get("ntasks") or len(nodes)),
        ntasks_per_node=int(spec.get("ntasks_per_node") or 0),
        cpus_per_task=float(spec.get("cpus_per_task") or 1),
        cwd=str(spec.get("cwd", "")),
        submit_host=str(spec.get("submit_host", "")),
        comment=str(spec.get("comment", "")),
    )
    share = NodeShare(NodeName(""), ntasks=0, cpus=0.0, memory_bytes=0)
    return JobOnNode(
        JobId(int(job["job_id"])),
        Attempt(int(job.get("attempt") or 1)),
        asked,
        nodes,
        share,
        cluster,
        restart_count=int(job.get("requeue_count") or 0),
    )
