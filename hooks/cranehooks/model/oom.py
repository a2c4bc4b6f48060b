"""Names the want of memory as the cause, where the kernel killed processes for it."""

from dataclasses import replace
from signal import SIGKILL

from cranehooks.model.job import ExitStatus
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.run import HookRun

_MIB = 1 << 20
_WORDS = "out of memory"


def oom_cause(status: ExitStatus, kills: int, limit_bytes: int | None) -> str:
    """`killed: out of memory (limit 64 MiB)`; empty where nobody was killed for that, or what was left succeeded all the same.

    Args:
        status: how the task ended.
        kills: so many of its processes were killed.
        limit_bytes: of the job on the node; None: the node itself ran out.
    """
    if kills <= 0 or status.ok:
        return ""
    if status.signal == SIGKILL:
        return f"killed: {_short_of(limit_bytes)}"
    return f"{kills} of its processes killed: {_short_of(limit_bytes)}"


def with_oom(run: HookRun, kills: int, limit_bytes: int | None) -> HookRun:
    """The run with the cause in the details of the script that failed."""
    script = run.failed_script
    if kills <= 0 or script is None or script.outcome.kind not in (OutcomeKind.SIGNAL, OutcomeKind.EXIT):
        return run
    explained = replace(script, outcome=_explained(script.outcome, limit_bytes))
    scripts = tuple(explained if each is script else each for each in run.scripts)
    return replace(run, scripts=scripts, outcome=_explained(run.outcome, limit_bytes))


def _explained(outcome: Outcome, limit_bytes: int | None) -> Outcome:
    if _WORDS in outcome.detail:
        return outcome
    return replace(outcome, detail="; ".join(filter(None, (f"killed: {_short_of(limit_bytes)}", outcome.detail))))


def _short_of(limit_bytes: int | None) -> str:
    if limit_bytes is None:
        return _WORDS
    size = f"{limit_bytes / _MIB:.6g} MiB" if limit_bytes >= _MIB else f"{limit_bytes} bytes"
    return f"{_WORDS} (limit {size})"
