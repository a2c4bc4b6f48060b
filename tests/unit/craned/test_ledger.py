import asyncio
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from craned.attempts.attempt import AttemptState
from craned.attempts.effects import ReportProlog, ReportReleased, RunProlog
from craned.attempts.events import PrepareRequested, PrologEnded
from craned.attempts.ledger import Ledger
from craned.attempts.records import AttemptSeen
from craned.attempts.recovery import Memory, remember
from craned.attempts.reports import Outbox
from cranehooks.journal import Journal, JournalWriteError, decode
from cranehooks.model.points import HookPoint
from tests.unit.craned.test_attempt import KEY, NODE, PROLOG_OK, a_run
from tests.unit.craned.test_recovery import HOOKS, JOB

SEEN = AttemptSeen(JOB, HOOKS, AttemptState(KEY, NODE))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def ledger(path: Path, outbox: Outbox) -> Iterator[Ledger]:
    journal, _ = Journal.open(path, sync=False)
    yield Ledger(journal, outbox, "boot")
    journal.close()


def remembered(path: Path) -> Memory:
    return remember(decode(path.read_bytes()).records)


class FullDisk:
    """Nothing can be written to a file beyond its present length."""

    def __init__(self, path: Path) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, self._limits[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


async def test_an_event_and_its_reports_are_durable_together(path: Path, ledger: Ledger, outbox: Outbox) -> None:
    await ledger.record_request(SEEN, KEY, PrepareRequested(), (RunProlog(),))
    await ledger.record_fact(KEY, PrologEnded(PROLOG_OK.run), (ReportProlog(PROLOG_OK.run),))
    assert [report.report_id for report in outbox.pending] == [1]
    assert remembered(path).reports == list(outbox.pending)
    await ledger.acknowledged(1)
    assert remembered(path).reports == []
    assert not outbox.pending


async def test_a_refused_request_leaves_nothing_behind(path: Path, ledger: Ledger, outbox: Outbox) -> None:
    disk = FullDisk(path)
    try:
        with pytest.raises(JournalWriteError):
            await ledger.record_request(SEEN, KEY, PrepareRequested(), (RunProlog(),))
    finally:
        disk.free()
    assert remembered(path).attempts == {}
    assert not outbox.pending


async def test_a_fact_waits_for_a_full_disk(path: Path, ledger: Ledger, outbox: Outbox) -> None:
    await ledger.record_request(SEEN, KEY, PrepareRequested(), (RunProlog(),))
    disk = FullDisk(path)
    try:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(ledger.record_fact(KEY, PrologEnded(PROLOG_OK.run), (ReportProlog(PROLOG_OK.run),)))
            await ledger.acknowledged(0)
            assert not outbox.pending
            assert not writing.done()
            disk.free()
    finally:
        disk.free()
    assert len(remembered(path).reports) == 1


async def test_a_rewriting_keeps_attempts_and_reports(path: Path, ledger: Ledger, outbox: Outbox) -> None:
    await ledger.record_request(SEEN, KEY, PrepareRequested(), (RunProlog(),))
    await ledger.record_hook(a_run(HookPoint.TASK_PROLOG))
    before = remembered(path)
    state = before.attempts[KEY].state
    await ledger.rewrite(lambda: [AttemptSeen(JOB, HOOKS, state)])
    after = remembered(path)
    assert after.attempts == before.attempts
    assert after.reports == before.reports
    assert after.next_report_id == outbox.next_id
    assert after.boot_id == "boot"


async def test_a_rewriting_waits_for_writes_and_writes_wait_for_it(path: Path, ledger: Ledger) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ledger.record_hook(a_run(HookPoint.TASK_PROLOG)))
        group.create_task(ledger.rewrite(list))
        for _ in range(20):
            group.create_task(ledger.record_hook(a_run(HookPoint.TASK_EPILOG)))
    assert len(remembered(path).reports) == 40


async def test_a_repeated_release_is_told_again_once_the_first_was_heard(ledger: Ledger, outbox: Outbox) -> None:
    ledger.repeat(KEY, [ReportReleased(None)])
    ledger.repeat(KEY, [ReportReleased(None)])
    assert len(outbox.pending) == 1
    await ledger.acknowledged(1)
    ledger.repeat(KEY, [ReportReleased(None)])
    assert len(outbox.pending) == 1
