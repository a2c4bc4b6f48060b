"""CrunProlog and CrunEpilog: run by the engine in crun's own process, as the user, on the user's terminal.

Imported only when there is such a hook: the engine costs more time to import than all of crun.
"""

import os
import pwd
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cranecli.allocated_job import job_of, step_of
from cranehooks.environment import launch_hook_environment
from cranehooks.execution.containment.session import SessionContainment
from cranehooks.execution.engine import Engine
from cranehooks.execution.scripts import planned
from cranehooks.model.ids import NodeName
from cranehooks.model.job import ExitStatus, JobKind, JobOnNode, StepSpec
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, RunSpec, ScriptRun, TimeoutScope
from cranehooks.plan import PlanFailure
from cranehooks.policy import decide_outcome
from cranehooks.profiles import StepAction, TimeoutCover, overridden, profile_named

if TYPE_CHECKING:
    from cranecli.front.client import Body

_DEFAULT_GRACE_S: Final = 5.0
"""JobLifecycleHook.KillGrace of a daemon that does not say."""


@dataclass(frozen=True, slots=True)
class HookedStep:
    """The step that a hook belongs to."""

    job: JobOnNode
    step: StepSpec
    launch_node: str
    """Name of the node that this host is, or empty."""

    @classmethod
    def from_answer(cls, created: "Body", site: "Body", argv: Sequence[str]) -> "HookedStep":
        """From the answers to CreateStep and LaunchHooks, and the command as its user gave it."""
        job = job_of({**created["job"], "attempt": created["attempt"]}, str(site.get("cluster", "")))
        return cls(job, replace(step_of(created["spec"]), argv=tuple(argv)), str(site.get("node", "")))


@dataclass(frozen=True, slots=True)
class SiteHooks:
    """What the cluster's configuration says about hooks of launches (the answer to LaunchHooks)."""

    profile: str
    slurm_compatible_env: bool
    output_limit_bytes: int
    patterns: tuple[str, ...]
    timeout_s: float | None
    grace_s: float
    """From TERM to KILL."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Of cells of the profile."""

    @classmethod
    def from_answer(cls, answer: "Body", point: str) -> "SiteHooks":
        hook = answer.get(point) or {}
        timeout_s = hook.get("timeout_s")
        return cls(
            profile=str(answer.get("profile", "")),
            slurm_compatible_env=bool(answer.get("slurm_compatible_env")),
            output_limit_bytes=int(answer.get("output_limit_bytes") or 1 << 20),
            patterns=tuple(map(str, hook.get("patterns") or ())),
            timeout_s=None if timeout_s is None else float(timeout_s),
            grace_s=float(answer["grace_s"]) if "grace_s" in answer else _DEFAULT_GRACE_S,
            overrides={str(key): str(text) for key, text in (answer.get("overrides") or {}).items()},
        )


