"""What a job's hooks would be: the points it meets, their scripts as they are now, and the verdict on the failure of each."""

import json
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.hookctl.scripts import PointReport, point_report
from cranehooks.model.job import JobKind
from cranehooks.model.limits import Limits
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import CONTRACTS, HookPoint, Place, RunsAs
from cranehooks.policy import Verdict, decide_outcome
from cranehooks.profiles import FLAG_EFFECTS, IMPLIED_FLAGS, PrologFlag, TimeoutCover
from cranehooks.settings import ClusterSettings
from cranekit import hostlist

_OWN_SCRIPTS = {
    "prolog": HookPoint.CRUN_PROLOG,
    "epilog": HookPoint.CRUN_EPILOG,
    "task_prolog": HookPoint.STEP_TASK_PROLOG,
    "task_epilog": HookPoint.STEP_TASK_EPILOG,
}
"""The options of crun by which users bring scripts of their own."""
_NO_HOOK = "none"
_LONGEST_JOB_BYTES = 16 << 20
_DIGITS_OF_UID = 10
_FAILED = Outcome(OutcomeKind.EXIT, 1)


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What of a job decides about its hooks."""

    kind: JobKind = JobKind.BATCH
    requeue: bool = True
    user: str = ""
    nodes: tuple[str, ...] = ()
    own_scripts: Mapping[HookPoint, str] = field(default_factory=dict)
    """By the point they run at; `none` for no hook."""


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """One hook the job meets."""

    report: PointReport
    where: str
    runs_as: str
    timeout_s: float | None
    """None: no limit."""
    covers: TimeoutCover
    goes_on: bool
    """Whether the scripts behind a failing one run."""
    verdict: Verdict
    """On a failing script."""
    limits: Limits | None = None
    """Of each run (HookLimits)."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """All of them, in the order of a job's life."""

    job: PlannedJob
    profile: str
    overrides: Mapping[str, str]
    flags: tuple[str, ...]
    points: tuple[PlannedPoint, ...]
    notes: tuple[str, ...]


def job_of(text: str) -> tuple[PlannedJob, tuple[str, ...]]:
    """The job that a JSON text, a file (`@FILE` or its path) or stdin (`-`) describes, and the keys of it that mean nothing here.

    Raises:
        CommandError: It is no such job.
    """
    document = _document(text)
    inner = document.get("job")
    if isinstance(inner, dict):
        document = inner
    own = {point: _word(document, key) for key, point in _OWN_SCRIPTS.items() if document.get(key)}
    for point, script in own.items():
        if script != _NO_HOOK and not script.startswith("/"):
            raise _usage(f"the path of {point.value} is absolute, or none, not {script!r}")
    job = PlannedJob(
        _kind(document.get("kind", JobKind.BATCH.value)), _requeue(document), _word(document, "user"), _nodes(document), own
    )
    return job, tuple(key for key in document if key not in {"kind", "requeue", "user", "nodes", *_OWN_SCRIPTS})


def plan_of(settings: ClusterSettings, job: PlannedJob) -> JobPlan:
    """Every hook the job would meet. Looks at the disk and runs nothing."""
    unknown = [name for name in job.nodes if name not in settings.nodes]
    if unknown:
        raise _usage(f"there is no node {hostlist.fold(unknown)} in the configuration")
    hooks = settings.hook_settings()
    points: list[PlannedPoint] = []
    for point in HookPoint:
        own = job.own_scripts.get(point, "")
        patterns = hooks.patterns.get(point, ()) if not own else () if own == _NO_HOOK else (own,)
        if patterns:
            points.append(_planned(point, patterns, settings, job, trusted_owner=not own))
    notes = tuple(_flag_note(flag, settings.hooks.prolog_flags) for flag in sorted(map(PrologFlag, hooks.flags)))
    if job.user and not _is_known(job.user):
        notes += (f"user {job.user!r} is not known on this host",)
    return JobPlan(job, hooks.profile, hooks.overrides, tuple(sorted(hooks.flags)), tuple(points), notes)


