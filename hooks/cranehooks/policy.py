"""What the outcome of a hook run means: for the node, the job, the step or the task. Decides by profile, does nothing."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from cranehooks.model.job import ExitStatus, JobKind
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, HookSettings
from cranehooks.profiles import EpilogFailure, JobAction, JobFailure, Profile, PrologFlag, StepAction, TaskAction, effective

__all__ = [
    "JobAction",
    "RequeuePolicy",
    "StepAction",
    "TaskAction",
    "Verdict",
    "decide",
    "decide_outcome",
    "drain_reason",
    "lost_node_action",
    "printable",
    "task_exit",
]

DRAIN_REASON_LIMIT = 256
"""Characters of a drain reason."""
_SCRIPT_NAME_LIMIT = 80
_FIRST_LINE = re.compile(r"[^\r\n]*")
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from one run. The parts are independent: a drained node does not by itself end a job."""

    drain: bool = False
    """The node where it ran takes no further work; after a controller's hook, no node of the attempt."""
    reason: str = ""
    """Of the drain."""
    job: JobAction = JobAction.CONTINUE
    step: StepAction = StepAction.CONTINUE
    task: TaskAction = TaskAction.CONTINUE
    failed: bool = False
    """Whether the run failed by itself; a stopped one did not."""

    @property
    def log_only(self) -> bool:
        """The failure is told and changes nothing."""
        return (
            self.failed
            and not self.drain
            and self.job is JobAction.CONTINUE
            and self.step is StepAction.CONTINUE
            and self.task is TaskAction.CONTINUE
        )


_NOTHING = Verdict()
_STOPPED = {
    HookPoint.TASK_PROLOG: Verdict(task=TaskAction.CANCEL),
    HookPoint.STEP_TASK_PROLOG: Verdict(task=TaskAction.CANCEL),
    HookPoint.CRUN_PROLOG: Verdict(step=StepAction.CANCEL),
}
"""What was to start after a stopped hook does not start."""


def decide(run: HookRun, kind: JobKind, *, requeue_allowed: bool, hooks: HookSettings, user_unknown: bool = False) -> Verdict:
    """What a run means, by the settings its job keeps.

    Args:
        run: The record of the run.
        kind: How the job was asked for.
        requeue_allowed: False for jobs submitted with --no-requeue.
        hooks: The job's settings.
        user_unknown: As for `decide_outcome`.
    """
    verdict = decide_outcome(
        run.key.point,
        run.outcome,
        kind=kind,
        requeue_allowed=requeue_allowed,
        profile=effective(hooks),
        flags=hooks.flags,
        user_unknown=user_unknown,
    )
    return replace(verdict, reason=drain_reason(run)) if verdict.drain else verdict


def decide_outcome(
    point: HookPoint,
    outcome: Outcome,
    *,
    kind: JobKind,
    requeue_allowed: bool,
    profile: Profile,
    flags: Collection[str] = (),
    hold_on_prolog_fail: bool | None = None,
    user_unknown: bool = False,
) -> Verdict:
    """What the outcome of a run at `point` means; `decide` adds the words.

    A run that was stopped says nothing about node or job, but its task or step must not start: `job` stays CONTINUE because whoever
    stopped the run has decided about the job already.

    Args:
        point: Where it ran.
        outcome: Of the whole run.
        kind: How the job was asked for.
        requeue_allowed: False for jobs submitted with --no-requeue.
        profile: The job's.
        flags: PrologFlags in their canonical spelling.
        hold_on_prolog_fail: The setting of that name; None: the profile's.
        user_unknown: The run could not start because the node does not know the job's user. That is the job's failure and not the
            node's: draining one node after the other would not make the user known.
    """
    if outcome.ok:
        return _NOTHING
    if outcome.kind is OutcomeKind.STOPPED:
        return _STOPPED.get(point, _NOTHING)
    match point:
        case HookPoint.PROLOG:
            if user_unknown:
                return Verdict(job=JobAction.FAIL, failed=True)
            if outcome.kind is OutcomeKind.UNREACHABLE:
                return Verdict(job=lost_node_action(kind, requeue_allowed=requeue_allowed), failed=True)
            force = PrologFlag.FORCE_REQUEUE_ON_FAIL.value in flags
            action = _job_action(profile.prolog_failure, kind, requeue_allowed=requeue_allowed or force)
            hold = profile.hold_on_prolog_fail if hold_on_prolog_fail is None else hold_on_prolog_fail
            return Verdict(
                drain=True, job=JobAction.REQUEUE_HELD if action is JobAction.REQUEUE and hold else action, failed=True
            )
        case HookPoint.CRANECTLD_PROLOG:
            return Verdict(job=_job_action(profile.cranectld_prolog_failure, kind, requeue_allowed=requeue_allowed), failed=True)
        case HookPoint.TASK_PROLOG | HookPoint.STEP_TASK_PROLOG:
            return Verdict(drain=_survives(outcome), task=profile.task_prolog_failure, failed=True)
        case HookPoint.CRUN_PROLOG:
            return Verdict(step=profile.crun_prolog_failure, failed=True)
        case HookPoint.EPILOG:
            # Of a node that does not answer nothing is known: it goes Down after a while, and owes the Epilog.
            drains = outcome.kind is not OutcomeKind.UNREACHABLE and not user_unknown
            return Verdict(drain=drains and (profile.epilog_failure is EpilogFailure.DRAIN or _is_unclean(outcome)), failed=True)
        case HookPoint.TASK_EPILOG:
            return Verdict(drain=profile.task_epilog_failure is EpilogFailure.DRAIN or _survives(outcome), failed=True)
        case HookPoint.STEP_TASK_EPILOG:
            # A user's own script: what it says of the node is not believed.
            return Verdict(drain=_survives(outcome), failed=True)
        case HookPoint.CRUN_EPILOG:
            return Verdict(step=profile.crun_epilog_failure, failed=True)
        case HookPoint.CRANECTLD_EPILOG:
            return Verdict(drain=profile.cranectld_epilog_failure is EpilogFailure.DRAIN, failed=True)


