import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from cranectld.history import Event
from cranectld.jobs import machine
from cranectld.jobs.model import Job, JobState
from cranectld.nodes.breaker import Breaker
from cranectld.nodes.model import DrainCause, DrainOwner
from cranectld.store import DecisionRecord, Expiry, NodeRecord, OwedEpilog, RequestRecord, Store, StoreError, backup, sqlite
from cranectld.store.sqlite import SqliteStore, connection_to
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobOnNode
from cranehooks.model.points import HookPoint
from cranekit.errors import CraneError, ErrorCode
from tests.support.eventually import eventually_async
from tests.unit.cranectld.builders import CN1, EXIT_1, REQUEUE, allocated, job, run, shares


@asynccontextmanager
async def opened(path: Path, connect: Callable[[Path], sqlite3.Connection] | None = None) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, connect)
    store.open()
    store.start()
    try:
        yield store
    finally:
        await store.close()


async def written(path: Path, *writes: Callable[[Store], None]) -> None:
    async with opened(path) as store:
        for write in writes:
            write(store)
        await store.flushed()


def ended(number: int, at: float) -> Job:
    return replace(job(), job_id=JobId(number), state=JobState.COMPLETED, ended_at=at)


def event(cursor: int, at: float, job_id: int = 1) -> Event:
    return Event(cursor, at, "started", "", JobId(job_id), 1)


async def test_everything_comes_back(tmp_path: Path) -> None:
    running, _ = machine.advance(job(), allocated(), REQUEUE)
    over = ended(2, 5.0)
    on_node = JobOnNode(JobId(1), Attempt(1), running.spec, running.nodes, shares(CN1)[0], "test")
    owed = OwedEpilog(CN1, on_node, ExitStatus(1, 0), "lost")
    node = NodeRecord(CN1, "boot", (DrainCause(DrainOwner.HOOKS, "prolog a.sh exit 1", 1.0),))
    breaker = Breaker("d", "/a.sh", ((1.0, CN1),), 2.0)
    decision = DecisionRecord(1, 1.0, "run", 1, 1)
    told = Event(1, 1.0, "hook", "Prolog exit 1", JobId(1), 1, CN1, run(HookPoint.PROLOG, EXIT_1, CN1, last_line="no GPU"))
    request = RequestRecord("r", (1, 2), 3.0)
    path = tmp_path / "ctld.db"

    await written(
        path,
        lambda s: s.put_job(running),
        lambda s: s.put_job(over),
        lambda s: s.put_node(node),
        lambda s: s.put_owed(owed),
        lambda s: s.put_breaker(breaker),
        lambda s: s.add_decision(decision),
        lambda s: s.add_event(told),
        lambda s: s.put_request(request),
    )

    store = SqliteStore(path)
    restored = store.open()
    store.start()
    try:
        assert restored.jobs == [running]
        assert restored.nodes == [node]
        assert restored.owed == [owed]
        assert restored.breakers == [breaker]
        assert restored.decisions == [decision]
        assert restored.requests == [request]
        assert (restored.last_job_id, restored.last_cursor, restored.last_decision) == (2, 1, 1)
        assert await store.job(JobId(2)) == over
        assert await store.ended_jobs(10) == [over]
        assert await store.ended_jobs(10, "alice", {JobState.COMPLETED, JobState.FAILED}) == [over]
        assert await store.ended_jobs(10, "bob") == []
        assert await store.ended_jobs(10, states={JobState.FAILED}) == []
        assert await store.events(0, 10, job_id=1) == [told]
        assert await store.last_events(10, "cn01") == [told]
    finally:
        await store.close()


