"""What is noted of each script while a run goes on, and the record that comes of it."""

import functools
import os
import pwd
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cranehooks.execution.capture import Capture, Undecodable
from cranehooks.lifecycle import ScriptEnd
from cranehooks.model.limits import Limits
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.run import HookRun, RunSpec, ScriptRun


@dataclass(slots=True)
class BegunScript:
    """The script under way, or one that has been."""

    path: str
    started_at: float
    started_mono: float
    duration_s: float = 0.0
    sha256: str = ""
    interpreter: str = ""
    capture: Capture | None = None
    oom_kills: int = 0
    """Of its processes, by the kernel for want of memory."""
    forks_refused: int = 0
    """By its limit of processes."""


def record_of(
    spec: RunSpec,
    started_at: float,
    duration_s: float,
    scripts: Sequence[BegunScript],
    ends: Sequence[ScriptEnd],
    notes: tuple[str, ...],
    undecodable: Undecodable,
) -> HookRun:
    """The record of a run that has ended."""
    records = []
    for end in ends:
        path = spec.scripts[end.index]
        # A script refused because time was up, or stop was asked for, was never begun.
        begun = scripts[end.index] if end.index < len(scripts) else BegunScript(path, time.time(), 0.0)
        capture = begun.capture
        records.append(
            ScriptRun(
                path,
                _with_cause(end.outcome, begun, spec.limits),
                begun.started_at,
                begun.duration_s,
                begun.sha256,
                capture.text(undecodable) if capture else "",
                capture.written_bytes if capture else 0,
                end.leftovers,
                end.kept,
            )
        )
    outcome = next((record.outcome for record in records if not record.outcome.ok), OK)
    uid = spec.credentials.uid if spec.credentials else os.geteuid()
    user = spec.user or _user_name(uid)
    return HookRun(spec.key, user, started_at, duration_s, outcome, tuple(records), notes=(*spec.notes, *notes))


def _with_cause(outcome: Outcome, script: BegunScript, limits: Limits | None) -> Outcome:
    """The outcome of a script that went wrong, with the limits that it met."""
    if outcome.kind not in (OutcomeKind.EXIT, OutcomeKind.SIGNAL, OutcomeKind.TIMEOUT):
        return outcome
    causes = []
    if script.oom_kills:
        bound = f" beyond its {limits.memory_bytes / (1 << 20):g} MiB" if limits is not None and limits.memory_bytes else ""
        causes.append(f"out of memory: the kernel killed {script.oom_kills} of its processes{bound}")
    if script.forks_refused:
        bound = f" of {limits.pids}" if limits is not None and limits.pids else ""
        causes.append(f"out of processes: its limit{bound} refused {script.forks_refused} more")
    return replace(outcome, detail="; ".join(filter(None, (outcome.detail, *causes)))) if causes else outcome


@functools.lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