def lost_node_action(kind: JobKind, *, requeue_allowed: bool) -> JobAction:
    """What happens to a job whose node went Down, in every profile: nobody's script failed."""
    return JobAction.CANCEL if kind.is_interactive or not requeue_allowed else JobAction.REQUEUE


def task_exit(action: TaskAction, outcome: Outcome) -> ExitStatus:
    """The exit status of a task that its before-hook kept from starting."""
    if action is TaskAction.EXIT_AS_HOOK and outcome.kind is OutcomeKind.EXIT:
        return ExitStatus(code=outcome.code)
    return ExitStatus(code=1)


@dataclass(frozen=True, slots=True)
class RequeuePolicy:
    """How often a job is requeued before it is held, and after which delay it may start again."""

    base_s: float = 5.0
    """Delay of the first retry; doubled with every further one."""
    cap_s: float = 600.0
    max_count: int = 5
    """MaxRequeueCount."""

    def delay_s(self, count: int) -> float:
        """The delay of the `count`-th requeue, counted from 1."""
        # The exponent is bounded, so that no count overflows a float.
        return min(self.cap_s, self.base_s * 2.0 ** min(max(count - 1, 0), 64))

    def is_exhausted(self, requeue_count: int) -> bool:
        """Whether a job requeued so often before is held in place of a further requeue."""
        return requeue_count >= self.max_count


def drain_reason(run: HookRun) -> str:
    """Why the run drained its node: `prolog 20-gpu.sh exit 3 (job 42, attempt 1): no GPU found`.

    At most 256 printable characters in one line.
    """
    script = run.failed_script
    words = [run.key.point.name.lower().removeprefix("step_").replace("_", " ")]
    if script is not None:
        words.append(_shortened(printable(script.name), _SCRIPT_NAME_LIMIT))
    outcome = run.outcome if script is None else script.outcome
    words.append(f"{outcome} (job {run.key.job_id}, attempt {run.key.attempt})")
    reason = " ".join(words)
    # What we know of the end says more than what the script said last.
    told = printable(_first_line(outcome.detail)) or printable(script.last_line if script is not None else "")
    return _shortened(f"{reason}: {told}" if told else reason, DRAIN_REASON_LIMIT)


def printable(text: str) -> str:
    """The text without escape sequences and control characters, runs of blanks as one, for a single line."""
    plain = _ESCAPE_SEQUENCE.sub("", text)
    return " ".join("".join(character if character.isprintable() else " " for character in plain).split())


def _first_line(text: str) -> str:
    found = _FIRST_LINE.match(text)
    return found.group() if found else ""


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _job_action(failure: JobFailure, kind: JobKind, *, requeue_allowed: bool) -> JobAction:
    if kind.is_interactive:
        return failure.interactive
    return failure.batch if requeue_allowed else failure.batch_no_requeue


def _is_unclean(outcome: Outcome) -> bool:
    """Whether nobody knows that the node is clean: such an Epilog drains whatever the site says."""
    return _survives(outcome) or outcome.kind is OutcomeKind.LOST


def _survives(outcome: Outcome) -> bool:
    """Whether something of the run is still there, so that the node is not clean."""
    return outcome.kind is OutcomeKind.UNKILLABLE
