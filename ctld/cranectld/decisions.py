"""Decisions in order, for a scheduler that may come back and ask for what it missed."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from cranectld.bell import Bell
from cranectld.jobs.events import DecisionKind
from cranectld.jobs.model import Job
from cranectld.nodes.model import Node
from cranectld.store import DECISIONS_KEPT, DecisionRecord
from cranekit.errors import CraneError, ErrorCode


@dataclass(slots=True)
class DecisionLog:
    """The newest decisions; a cursor older than `first_cursor - 1` cannot be resumed."""

    last_cursor: int = 0
    bell: Bell = field(default_factory=Bell)
    _records: deque[DecisionRecord] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT))

    def restore(self, records: Iterable[DecisionRecord], last_cursor: int) -> None:
        """Takes over what the store kept, and the last cursor that was ever given out (later than all records in a restored backup: then
        a scheduler must start anew).
        """
        self._records.extend(records)
        self.last_cursor = last_cursor
        if self._records and self._records[-1].cursor != last_cursor:
            self._records.clear()

    def add(self, at: float, kind: DecisionKind, job: Job | None, node: Node | None, reason: str, step_id: str) -> DecisionRecord:
        self.last_cursor += 1
        record = DecisionRecord(
            cursor=self.last_cursor,
            at=at,
            kind=kind.value,
            job_id=job.job_id if job else 0,
            attempt=job.attempt if job else 0,
            reason=reason,
            not_before=job.not_before if job and kind is DecisionKind.REQUEUE else 0.0,
            step_id=step_id,
            node=node.name if node else "",
        )
        self._records.append(record)
        self.bell.ring()
        return record

    @property
    def first_cursor(self) -> int:
        return self._records[0].cursor if self._records else self.last_cursor + 1

    def after(self, cursor: int) -> list[DecisionRecord]:
        """What came after a cursor; 0: all that is kept.

        Raises:
            CraneError: OUT_OF_RANGE, some of it is not kept any more.
        """
        if 0 < cursor < self.first_cursor - 1:
            message = f"cursor {cursor} is too old: decisions are kept from {self.first_cursor} on"
            raise CraneError(ErrorCode.OUT_OF_RANGE, message)
        start = max(0, cursor + 1 - self.first_cursor)
        return list(islice(self._records, start, None))