async def test_repeated_run_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    first, second = (Event(cursor, 1.0, "hook", "", JobId(1), 1, CN1, run(HookPoint.PROLOG, node=CN1)) for cursor in (1, 2))

    await written(path, lambda s: s.add_event(first), lambda s: s.add_event(second))

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_what_is_committed_survives_a_loss_of_power_and_is_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    SqliteStore(path).open()

    with closing(connection_to(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert path.stat().st_mode & 0o777 == 0o600


def test_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(CraneError, match="cannot open the store"):
        SqliteStore(path).open()


def test_store_in_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CraneError, match="cannot open the store"):
        SqliteStore(tmp_path / "nowhere" / "ctld.db").open()


# ---- a disk that refuses


class Disk:
    """Refuses every transaction while it is `full`."""

    def __init__(self) -> None:
        self.full = False
        self.problem = "database or disk is full"

    def connect(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
                if disk.full and not sql.startswith(("PRAGMA", "SELECT")):
                    raise sqlite3.OperationalError(disk.problem)
                return super().execute(sql, parameters)  # type: ignore[arg-type]  # whatever it was

        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection


@pytest.mark.parametrize("problem", ["database or disk is full", "attempt to write a readonly database", "disk I/O error"])
async def test_refusing_disk_is_told_once_and_loses_nothing(tmp_path: Path, problem: str) -> None:
    path, disk = tmp_path / "ctld.db", Disk()
    disk.problem = problem
    changes: list[str] = []
    store = SqliteStore(path, disk.connect)
    store.open()
    store.start(lambda: changes.append(store.failure))
    with structlog.testing.capture_logs() as logs:
        try:
            assert store.failure == ""
            disk.full = True
            store.put_node(NodeRecord(NodeName("cn01")))
            with pytest.raises(StoreError, match=problem) as caught:
                await store.flushed()
            assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.UNAVAILABLE, 1.0)
            await eventually_async(lambda: changes == [f"cannot write {path}: {problem}"])
            with pytest.raises(StoreError):
                await store.flushed()
            assert await store.ended_jobs(10) == [], "reading goes on"
            disk.full = False
            async with asyncio.timeout(10):
                await store.flushed_or_retrying()
            await eventually_async(lambda: changes[-1] == "")
        finally:
            await store.close()
    assert SqliteStore(path).open().nodes == [NodeRecord(NodeName("cn01"))]
    told = [(entry["log_level"], entry["event"]) for entry in logs]
    assert told == [("error", "store.write_failed"), ("warning", "store.writable_again")]


async def test_what_cannot_be_written_at_the_end_is_told(tmp_path: Path) -> None:
    disk = Disk()
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path / "ctld.db", disk.connect) as store:
            disk.full = True
            store.put_node(NodeRecord(NodeName("cn01")))
    assert [entry["writes"] for entry in logs if entry["event"] == "store.closed_with_unwritten"] == [1]


async def test_many_writes_are_several_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cranectld.store.writer.GROUP", 10)
    async with opened(tmp_path / "ctld.db") as store:
        for number in range(95):
            store.put_node(NodeRecord(NodeName(f"cn{number}")))
        await store.flushed()
        assert store.backlog == 0
    assert len(SqliteStore(tmp_path / "ctld.db").open().nodes) == 95


# ---- retention


async def expired(store: Store, expiry: Expiry) -> int:
    batches = 0
    while await store.expire(expiry):
        batches += 1
    return batches


async def test_what_is_old_goes_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "EXPIRED_AT_ONCE", 10)
    async with opened(tmp_path / "ctld.db") as store:
        for number in range(1, 31):
            store.put_job(ended(number, float(number)))
            store.add_event(event(number, float(number), number))
            store.put_request(RequestRecord(f"r{number}", (number,), float(number)))
        assert await expired(store, Expiry(jobs_before=26.0, events_before=21.0, requests_before=16.0)) == 3
        assert [found.job_id for found in await store.ended_jobs(100)] == [26, 27, 28, 29, 30]
        assert [found.cursor for found in await store.events(0, 100)] == list(range(21, 31))
    assert [request.request_id for request in SqliteStore(tmp_path / "ctld.db").open().requests] == [
        f"r{n}" for n in range(16, 31)
    ]


async def test_jobs_that_have_not_ended_keep_their_history(tmp_path: Path) -> None:
    running, _ = machine.advance(job(), allocated(), REQUEUE)
    async with opened(tmp_path / "ctld.db") as store:
        store.put_job(running)
        store.add_event(event(1, 1.0, running.job_id))
        store.add_event(event(2, 1.0, 77))
        await expired(store, Expiry(1e9, 1e9, 1e9))
        assert await store.job(running.job_id) == running
        assert [found.cursor for found in await store.events(0, 10)] == [1]


