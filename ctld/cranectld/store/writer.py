"""One thread that commits queued writes in their order, in groups, and never gives up on them."""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import structlog

from cranectld.store.records import RETRY_S, StoreError
from cranekit import crash_points

_log = structlog.get_logger()

Write = tuple[str, tuple[Any, ...]]  # one SQL statement and its parameters, of any SQLite type

GROUP = 2_000
"""Writes per transaction at most, so that none is long."""

TOLD_AGAIN_S = 60.0
"""Between log lines while a disk keeps refusing."""


class Writer:
    """Queues writes for its thread. A failed commit is tried again on a new connection; who waits learns of it at once."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        """`name` is how messages to people call what is written."""
        self._name = name
        self._connect = connect
        self._pending: deque[Write] = deque()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._queued = 0
        self._committed = 0
        self._lock = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._when_changed: Callable[[], None] = lambda: None
        self._failing_since: float | None = None
        self._told_at = 0.0
        self.failure = ""
        """Why the last commit failed, for a person; empty when it did not."""

    def start(self, when_changed: Callable[[], None]) -> None:
        """Starts the thread; from within the running loop, on which `when_changed` is called when `failure` comes or goes."""
        self._loop = asyncio.get_running_loop()
        self._when_changed = when_changed
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer")
        self._thread.start()

    async def close(self) -> None:
        """Commits what is queued (one last try) and ends the thread."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def backlog(self) -> int:
        return self._queued - self._committed

    def put(self, sql: str, *parameters: Any) -> None:  # values of any SQLite type
        with self._lock:
            self._pending.append((sql, parameters))
            self._queued += 1
            if len(self._pending) == 1:
                self._lock.notify()

    async def flushed(self) -> None:
        """Returns when everything put so far is durable.

        Raises:
            StoreError: the disk refuses.
        """
        assert self._loop is not None, "start() comes first"
        with self._lock:
            if self._committed >= self._queued:
                return
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((self._queued, future))
        await future

    def _write_until_closed(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._pending or self._closing)
                group = list(islice(self._pending, GROUP))
                closing = self._closing
            if not group:
                break
            try:
                connection = connection or self._connect()
                _commit(connection, group)
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                    connection = None
                self._failed(error)
                if closing:
                    _log.error("store.closed_with_unwritten", store=self._name, writes=self.backlog, error=str(error))
                    break
                with self._lock:
                    self._lock.wait_for(lambda: self._closing, RETRY_S)
            else:
                self._succeeded(len(group))
        if connection is not None:
            connection.close()

    def _succeeded(self, number: int) -> None:
        with self._lock:
            for _ in range(number):
                self._pending.popleft()
            self._committed += number
            while self._waiters and self._waiters[0][0] <= self._committed:
                self._wake(self._waiters.popleft()[1], None)
        if self._failing_since is not None:
            _log.warning("store.writable_again", store=self._name, after_s=round(time.monotonic() - self._failing_since, 1))
            self._failing_since = None
            self._change("")

    def _failed(self, error: sqlite3.Error) -> None:
        now = time.monotonic()
        if self._failing_since is None or now >= self._told_at + TOLD_AGAIN_S:
            self._told_at = now
            meaning = "new work is refused and nothing is promised until it can be written; running jobs go on"
            _log.error("store.write_failed", store=self._name, error=str(error), queued=self.backlog, meaning=meaning)
        self._failing_since = self._failing_since or now
        failure = f"cannot write {self._name}: {error}"
        with self._lock:
            while self._waiters:
                self._wake(self._waiters.popleft()[1], StoreError(failure))
        if failure != self.failure:
            self._change(failure)

    def _change(self, failure: str) -> None:
        self.failure = failure
        assert self._loop is not None, "the thread runs after start()"
        self._loop.call_soon_threadsafe(self._when_changed)

    def _wake(self, future: asyncio.Future[None], failure: StoreError | None) -> None:
        assert self._loop is not None, "the thread runs after start()"
        self._loop.call_soon_threadsafe(_resolve, future, failure)


def _resolve(future: asyncio.Future[None], error: StoreError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _commit(connection: sqlite3.Connection, group: Iterable[Write]) -> None:
    """One transaction; a failed one leaves nothing behind, as its connection is closed."""
    connection.execute("BEGIN IMMEDIATE")
    for sql, parameters in group:
        connection.execute(sql, parameters)
    crash_points.reached("store: commits")
    connection.execute("COMMIT")
    crash_points.reached("store: committed")
