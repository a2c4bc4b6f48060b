import json

import pytest

from craned.attempts.attempt import AttemptState, Step, StepPhase
from craned.attempts.events import StepEnded, StepRequested
from craned.attempts.records import (
    AttemptForgotten,
    AttemptSeen,
    Booted,
    Entry,
    EventHappened,
    RecordError,
    ReportQueued,
    ReportsAcknowledged,
    from_record,
    to_record,
)
from craned.attempts.reports import Report, ReportHook
from cranehooks.model.ids import StepId, TaskId
from cranehooks.model.job import TaskEnd
from cranehooks.model.points import HookPoint
from tests.unit.craned.test_attempt import BATCH, EVENTS, KEY, NODE, a_run
from tests.unit.craned.test_recovery import HOOKS, JOB

STATE = AttemptState(
    KEY, NODE, steps=(Step(BATCH, StepPhase.WAITING),), ended_steps=frozenset({StepId("3")}), epilog=a_run(HookPoint.EPILOG)
)
ENTRIES: tuple[Entry, ...] = (
    Booted("b", 7),
    AttemptSeen(JOB, HOOKS, STATE),
    EventHappened(KEY, StepRequested(BATCH), 1.5, (3, 4)),
    EventHappened(KEY, StepEnded(StepId("0"), (TaskEnd(TaskId(1), cancelled=True, reason="no"),), "why"), 1.5),
    ReportQueued(Report(1, 2.5, KEY, ReportHook(a_run(HookPoint.TASK_PROLOG)))),
    ReportsAcknowledged(9),
    AttemptForgotten(KEY),
    *(EventHappened(KEY, event, 0.0) for event in EVENTS),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_what_is_written_is_read_back(entry: Entry) -> None:
    assert from_record(json.loads(json.dumps(to_record(entry)))) == entry


@pytest.mark.parametrize(
    "record", [{}, {"is": "nothing"}, {"is": "event", "key": [1]}, {"is": "report", "id": 1}, {"is": "Booted", "of": 3}]
)
def test_a_record_of_another_version_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        from_record(record)