async def test_nothing_goes_without_a_limit(tmp_path: Path) -> None:
    async with opened(tmp_path / "ctld.db") as store:
        store.put_job(ended(1, 1.0))
        store.add_event(event(1, 1.0))
        assert await expired(store, Expiry()) == 0
        assert len(await store.ended_jobs(10)) == 1


async def test_numbers_of_what_is_forgotten_are_not_given_again(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    async with opened(path) as store:
        store.put_job(ended(41, 1.0))
        store.add_event(event(99, 1.0, 41))
        await expired(store, Expiry(10.0, 10.0, 10.0))
    restored = SqliteStore(path).open()
    assert (restored.last_job_id, restored.last_cursor) == (41, 99)


# ---- backup


async def test_backup_of_a_store_in_use_is_whole_and_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 1)
    path = tmp_path / "ctld.db"
    async with opened(path) as store:
        for number in range(1, 201):
            store.put_job(ended(number, float(number)))
        await store.flushed()
        stop = asyncio.Event()

        async def write_on() -> None:
            number = 200
            while not stop.is_set():
                number += 1
                store.put_job(ended(number, float(number)))
                await store.flushed()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_on())
            async with store.snapshot() as copy:
                stop.set()
                assert copy.stat().st_mode & 0o077 == 0 or copy.parent.stat().st_mode & 0o077 == 0
                assert [entry.name for entry in copy.parent.iterdir()] == [copy.name], "one file"
                saved = tmp_path / "saved.db"
                copy.rename(saved)
        assert not copy.parent.exists()
    async with opened(saved) as restored:
        numbers = [found.job_id for found in await restored.ended_jobs(100_000)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 200


async def test_numbers_given_after_a_backup_are_not_given_again_by_what_starts_from_it(tmp_path: Path) -> None:
    waiting = replace(job(), attempt=Attempt(2))
    async with opened(tmp_path / "ctld.db") as store:
        store.put_job(replace(waiting, job_id=JobId(7)))
        store.add_event(event(5, 1.0))
        store.add_decision(DecisionRecord(3, 1.0, "run"))
        async with store.snapshot() as copy:
            restored = SqliteStore(copy).open()
    assert restored.last_job_id == 7 + backup.NUMBERS_SKIPPED
    assert restored.last_cursor == 5 + backup.NUMBERS_SKIPPED
    assert restored.last_decision == 3 + backup.NUMBERS_SKIPPED
    assert [found.attempt for found in restored.jobs] == [2 + backup.ATTEMPTS_SKIPPED]


async def test_one_backup_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path / "ctld.db") as store:
        async with store.snapshot():
            with pytest.raises(CraneError, match="another backup") as caught:
                async with store.snapshot():
                    pass
        assert caught.value.code is ErrorCode.RESOURCE_EXHAUSTED
        async with store.snapshot():
            pass


async def test_abandoned_backup_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    real = backup.copy_store

    def held(connect: Callable[[], sqlite3.Connection], target: Path, abandoned: threading.Event) -> None:
        begun.set()
        may_go_on.wait(10)
        real(connect, target, abandoned)

    monkeypatch.setattr(sqlite, "copy_store", held)
    async with opened(tmp_path / "ctld.db") as store:

        async def save() -> None:
            async with store.snapshot():
                pytest.fail("it was abandoned")

        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(save())
            await eventually_async(begun.is_set)
            saving.cancel()
            may_go_on.set()
        assert not [name for name in os.listdir(tmp_path) if name.startswith("backup.")]


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("CREATE TABLE t (a TEXT); CREATE INDEX i ON t (a);")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{number:0200}",) for number in range(200)])
        [root] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'i'").fetchone()
        [page] = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(root - 1) * page + 100 : root * page] = b"\xff" * (page - 100)
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as connection:
        assert backup.integrity_problems(connection)
