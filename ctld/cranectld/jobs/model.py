"""A job as the controller holds it: frozen values, replaced by each event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName, StepId
from cranehooks.model.job import EqualShares, ExitStatus, JobSpec, NodeShare, StepSpec, TaskEnd, equal_shares
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookSettings


class JobState(Enum):
    PENDING = "pending"
    CONFIGURING = "configuring"
    RUNNING = "running"
    COMPLETING = "completing"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    NODE_FAIL = "node_fail"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES

    @property
    def is_waiting(self) -> bool:
        return self in (JobState.PENDING, JobState.HELD)

    @property
    def is_allocated(self) -> bool:
        """Whether an attempt is under way: nodes are held."""
        return self in (JobState.CONFIGURING, JobState.RUNNING, JobState.COMPLETING)


FINAL_STATES = frozenset(
    {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT, JobState.NODE_FAIL},
)


class EndKind(Enum):
    """Where an attempt goes when its after-hooks are done."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    NODE_FAIL = "node_fail"
    REQUEUE = "requeue"
    HOLD = "hold"
    """Back to the queue, held."""

    @property
    def comes_back(self) -> bool:
        return self in (EndKind.REQUEUE, EndKind.HOLD)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an attempt ends, decided once when it starts Completing (a cancel may still replace a requeue)."""

    kind: EndKind
    reason: str = ""
    exit: ExitStatus = field(default_factory=ExitStatus)


class HookProgress(Enum):
    """One of the attempt's controller hooks."""

    NOT_RUN = "not_run"
    RUNNING = "running"
    DONE = "done"


class NodeProgress(Enum):
    """The attempt on one node, as far as the controller knows."""

    ALLOCATED = "allocated"
    PREPARING = "preparing"
    """Prolog at allocation asked for."""
    READY = "ready"
    RELEASING = "releasing"
    """Asked to end everything and run its Epilog."""
    RELEASED = "released"
    LOST = "lost"
    """Down: it owes its Epilog, the attempt does not wait for it."""


class StepState(Enum):
    CONFIGURING = "configuring"
    RUNNING = "running"
    COMPLETING = "completing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the current attempt."""

    spec: StepSpec
    nodes: tuple[NodeName, ...]
    state: StepState = StepState.CONFIGURING
    sent: bool = False
    """Whether its nodes were told."""
    cancelled: bool = False
    """Whether it was asked to end."""
    is_cut_short: bool = False
    """Whether a node ended its part for a reason that is no task's."""
    started_nodes: frozenset[NodeName] = frozenset()
    ended_nodes: frozenset[NodeName] = frozenset()
    tasks: tuple[TaskEnd, ...] = ()
    usage: Mapping[NodeName, Usage] = field(default_factory=dict)
    """Of the nodes where it has ended, and where something of it ran."""
    exit: ExitStatus = field(default_factory=ExitStatus)
    reason: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def step_id(self) -> StepId:
        return self.spec.step_id


@dataclass(frozen=True, slots=True)
class Job:
    """All the controller knows of a job. Times are seconds since the epoch."""

    job_id: JobId
    spec: JobSpec
    submitted_at: float
    attempt: Attempt = Attempt(0)
    """0 before the first allocation."""
    state: JobState = JobState.PENDING
    reason: str = ""
    """Why it waits, is held, or ended."""
    hooks: HookSettings = field(default_factory=lambda: HookSettings(profile="crane-requeue"))
    """Of the current attempt: the configuration it was allocated under."""
    shares: tuple[NodeShare, ...] = ()
    """In order; the batch script runs on the first."""
    progress: Mapping[NodeName, NodeProgress] = field(default_factory=dict)
    ctld_prolog: HookProgress = HookProgress.NOT_RUN
    ctld_epilog: HookProgress = HookProgress.NOT_RUN
    steps: Mapping[StepId, Step] = field(default_factory=dict)
    next_step: int = 0
    ending: Ending | None = None
    requeue_count: int = 0
    """Towards MaxRequeueCount; starts anew when a held job is released."""
    not_before: float = 0.0
    allocated_at: float = 0.0
    started_at: float = 0.0
    """When it became Running in the current attempt; 0 before."""
    ended_at: float = 0.0
    exit: ExitStatus = field(default_factory=ExitStatus)
    usage: Mapping[NodeName, Usage] = field(default_factory=dict)
    """Of the current attempt, or the last one, on the nodes that it has left."""

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.job_id, self.attempt)

    @property
    def nodes(self) -> tuple[NodeName, ...]:
        return tuple(share.node for share in self.shares)

    @property
    def busy_nodes(self) -> tuple[NodeName, ...]:
        """Nodes that the attempt still holds."""
        if not self.state.is_allocated:
            return ()
        gone = (NodeProgress.RELEASED, NodeProgress.LOST)
        return tuple(node for node in self.nodes if self.progress.get(node) not in gone)

    @property
    def layout(self) -> tuple[EqualShares, ...]:
        """What the nodes hold, in their order."""
        return equal_shares(self.shares)

    @property
    def derived_exit(self) -> ExitStatus:
        """The highest, as wait(2) has it, of the numbered steps that have ended in this attempt."""
        ends = (step.exit for step in self.steps.values() if step.step_id.isdigit() and step.state is StepState.ENDED)
        return max(ends, key=lambda end: end.wait_status, default=ExitStatus())

    def share_of(self, node: NodeName) -> NodeShare:
        return next(share for share in self.shares if share.node == node)
