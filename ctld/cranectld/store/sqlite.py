"""The store in one SQLite file, in WAL mode with full synchronisation: what is committed survives a loss of power. All SQL of the program is in this package.

One thread writes (`writer`); every reading has a connection and a thread of its own, so that nobody waits for anybody.
"""

import asyncio
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cranectld.history import Event
from cranectld.jobs.model import FINAL_STATES, Job, JobState
from cranectld.nodes.breaker import Breaker
from cranectld.store.backup import AbandonedError, copy_store
from cranectld.store.migrations import migrate
from cranectld.store.records import (
    DECISIONS_KEPT,
    RETRY_S,
    DecisionRecord,
    Expiry,
    NodeRecord,
    OwedEpilog,
    RequestRecord,
    Restored,
    StoreError,
)
from cranectld.store.writer import Writer
from cranehooks.model.ids import AttemptKey, JobId, NodeName
from cranehooks.model.run import HookRun
from cranekit.errors import CraneError, ErrorCode

_DECISIONS_PER_CLEANING = 1_000

EXPIRED_AT_ONCE = 500
"""Rows of each kind that are forgotten in one transaction: a few milliseconds."""

BUSY_S = 10.0
"""How long a lock of another process on the file is waited for."""

LARGEST_LOG_BYTES = 64 << 20
"""To which the write-ahead log is cut after a long reading has made it grow."""

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
_NODE: TypeAdapter[NodeRecord] = TypeAdapter(NodeRecord)
_OWED: TypeAdapter[OwedEpilog] = TypeAdapter(OwedEpilog)
_RUN: TypeAdapter[HookRun] = TypeAdapter(HookRun)
_BREAKER: TypeAdapter[Breaker] = TypeAdapter(Breaker)
_DECISION: TypeAdapter[DecisionRecord] = TypeAdapter(DecisionRecord)
_NUMBERS: TypeAdapter[tuple[int, ...]] = TypeAdapter(tuple[int, ...])

_OLD_JOBS = "FROM jobs WHERE final = 1 AND ended_at < ?"
_OLD_EVENTS = "FROM events WHERE at < ? AND job_id NOT IN (SELECT job_id FROM jobs WHERE final = 0)"
_OLD_REQUESTS = "FROM requests WHERE at < ?"
_COUNT = "INSERT INTO counters SELECT ?, coalesce(max({}), 0) FROM {} WHERE true ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"

Connect = Callable[[], sqlite3.Connection]


