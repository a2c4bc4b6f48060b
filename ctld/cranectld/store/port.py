"""What the controller needs of a database, whichever it is."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from cranectld.history import Event
from cranectld.jobs.model import Job, JobState
from cranectld.nodes.breaker import Breaker
from cranectld.store.records import DecisionRecord, Expiry, NodeRecord, OwedEpilog, RequestRecord, Restored
from cranehooks.model.ids import AttemptKey, JobId, NodeName


class Store(Protocol):
    """Keeps everything in the order it was put. Putting returns at once; whoever promises something to the outside awaits `flushed` first.

    All methods are for the event loop's thread, but `open`, which blocks.
    """

    def open(self) -> Restored:
        """Makes or migrates the tables and reads what a starting controller needs. Blocking.

        Raises:
            CraneError: of a newer version, damaged, or not writable.
        """

    def start(self, when_writable_changed: Callable[[], None] = lambda: None) -> None:
        """Begins to write; from within the running loop. `when_writable_changed` is called on it when `failure` comes or goes."""

    async def close(self) -> None:
        """Writes what is queued, with one last try, and ends."""

    @property
    def backlog(self) -> int:
        """Queued writes that are not durable yet."""

    @property
    def failure(self) -> str:
        """Why nothing can be written now, for a person; empty while all is well."""

    async def flushed(self) -> None:
        """Returns when everything put so far survives a loss of power.

        Raises:
            StoreError: the disk refuses; what was put stays queued and is tried again.
        """

    async def flushed_or_retrying(self) -> None:
        """As `flushed`, for work that nobody waits for: outlasts a disk that refuses for a while."""

    def put_job(self, job: Job) -> None: ...
    def put_node(self, node: NodeRecord) -> None: ...
    def put_owed(self, owed: OwedEpilog) -> None: ...
    def drop_owed(self, node: NodeName, key: AttemptKey) -> None: ...
    def add_event(self, event: Event) -> None:
        """An event; one with a run whose id is kept already is left out."""

    def add_decision(self, decision: DecisionRecord) -> None: ...
    def put_request(self, request: RequestRecord) -> None: ...
    def drop_request(self, request_id: str) -> None: ...
    def put_breaker(self, breaker: Breaker) -> None: ...

    async def job(self, job_id: JobId) -> Job | None:
        """A job of any age that is kept. Reading gives what is durable, also while nothing can be written.

        Raises:
            StoreError: it cannot be read now.
        """

    async def ended_jobs(self, limit: int, user: str = "", states: Collection[JobState] = ()) -> list[Job]:
        """The newest jobs that have ended (in one of `states`), oldest of them first. Raises as `job`."""

    async def events(self, after: int, limit: int, job_id: int = 0, node: str = "") -> list[Event]:
        """Events after a cursor, oldest first. Raises as `job`."""

    async def last_events(self, limit: int, node: str) -> list[Event]:
        """The newest events of a node, oldest of them first. Raises as `job`."""

    async def expire(self, expiry: Expiry) -> bool:
        """Forgets a small batch of what is older; whether there is more of it.

        Raises:
            StoreError: it cannot be read or written now.
        """

    def snapshot(self) -> AbstractAsyncContextManager[Path]:
        """A complete, checked copy of everything that was durable at one moment, in a file that is there for the length of the block.

        Writing goes on meanwhile. A controller that starts from the copy gives no number again that this one may give after it.

        Raises:
            CraneError: RESOURCE_EXHAUSTED, another copy is being made; UNAVAILABLE, it cannot be written; INTERNAL, it is damaged.
        """
