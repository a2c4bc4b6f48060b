"""What the controller needs of the outside, declared by it: nodes, its own hooks, a clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cranectld.jobs.model import Job
from cranehooks.model.ids import AttemptKey, NodeName, StepId
from cranehooks.model.job import ExitStatus, JobOnNode, StepSpec
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun


@dataclass(frozen=True, slots=True)
class PrepareJobCommand:
    job: JobOnNode


@dataclass(frozen=True, slots=True)
class RunStepCommand:
    job: JobOnNode
    step: StepSpec


@dataclass(frozen=True, slots=True)
class SignalTasksCommand:
    """`terminate`: TERM, a grace, KILL; else just `signal`."""

    key: AttemptKey
    step_id: StepId
    signal: int = 0
    terminate: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseJobCommand:
    job: JobOnNode
    exit: ExitStatus
    reason: str
    derived_exit: ExitStatus = ExitStatus()
    """The highest of its numbered steps so far."""


NodeCommand = PrepareJobCommand | RunStepCommand | SignalTasksCommand | ReleaseJobCommand


class NodeLinks(Protocol):
    """Delivers commands to nodes, in order per node, repeating until acknowledged while the node is Up."""

    def send(self, node: NodeName, command: NodeCommand) -> None:
        """Queues a command; returns at once. What a node refuses for good comes back by `CommandRefused`."""

    def connect(self, node: NodeName, address: str, commands: Sequence[NodeCommand]) -> None:
        """The node registered: what was queued for it is replaced by `commands`."""

    def disconnect(self, node: NodeName) -> None:
        """The node is Down: what was queued is dropped (registration brings what is still owed)."""


class CtldHooks(Protocol):
    """Runs the controller's own hooks."""

    async def run(self, job: Job, on_node: JobOnNode, point: HookPoint) -> HookRun:
        """One run to its end. Cancelling the caller stops the run."""

    async def stop(self, key: AttemptKey, point: HookPoint) -> None:
        """Stops a run if it goes on: its outcome is then STOPPED."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, for stamps."""

    def monotonic(self) -> float:
        """For measuring spans."""