def _is_known(user: str) -> bool:
    """By name, or by number."""
    try:
        if user.isascii() and user.isdecimal() and len(user) <= _DIGITS_OF_UID:
            pwd.getpwuid(int(user))
        else:
            pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        return False
    return True


def _flag_note(flag: PrologFlag, given: frozenset[PrologFlag]) -> str:
    """What the flag does, and which flags brought it where nobody named it."""
    implying = sorted(other for other in given if flag in IMPLIED_FLAGS.get(other, ()))
    origin = "" if flag in given else f" (implied by {', '.join(implying)})"
    return f"{flag}{origin}: {FLAG_EFFECTS[flag]}"


def _planned(
    point: HookPoint, patterns: tuple[str, ...], settings: ClusterSettings, job: PlannedJob, *, trusted_owner: bool
) -> PlannedPoint:
    hooks, profile = settings.hook_settings(), settings.profile
    return PlannedPoint(
        point_report(point, patterns, profile, trusted_owner=trusted_owner, kept=hooks.keep_processes.get(point)),
        _where(point, job),
        _runs_as(point, settings, job),
        hooks.timeouts_s.get(point),
        profile.timeout_cover,
        point in hooks.continue_on_failure,
        decide_outcome(point, _FAILED, kind=job.kind, requeue_allowed=job.requeue, profile=profile, flags=hooks.flags),
        hooks.limits.get(point),
    )


def _where(point: HookPoint, job: PlannedJob) -> str:
    match CONTRACTS[point].place:
        case Place.CONTROLLER:
            return "controller"
        case Place.LAUNCH_NODE:
            return "where crun runs"
        case Place.NODE:
            return hostlist.fold(job.nodes) if job.nodes else "each node"


def _runs_as(point: HookPoint, settings: ClusterSettings, job: PlannedJob) -> str:
    match CONTRACTS[point].runs_as:
        case RunsAs.CRANECTLD_USER:
            return settings.cranectld_user or "cranectld's user"
        case RunsAs.CRANED_USER:
            return settings.craned_user or "craned's user"
        case RunsAs.JOB_USER:
            return job.user or "the user"


def _document(text: str) -> dict[str, object]:
    try:
        document = json.loads(_source(text))
    except OSError as error:
        raise _usage(f"{error.filename or 'stdin'} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _usage(f"no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _usage('expected an object, as in {"kind": "batch"}')
    return document


def _source(text: str) -> str:
    """The JSON itself: from stdin for `-`, from a file for `@FILE` or a path, or the text."""
    if text == "-":
        return sys.stdin.buffer.read(_LONGEST_JOB_BYTES).decode()
    is_path = text.startswith(("/", "./", "../")) or text.endswith(".json")
    return Path(text.removeprefix("@")).read_text(encoding="utf-8") if is_path or text.startswith("@") else text


def _kind(value: object) -> JobKind:
    try:
        return JobKind(value)
    except ValueError as error:
        raise _usage(f"kind is {', '.join(kind.value for kind in JobKind)}, not {value!r}") from error


def _requeue(document: Mapping[str, object]) -> bool:
    value = document.get("requeue", True)
    if not isinstance(value, bool):
        raise _usage(f"requeue is true or false, not {value!r}")
    return value


def _word(document: Mapping[str, object], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise _usage(f"{key} is a text, not {value!r}")
    return value


def _nodes(document: Mapping[str, object]) -> tuple[str, ...]:
    value = document.get("nodes") or ""
    try:
        if isinstance(value, str):
            return tuple(hostlist.expand(value))
        if isinstance(value, list):
            return tuple(name for text in value for name in hostlist.expand(str(text)))
    except hostlist.HostlistError as error:
        raise _usage(f"nodes: {error}") from error
    raise _usage(f"nodes is a hostlist or a list of names, not {value!r}")


def _usage(message: str) -> CommandError:
    return CommandError(f"the job: {message}", ExitCode.USAGE)
