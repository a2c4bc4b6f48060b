"""The profiles as data: which of the systems this stands in for decides order, timeouts, flags and what a failure means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any

from cranehooks.model.run import HookSettings


class ScriptOrder(Enum):
    """In which order the scripts of one hook run."""

    REVERSE_LIST = "reverse byte order of the whole list (z to a, Z to A, 9 to 0)"
    REVERSE_WITHIN_PATTERN = "reverse byte order within each pattern, patterns in the order given"
    ASCENDING = "ascending byte order of the whole list, as run-parts"


class EmptyPattern(Enum):
    """What a pattern that matches no file means."""

    NO_HOOK = "no hook"
    FAILS = "the hook fails"


class DirectoryEntry(Enum):
    """What a directory means that an entry names, or that an entry's pattern matches."""

    NO_SCRIPT = "as an entry: the hook fails; in a pattern: passed over"
    FAILS = "the hook fails when it comes to it"
    RUN_PARTS = "as an entry: its files, as run-parts takes them, and *.sh; in a pattern: passed over"


class CancelDuringProlog(Enum):
    """What a cancel does to a Prolog that runs."""

    STOPS = "the Prolog is stopped"
    AWAITS = "the Prolog runs to its end"


class BatchStart(Enum):
    """When a batch script may start under `Alloc` and the flags that imply it."""

    OWN_PROLOG = "after the Prolog of its own node, with DeferBatch after those of all nodes"
    ALL_PROLOGS = "after the Prologs of all nodes"


class EpilogFailure(Enum):
    """What a failing after-hook on a node does to the node. The job's result stays in any case."""

    DRAIN = "drain"
    LOG = "logged"


class TaskEpilogView(Enum):
    """Which environment TaskEpilog and --task-epilog have."""

    TASK = "the task's, with what TaskProlog exported"
    STEP = "the task's, as it was before TaskProlog"


class TaskEpilogOutput(Enum):
    """What becomes of the words of TaskEpilog and --task-epilog."""

    KEPT = "kept with the job"
    SHOWN = "kept with the job; stderr also in that of the node's first task"


class TimeoutCover(Enum):
    """What one timeout bounds."""

    LIST = "the whole list"
    SCRIPT = "each script"


class SharedTimeout(Enum):
    """How PrologEpilogTimeout stands to PrologTimeout and EpilogTimeout."""

    OVERRIDES = "overrides both"
    DEFAULT = "default of both"


class PrologFlag(StrEnum):
    """The words of PrologFlags, in their canonical spelling."""

    ALLOC = "Alloc"
    CONTAIN = "Contain"
    DEFER_BATCH = "DeferBatch"
    FORCE_REQUEUE_ON_FAIL = "ForceRequeueOnFail"
    NO_HOLD = "NoHold"
    RUN_IN_JOB = "RunInJob"
    SERIAL = "Serial"
    X11 = "X11"


class JobAction(Enum):
    """What happens to a job because of one hook run."""

    CONTINUE = "continue"
    """The run changes nothing for the job."""
    REQUEUE = "requeue"
    """Pending again; counted and delayed by `policy.RequeuePolicy`."""
    REQUEUE_HELD = "requeue held"
    """Pending again, and held until it is released."""
    CANCEL = "cancel"
    FAIL = "fail"


