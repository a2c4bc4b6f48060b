"""The journal and the outbox as one: what happened and what is to be told of it become durable together."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from craned.attempts.effects import Effect, ReportProlog, ReportReleased, ReportStepEnded, ReportStepStarted
from craned.attempts.events import Event
from craned.attempts.records import (
    AttemptForgotten,
    AttemptSeen,
    Booted,
    Entry,
    EventHappened,
    ReportQueued,
    ReportsAcknowledged,
    to_record,
)
from craned.attempts.reports import Outbox, Report, ReportHook
from cranehooks.journal import Journal, JournalWriteError
from cranehooks.model.ids import AttemptKey
from cranehooks.model.run import HookRun
from cranekit import crash_points

REWRITE_BYTES = 8 << 20
"""The journal is rewritten when it has grown to this, and to twice what it had after the last rewriting."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.attempts.ledger")


class Ledger:
    """Writes entries so that none is lost, and rewrites the file when it is large.

    A change is applied in memory right after the write that records it, without yielding in between; a rewriting waits until no write is
    under way, so what it finds in memory is what the file says.
    """

    def __init__(self, journal: Journal, outbox: Outbox, boot_id: str) -> None:
        self._journal = journal
        self._outbox = outbox
        self._boot_id = boot_id
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._grown = asyncio.Event()
        self._rewrite_at_bytes = REWRITE_BYTES

    async def record_request(self, seen: AttemptSeen | None, key: AttemptKey, event: Event, effects: Iterable[Effect]) -> None:
        """For what others ask for, and will ask for again when it is refused.

        Raises:
            JournalWriteError: the disk takes nothing; nothing happened.
        """
        entries, reports = self._entries(key, event, effects)
        try:
            await self._write([seen, *entries] if seen else entries)
        except JournalWriteError:
            self._outbox.withdraw(reports)
            raise
        self._outbox.release(reports)

    async def record_fact(self, key: AttemptKey, event: Event, effects: Iterable[Effect]) -> None:
        """For what has happened and cannot be refused: written again until the disk takes it."""
        entries, reports = self._entries(key, event, effects)
        await self._write_surely(entries)
        self._outbox.release(reports)

    async def record_hook(self, run: HookRun) -> None:
        """A task hook's run, to be told."""
        reports = self._outbox.reserve(AttemptKey(run.key.job_id, run.key.attempt), [ReportHook(run)], time.time())
        await self._write_surely([ReportQueued(report) for report in reports])
        self._outbox.release(reports)

    async def acknowledged(self, up_to: int) -> None:
        """The controller has all reports up to this one. That this is lost in a crash costs a repeat, so a full disk is no reason to wait."""
        if not self._outbox.acknowledge(up_to):
            return
        try:
            await self._write([ReportsAcknowledged(up_to)])
        except JournalWriteError as error:
            log.warning("journal_write_failed", error=str(error), consequence="acknowledged reports repeat after a restart")

    async def forgotten(self, key: AttemptKey) -> None:
        """Raises JournalWriteError; then the attempt stays known."""
        await self._write([AttemptForgotten(key)])

    def repeat(self, key: AttemptKey, contents: Iterable[ReportReleased]) -> None:
        """Tells again what was told before, unless that still waits to be heard. Not durable by itself: whoever asked will ask again."""
        if any(report.key == key and isinstance(report.content, ReportReleased) for report in self._outbox.pending):
            return
        self._outbox.release(self._outbox.reserve(key, contents, time.time()))

    async def rewrite(self, attempts: Callable[[], Iterable[AttemptSeen]]) -> None:
        """Replaces the file by what is in memory: all attempts, and all reports that are not acknowledged.

        Raises:
            JournalWriteError: the file is as it was.
        """
        self._may_write.clear()
        try:
            await self._is_idle.wait()
            entries: list[Entry] = [Booted(self._boot_id, self._outbox.next_id), *attempts()]
            entries += (ReportQueued(report) for report in self._outbox.pending)
            await self._journal.rewrite([to_record(entry) for entry in entries])
            self._rewrite_at_bytes = max(REWRITE_BYTES, 2 * self._journal.size_bytes)
        finally:
            self._may_write.set()

    async def keep_small(self, attempts: Callable[[], Iterable[AttemptSeen]]) -> None:
        """Rewrites whenever the file has grown, until cancelled."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                await self.rewrite(attempts)
            except JournalWriteError:
                log.exception("journal_rewrite_failed")
                self._rewrite_at_bytes = 2 * self._journal.size_bytes

    def _entries(self, key: AttemptKey, event: Event, effects: Iterable[Effect]) -> tuple[list[Entry], list[Report]]:
        told = [
            effect
            for effect in effects
            if isinstance(effect, ReportProlog | ReportStepStarted | ReportStepEnded | ReportReleased)
        ]
        now = time.time()
        reports = self._outbox.reserve(key, told, now)
        return [EventHappened(key, event, now, tuple(report.report_id for report in reports))], reports

    async def _write(self, entries: Sequence[Entry]) -> None:
        while not self._may_write.is_set():
            await self._may_write.wait()
        self._in_flight += 1
        self._is_idle.clear()
        what = " ".join(_word_of(entry) for entry in entries)
        crash_points.reached(f"journal {what}: writes")
        try:
            await self._journal.append([to_record(entry) for entry in entries])
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()
        crash_points.reached(f"journal {what}: wrote")
        if self._journal.size_bytes >= self._rewrite_at_bytes:
            self._grown.set()

    async def _write_surely(self, entries: Sequence[Entry]) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._write(entries)
            except JournalWriteError:
                log.exception("journal_write_failed", retry_in_s=pause_s)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return


def _word_of(entry: Entry) -> str:
    return type(entry.event if isinstance(entry, EventHappened) else entry).__name__
