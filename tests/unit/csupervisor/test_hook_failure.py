"""The words for a before-hook that failed."""

import pytest

from cranehooks.model.ids import Attempt, JobId
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, ScriptRun
from csupervisor.hook_failure import failure_of


def run(outcome: Outcome, output: str = "") -> HookRun:
    key = HookKey(HookPoint.TASK_PROLOG, JobId(42), Attempt(1))
    scripts = (ScriptRun("/etc/a.sh", OK, 0.0, 0.0), ScriptRun("/etc/setup.sh", outcome, 0.0, 0.0, output=output))
    return HookRun(key, "ada", 0.0, 0.0, outcome, scripts)


@pytest.mark.parametrize(
    ("outcome", "output", "text"),
    [
        (Outcome(OutcomeKind.EXIT, 3), "hello\n\x1b[31mno GPU\x1b[0m\n\n", "TaskProlog setup.sh exit 3: no GPU"),
        (Outcome(OutcomeKind.SIGNAL, 9), "", "TaskProlog setup.sh signal 9 (KILL)"),
        (Outcome(OutcomeKind.TIMEOUT, 60), "", "TaskProlog setup.sh timeout after 60 s"),
        (
            Outcome(OutcomeKind.SPAWN, 0, "is writable by others"),
            "",
            "TaskProlog setup.sh spawn failed: refused: is writable by others",
        ),
        (OK, "fine", ""),
    ],
)
def test_words(outcome: Outcome, output: str, text: str) -> None:
    assert failure_of(run(outcome, output)) == text


def test_a_run_without_scripts_is_told_too() -> None:
    key = HookKey(HookPoint.STEP_TASK_PROLOG, JobId(42), Attempt(1))
    bare = HookRun(key, "ada", 0.0, 0.0, Outcome(OutcomeKind.STOPPED))
    assert failure_of(bare) == "--task-prolog stopped"