class StepAction(Enum):
    """What happens to a step because of its CrunProlog: it is never sent to a node unless it continues. And what CrunEpilog does."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    FAIL = "fail"
    """crun reports a failure; after CrunProlog nothing was sent."""


class TaskAction(Enum):
    """What happens to a task because of a hook of its own. The task never starts unless it continues."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    FAIL = "fail"
    EXIT_AS_HOOK = "exit as the hook"
    """The task ends with the hook's own exit code, or 1 where it has none."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """What the failure of a before-hook does to a job, by how the job was asked for."""

    batch: JobAction
    batch_no_requeue: JobAction
    """Batch jobs submitted with --no-requeue; ForceRequeueOnFail treats them as the others when the Prolog fails."""
    interactive: JobAction


@dataclass(frozen=True, slots=True)
class Profile:
    """One column of the table of profiles. `docs/reference/profiles.md` is generated from it."""

    name: str
    summary: str
    source: str
    """Whose behaviour it is."""
    prolog_failure: JobFailure
    """Besides draining the node."""
    hold_on_prolog_fail: bool
    """Whether a requeue after a failing Prolog is held; the setting HoldOnPrologFail overrides it."""
    cranectld_prolog_failure: JobFailure
    task_prolog_failure: TaskAction
    crun_prolog_failure: StepAction
    order: ScriptOrder
    timeout_cover: TimeoutCover
    shared_timeout: SharedTimeout
    default_timeout_s: float
    timeouts_cover_task_hooks: bool
    """Whether PrologTimeout and EpilogTimeout bound the task hooks too; otherwise `default_timeout_s` does, always."""
    empty_pattern: EmptyPattern
    flags: frozenset[PrologFlag]
    """Words that PrologFlags may name."""
    directory_entry: DirectoryEntry = DirectoryEntry.NO_SCRIPT
    cancel_during_prolog: CancelDuringProlog = CancelDuringProlog.STOPS
    batch_start: BatchStart = BatchStart.ALL_PROLOGS
    epilog_failure: EpilogFailure = EpilogFailure.DRAIN
    task_epilog_failure: EpilogFailure = EpilogFailure.LOG
    cranectld_epilog_failure: EpilogFailure = EpilogFailure.LOG
    """What it does to all nodes of the attempt."""
    crun_epilog_failure: StepAction = StepAction.CONTINUE
    """What it does to crun's exit code; the step has ended."""
    task_epilog_view: TaskEpilogView = TaskEpilogView.TASK
    task_epilog_output: TaskEpilogOutput = TaskEpilogOutput.KEPT
    slurm_environment: bool = False
    """Whether hooks and tasks always get the SLURM_* twins of their variables."""
    notes: tuple[str, ...] = ()
    """Where it departs from the system it stands in for, and why."""


IMPLIED_FLAGS: dict[PrologFlag, frozenset[PrologFlag]] = {
    PrologFlag.CONTAIN: frozenset({PrologFlag.ALLOC}),
    PrologFlag.DEFER_BATCH: frozenset({PrologFlag.ALLOC}),
    PrologFlag.FORCE_REQUEUE_ON_FAIL: frozenset({PrologFlag.ALLOC}),
    PrologFlag.NO_HOLD: frozenset({PrologFlag.ALLOC}),
    PrologFlag.RUN_IN_JOB: frozenset({PrologFlag.ALLOC, PrologFlag.CONTAIN}),
    PrologFlag.X11: frozenset({PrologFlag.ALLOC, PrologFlag.CONTAIN}),
}
"""What a flag brings with it, complete: the implications of implied flags are listed."""

FLAG_EFFECTS: dict[PrologFlag, str] = {
    PrologFlag.ALLOC: "Prolog runs at allocation, on every node of the job; the job waits for it",
    PrologFlag.CONTAIN: "each node of the job has an extern step from its allocation on, and Prolog runs in the job's cgroup",
    PrologFlag.DEFER_BATCH: "the batch script starts when the slowest node's Prolog has ended",
    PrologFlag.FORCE_REQUEUE_ON_FAIL: "a failing Prolog requeues --no-requeue jobs too",
    PrologFlag.NO_HOLD: "the job is Running at allocation; the first step on a node waits for its Prolog",
    PrologFlag.RUN_IN_JOB: "the supervisor of the extern step runs Prolog and Epilog, in the job's cgroup",
    PrologFlag.SERIAL: "Prologs and Epilogs of all jobs take turns on a node; waiting does not count as their time",
    PrologFlag.X11: "stands for what it implies alone: nothing is forwarded",
}
"""What each does, for a person."""