class SqliteStore:
    """`port.Store` in one file, which only its owner can read: it holds users' environments."""

    def __init__(self, path: Path, connect: Callable[[Path], sqlite3.Connection] | None = None) -> None:
        """`connect` takes the place of `connection_to`, in tests of disks that refuse."""
        self._path = path
        self._connect: Connect = lambda: (connect or connection_to)(path)
        self._writer = Writer(str(path), self._connect)
        self._is_copied = False

    def open(self) -> Restored:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
            with closing(self._connect()) as connection:
                migrate(connection, str(self._path))
                return _restore(connection)
        except (sqlite3.Error, OSError) as error:
            raise CraneError(ErrorCode.INTERNAL, f"{self._path}: cannot open the store: {error}") from error
        except ValueError as error:
            raise CraneError(
                ErrorCode.INTERNAL, f"{self._path}: the store holds what this version cannot read: {error}"
            ) from error

    def start(self, when_writable_changed: Callable[[], None] = lambda: None) -> None:
        self._writer.start(when_writable_changed)

    async def close(self) -> None:
        await self._writer.close()

    @property
    def backlog(self) -> int:
        return self._writer.backlog

    @property
    def failure(self) -> str:
        return self._writer.failure

    async def flushed(self) -> None:
        await self._writer.flushed()

    async def flushed_or_retrying(self) -> None:
        while True:
            try:
                return await self.flushed()
            except StoreError:
                await asyncio.sleep(RETRY_S)

    def put_job(self, job: Job) -> None:
        body = _JOB.dump_json(job).decode()
        self._writer.put(
            "INSERT INTO jobs (job_id, final, user, body, state, ended_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE"
            " SET final = excluded.final, body = excluded.body, state = excluded.state, ended_at = excluded.ended_at",
            job.job_id, int(job.state in FINAL_STATES), job.spec.user, body, job.state.value, job.ended_at,
        )  # fmt: skip

    def put_node(self, node: NodeRecord) -> None:
        self._writer.put("INSERT OR REPLACE INTO nodes VALUES (?, ?)", node.name, _NODE.dump_json(node).decode())

    def put_owed(self, owed: OwedEpilog) -> None:
        body = _OWED.dump_json(owed).decode()
        self._writer.put("INSERT OR REPLACE INTO owed VALUES (?, ?, ?, ?)", owed.node, owed.key.job_id, owed.key.attempt, body)

    def drop_owed(self, node: NodeName, key: AttemptKey) -> None:
        self._writer.put("DELETE FROM owed WHERE node = ? AND job_id = ? AND attempt = ?", node, key.job_id, key.attempt)

    def add_event(self, event: Event) -> None:
        run = None if event.run is None else _RUN.dump_json(event.run).decode()
        run_id = None if event.run is None else event.run.key.run_id
        self._writer.put(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            event.cursor, event.at, event.kind, event.text, event.job_id, event.attempt, event.node, run_id, run,
        )  # fmt: skip

    def add_decision(self, decision: DecisionRecord) -> None:
        self._writer.put("INSERT INTO decisions VALUES (?, ?)", decision.cursor, _DECISION.dump_json(decision).decode())
        if decision.cursor % _DECISIONS_PER_CLEANING == 0:
            self._writer.put("DELETE FROM decisions WHERE cursor <= ?", decision.cursor - DECISIONS_KEPT)

    def put_request(self, request: RequestRecord) -> None:
        body = _NUMBERS.dump_json(request.numbers).decode()
        self._writer.put("INSERT OR REPLACE INTO requests VALUES (?, ?, ?)", request.request_id, request.at, body)

    def drop_request(self, request_id: str) -> None:
        self._writer.put("DELETE FROM requests WHERE request_id = ?", request_id)

    def put_breaker(self, breaker: Breaker) -> None:
        self._writer.put("INSERT OR REPLACE INTO breakers VALUES (?, ?)", breaker.digest, _BREAKER.dump_json(breaker).decode())

    async def job(self, job_id: JobId) -> Job | None:
        rows = await self._read("SELECT body FROM jobs WHERE job_id = ?", job_id)
        return _JOB.validate_json(rows[0][0]) if rows else None

    async def ended_jobs(self, limit: int, user: str = "", states: Collection[JobState] = ()) -> list[Job]:
        wanted = json.dumps(sorted(state.value for state in states))
        rows = await self._read(
            "SELECT body FROM jobs WHERE final = 1 AND (? = '' OR user = ?)"
            " AND (? = '[]' OR state IN (SELECT value FROM json_each(?))) ORDER BY job_id DESC LIMIT ?",
            user, user, wanted, wanted, limit,
        )  # fmt: skip
        return [_JOB.validate_json(row[0]) for row in reversed(rows)]

    async def events(self, after: int, limit: int, job_id: int = 0, node: str = "") -> list[Event]:
        rows = await self._read(
            "SELECT cursor, at, kind, text, job_id, attempt, node, run FROM events"
            " WHERE cursor > ? AND (? = 0 OR job_id = ?) AND (? = '' OR node = ?) ORDER BY cursor LIMIT ?",
            after, job_id, job_id, node, node, limit,
        )  # fmt: skip
        return [_event(row) for row in rows]

    async def last_events(self, limit: int, node: str) -> list[Event]:
        rows = await self._read(
            "SELECT cursor, at, kind, text, job_id, attempt, node, run FROM events WHERE node = ? ORDER BY cursor DESC LIMIT ?",
            node, limit,
        )  # fmt: skip
        return [_event(row) for row in reversed(rows)]

    async def expire(self, expiry: Expiry) -> bool:
        conditions = (expiry.jobs_before, expiry.events_before, expiry.requests_before)
        [found] = await self._read(
            f"SELECT EXISTS (SELECT 1 {_OLD_JOBS}), EXISTS (SELECT 1 {_OLD_EVENTS}), EXISTS (SELECT 1 {_OLD_REQUESTS})",
            *conditions,
        )
        jobs, events, requests = found
        if jobs:
            # The numbers of what is forgotten are not given again.
            self._writer.put(_COUNT.format("job_id", "jobs"), "job")
            self._writer.put(
                f"DELETE FROM jobs WHERE job_id IN (SELECT job_id {_OLD_JOBS} LIMIT ?)", expiry.jobs_before, EXPIRED_AT_ONCE
            )
        if events:
            self._writer.put(_COUNT.format("cursor", "events"), "event")
            self._writer.put(
                f"DELETE FROM events WHERE cursor IN (SELECT cursor {_OLD_EVENTS} LIMIT ?)", expiry.events_before, EXPIRED_AT_ONCE
            )
        if requests:
            statement = f"DELETE FROM requests WHERE request_id IN (SELECT request_id {_OLD_REQUESTS} LIMIT ?)"
            self._writer.put(statement, expiry.requests_before, EXPIRED_AT_ONCE)
        await self.flushed()
        return bool(jobs or events or requests)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Path]:
        if self._is_copied:
            raise CraneError(
                ErrorCode.RESOURCE_EXHAUSTED, "another backup is being made: try again when it is done", retryable=True
            )
        self._is_copied = True
        abandoned = threading.Event()
        try:
            with suppress(StoreError):  # What is durable can be saved while nothing can be added to it.
                await self.flushed()
            with tempfile.TemporaryDirectory(prefix="backup.", dir=self._path.parent) as directory:
                copy = Path(directory) / self._path.name
                copying = asyncio.get_running_loop().run_in_executor(None, copy_store, self._connect, copy, abandoned)
                try:
                    await asyncio.shield(copying)
                except asyncio.CancelledError:
                    # The directory stays until the thread has left it.
                    abandoned.set()
                    with suppress(AbandonedError, CraneError):
                        await copying
                    raise
                yield copy
        except OSError as error:
            raise CraneError(ErrorCode.UNAVAILABLE, f"cannot make a copy in {self._path.parent}: {error.strerror}") from error
        finally:
            self._is_copied = False

    async def _read(self, sql: str, *parameters: Any) -> list[Any]:  # rows of any SQLite type
        if not self.failure:
            # A disk that refuses now is no reason to hide what is on it: what is younger is in memory.
            with suppress(StoreError):
                await self.flushed()

        def query() -> list[Any]:  # rows of any SQLite type
            with closing(self._connect()) as connection:
                return connection.execute(sql, parameters).fetchall()

        try:
            return await asyncio.to_thread(query)
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error


