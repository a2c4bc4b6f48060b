"""Who decides where a job runs: one port, an embedded FIFO scheduler behind it, and an external one that talks gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cranectld.jobs.events import DecisionKind
from cranectld.jobs.model import Job
from cranectld.nodes.model import Node
from cranehooks.model.ids import JobId
from cranehooks.model.job import NodeShare


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller decided about a job or a node, as its scheduler hears it."""

    cursor: int
    at: float
    kind: DecisionKind
    job: Job | None = None
    node: Node | None = None
    reason: str = ""
    step_id: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes for a job, now."""

    job_id: JobId
    shares: tuple[NodeShare, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pending job is not placed, for a person."""

    job_id: JobId
    reason: str


class Scheduling(Protocol):
    """A scheduler, as the controller uses it."""

    @property
    def accepts_submissions(self) -> bool:
        """Whether a job that comes by cbatch, crun or calloc will be placed."""

    def place(self, pending: Sequence[Job], nodes: Sequence[Node], at: float) -> list[Placement | Waiting]:
        """Which pending jobs start now, and why others wait; those it says nothing of wait behind earlier ones.

        Called whenever a job or a node changed. No effect.
        """
