"""The JSON that `-o json` prints: stable names, numbers as numbers, times in RFC 3339, words in lower case."""

import re
from collections.abc import Mapping
from typing import Any

from cranecli.render.records import (
    BreakerRecord,
    DrainRecord,
    EventRecord,
    HistoryRecord,
    JobRecord,
    NodeRecord,
    StepRecord,
)
from cranecli.render.timeline import place_of
from cranecli.render.words import rfc3339
from cranehooks.model.job import ExitStatus, NodeShare
from cranehooks.model.limits import Usage
from cranehooks.model.outcome import Outcome
from cranehooks.model.run import HookRun, ScriptRun

Document = dict[str, Any]  # the values of a JSON object are of any JSON type


def job_document(job: JobRecord, *, complete: bool = False) -> Document:
    """A job; with `complete` also its history and hook runs."""
    document: Document = {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "state": _snake(job.state),
        "reason": job.reason,
        "kind": job.kind.value,
        "name": job.name,
        "user": job.user,
        "account": job.account,
        "partition": job.partition,
        "num_nodes": job.num_nodes,
        "ntasks": job.ntasks,
        "requeue": job.requeue,
        "time_limit_s": job.time_limit_s,
        "array_job_id": job.array_job_id,
        "array_task_id": job.array_task_id,
        "nodes": list(job.nodes),
        "busy_nodes": list(job.busy_nodes),
        "exit": _exit(job.exit),
        "requeue_count": job.requeue_count,
        "submitted_at": rfc3339(job.submitted_at),
        "started_at": rfc3339(job.started_at),
        "ended_at": rfc3339(job.ended_at),
        "not_before": rfc3339(job.not_before),
        "steps": [_step(step) for step in job.steps],
        "shares": [_share(share) for share in job.shares],
        "usage": _usages(job.usage),
    }
    if complete:
        document["history"] = [_history(event) for event in job.history]
        document["runs"] = [run_document(run) for run in job.runs]
    return document


def node_document(node: NodeRecord) -> Document:
    """A node."""
    return {
        "name": node.name,
        "up": node.up,
        "use": node.use,
        "drained": bool(node.drains),
        "drain_causes": [_drain(cause) for cause in node.drains],
        "cpus": node.cpus,
        "cpus_used": node.cpus_used,
        "memory_bytes": node.memory_bytes,
        "memory_used_bytes": node.memory_used_bytes,
        "gres": node.gres,
        "gres_used": node.gres_used,
        "partitions": list(node.partitions),
        "job_ids": list(node.job_ids),
        "owed_epilogs": list(node.owed_epilogs),
        "last_heartbeat": rfc3339(node.last_heartbeat),
        "address": node.address,
        "version": node.version,
        "config_digest": node.config_digest,
        "config_differs": node.config_differs,
        "boot_id": node.boot_id,
        "containment": node.containment,
        "containment_lost": node.containment_lost or None,
        "only_uid": node.only_uid,
    }


def run_document(run: HookRun) -> Document:
    """One hook run with its scripts."""
    return {
        "run_id": run.key.run_id,
        "point": run.key.point.value,
        "job_id": run.key.job_id,
        "attempt": run.key.attempt,
        "step_id": run.key.step_id,
        "task_id": run.key.task_id,
        "node": run.key.node,
        "place": place_of(run),
        "user": run.user,
        "started_at": rfc3339(run.started_at),
        "duration_s": run.duration_s,
        "queue_wait_s": run.queue_wait_s,
        "outcome": _outcome(run.outcome),
        "notes": list(run.notes),
        "scripts": [_script(script) for script in run.scripts],
    }


def event_document(event: EventRecord) -> Document:
    """One event."""
    return {
        "cursor": event.cursor,
        "time": rfc3339(event.time),
        "kind": event.kind,
        "job_id": event.job_id or None,
        "attempt": event.attempt or None,
        "node": event.node or None,
        "text": event.text,
        "run": run_document(event.run) if event.run else None,
    }


def breaker_document(breaker: BreakerRecord) -> Document:
    """The drain budget of one script digest."""
    return {
        "sha256": breaker.sha256,
        "script": breaker.script,
        "tripped": breaker.tripped,
        "drained_nodes": breaker.drained_nodes,
        "budget": breaker.budget,
        "tripped_at": rfc3339(breaker.tripped_at),
        "nodes": list(breaker.nodes),
        "held_jobs": list(breaker.held_jobs),
    }


def _exit(status: ExitStatus) -> Document:
    return {"code": status.code, "signal": status.signal}


def _outcome(outcome: Outcome) -> Document:
    return {"kind": outcome.kind.value, "code": outcome.code, "detail": outcome.detail, "text": str(outcome)}


def _script(script: ScriptRun) -> Document:
    return {
        "path": script.path,
        "sha256": script.sha256,
        "outcome": _outcome(script.outcome),
        "started_at": rfc3339(script.started_at),
        "duration_s": script.duration_s,
        "output": script.output,
        "output_bytes": script.output_bytes,
        "leftovers": [{"pid": process.pid, "command": process.command} for process in script.leftovers],
        "kept": [{"pid": process.pid, "command": process.command} for process in script.kept],
    }


def _step(step: StepRecord) -> Document:
    return {
        "step_id": step.step_id,
        "name": step.name,
        "state": _snake(step.state),
        "cancelled": step.cancelled,
        "nodes": list(step.nodes),
        "ntasks": step.ntasks,
        "exit": _exit(step.exit),
        "reason": step.reason,
        "started_at": rfc3339(step.started_at),
        "ended_at": rfc3339(step.ended_at),
        "usage": _usages(step.usage),
    }


def _share(share: NodeShare) -> Document:
    return {
        "node": share.node,
        "ntasks": share.ntasks,
        "cpus": share.cpus,
        "memory_bytes": share.memory_bytes,
        "gres": share.gres,
        "devices": {held.name: list(held.indexes) for held in share.devices},
    }


def _usages(by_node: Mapping[str, Usage]) -> list[Document]:
    return [
        {"node": node, "cpu_s": usage.cpu_s, "memory_peak_bytes": usage.memory_peak_bytes, "oom_kills": usage.oom_kills}
        for node, usage in by_node.items()
    ]


def _history(event: HistoryRecord) -> Document:
    return {
        "time": rfc3339(event.time),
        "kind": event.kind,
        "attempt": event.attempt,
        "text": event.text,
        "node": event.node or None,
    }


def _drain(cause: DrainRecord) -> Document:
    return {"owner": cause.owner, "reason": cause.reason, "time": rfc3339(cause.time), "by": cause.by}


def _snake(word: str) -> str:
    """`TimedOut` → `timed_out`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()