def connection_to(path: Path) -> sqlite3.Connection:
    """A connection with the store's settings.

    Raises:
        sqlite3.Error: there is none to be had.
    """
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _restore(connection: sqlite3.Connection) -> Restored:
    def column(sql: str, *parameters: int) -> list[str]:
        return [row[0] for row in connection.execute(sql, parameters)]

    counters: dict[str, int] = dict(connection.execute("SELECT name, value FROM counters"))

    def last(counter: str, number: str, table: str) -> int:
        highest: int = connection.execute(f"SELECT coalesce(max({number}), 0) FROM {table}").fetchone()[0]
        return max(highest, counters.get(counter, 0))

    requests = connection.execute("SELECT request_id, body, at FROM requests ORDER BY at, rowid")
    return Restored(
        jobs=[_JOB.validate_json(body) for body in column("SELECT body FROM jobs WHERE final = 0 ORDER BY job_id")],
        nodes=[_NODE.validate_json(body) for body in column("SELECT body FROM nodes")],
        owed=[_OWED.validate_json(body) for body in column("SELECT body FROM owed")],
        breakers=[_BREAKER.validate_json(body) for body in column("SELECT body FROM breakers")],
        requests=[RequestRecord(request_id, _NUMBERS.validate_json(body), at) for request_id, body, at in requests],
        last_job_id=last("job", "job_id", "jobs"),
        last_cursor=last("event", "cursor", "events"),
        last_decision=last("decision", "cursor", "decisions"),
        decisions=[
            _DECISION.validate_json(body)
            for body in reversed(column("SELECT body FROM decisions ORDER BY cursor DESC LIMIT ?", DECISIONS_KEPT))
        ],
    )


def _event(row: Sequence[Any]) -> Event:  # a row of `events`, in the order of the SELECTs above
    cursor, at, kind, text, job_id, attempt, node, run = row
    return Event(cursor, at, kind, text, JobId(job_id), attempt, NodeName(node), None if run is None else _RUN.validate_json(run))
