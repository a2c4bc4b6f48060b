"""What is to be done for an attempt on its node: what comes out of `attempt.advance`."""

from dataclasses import dataclass

from cranehooks.model.ids import StepId
from cranehooks.model.job import ExitStatus, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun


@dataclass(frozen=True, slots=True)
class RunProlog:
    """When its turn comes; answered by PrologStarted and PrologEnded."""


@dataclass(frozen=True, slots=True)
class ResumeProlog:
    """It runs in the extern step, which has outlived a restart of this daemon; answered by PrologEnded."""


@dataclass(frozen=True, slots=True)
class ResumeEpilog:
    """As ResumeProlog; answered by EpilogEnded."""

    unkillable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StartExtern:
    """The job's extern step on this node; answered by TasksStarted and StepEnded of `EXTERN_STEP`."""


@dataclass(frozen=True, slots=True)
class EndExtern:
    """What runs in it is stopped; StepEnded still comes."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopProlog:
    """Running or queued; PrologEnded still comes."""


@dataclass(frozen=True, slots=True)
class StartSupervisor:
    """Answered by TasksStarted and StepEnded."""

    step: StepSpec


@dataclass(frozen=True, slots=True)
class SignalStep:
    step_id: StepId
    signal: int


@dataclass(frozen=True, slots=True)
class TerminateStep:
    """TERM, grace, KILL; StepEnded still comes."""

    step_id: StepId
    reason: str


@dataclass(frozen=True, slots=True)
class KillProcesses:
    """Whatever is left of the job; answered by ProcessesGone."""


@dataclass(frozen=True, slots=True)
class RunEpilog:
    """When its turn comes; answered by EpilogStarted and EpilogEnded."""

    exit: ExitStatus
    reason: str
    unkillable: tuple[str, ...] = ()
    derived_exit: ExitStatus = ExitStatus()


@dataclass(frozen=True, slots=True)
class ReportProlog:
    run: HookRun


@dataclass(frozen=True, slots=True)
class ReportStepStarted:
    step_id: StepId


@dataclass(frozen=True, slots=True)
class ReportStepEnded:
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ReportReleased:
    epilog: HookRun | None
    usage: Usage | None = None


ReportEffect = ReportProlog | ReportStepStarted | ReportStepEnded | ReportReleased
Effect = (
    RunProlog
    | ResumeProlog
    | StopProlog
    | StartExtern
    | EndExtern
    | StartSupervisor
    | SignalStep
    | TerminateStep
    | KillProcesses
    | RunEpilog
    | ResumeEpilog
    | ReportEffect
)