class LaunchHook:
    """One run of CrunProlog or CrunEpilog. The owner's loop calls `poll` when the descriptor is readable or `due_s` has passed."""

    def __init__(
        self, point: HookPoint, step: HookedStep, site: SiteHooks, own_script: str | None, exit_status: ExitStatus | None
    ) -> None:
        """Starts it. `own_script` replaces the configured ones."""
        self.point = point
        self.record: HookRun | None = None
        """What became of it, once it has ended."""
        self.is_empty = False
        """There was nothing to run."""
        self._engine: Engine | None = None
        node = NodeName(step.launch_node) if step.launch_node else None
        self._key = HookKey(point, step.job.job_id, step.job.attempt, node, step.step.step_id)
        self._profile = profile = overridden(profile_named(site.profile), site.overrides)
        patterns = site.patterns if own_script is None else (own_script,)
        plan = planned(profile, patterns)
        if isinstance(plan, PlanFailure):
            self.record = HookRun(self._key, _user_name(), time.time(), 0.0, Outcome(OutcomeKind.SPAWN, 0, plan.reason))
            return
        if not plan.scripts:
            self.is_empty = True
            return
        self._engine = Engine(SessionContainment())
        self._engine.start(
            RunSpec(
                self._key,
                plan.scripts,
                launch_hook_environment(
                    point, os.environ, step.job, step.step, exit_status=exit_status, slurm=site.slurm_compatible_env
                ),
                site.timeout_s,
                timeout_scope=TimeoutScope.SCRIPT if profile.timeout_cover is TimeoutCover.SCRIPT else TimeoutScope.LIST,
                cwd=_directory(),
                grace_s=site.grace_s,
                output_limit_bytes=site.output_limit_bytes,
                trusted_owner=own_script is None,
                inherit_stdio=True,
                arguments=step.step.argv,
                notes=plan.notes,
            ),
            self._finished,
        )

    @property
    def is_over(self) -> bool:
        return self.is_empty or self.record is not None

    def fileno(self) -> int:
        return self._engine.fileno() if self._engine else -1

    def due_s(self) -> float | None:
        """Seconds until `poll` is due even if nothing happens."""
        deadline = self._engine.next_deadline() if self._engine else None
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def poll(self) -> None:
        if self._engine is not None:
            self._engine.poll(0.0)

    def stop(self) -> None:
        """Ends it: TERM, its grace, KILL; asked again, KILL at once."""
        if self._engine is not None:
            self._engine.stop(self._key.run_id)

    def kill(self) -> None:
        if self._engine is not None:
            self._engine.stop(self._key.run_id, now=True)

    def close(self) -> None:
        """Kills what still runs."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _finished(self, record: HookRun) -> None:
        self.record = record

    @property
    def failure(self) -> str:
        """`CrunProlog /path exit 1: last line`; empty when it went well, or was stopped."""
        record = self.record
        if record is None or record.outcome.ok or record.outcome.kind is OutcomeKind.STOPPED:
            return ""
        script = record.failed_script
        if script is None:
            return f"{self.point.value}: {record.outcome.detail or record.outcome}"
        detail = script.last_line or script.outcome.detail
        return f"{self.point.value} {script.path} {script.outcome}" + (f": {detail}" if detail else "")

    @property
    def fails_step(self) -> bool:
        """Whether its failure is the step's own by the cluster's rules. Otherwise CrunProlog cancels it, and CrunEpilog changes nothing."""
        if self.record is None:
            return False
        verdict = decide_outcome(self.point, self.record.outcome, kind=JobKind.RUN, requeue_allowed=False, profile=self._profile)
        return verdict.step is StepAction.FAIL


def start_prolog(step: HookedStep, site: "Body", own_script: str | None) -> LaunchHook:
    """CrunProlog, started; `site` is the answer to LaunchHooks."""
    return LaunchHook(HookPoint.CRUN_PROLOG, step, SiteHooks.from_answer(site, "crun_prolog"), own_script, None)


def start_epilog(step: HookedStep, site: "Body", own_script: str | None, step_exit: "Body") -> LaunchHook:
    """CrunEpilog, started; `step_exit` is an ExitStatus."""
    exit_status = ExitStatus(int(step_exit.get("code", 0)), int(step_exit.get("signal", 0)))
    return LaunchHook(HookPoint.CRUN_EPILOG, step, SiteHooks.from_answer(site, "crun_epilog"), own_script, exit_status)


def run_document(run: HookRun) -> "Body":
    """A hook run as JSON of its protobuf message."""
    return {
        "run_id": run.key.run_id,
        "point": f"HOOK_POINT_{run.key.point.name}",
        "job_id": str(run.key.job_id),
        "attempt": run.key.attempt,
        "step_id": run.key.step_id or "",
        "task_id": -1 if run.key.task_id is None else run.key.task_id,
        "node": run.key.node or "",
        "user": run.user,
        "started_at": _timestamp(run.started_at),
        "duration": _duration(run.duration_s),
        "queue_wait": _duration(run.queue_wait_s),
        "outcome": _outcome_document(run.outcome),
        "notes": [_text(note) for note in run.notes],
        "scripts": [_script_document(script) for script in run.scripts],
    }


def _script_document(script: ScriptRun) -> "Body":
    return {
        "path": _text(script.path),
        "sha256": script.sha256,
        "outcome": _outcome_document(script.outcome),
        "started_at": _timestamp(script.started_at),
        "duration": _duration(script.duration_s),
        "output": _text(script.output),
        "output_bytes": str(script.output_bytes),
        "leftovers": [{"pid": left.pid, "command": _text(left.command)} for left in script.leftovers],
    }


def _outcome_document(outcome: Outcome) -> "Body":
    return {"kind": f"OUTCOME_KIND_{outcome.kind.name}", "code": outcome.code, "detail": _text(outcome.detail)}


def _timestamp(seconds: float) -> str:
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:06d}Z"


def _duration(seconds: float) -> str:
    return f"{max(0.0, seconds):.6f}s"


def _text(text: str) -> str:
    """Names that are no UTF-8 become readable rather than an error."""
    return text.encode("utf-8", "replace").decode()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a path as text, as the engine wants it
    except FileNotFoundError:
        return "/"
