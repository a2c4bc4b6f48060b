"""What survives a restart of the controller: SQLite in WAL mode, one writer thread, all SQL of the program.

Writes are queued in the order of the decisions and committed in groups; whoever promises something to the outside awaits `flushed()`
first. A failed commit is tried again, nothing queued is dropped, and waiters learn of it at once.
"""

import asyncio
import json
import sqlite3
import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from cranectld.history import Event
from cranectld.jobs.model import FINAL_STATES, Job, JobState
from cranectld.nodes.breaker import Breaker
from cranectld.nodes.model import DrainCause
from cranehooks.model.ids import AttemptKey, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobOnNode
from cranehooks.model.run import HookRun
from cranekit.errors import CraneError, ErrorCode

_log = structlog.get_logger()

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (job_id INTEGER PRIMARY KEY, final INTEGER NOT NULL, user TEXT NOT NULL, body TEXT NOT NULL);
    CREATE INDEX jobs_open ON jobs (job_id) WHERE final = 0;
    CREATE TABLE nodes (name TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE owed (node TEXT NOT NULL, job_id INTEGER NOT NULL, attempt INTEGER NOT NULL, body TEXT NOT NULL,
                       PRIMARY KEY (node, job_id, attempt));
    CREATE TABLE events (cursor INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, job_id INTEGER NOT NULL,
                         attempt INTEGER NOT NULL, node TEXT NOT NULL, run_id TEXT UNIQUE, run TEXT);
    CREATE INDEX events_job ON events (job_id, cursor);
    CREATE INDEX events_node ON events (node, cursor) WHERE node <> '';
    CREATE TABLE decisions (cursor INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE breakers (digest TEXT PRIMARY KEY, body TEXT NOT NULL);
    """,
)
"""Applied in order; PRAGMA user_version counts them. Never edited once released."""

MAX_BACKLOG = 100_000
"""Queued writes beyond which new work is refused."""

DECISIONS_KEPT = 10_000
"""A scheduler that was away for longer starts anew."""

_DECISIONS_PER_CLEANING = 1_000

RETRY_S = 1.0
"""Between attempts to commit what failed."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is kept of a node."""

    name: NodeName
    boot_id: str = ""
    drains: tuple[DrainCause, ...] = ()


@dataclass(frozen=True, slots=True)
class OwedEpilog:
    """An Epilog that a lost node still has to run, with all the node must know for it."""

    node: NodeName
    job: JobOnNode
    exit: ExitStatus
    reason: str
    derived_exit: ExitStatus = ExitStatus()
    """The highest of its numbered steps."""

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.job.job_id, self.job.attempt)


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as a scheduler can have it again after a restart of either side."""

    cursor: int
    at: float
    kind: str
    job_id: int = 0
    attempt: int = 0
    reason: str = ""
    not_before: float = 0.0
    step_id: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """Everything a starting controller needs."""

    jobs: list[Job]
    """Those that have not ended."""
    nodes: list[NodeRecord]
    owed: list[OwedEpilog]
    breakers: list[Breaker]
    requests: dict[str, list[int]]
    last_job_id: int
    last_cursor: int
    decisions: list[DecisionRecord]


_JOB: TypeAdapter[Job] = TypeAdapter(Job)
_NODE: TypeAdapter[NodeRecord] = TypeAdapter(NodeRecord)
_OWED: TypeAdapter[OwedEpilog] = TypeAdapter(OwedEpilog)
_RUN: TypeAdapter[HookRun] = TypeAdapter(HookRun)
_BREAKER: TypeAdapter[Breaker] = TypeAdapter(Breaker)
_DECISION: TypeAdapter[DecisionRecord] = TypeAdapter(DecisionRecord)
_IDS: TypeAdapter[list[int]] = TypeAdapter(list[int])

_Write = tuple[str, tuple[Any, ...]]  # one SQL statement and its parameters, of any SQLite type


class StoreError(CraneError):
    """The store cannot be written; nothing is lost, the writer keeps trying."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message, retryable=True)


class Store:
    """One database file. `open` it, `close` it; writes from the event loop's thread only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: deque[_Write] = deque()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._queued = 0
        self._committed = 0
        self._lock = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> Restored:
        """Creates or migrates the file and reads what has not ended. Blocking: before the loop serves anything.

        Raises:
            CraneError: the file is newer than this program, damaged, or not writable.
        """
        try:
            with self._connect() as connection:
                _migrate(connection, self._path)
                restored = _restore(connection)
        except sqlite3.Error as error:
            raise CraneError(ErrorCode.INTERNAL, f"{self._path}: cannot open the store: {error}") from error
        return restored

    def start(self) -> None:
        """Starts the writer; from within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer")
        self._thread.start()

    async def close(self) -> None:
        """Commits what is queued (one last try) and ends the writer."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def backlog(self) -> int:
        """Queued writes that are not committed yet."""
        return self._queued - self._committed

    def put_job(self, job: Job) -> None:
        body = _JOB.dump_json(job).decode()
        self._write(
            "INSERT INTO jobs VALUES (?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET final = excluded.final, body = excluded.body",
            job.job_id, int(job.state in FINAL_STATES), job.spec.user, body,
        )  # fmt: skip

    def put_node(self, node: NodeRecord) -> None:
        self._write("INSERT OR REPLACE INTO nodes VALUES (?, ?)", node.name, _NODE.dump_json(node).decode())

    def put_owed(self, owed: OwedEpilog) -> None:
        body = _OWED.dump_json(owed).decode()
        self._write("INSERT OR REPLACE INTO owed VALUES (?, ?, ?, ?)", owed.node, owed.key.job_id, owed.key.attempt, body)

    def drop_owed(self, node: NodeName, key: AttemptKey) -> None:
        self._write("DELETE FROM owed WHERE node = ? AND job_id = ? AND attempt = ?", node, key.job_id, key.attempt)

    def add_event(self, event: Event) -> None:
        run = None if event.run is None else _RUN.dump_json(event.run).decode()
        run_id = None if event.run is None else event.run.key.run_id
        self._write(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            event.cursor, event.at, event.kind, event.text, event.job_id, event.attempt, event.node, run_id, run,
        )  # fmt: skip

    def add_decision(self, decision: DecisionRecord) -> None:
        self._write("INSERT INTO decisions VALUES (?, ?)", decision.cursor, _DECISION.dump_json(decision).decode())
        if decision.cursor % _DECISIONS_PER_CLEANING == 0:
            self._write("DELETE FROM decisions WHERE cursor <= ?", decision.cursor - DECISIONS_KEPT)

    def put_request(self, request_id: str, job_ids: Sequence[int]) -> None:
        self._write("INSERT OR REPLACE INTO requests VALUES (?, ?)", request_id, _IDS.dump_json(list(job_ids)).decode())

    def drop_request(self, request_id: str) -> None:
        self._write("DELETE FROM requests WHERE request_id = ?", request_id)

    def put_breaker(self, breaker: Breaker) -> None:
        self._write("INSERT OR REPLACE INTO breakers VALUES (?, ?)", breaker.digest, _BREAKER.dump_json(breaker).decode())

    async def flushed(self) -> None:
        """Returns when everything written so far is durable.

        Raises:
            StoreError: the disk refuses; the writes stay queued and are tried again.
        """
        assert self._loop is not None, "start() comes first"
        with self._lock:
            if self._committed >= self._queued:
                return
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((self._queued, future))
        await future

    async def flushed_or_retrying(self) -> None:
        """As `flushed`, for work that nobody waits for: outlasts a disk that refuses for a while."""
        while True:
            try:
                return await self.flushed()
            except StoreError:
                await asyncio.sleep(RETRY_S)

    async def job(self, job_id: JobId) -> Job | None:
        """A job of any age."""
        rows = await self._read("SELECT body FROM jobs WHERE job_id = ?", job_id)
        return _JOB.validate_json(rows[0][0]) if rows else None

    async def ended_jobs(self, limit: int, user: str = "", states: Collection[JobState] = ()) -> list[Job]:
        """The newest jobs that have ended (in one of `states`), oldest of them first."""
        wanted = json.dumps(sorted(state.value for state in states))
        rows = await self._read(
            "SELECT body FROM jobs WHERE final = 1 AND (? = '' OR user = ?)"
            " AND (? = '[]' OR json_extract(body, '$.state') IN (SELECT value FROM json_each(?))) ORDER BY job_id DESC LIMIT ?",
            user, user, wanted, wanted, limit,
        )  # fmt: skip
        return [_JOB.validate_json(row[0]) for row in reversed(rows)]

    async def events(self, after: int, limit: int, job_id: int = 0, node: str = "") -> list[Event]:
        """Events after a cursor, oldest first."""
        rows = await self._read(
            "SELECT cursor, at, kind, text, job_id, attempt, node, run FROM events"
            " WHERE cursor > ? AND (? = 0 OR job_id = ?) AND (? = '' OR node = ?) ORDER BY cursor LIMIT ?",
            after, job_id, job_id, node, node, limit,
        )  # fmt: skip
        return [_event(row) for row in rows]

    async def last_events(self, limit: int, node: str) -> list[Event]:
        """The newest events of a node, oldest of them first."""
        rows = await self._read(
            "SELECT cursor, at, kind, text, job_id, attempt, node, run FROM events WHERE node = ? ORDER BY cursor DESC LIMIT ?",
            node, limit,
        )  # fmt: skip
        return [_event(row) for row in reversed(rows)]

    async def _read(self, sql: str, *parameters: Any) -> list[Any]:  # rows of any SQLite type
        await self.flushed()

        def query() -> list[Any]:  # rows of any SQLite type
            with self._connect() as connection:
                return connection.execute(sql, parameters).fetchall()

        return await asyncio.to_thread(query)

    def _connect(self) -> "_Connection":
        return _Connection(self._path)

    def _write(self, sql: str, *parameters: Any) -> None:  # values of any SQLite type
        with self._lock:
            self._pending.append((sql, parameters))
            self._queued += 1
            if len(self._pending) == 1:
                self._lock.notify()

    def _write_until_closed(self) -> None:
        with self._connect() as connection:
            while True:
                with self._lock:
                    while not self._pending and not self._closing:
                        self._lock.wait()
                    batch = list(self._pending)
                    closing = self._closing
                if batch:
                    error = _commit(connection, batch)
                    with self._lock:
                        if error is None:
                            for _ in batch:
                                self._pending.popleft()
                            self._committed += len(batch)
                        self._wake_waiters(error)
                        if error is not None and not closing:
                            self._lock.wait(RETRY_S)
                if closing:
                    return

    def _wake_waiters(self, error: sqlite3.Error | None) -> None:
        loop = self._loop
        assert loop is not None, "the writer runs after start()"
        while self._waiters and (error is not None or self._waiters[0][0] <= self._committed):
            _, future = self._waiters.popleft()
            failure = None if error is None else StoreError(f"{self._path}: cannot write: {error}")
            loop.call_soon_threadsafe(_resolve, future, failure)


class _Connection:
    """A connection that is closed, not only committed, at the end of its block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        self._connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    def __exit__(self, *exc: object) -> None:
        self._connection.close()


def _resolve(future: asyncio.Future[None], error: StoreError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _commit(connection: sqlite3.Connection, batch: Iterable[_Write]) -> sqlite3.Error | None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for sql, parameters in batch:
            connection.execute(sql, parameters)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _log.error("store.write_failed", error=str(error))
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return error
    return None


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise CraneError(ErrorCode.FAILED_PRECONDITION, f"{path}: made by a newer version ({version} > {len(MIGRATIONS)})")
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")


def _restore(connection: sqlite3.Connection) -> Restored:
    def column(sql: str, *parameters: int) -> list[str]:
        return [row[0] for row in connection.execute(sql, parameters)]

    return Restored(
        jobs=[_JOB.validate_json(body) for body in column("SELECT body FROM jobs WHERE final = 0 ORDER BY job_id")],
        nodes=[_NODE.validate_json(body) for body in column("SELECT body FROM nodes")],
        owed=[_OWED.validate_json(body) for body in column("SELECT body FROM owed")],
        breakers=[_BREAKER.validate_json(body) for body in column("SELECT body FROM breakers")],
        requests={row[0]: _IDS.validate_json(row[1]) for row in connection.execute("SELECT request_id, body FROM requests")},
        last_job_id=connection.execute("SELECT coalesce(max(job_id), 0) FROM jobs").fetchone()[0],
        last_cursor=connection.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchone()[0],
        decisions=[
            _DECISION.validate_json(body)
            for body in reversed(column("SELECT body FROM decisions ORDER BY cursor DESC LIMIT ?", DECISIONS_KEPT))
        ],
    )


def _event(row: Sequence[Any]) -> Event:  # a row of `events`, in the order of the SELECTs above
    cursor, at, kind, text, job_id, attempt, node, run = row
    return Event(cursor, at, kind, text, JobId(job_id), attempt, NodeName(node), None if run is None else _RUN.validate_json(run))
