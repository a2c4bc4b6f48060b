"""Why a task's before-hook failed, for the person who waits for the task."""

from cranehooks.model.run import HookRun
from cranehooks.policy import printable

_LINE_LIMIT = 200


def failure_of(run: HookRun) -> str:
    """`TaskProlog setup.sh exit 1: <last line>`; empty when it did not fail."""
    if run.outcome.ok:
        return ""
    script = run.failed_script
    outcome = run.outcome if script is None else script.outcome
    words = [run.key.point.value, *(() if script is None else (printable(script.name),)), str(outcome)]
    told = printable(outcome.detail) or printable(script.last_line if script is not None else "")
    return f"{' '.join(words)}: {told[:_LINE_LIMIT]}" if told else " ".join(words)
