from dataclasses import replace

import pytest

from cranectld.decisions import DecisionLog
from cranectld.jobs.events import DecisionKind
from cranectld.store import DECISIONS_KEPT
from cranekit.errors import CraneError, ErrorCode
from tests.unit.cranectld.builders import job


def filled(count: int) -> DecisionLog:
    log = DecisionLog()
    for _ in range(count):
        log.add(1.0, DecisionKind.SUBMITTED, job(), None, "", "")
    return log


def test_a_reader_gets_what_came_after_its_cursor() -> None:
    log = filled(3)
    assert [record.cursor for record in log.after(0)] == [1, 2, 3]
    assert [record.cursor for record in log.after(2)] == [3]
    assert log.after(3) == []


def test_a_reader_that_fell_behind_is_told_and_a_new_one_gets_what_is_kept() -> None:
    log = filled(DECISIONS_KEPT + 5)
    assert log.first_cursor == 6
    assert log.after(0)[0].cursor == 6
    assert log.after(5)[0].cursor == 6
    with pytest.raises(CraneError, match="kept from 6 on") as refused:
        log.after(4)
    assert refused.value.code is ErrorCode.OUT_OF_RANGE


def test_a_restored_log_goes_on_counting() -> None:
    log = DecisionLog()
    log.restore(filled(4).after(2), 4)
    assert (log.first_cursor, log.last_cursor) == (3, 4)
    assert log.add(1.0, DecisionKind.RUN, job(), None, "", "").cursor == 5


def test_a_log_from_a_backup_is_no_continuation() -> None:
    log = DecisionLog()
    log.restore(filled(4).after(0), 1_000_004)
    with pytest.raises(CraneError, match="too old"):
        log.after(4)
    record = log.add(1.0, DecisionKind.RUN, job(), None, "", "")
    assert record.cursor == 1_000_005
    assert log.after(1_000_004) == [record]


def test_only_a_requeue_says_not_before() -> None:
    later = replace(job(), not_before=9.0)
    log = DecisionLog()
    kinds = (DecisionKind.REQUEUE, DecisionKind.RUN)
    assert [log.add(1.0, kind, later, None, "", "").not_before for kind in kinds] == [9.0, 0.0]


async def test_readers_that_wait_are_woken() -> None:
    log = filled(1)
    ticket = log.bell.ticket()
    assert not ticket.is_set()
    log.add(1.0, DecisionKind.RUN, job(), None, "", "")
    assert ticket.is_set()
