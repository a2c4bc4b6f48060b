"""Jobs, hook runs and settings for the controller's tests."""

from collections.abc import Iterable

from cranectld.jobs.events import Allocated
from cranectld.jobs.model import Job
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import JobKind, JobSpec, NodeShare
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings, ScriptRun
from cranehooks.policy import RequeuePolicy

CN1, CN2 = NodeName("cn01"), NodeName("cn02")
REQUEUE = RequeuePolicy()
EXIT_1 = Outcome(OutcomeKind.EXIT, 1)
STOPPED = Outcome(OutcomeKind.STOPPED)
ALL_POINTS = (HookPoint.CRANECTLD_PROLOG, HookPoint.PROLOG, HookPoint.EPILOG, HookPoint.CRANECTLD_EPILOG)


def settings(points: Iterable[HookPoint] = ALL_POINTS, flags: Iterable[str] = (), profile: str = "crane-requeue") -> HookSettings:
    return HookSettings(
        profile=profile, patterns={point: (f"/etc/crane/{point.name.lower()}.sh",) for point in points}, flags=frozenset(flags)
    )


def spec(
    kind: JobKind = JobKind.BATCH, *, requeue: bool = True, time_limit_s: float | None = None, num_nodes: int = 2
) -> JobSpec:
    return JobSpec(
        kind=kind,
        uid=1000,
        gid=1000,
        user="alice",
        partition="main",
        num_nodes=num_nodes,
        ntasks=num_nodes,
        script="#!/bin/sh\ntrue\n" if kind is JobKind.BATCH else "",
        requeue=requeue,
        time_limit_s=time_limit_s,
    )


def job(job_spec: JobSpec | None = None) -> Job:
    return Job(JobId(1), job_spec or spec(), submitted_at=0.0)


def shares(*nodes: NodeName) -> tuple[NodeShare, ...]:
    return tuple(NodeShare(node, 1, 1.0, 0) for node in nodes)


def allocated(attempt: int = 1, hooks: HookSettings | None = None, nodes: tuple[NodeName, ...] = (CN1, CN2)) -> Allocated:
    return Allocated(1.0, shares(*nodes), hooks or settings(), Attempt(attempt))


def run(point: HookPoint, outcome: Outcome = OK, node: NodeName | None = None, attempt: int = 1, last_line: str = "") -> HookRun:
    script = ScriptRun(f"/etc/crane/{point.name.lower()}.sh", outcome, 1.0, 0.1, sha256="ab" * 32, output=last_line)
    return HookRun(HookKey(point, JobId(1), Attempt(attempt), node), "root", 1.0, 0.1, outcome, (script,))
