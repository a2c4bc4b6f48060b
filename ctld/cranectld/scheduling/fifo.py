"""The embedded scheduler: first in, first out within each partition. Pure.

A job that cannot start for want of free resources holds back the later ones of its partition, so that large jobs are not starved; a job that waits for
something else (its time, nodes that are out of service) does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cranectld.jobs.model import Job
from cranectld.nodes.model import Node, allocated
from cranectld.scheduling import Placement, Waiting
from cranectld.scheduling.shares import demand_text, share_on, shares_on
from cranehooks.model.ids import Attempt, AttemptKey, NodeName
from cranehooks.model.job import JobSpec, NodeShare


@dataclass(frozen=True, slots=True)
class FifoScheduler:
    """See the module. Stateless: it looks at what is pending and free."""

    @property
    def accepts_submissions(self) -> bool:
        return True

    def place(self, pending: Sequence[Job], nodes: Sequence[Node], at: float) -> list[Placement | Waiting]:
        free: dict[NodeName, Node] = {node.name: node for node in nodes}
        blocked: dict[str, int] = {}
        partitions = {partition for node in nodes for partition in node.config.partitions}
        answers: list[Placement | Waiting] = []
        for job in pending:
            if len(blocked) == len(partitions):
                # Nothing behind can start: a long queue costs no more than its head.
                break
            spec = job.spec
            if job.not_before > at:
                answers.append(Waiting(job.job_id, begin_text(job)))
                continue
            if spec.partition in blocked:
                answers.append(Waiting(job.job_id, f"Priority: waits behind job {blocked[spec.partition]}"))
                continue
            chosen = _choose(spec, free)
            if isinstance(chosen, str):
                answers.append(Waiting(job.job_id, f"Resources: {chosen}"))
                if _could_run(spec, free):
                    blocked[spec.partition] = job.job_id
                continue
            key = AttemptKey(job.job_id, Attempt(job.attempt + 1))
            for share in chosen:
                free[share.node] = allocated(free[share.node], key, share)
            answers.append(Placement(job.job_id, chosen))
        return answers


def begin_text(job: Job) -> str:
    """Why a requeued job waits before its time."""
    when = datetime.fromtimestamp(job.not_before, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    return f"BeginTime: requeued, not before {when}Z: {job.reason}"


def _choose(spec: JobSpec, nodes: Mapping[NodeName, Node]) -> tuple[NodeShare, ...] | str:
    """What the job gets of which nodes, or what is missing."""
    eligible = [node for node in nodes.values() if spec.partition in node.config.partitions and node.name not in spec.exclude]
    candidates = [node for node in eligible if not node.refusal_of(spec)]
    if len(candidates) < spec.num_nodes <= len(eligible):
        return next(filter(None, (node.refusal_of(spec) for node in eligible)))
    if spec.nodelist:
        required = [nodes[name] for name in spec.nodelist]
        if refusals := [refusal for node in required if (refusal := node.refusal_of(spec))]:
            return refusals[0]
        unavailable = [node for node in required if not node.takes_work]
        if unavailable:
            first = unavailable[0]
            return f"node {first.name} was asked for and is {first.unavailable_because}"
        others = [node for node in candidates if node.name not in spec.nodelist]
        candidates = [*required, *others]
    serving = [node for node in candidates if node.takes_work]
    if len(serving) < spec.num_nodes:
        out = len(candidates) - len(serving)
        return f"{spec.num_nodes} nodes wanted, {len(serving)} in service ({out} down or drained)"
    # Each of them could be the first, which gives the most.
    fitting = [node for node in serving if share_on(spec, 0, node) is not None]
    missing = f"{len(fitting)} of {spec.num_nodes} nodes have {demand_text(spec)} free"
    if spec.exclusive:
        missing += " and no other job"
    if any(name not in {node.name for node in fitting} for name in spec.nodelist) or len(fitting) < spec.num_nodes:
        return missing
    shares = shares_on(spec, fitting[: spec.num_nodes])
    return missing if isinstance(shares, str) else shares


def _could_run(spec: JobSpec, nodes: Mapping[NodeName, Node]) -> bool:
    """Whether the job could start if nothing else ran."""
    empty = {name: replace(node, shares={}, completing=frozenset()) for name, node in nodes.items()}
    return not isinstance(_choose(spec, empty), str)
