"""The values a store keeps beside jobs and events, and what it says when it cannot."""

from dataclasses import dataclass

from cranectld.jobs.model import Job
from cranectld.nodes.breaker import Breaker
from cranectld.nodes.model import DrainCause
from cranehooks.model.ids import AttemptKey, NodeName
from cranehooks.model.job import ExitStatus, JobOnNode
from cranekit.errors import CraneError, ErrorCode

MAX_BACKLOG = 100_000
"""Queued writes beyond which new work is refused."""

DECISIONS_KEPT = 10_000
"""A scheduler that was away for longer starts anew."""

RETRY_S = 1.0
"""Between attempts to write what failed."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is kept of a node."""

    name: NodeName
    boot_id: str = ""
    drains: tuple[DrainCause, ...] = ()


@dataclass(frozen=True, slots=True)
class OwedEpilog:
    """An Epilog that a lost node still has to run, with all the node must know for it."""

    node: NodeName
    job: JobOnNode
    exit: ExitStatus
    reason: str
    derived_exit: ExitStatus = ExitStatus()
    """The highest of its numbered steps."""

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.job.job_id, self.job.attempt)


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as a scheduler can have it again after a restart of either side."""

    cursor: int
    at: float
    kind: str
    job_id: int = 0
    attempt: int = 0
    reason: str = ""
    not_before: float = 0.0
    step_id: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request that was carried out, by which its repeat is recognised."""

    request_id: str
    """With whose it is and what it was about: `<uid>/<id>`, `step/<job>.<attempt>/<id>`."""
    numbers: tuple[int, ...]
    """What was answered: job ids, or a step's number."""
    at: float


@dataclass(frozen=True, slots=True)
class Expiry:
    """Seconds since the epoch before which things are forgotten; 0: nothing is."""

    jobs_before: float = 0.0
    """By the end of the job; a job that has not ended stays."""
    events_before: float = 0.0
    """Of jobs that have ended, and of nodes."""
    requests_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Restored:
    """Everything a starting controller needs."""

    jobs: list[Job]
    """Those that have not ended."""
    nodes: list[NodeRecord]
    owed: list[OwedEpilog]
    breakers: list[Breaker]
    requests: list[RequestRecord]
    """Oldest first."""
    last_job_id: int
    """The highest number ever given, also to a job that is forgotten."""
    last_cursor: int
    last_decision: int
    decisions: list[DecisionRecord]


class StoreError(CraneError):
    """The store cannot be read or written now; nothing is lost, the writer keeps trying."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message, retry_after_s=RETRY_S)
