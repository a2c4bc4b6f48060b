"""What happens to a job (events, in) and what it asks for (effects, out)."""

from dataclasses import dataclass, field
from enum import Enum

from cranectld.jobs.model import EndKind
from cranehooks.model.ids import Attempt, NodeName, StepId
from cranehooks.model.job import ExitStatus, NodeShare, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, HookSettings


@dataclass(frozen=True, slots=True)
class Allocated:
    """Nodes were given. `hooks` is the configuration of this moment: the attempt keeps it."""

    at: float
    shares: tuple[NodeShare, ...]
    hooks: HookSettings
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class CtldHookEnded:
    """A hook of the controller's ended. `undrained`: nodes that the drain budget of `over_budget`, the failed script, leaves in service."""

    at: float
    attempt: Attempt
    run: HookRun
    undrained: frozenset[NodeName] = frozenset()
    over_budget: str = ""


@dataclass(frozen=True, slots=True)
class PrologEnded:
    """A node's Prolog ended. `over_budget` names the script whose drain budget is used up: then nothing is drained for it."""

    at: float
    attempt: Attempt
    node: NodeName
    run: HookRun
    over_budget: str = ""


@dataclass(frozen=True, slots=True)
class TaskHookEnded:
    """A hook around a task ended. What it means for the task is decided by the task's supervisor, for the node here."""

    at: float
    attempt: Attempt
    node: NodeName
    run: HookRun
    over_budget: str = ""


@dataclass(frozen=True, slots=True)
class StepRequested:
    """A step was asked for, already placed."""

    at: float
    spec: StepSpec
    nodes: tuple[NodeName, ...]


@dataclass(frozen=True, slots=True)
class StepSendRequested:
    at: float
    attempt: Attempt
    step_id: StepId


@dataclass(frozen=True, slots=True)
class StepCancelRequested:
    at: float
    attempt: Attempt
    step_id: StepId
    reason: str
    failed: bool = False
    """A step that was never sent: its launcher's hook failed it."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    at: float
    attempt: Attempt
    node: NodeName
    step_id: StepId


@dataclass(frozen=True, slots=True)
class StepEnded:
    at: float
    attempt: Attempt
    node: NodeName
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class NodeReleased:
    """A node's part is over: its processes are gone and its Epilog, if it has one, has ended."""

    at: float
    attempt: Attempt
    node: NodeName
    epilog: HookRun | None
    over_budget: str = ""
    usage: Usage | None = None
    """Of the job there; None when nothing of it ran."""


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The node is Down."""

    at: float
    node: NodeName


@dataclass(frozen=True, slots=True)
class CompletionRequested:
    """The owner of an interactive job, or its scheduler, is done with the allocation."""

    at: float
    exit: ExitStatus = field(default_factory=ExitStatus)
    reason: str = ""
    """Why it ends so, where the exit status does not say it."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class TimeLimitReached:
    at: float
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class HoldRequested:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class HoldReleased:
    at: float
    by: str


Event = (
    Allocated
    | CtldHookEnded
    | PrologEnded
    | TaskHookEnded
    | StepRequested
    | StepSendRequested
    | StepCancelRequested
    | StepStarted
    | StepEnded
    | NodeReleased
    | NodeLost
    | CompletionRequested
    | CancelRequested
    | TimeLimitReached
    | HoldRequested
    | HoldReleased
)


@dataclass(frozen=True, slots=True)
class RunCtldHook:
    point: HookPoint


@dataclass(frozen=True, slots=True)
class StopCtldHook:
    point: HookPoint


@dataclass(frozen=True, slots=True)
class PrepareNode:
    """Run the Prolog there now."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class SendStep:
    node: NodeName
    step_id: StepId


@dataclass(frozen=True, slots=True)
class TerminateStep:
    node: NodeName
    step_id: StepId
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseNode:
    node: NodeName
    exit: ExitStatus
    reason: str


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Always before anything that could bring the job back to that node."""

    node: NodeName
    reason: str


@dataclass(frozen=True, slots=True)
class FreeNode:
    """Its resources may be given to others."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class OweEpilog:
    """The node went Down with the attempt's Epilog undone."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class StartTimeLimit:
    after_s: float


@dataclass(frozen=True, slots=True)
class StopTimeLimit:
    pass


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the job's history."""

    kind: str
    text: str
    node: NodeName | None = None


class DecisionKind(Enum):
    """What a scheduler is told."""

    SUBMITTED = "submitted"
    RUN = "run"
    REQUEUE = "requeue"
    HOLD = "hold"
    CANCEL = "cancel"
    FAIL = "fail"
    RELEASED = "released"
    STEP_ENDED = "step_ended"
    NODE_FREE = "node_free"
    END = "end"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Decide:
    kind: DecisionKind
    reason: str = ""
    step_id: StepId | None = None
    node: NodeName | None = None


Effect = (
    RunCtldHook
    | StopCtldHook
    | PrepareNode
    | SendStep
    | TerminateStep
    | ReleaseNode
    | DrainNode
    | FreeNode
    | OweEpilog
    | StartTimeLimit
    | StopTimeLimit
    | Record
    | Decide
)


class InvalidTransitionError(Exception):
    """An event that the job's state does not allow; the caller turns it into a refusal."""

    def __init__(self, state: str, event: object, expected: str) -> None:
        super().__init__(f"{type(event).__name__} while {state}: expected {expected}")
        self.state = state
        self.expected = expected


END_DECISIONS = {
    EndKind.COMPLETED: DecisionKind.END,
    EndKind.FAILED: DecisionKind.END,
    EndKind.TIMED_OUT: DecisionKind.END,
    EndKind.CANCELLED: DecisionKind.CANCEL,
    EndKind.NODE_FAIL: DecisionKind.FAIL,
    EndKind.REQUEUE: DecisionKind.REQUEUE,
    EndKind.HOLD: DecisionKind.HOLD,
}