INCOMPATIBLE_FLAGS: tuple[tuple[PrologFlag, PrologFlag, str], ...] = (
    (PrologFlag.NO_HOLD, PrologFlag.CONTAIN, "Contain waits for the Prolog at allocation, NoHold does not"),
    (PrologFlag.NO_HOLD, PrologFlag.X11, "X11 needs the Prolog before the first step, NoHold does not wait for it"),
    (PrologFlag.RUN_IN_JOB, PrologFlag.SERIAL, "hooks inside their jobs cannot take turns on the node"),
)


def with_implied(flags: frozenset[PrologFlag]) -> frozenset[PrologFlag]:
    """The flags and everything they imply."""
    return flags.union(*(IMPLIED_FLAGS.get(flag, frozenset()) for flag in flags))


_REQUEUE = JobFailure(JobAction.REQUEUE, JobAction.CANCEL, JobAction.CANCEL)
_CANCEL = JobFailure(JobAction.CANCEL, JobAction.CANCEL, JobAction.CANCEL)
_FAIL = JobFailure(JobAction.FAIL, JobAction.FAIL, JobAction.FAIL)

DEFAULT_PROFILE = "crane-requeue"

_SLURM = Profile(
    name="slurm",
    summary="What Slurm does, without its defects.",
    source="Slurm's slurm.conf and Prolog and Epilog Guide",
    prolog_failure=_REQUEUE,
    hold_on_prolog_fail=True,
    cranectld_prolog_failure=_REQUEUE,
    task_prolog_failure=TaskAction.EXIT_AS_HOOK,
    crun_prolog_failure=StepAction.CANCEL,
    order=ScriptOrder.REVERSE_WITHIN_PATTERN,
    timeout_cover=TimeoutCover.SCRIPT,
    shared_timeout=SharedTimeout.DEFAULT,
    default_timeout_s=300.0,
    timeouts_cover_task_hooks=False,
    empty_pattern=EmptyPattern.FAILS,
    flags=frozenset(PrologFlag),
    directory_entry=DirectoryEntry.FAILS,
    cancel_during_prolog=CancelDuringProlog.AWAITS,
    batch_start=BatchStart.OWN_PROLOG,
    task_epilog_view=TaskEpilogView.STEP,
    task_epilog_output=TaskEpilogOutput.SHOWN,
    slurm_environment=True,
    notes=(
        "Slurm has no timeout unless one is set, and a hook that hangs keeps its job completing for ever: here 300 s apply.",
        "Slurm does not bound TaskProlog and TaskEpilog; here 300 s apply to them, whatever the timeouts of the other hooks are.",
        "Slurm drains a node whose Prolog timed out only if the script's exit status says so; here a timeout is always a failure.",
        "A job requeued by a failing controller Prolog is counted, delayed and held after MaxRequeueCount; Slurm requeues it for ever.",
        "A controller hook killed by a signal, or that cannot be started, failed; Slurm takes it for a success.",
        "A cancelled job stays cancelled when its Prolog fails later; Slurm may requeue it.",
        "The node is drained before the job is requeued; in Slurm the retry can land on it in between.",
        "Waiting for Serial has a bound of its own and does not count as the script's time.",
    ),
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="crane-requeue",
            summary="Crane's original promise: a failing Prolog requeues the batch job elsewhere.",
            source="CraneSched's Prolog/Epilog guide, first edition",
            prolog_failure=_REQUEUE,
            hold_on_prolog_fail=False,
            cranectld_prolog_failure=_REQUEUE,
            task_prolog_failure=TaskAction.CANCEL,
            crun_prolog_failure=StepAction.CANCEL,
            order=ScriptOrder.REVERSE_LIST,
            timeout_cover=TimeoutCover.LIST,
            shared_timeout=SharedTimeout.OVERRIDES,
            default_timeout_s=60.0,
            timeouts_cover_task_hooks=True,
            empty_pattern=EmptyPattern.NO_HOOK,
            flags=frozenset(
                {
                    PrologFlag.ALLOC,
                    PrologFlag.CONTAIN,
                    PrologFlag.FORCE_REQUEUE_ON_FAIL,
                    PrologFlag.NO_HOLD,
                    PrologFlag.RUN_IN_JOB,
                    PrologFlag.SERIAL,
                }
            ),
            notes=(
                "The controller's hooks run with CranectldUser's identity and a list of variables, never with the user's environment.",
                "A step that arrives while the node's Prolog runs waits for it and shares its outcome.",
            ),
        ),
        Profile(
            name="crane-fail",
            summary="Today's Crane: a failing Prolog fails the job.",
            source="CraneSched's Prolog/Epilog guide, current edition",
            prolog_failure=_FAIL,
            hold_on_prolog_fail=False,
            cranectld_prolog_failure=_FAIL,
            task_prolog_failure=TaskAction.FAIL,
            crun_prolog_failure=StepAction.FAIL,
            order=ScriptOrder.REVERSE_LIST,
            timeout_cover=TimeoutCover.LIST,
            shared_timeout=SharedTimeout.OVERRIDES,
            default_timeout_s=60.0,
            timeouts_cover_task_hooks=True,
            empty_pattern=EmptyPattern.NO_HOOK,
            flags=frozenset({PrologFlag.CONTAIN, PrologFlag.RUN_IN_JOB, PrologFlag.SERIAL}),
            notes=("crun's exit code is the step's even when CrunEpilog fails: the guide says that such a failure is logged.",),
        ),
        _SLURM,
        Profile(
            name="sunk",
            summary="Slurm on Kubernetes with run-parts: as slurm, scripts in ascending order, an empty directory is no failure.",
            source="CoreWeave's SUNK documentation",
            prolog_failure=_SLURM.prolog_failure,
            hold_on_prolog_fail=True,
            cranectld_prolog_failure=_SLURM.cranectld_prolog_failure,
            task_prolog_failure=_SLURM.task_prolog_failure,
            crun_prolog_failure=_SLURM.crun_prolog_failure,
            order=ScriptOrder.ASCENDING,
            timeout_cover=TimeoutCover.SCRIPT,
            shared_timeout=SharedTimeout.DEFAULT,
            default_timeout_s=300.0,
            timeouts_cover_task_hooks=False,
            empty_pattern=EmptyPattern.NO_HOOK,
            flags=frozenset(PrologFlag),
            directory_entry=DirectoryEntry.RUN_PARTS,
            cancel_during_prolog=CancelDuringProlog.AWAITS,
            batch_start=BatchStart.OWN_PROLOG,
            task_epilog_view=TaskEpilogView.STEP,
            task_epilog_output=TaskEpilogOutput.SHOWN,
            slurm_environment=True,
            notes=(
                *_SLURM.notes,
                "A directory as an entry: names of letters, digits, _ and -, as run-parts takes, and the same with .sh, which it does not.",
                "What a directory holds besides, other names and files that are not executable, is passed over and reported.",
            ),
        ),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        KeyError: There is none; names come from checked settings.
    """
    return PROFILES[name]


@dataclass(frozen=True, slots=True)
class Override:
    """A setting that takes the place of one cell of the profile."""

    field: str
    """Of `Profile`."""
    words: Mapping[str, object]
    """What the file may say, and what the cell becomes; empty: `parse` reads the text."""
    parse: Callable[[str], object] = str

    def value(self, text: str) -> object:
        return self.words[text] if self.words else self.parse(text)


def _flags(text: str) -> frozenset[PrologFlag]:
    return frozenset(PrologFlag(word) for word in text.split(",") if word)


_JOB_FAILURES = {"requeue": _REQUEUE, "cancel": _CANCEL, "fail": _FAIL}
_SWITCH: dict[str, object] = {"true": True, "false": False}

OVERRIDES: dict[str, Override] = {
    "OnPrologFailure": Override("prolog_failure", _JOB_FAILURES),
    "HoldOnPrologFail": Override("hold_on_prolog_fail", _SWITCH),
    "OnCranectldPrologFailure": Override("cranectld_prolog_failure", _JOB_FAILURES),
    "OnTaskPrologFailure": Override(
        "task_prolog_failure", {"cancel": TaskAction.CANCEL, "fail": TaskAction.FAIL, "exit-as-hook": TaskAction.EXIT_AS_HOOK}
    ),
    "OnCrunPrologFailure": Override("crun_prolog_failure", {"cancel": StepAction.CANCEL, "fail": StepAction.FAIL}),
    "OnEpilogFailure": Override("epilog_failure", {"drain": EpilogFailure.DRAIN, "log": EpilogFailure.LOG}),
    "OnTaskEpilogFailure": Override("task_epilog_failure", {"drain": EpilogFailure.DRAIN, "log": EpilogFailure.LOG}),
    "OnCranectldEpilogFailure": Override("cranectld_epilog_failure", {"drain": EpilogFailure.DRAIN, "log": EpilogFailure.LOG}),
    "OnCrunEpilogFailure": Override("crun_epilog_failure", {"fail": StepAction.FAIL, "log": StepAction.CONTINUE}),
    "CancelDuringProlog": Override(
        "cancel_during_prolog", {"stop": CancelDuringProlog.STOPS, "await": CancelDuringProlog.AWAITS}
    ),
    "BatchScriptStart": Override("batch_start", {"own-node": BatchStart.OWN_PROLOG, "all-nodes": BatchStart.ALL_PROLOGS}),
    "ScriptOrder": Override(
        "order",
        {
            "reverse": ScriptOrder.REVERSE_LIST,
            "reverse-within-pattern": ScriptOrder.REVERSE_WITHIN_PATTERN,
            "ascending": ScriptOrder.ASCENDING,
        },
    ),
    "EmptyPattern": Override("empty_pattern", {"no-hook": EmptyPattern.NO_HOOK, "fails": EmptyPattern.FAILS}),
    "DirectoryEntry": Override(
        "directory_entry",
        {"no-script": DirectoryEntry.NO_SCRIPT, "fails": DirectoryEntry.FAILS, "run-parts": DirectoryEntry.RUN_PARTS},
    ),
    "TimeoutCovers": Override("timeout_cover", {"list": TimeoutCover.LIST, "script": TimeoutCover.SCRIPT}),
    "TimeoutPrecedence": Override("shared_timeout", {"shared": SharedTimeout.OVERRIDES, "own": SharedTimeout.DEFAULT}),
    "DefaultTimeout": Override("default_timeout_s", {}, float),
    "TimeoutsCoverTaskHooks": Override("timeouts_cover_task_hooks", _SWITCH),
    "TaskEpilogEnvironment": Override("task_epilog_view", {"task": TaskEpilogView.TASK, "step": TaskEpilogView.STEP}),
    "TaskEpilogStderr": Override("task_epilog_output", {"kept": TaskEpilogOutput.KEPT, "shown": TaskEpilogOutput.SHOWN}),
    "AllowedPrologFlags": Override("flags", {}, _flags),
    "EnableSlurmCompatibleEnv": Override("slurm_environment", _SWITCH),
}
"""Every cell of the table by the one setting that overrides it: keys of JobLifecycleHook; EnableSlurmCompatibleEnv stands at the top."""


def overridden(profile: Profile, overrides: Mapping[str, str]) -> Profile:
    """The profile with cells of a site's own.

    Args:
        profile: What holds where the site says nothing.
        overrides: By the name of the setting, what the file says: a word of `OVERRIDES`, or a text that it can parse.

    Raises:
        KeyError: An unknown setting or word; overrides come from checked settings.
    """
    # Any: each field has its own type, and OVERRIDES pairs them (a test compares).
    cells: dict[str, Any] = {OVERRIDES[key].field: OVERRIDES[key].value(text) for key, text in overrides.items()}
    return replace(profile, **cells) if cells else profile


def effective(hooks: HookSettings) -> Profile:
    """The profile a job's hooks run by: that of its name with the cells its settings override."""
    profile = overridden(profile_named(hooks.profile), hooks.overrides)
    return profile if hooks.hold_on_prolog_fail is None else replace(profile, hold_on_prolog_fail=hooks.hold_on_prolog_fail)
