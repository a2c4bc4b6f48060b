"""The want of memory is named as the cause of a task's or a hook's end."""

import pytest

from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus
from cranehooks.model.oom import oom_cause, with_oom
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, ScriptRun

LIMIT = 64 << 20
KILLED, EXIT_1 = Outcome(OutcomeKind.SIGNAL, 9), Outcome(OutcomeKind.EXIT, 1)


@pytest.mark.parametrize(
    ("status", "kills", "limit", "cause"),
    [
        (ExitStatus(signal=9), 1, LIMIT, "killed: out of memory (limit 64 MiB)"),
        (ExitStatus(signal=9), 1, None, "killed: out of memory"),
        (ExitStatus(code=137), 2, LIMIT, "2 of its processes killed: out of memory (limit 64 MiB)"),
        (ExitStatus(signal=9), 0, LIMIT, ""),
        (ExitStatus(), 3, LIMIT, ""),
    ],
)
def test_cause_of_a_task(status: ExitStatus, kills: int, limit: int | None, cause: str) -> None:
    assert oom_cause(status, kills, limit) == cause


def run(*outcomes: Outcome) -> HookRun:
    key = HookKey(HookPoint.TASK_PROLOG, JobId(1), Attempt(1), NodeName("cn01"))
    scripts = tuple(ScriptRun(f"/{number}.sh", outcome, 0.0, 0.0) for number, outcome in enumerate(outcomes))
    return HookRun(key, "root", 0.0, 0.0, next((outcome for outcome in outcomes if not outcome.ok), OK), scripts)


def test_the_script_that_failed_says_so() -> None:
    told = with_oom(run(OK, KILLED), 1, LIMIT)

    assert told.outcome == Outcome(OutcomeKind.SIGNAL, 9, "killed: out of memory (limit 64 MiB)")
    assert [script.outcome.detail for script in told.scripts] == ["", "killed: out of memory (limit 64 MiB)"]
    assert with_oom(told, 1, LIMIT) == told


@pytest.mark.parametrize("outcome", [OK, Outcome(OutcomeKind.TIMEOUT, 5)])
def test_other_ends_have_other_causes(outcome: Outcome) -> None:
    assert with_oom(run(outcome), 1, LIMIT) == run(outcome)
    assert with_oom(run(EXIT_1), 0, LIMIT) == run(EXIT_1)
