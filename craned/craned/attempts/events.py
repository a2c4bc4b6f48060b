"""What happens to an attempt on its node: what `attempt.advance` is fed with, and what the journal keeps."""

from dataclasses import dataclass

from cranehooks.model.ids import StepId
from cranehooks.model.job import ExitStatus, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun


@dataclass(frozen=True, slots=True)
class PrepareRequested:
    """The Prolog is wanted now."""


@dataclass(frozen=True, slots=True)
class StepRequested:
    step: StepSpec


@dataclass(frozen=True, slots=True)
class SignalRequested:
    """For all tasks of a step; with `terminate` it is to end."""

    step_id: StepId
    signal: int = 0
    terminate: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PrologStarted:
    """The intent: its turn has come, the first script runs next."""


@dataclass(frozen=True, slots=True)
class PrologEnded:
    run: HookRun
    failure: str = ""
    """For a person, when the outcome is not ok."""


@dataclass(frozen=True, slots=True)
class TasksStarted:
    step_id: StepId


@dataclass(frozen=True, slots=True)
class StepEnded:
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str = ""
    usage: Usage | None = None
    """None: nothing of it ran."""


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    exit: ExitStatus = ExitStatus()
    reason: str = ""
    derived_exit: ExitStatus = ExitStatus()
    """The highest of the job's numbered steps."""


@dataclass(frozen=True, slots=True)
class ProcessesGone:
    """Everything of the job on this node has ended, or would not."""

    unkillable: tuple[str, ...] = ()
    usage: Usage | None = None
    """Of the whole job here, as far as its cell tells."""


@dataclass(frozen=True, slots=True)
class EpilogStarted:
    """The intent."""


@dataclass(frozen=True, slots=True)
class EpilogEnded:
    run: HookRun | None
    """None: there is no Epilog."""


@dataclass(frozen=True, slots=True)
class NodeRebooted:
    """Every process of the attempt is gone, and so is what its Prolog had prepared."""


Event = (
    PrepareRequested
    | StepRequested
    | SignalRequested
    | PrologStarted
    | PrologEnded
    | TasksStarted
    | StepEnded
    | ReleaseRequested
    | ProcessesGone
    | EpilogStarted
    | EpilogEnded
    | NodeRebooted
)
