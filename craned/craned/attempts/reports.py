"""What the controller is told, in order, until it has acknowledged it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from craned.attempts.effects import ReportEffect, ReportProlog, ReportReleased
from cranehooks.model.ids import AttemptKey
from cranehooks.model.output import clipped
from cranehooks.model.run import HookRun


@dataclass(frozen=True, slots=True)
class ReportHook:
    """A task hook's run."""

    run: HookRun


Content = ReportEffect | ReportHook


@dataclass(frozen=True, slots=True)
class Report:
    report_id: int
    """Unique and growing."""
    at: float
    """Seconds since the epoch."""
    key: AttemptKey
    content: Content


def clipped_content(content: Content, limit_bytes: int) -> Content:
    """A report's content with the output of its hook bounded, so that it fits into a message."""
    match content:
        case ReportProlog(run):
            return ReportProlog(clipped(run, limit_bytes))
        case ReportHook(run):
            return ReportHook(clipped(run, limit_bytes))
        case ReportReleased(epilog, usage) if epilog is not None:
            return ReportReleased(clipped(epilog, limit_bytes), usage)
        case _:
            return content


@dataclass(slots=True)
class _Entry:
    report: Report
    is_durable: bool


class Outbox:
    """Reports that the controller has not acknowledged, oldest first.

    A report takes its place before it is durable, and nothing behind it is sent before it is. Work is refused while the outbox is full
    (`is_full`), so it grows by what the work that was accepted still has to say, and by no more.
    """

    def __init__(self, reports: Iterable[Report] = (), *, next_id: int = 1, capacity: int = 10_000) -> None:
        self._entries = deque(_Entry(report, is_durable=True) for report in reports)
        self._next_id = max(next_id, 1 + max((entry.report.report_id for entry in self._entries), default=0))
        self._capacity = capacity
        self._filled = asyncio.Event()
        self._wake()

    @property
    def next_id(self) -> int:
        return self._next_id

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self._capacity

    @property
    def pending(self) -> Sequence[Report]:
        """Everything durable that is not acknowledged."""
        return [entry.report for entry in self._entries if entry.is_durable]

    def reserve(self, key: AttemptKey, contents: Iterable[Content], at: float) -> list[Report]:
        """Gives reports their ids and places; `release` or `withdraw` must follow."""
        reports = []
        for content in contents:
            report = Report(self._next_id, at, key, content)
            self._next_id += 1
            self._entries.append(_Entry(report, is_durable=False))
            reports.append(report)
        return reports

    def release(self, reports: Sequence[Report]) -> None:
        """They are durable now and may be sent."""
        ids = {report.report_id for report in reports}
        for entry in self._entries:
            if entry.report.report_id in ids:
                entry.is_durable = True
        self._wake()

    def withdraw(self, reports: Sequence[Report]) -> None:
        """They could not be made durable, and what they told of did not happen."""
        ids = {report.report_id for report in reports}
        self._entries = deque(entry for entry in self._entries if entry.report.report_id not in ids)
        self._wake()

    async def next_batch(self, limit: int) -> list[Report]:
        """Waits until there is a report to send; the oldest ones, at most `limit`. They stay until acknowledged."""
        await self._filled.wait()
        batch: list[Report] = []
        for entry in self._entries:
            if not entry.is_durable or len(batch) == limit:
                break
            batch.append(entry.report)
        return batch

    def acknowledge(self, up_to: int) -> int:
        """Drops all reports up to and including `up_to`; the number of those dropped."""
        dropped = 0
        while self._entries and self._entries[0].is_durable and self._entries[0].report.report_id <= up_to:
            self._entries.popleft()
            dropped += 1
        self._wake()
        return dropped

    def _wake(self) -> None:
        if self._entries and self._entries[0].is_durable:
            self._filled.set()
        else:
            self._filled.clear()
