"""Turns what the controller answers about an allocated job and its step into what variables are computed from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cranehooks.model.ids import Attempt, JobId, NodeName, StepId
from cranehooks.model.job import ArrayBounds, JobKind, JobOnNode, JobSpec, NodeShare, StepSpec, equal_shares

if TYPE_CHECKING:
    from cranecli.front.client import Body

NOWHERE = NodeShare(NodeName(""), ntasks=0, cpus=0.0, memory_bytes=0)
"""A launch node is none of the job's."""


def job_of(job: Body, cluster: str) -> JobOnNode:
    """A JobStatus, as no node of the job in particular sees it."""
    spec = _spec_of(job.get("spec") or {})
    start_time = _seconds(job.get("started_at"))
    attempt = Attempt(int(job.get("attempt") or 1))
    return JobOnNode(
        JobId(int(job["job_id"])),
        attempt,
        spec,
        tuple(NodeName(str(name)) for name in job.get("nodes") or ()),
        NOWHERE,
        cluster,
        start_time=start_time,
        end_time=start_time + spec.time_limit_s if start_time and spec.time_limit_s is not None else 0.0,
        restart_count=attempt - 1,
        layout=equal_shares(map(_share_of, job.get("shares") or ())),
    )


def step_of(spec: Body) -> StepSpec:
    """A StepSpec whose tasks are placed."""
    return StepSpec(
        StepId(str(spec["step_id"])),
        tuple(map(str, spec.get("argv") or ())),
        int(spec.get("ntasks") or 1),
        {NodeName(str(part["node"])): tuple(map(int, part.get("task_ids") or ())) for part in spec.get("placement") or ()},
        cpus_per_task=float(spec.get("cpus_per_task") or 1),
    )


def _spec_of(spec: Body) -> JobSpec:
    array: Body | None = spec.get("array")
    limit = spec.get("time_limit")
    array_job_id, array_task_id = spec.get("array_job_id"), spec.get("array_task_id")
    return JobSpec(
        kind=JobKind[str(spec.get("kind") or "JOB_KIND_RUN").removeprefix("JOB_KIND_")],
        uid=int(spec.get("uid") or 0),
        gid=int(spec.get("gid") or 0),
        user=str(spec.get("user", "")),
        name=str(spec.get("name", "")),
        account=str(spec.get("account", "")),
        partition=str(spec.get("partition", "")),
        qos=str(spec.get("qos", "")),
        num_nodes=int(spec.get("num_nodes") or 1),
        ntasks=int(spec.get("ntasks") or 1),
        ntasks_per_node=int(spec.get("ntasks_per_node") or 0),
        cpus_per_task=float(spec.get("cpus_per_task") or 1),
        time_limit_s=float(str(limit).removesuffix("s")) if limit is not None else None,
        cwd=str(spec.get("cwd", "")),
        submit_host=str(spec.get("submit_host", "")),
        comment=str(spec.get("comment", "")),
        array_job_id=None if array_job_id is None else JobId(int(array_job_id)),
        array_task_id=None if array_task_id is None else int(array_task_id),
        group=str(spec.get("group", "")),
        array=None if array is None else ArrayBounds(*(int(array.get(name) or 0) for name in ("count", "first", "last", "step"))),
    )


def _share_of(share: Body) -> NodeShare:
    return NodeShare(
        NodeName(str(share.get("node", ""))), int(share.get("ntasks") or 0), float(share.get("cpus") or 0), memory_bytes=0
    )


def _seconds(timestamp: object) -> float:
    """Since the epoch; 0 for none."""
    return datetime.fromisoformat(str(timestamp)).timestamp() if timestamp else 0.0
