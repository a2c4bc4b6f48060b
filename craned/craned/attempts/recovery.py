"""What a restart means: the journal read back, and what must be done again, given up, or awaited (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from craned.attempts.attempt import AttemptState, ExternState, Phase, PrologState, StepPhase, advance
from craned.attempts.effects import (
    Effect,
    EndExtern,
    KillProcesses,
    ReportProlog,
    ReportReleased,
    ReportStepEnded,
    ReportStepStarted,
    ResumeEpilog,
    ResumeProlog,
    RunEpilog,
    RunProlog,
    StopProlog,
    TerminateStep,
)
from craned.attempts.events import EpilogEnded, Event, NodeRebooted, PrologEnded
from craned.attempts.records import (
    FORMAT,
    AttemptForgotten,
    AttemptSeen,
    Booted,
    EventHappened,
    RecordError,
    ReportQueued,
    ReportsAcknowledged,
    from_record,
)
from craned.attempts.reports import Report
from cranehooks.journal import Record
from cranehooks.model.ids import EXTERN_STEP, AttemptKey, StepId
from cranehooks.model.job import JobOnNode
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings

LOST = Outcome(OutcomeKind.LOST, detail="craned ended while it ran")


@dataclass(slots=True)
class Remembered:
    """One attempt as the journal has it."""

    job: JobOnNode
    hooks: HookSettings
    state: AttemptState


@dataclass(slots=True)
class Memory:
    """Everything the journal says."""

    boot_id: str = ""
    next_report_id: int = 1
    attempts: dict[AttemptKey, Remembered] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Records that make no sense, which damage elsewhere in the file explains."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """How an attempt goes on after a restart: `events` happen first, then `effects` are done (again)."""

    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    awaited_steps: tuple[StepId, ...] = ()
    """Their supervisors may live, and then dial in."""


def remember(records: Iterable[Record]) -> Memory:
    """Replays a journal.

    Raises:
        RecordError: the file is of another version of craned.
    """
    memory = Memory()
    for record in records:
        entry = from_record(record)
        match entry:
            case Booted():
                if entry.format != FORMAT:
                    message = f"the journal has format {entry.format}, this craned reads {FORMAT}"
                    raise RecordError(message)
                memory.boot_id = entry.boot_id
                memory.next_report_id = max(memory.next_report_id, entry.next_report_id)
            case AttemptSeen(job, hooks, state):
                memory.attempts[state.key] = Remembered(job, hooks, state)
            case EventHappened():
                _replay(memory, entry)
            case ReportQueued(report):
                _queue(memory, report)
            case ReportsAcknowledged(up_to):
                memory.reports = [report for report in memory.reports if report.report_id > up_to]
            case AttemptForgotten(key):
                memory.attempts.pop(key, None)
    return memory


def _replay(memory: Memory, entry: EventHappened) -> None:
    known = memory.attempts.get(entry.key)
    if known is None:
        memory.problems.append(f"{type(entry.event).__name__} of attempt {entry.key}, which was never seen")
        return
    known.state, effects = advance(known.state, entry.event)
    told = [
        effect for effect in effects if isinstance(effect, ReportProlog | ReportStepStarted | ReportStepEnded | ReportReleased)
    ]
    if len(told) != len(entry.report_ids):
        memory.problems.append(
            f"{type(entry.event).__name__} of attempt {entry.key} made {len(told)} reports, {len(entry.report_ids)} are noted"
        )
    for report_id, content in zip(entry.report_ids, told, strict=False):
        _queue(memory, Report(report_id, entry.at, entry.key, content))


def _queue(memory: Memory, report: Report) -> None:
    memory.reports.append(report)
    memory.next_report_id = max(memory.next_report_id, report.report_id + 1)


def continuation(state: AttemptState, user: str, at: float, *, has_rebooted: bool) -> Continuation:
    """How the attempt goes on.

    A hook that had started and whose end nobody saw is lost: it is not run again in this boot. One that runs in the extern step may live on
    with it, and is awaited. One that only waited for its turn runs now. After a reboot no process is left, an Epilog is owed again, and a Prolog's preparations are gone.
    """
    events: list[Event] = []
    may_live = state.runs_in_job and state.extern.is_alive and not has_rebooted
    if state.prolog is PrologState.RUNNING and not may_live:
        lost = _unseen(state, HookPoint.PROLOG, user, at, LOST)
        events.append(PrologEnded(lost, f"Prolog lost: {LOST.detail}"))
    elif state.prolog is PrologState.QUEUED and state.phase is not Phase.HELD:
        events.append(PrologEnded(_unseen(state, HookPoint.PROLOG, user, at, Outcome(OutcomeKind.STOPPED)), "stopped"))
    if has_rebooted:
        events.append(NodeRebooted())
    elif state.phase is Phase.EPILOG_RUNNING and not may_live:
        events.append(EpilogEnded(_unseen(state, HookPoint.EPILOG, user, at, LOST)))
    effects: list[Effect] = []
    after = state
    for event in events:
        after, _ = advance(after, event)
    if state.phase is Phase.HELD and state.prolog is PrologState.QUEUED:
        effects.append(RunProlog())
    if after.prolog is PrologState.RUNNING:
        effects.append(ResumeProlog())
        if after.phase is not Phase.HELD and not after.awaits_prolog:
            effects.append(StopProlog())
    # What the events themselves lead to is done as their effect; what was under way before them is done again here.
    if state.phase is Phase.CLEANING or (state.phase is Phase.CLOSING and not state.extern.is_alive):
        effects.append(KillProcesses())
    if state.extern is ExternState.ENDING and after.extern is ExternState.ENDING:
        effects.append(EndExtern(after.reason or "the job is over"))
    if after.phase is Phase.EPILOG_RUNNING:
        effects.append(ResumeEpilog(after.unkillable))
    if after.phase is Phase.EPILOG_QUEUED:
        effects.append(RunEpilog(after.exit, after.reason, after.unkillable, after.derived_exit))
    alive = [step for step in after.steps if step.phase is not StepPhase.WAITING]
    effects += (TerminateStep(step.spec.step_id, step.reason) for step in alive if step.is_terminating)
    awaited = [step.spec.step_id for step in alive]
    # What a reboot starts anew has not begun.
    if after.extern.is_alive and not has_rebooted and state.extern.is_alive:
        awaited.append(EXTERN_STEP)
    return Continuation(tuple(events), tuple(effects), tuple(awaited))


def _unseen(state: AttemptState, point: HookPoint, user: str, at: float, outcome: Outcome) -> HookRun:
    return HookRun(HookKey(point, state.key.job_id, state.key.attempt, state.node), user, at, 0.0, outcome)


def tombstone(remembered: Remembered) -> Remembered:
    """What is kept of a released attempt: enough to repeat its report, without the job's script and environment."""
    spec = replace(remembered.job.spec, environment={}, script="")
    return Remembered(replace(remembered.job, spec=spec), remembered.hooks, remembered.state)
