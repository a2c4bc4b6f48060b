"""The table of profiles, row by row: what each cell says, which setting overrides it, and where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cranehooks.profiles import DEFAULT_PROFILE, OVERRIDES, EpilogFailure, JobAction, JobFailure, Profile, StepAction

_FIRST_GUIDE = "CraneSched Prolog/Epilog guide, first edition"
_GUIDE = "CraneSched Prolog/Epilog guide, current edition"
_CRANE_CODE = "CraneSched's code"
_SLURM_CONF = "slurm.conf(5)"
_SLURM_GUIDE = "Slurm Prolog and Epilog Guide"
_SLURM_CODE = "Slurm's code"
_SUNK = "SUNK documentation"
_OURS = "ours"


@dataclass(frozen=True, slots=True)
class ProfileCell:
    """One row of the table."""

    field: str
    """Of `Profile`."""
    label: str
    text: Callable[[Profile], str]
    """The cell, for a person."""
    sources: Mapping[str, str]
    """Who says so, by profile."""

    @property
    def setting(self) -> str:
        """The one key that overrides the cell."""
        return next(key for key, override in OVERRIDES.items() if override.field == self.field)


def _sources(first: str, current: str, slurm: str, sunk: str) -> dict[str, str]:
    return {"crane-requeue": first, "crane-fail": current, "slurm": slurm, "sunk": sunk}


def _failure(failure: JobFailure, *, hold: bool = False) -> str:
    batch = f"{failure.batch.value}{' held' if hold and failure.batch is JobAction.REQUEUE else ''}"
    if {failure.batch, failure.batch_no_requeue, failure.interactive} == {failure.batch}:
        return f"job: {batch}"
    return f"batch: {batch}; --no-requeue: {failure.batch_no_requeue.value}; interactive: {failure.interactive.value}"


CELLS: tuple[ProfileCell, ...] = (
    ProfileCell(
        "prolog_failure",
        "Prolog fails",
        lambda profile: f"drain; {_failure(profile.prolog_failure, hold=profile.hold_on_prolog_fail)}",
        _sources(
            f"{_FIRST_GUIDE}: node drained, job requeued",
            f"{_GUIDE}: node drained, job failed",
            f"{_SLURM_GUIDE}: node drained, batch job requeued; {_SLURM_CODE}: others cancelled",
            "as slurm",
        ),
    ),
    ProfileCell(
        "hold_on_prolog_fail",
        "a job requeued by its Prolog",
        lambda profile: "is held" if profile.hold_on_prolog_fail else "is not held",
        _sources(
            f"{_FIRST_GUIDE}: no hold",
            f"{_GUIDE}: no requeue",
            f"{_SLURM_CONF}: SchedulerParameters=nohold_on_prolog_fail",
            "as slurm",
        ),
    ),
    ProfileCell(
        "cranectld_prolog_failure",
        "CranectldProlog fails",
        lambda profile: _failure(profile.cranectld_prolog_failure),
        _sources(
            f"{_FIRST_GUIDE}: job requeued",
            f"{_GUIDE}: job failed",
            f"{_SLURM_GUIDE}, PrologSlurmctld: batch job requeued, interactive job cancelled",
            "as slurm",
        ),
    ),
    ProfileCell(
        "task_prolog_failure",
        "TaskProlog fails",
        lambda profile: f"task: {profile.task_prolog_failure.value}",
        _sources(
            f"{_FIRST_GUIDE}: task cancelled",
            f"{_GUIDE}: task failed",
            f"{_SLURM_CODE}: the task ends with the hook's exit code",
            "as slurm",
        ),
    ),
    ProfileCell(
        "crun_prolog_failure",
        "CrunProlog fails",
        lambda profile: f"step: {profile.crun_prolog_failure.value}, nothing is sent",
        _sources(
            f"{_FIRST_GUIDE}: step cancelled",
            f"{_GUIDE}: crun fails; {_CRANE_CODE}: nothing submitted",
            f"{_SLURM_GUIDE}, SrunProlog: step aborted",
            "as slurm",
        ),
    ),
    ProfileCell(
        "epilog_failure",
        "Epilog fails",
        lambda profile: f"{profile.epilog_failure.value}; the job's result stays",
        _sources(_FIRST_GUIDE, _GUIDE, _SLURM_GUIDE, "as slurm"),
    ),
    ProfileCell(
        "task_epilog_failure",
        "TaskEpilog fails",
        lambda profile: profile.task_epilog_failure.value,
        _sources(_FIRST_GUIDE, _GUIDE, _SLURM_GUIDE, "as slurm"),
    ),
    ProfileCell(
        "cranectld_epilog_failure",
        "CranectldEpilog fails",
        lambda profile: "all nodes of the job drained" if profile.cranectld_epilog_failure is EpilogFailure.DRAIN else "logged",
        _sources(_FIRST_GUIDE, _GUIDE, _SLURM_GUIDE, "as slurm"),
    ),
    ProfileCell(
        "crun_epilog_failure",
        "CrunEpilog fails",
        lambda profile: "crun exits with 1" if profile.crun_epilog_failure is StepAction.FAIL else "logged",
        _sources(_FIRST_GUIDE, f"{_GUIDE}; {_CRANE_CODE} sets crun's exit code", _SLURM_GUIDE, "as slurm"),
    ),
    ProfileCell(
        "cancel_during_prolog",
        "cancel while Prolog runs",
        lambda profile: profile.cancel_during_prolog.value,
        _sources(
            f"{_OURS}: the guide does not say",
            f"{_OURS}: the guide does not say; {_CRANE_CODE} awaits",
            f"{_SLURM_CODE}: awaited, then Epilog",
            "as slurm",
        ),
    ),
    ProfileCell(
        "batch_start",
        "batch script starts (Alloc)",
        lambda profile: profile.batch_start.value,
        _sources(
            f"{_FIRST_GUIDE}: Prologs on all nodes at allocation",
            f"{_OURS}: as crane-requeue",
            f"{_SLURM_CONF}: PrologFlags, DeferBatch",
            "as slurm",
        ),
    ),
    ProfileCell(
        "order",
        "order of scripts",
        lambda profile: profile.order.value,
        _sources(
            f"{_FIRST_GUIDE}: z-a, Z-A, 9-0",
            f"{_GUIDE}; {_CRANE_CODE}: by full path, the whole list",
            f"{_SLURM_CONF}: reverse alphabetical; {_SLURM_CODE}: within each line",
            f"{_SUNK}: run-parts.sh",
        ),
    ),
    ProfileCell(
        "empty_pattern",
        "a pattern that matches nothing",
        lambda profile: profile.empty_pattern.value,
        _sources(
            f"{_CRANE_CODE}: no script", f"{_CRANE_CODE}: no script", f"{_SLURM_CODE}: the hook fails", f"{_SUNK}: run-parts.sh"
        ),
    ),
    ProfileCell(
        "directory_entry",
        "a directory among the scripts",
        lambda profile: profile.directory_entry.value,
        _sources(
            f"{_OURS}: a pattern means files; {_CRANE_CODE}: it cannot be run",
            f"{_OURS}: a pattern means files; {_CRANE_CODE}: it cannot be run",
            f"{_SLURM_CODE}: it cannot be run",
            f"{_SUNK}: run-parts.sh",
        ),
    ),
    ProfileCell(
        "timeout_cover",
        "a timeout covers",
        lambda profile: profile.timeout_cover.value,
        _sources(
            f"{_CRANE_CODE}: one budget for the list",
            f"{_CRANE_CODE}: one budget for the list",
            f"{_SLURM_CODE}: each script has the whole timeout",
            "as slurm",
        ),
    ),
    ProfileCell(
        "shared_timeout",
        "PrologEpilogTimeout",
        lambda profile: profile.shared_timeout.value,
        _sources(f"{_FIRST_GUIDE}: overrides", f"{_GUIDE}: overrides", f"{_SLURM_CONF}: default of the other two", "as slurm"),
    ),
    ProfileCell(
        "default_timeout_s",
        "default timeout",
        lambda profile: f"{profile.default_timeout_s:g} s",
        _sources(
            f"{_FIRST_GUIDE}: 60",
            f"{_GUIDE}: 60",
            f"{_OURS}: {_SLURM_CONF} has no limit unless one is set",
            f"{_OURS}: as slurm",
        ),
    ),
    ProfileCell(
        "timeouts_cover_task_hooks",
        "task hooks are bounded by",
        lambda profile: (
            "PrologTimeout, EpilogTimeout" if profile.timeouts_cover_task_hooks else f"{profile.default_timeout_s:g} s, always"
        ),
        _sources(_FIRST_GUIDE, _GUIDE, f"{_OURS}: {_SLURM_CONF} has no limit for them", f"{_OURS}: as slurm"),
    ),
    ProfileCell(
        "task_epilog_view",
        "TaskEpilog's environment",
        lambda profile: profile.task_epilog_view.value,
        _sources(
            f"{_OURS}, to find again what TaskProlog made; {_CRANE_CODE}: the step's alone",
            f"{_OURS}, to find again what TaskProlog made; {_CRANE_CODE}: the step's alone",
            f"{_SLURM_CODE}: the step's",
            "as slurm",
        ),
    ),
    ProfileCell(
        "task_epilog_output",
        "TaskEpilog's output",
        lambda profile: profile.task_epilog_output.value,
        _sources(
            f"{_OURS}: {_CRANE_CODE} drops it",
            f"{_OURS}: {_CRANE_CODE} drops it",
            f"{_SLURM_CODE}: stderr shown; {_OURS}: kept",
            "as slurm",
        ),
    ),
    ProfileCell(
        "flags",
        "flags",
        lambda profile: ", ".join(sorted(profile.flags)),
        _sources(_FIRST_GUIDE, _GUIDE, f"{_SLURM_CONF}: PrologFlags", "as slurm"),
    ),
    ProfileCell(
        "slurm_environment",
        "SLURM_* variables",
        lambda profile: "yes" if profile.slurm_environment else "no",
        _sources(
            f"{_OURS}: CRANE_* names alone",
            f"{_OURS}: CRANE_* names alone",
            f"{_SLURM_GUIDE}: the scripts' environment",
            "as slurm",
        ),
    ),
)
"""The table. Each field of `Profile` that decides something is in it once."""


FIXED = (
    "Before its job is requeued, cancelled or failed, the node of a failing Prolog is drained. A failing --task-epilog is logged."
)
"""What no setting changes."""


def heading_of(profile: Profile) -> str:
    """The profile in a word: `crane-requeue (default)`."""
    return f"{profile.name} (default)" if profile.name == DEFAULT_PROFILE else profile.name
