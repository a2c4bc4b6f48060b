"""The story: one event per decision, transition, run, drain and administrative act, with a cursor."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from cranectld.bell import Bell
from cranehooks.model.ids import AttemptKey, JobId, NodeName, RunId
from cranehooks.model.run import HookRun

KEPT_IN_MEMORY = 20_000
"""Events that watchers can resume from without reading the store."""

RUNS_REMEMBERED = 50_000
"""Run ids by which a repeated report is recognised before the store refuses it."""


EVENT_KINDS = (
    "submitted",
    "allocated",
    "state",
    "step",
    "usage",
    "hook",
    "cancelled",
    "requeued",
    "held",
    "released",
    "drained",
    "resumed",
    "breaker",
    "node",
)
"""Every kind that an event can be of, so that a filter by kind can be checked; a test compares them with what is told."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `job_id` and `attempt` are 0, `node` is empty, where it concerns none."""

    cursor: int
    at: float
    kind: str
    text: str
    job_id: JobId = JobId(0)
    attempt: int = 0
    node: NodeName = NodeName("")
    run: HookRun | None = None


@dataclass(slots=True)
class History:
    """The newest events, and the cursor. The store keeps the rest."""

    last_cursor: int = 0
    bell: Bell = field(default_factory=Bell)
    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT_IN_MEMORY))
    _runs: dict[RunId, None] = field(default_factory=dict)

    def add(
        self,
        at: float,
        kind: str,
        text: str,
        key: AttemptKey | None = None,
        node: NodeName | None = None,
        run: HookRun | None = None,
    ) -> Event:
        """Appends an event and wakes the watchers."""
        self.last_cursor += 1
        event = Event(
            self.last_cursor,
            at,
            kind,
            text,
            key.job_id if key else JobId(0),
            key.attempt if key else 0,
            node or NodeName(""),
            run,
        )
        self._events.append(event)
        self.bell.ring()
        return event

    def is_new_run(self, run_id: RunId) -> bool:
        """False when a run with this id was told before (a repeated report). Remembers it."""
        if run_id in self._runs:
            return False
        self._runs[run_id] = None
        if len(self._runs) > RUNS_REMEMBERED:
            del self._runs[next(iter(self._runs))]
        return True

    @property
    def first_cursor(self) -> int:
        """The oldest event in memory, or one more than the last when there is none."""
        return self._events[0].cursor if self._events else self.last_cursor + 1

    def after(self, cursor: int) -> Iterator[Event]:
        """Events in memory that come after `cursor`, oldest first."""
        if cursor >= self.last_cursor:
            return iter(())
        start = max(0, cursor + 1 - self.first_cursor)
        return iter([self._events[index] for index in range(start, len(self._events))])
