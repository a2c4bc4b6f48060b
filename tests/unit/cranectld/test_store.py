import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from cranectld.history import Event
from cranectld.jobs import machine
from cranectld.jobs.model import JobState
from cranectld.nodes.breaker import Breaker
from cranectld.nodes.model import DrainCause, DrainOwner
from cranectld.store import MIGRATIONS, DecisionRecord, NodeRecord, OwedEpilog, Store, StoreError
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobOnNode
from cranehooks.model.points import HookPoint
from cranekit.errors import CraneError
from tests.unit.cranectld.builders import CN1, EXIT_1, REQUEUE, allocated, job, run, shares


async def written(path: Path, *writes: object) -> None:
    store = Store(path)
    store.open()
    store.start()
    try:
        for write in writes:
            write(store)  # type: ignore[operator]  # lambdas
        await store.flushed()
    finally:
        await store.close()


async def test_everything_comes_back(tmp_path: Path) -> None:
    running, _ = machine.advance(job(), allocated(), REQUEUE)
    ended = replace(job(), job_id=JobId(2), state=JobState.COMPLETED)
    on_node = JobOnNode(JobId(1), Attempt(1), running.spec, running.nodes, shares(CN1)[0], "test")
    owed = OwedEpilog(CN1, on_node, ExitStatus(1, 0), "lost")
    node = NodeRecord(CN1, "boot", (DrainCause(DrainOwner.HOOKS, "prolog a.sh exit 1", 1.0),))
    breaker = Breaker("d", "/a.sh", ((1.0, CN1),), 2.0)
    decision = DecisionRecord(1, 1.0, "run", 1, 1)
    event = Event(1, 1.0, "hook", "Prolog exit 1", JobId(1), 1, CN1, run(HookPoint.PROLOG, EXIT_1, CN1, last_line="no GPU"))
    path = tmp_path / "ctld.db"

    await written(
        path,
        lambda s: s.put_job(running),
        lambda s: s.put_job(ended),
        lambda s: s.put_node(node),
        lambda s: s.put_owed(owed),
        lambda s: s.put_breaker(breaker),
        lambda s: s.add_decision(decision),
        lambda s: s.add_event(event),
        lambda s: s.put_request("r", [1, 2]),
    )

    store = Store(path)
    restored = store.open()
    store.start()
    try:
        assert restored.jobs == [running]
        assert restored.nodes == [node]
        assert restored.owed == [owed]
        assert restored.breakers == [breaker]
        assert restored.decisions == [decision]
        assert restored.requests == {"r": [1, 2]}
        assert (restored.last_job_id, restored.last_cursor) == (2, 1)
        assert await store.job(JobId(2)) == ended
        assert await store.ended_jobs(10) == [ended]
        assert await store.ended_jobs(10, "alice", {JobState.COMPLETED, JobState.FAILED}) == [ended]
        assert await store.ended_jobs(10, states={JobState.FAILED}) == []
        assert await store.events(0, 10, job_id=1) == [event]
        assert await store.last_events(10, "cn01") == [event]
    finally:
        await store.close()


async def test_repeated_run_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    twice = [Event(cursor, 1.0, "hook", "", JobId(1), 1, CN1, run(HookPoint.PROLOG, node=CN1)) for cursor in (1, 2)]

    await written(path, *[lambda s, event=event: s.add_event(event) for event in twice])

    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


async def test_refusing_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    store = Store(path)
    store.open()
    store.start()
    try:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("CREATE TRIGGER refuse BEFORE INSERT ON nodes BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        store.put_node(NodeRecord(NodeName("cn01")))
        with pytest.raises(StoreError, match="disk full"):
            await store.flushed()
        other.execute("DROP TRIGGER refuse")
        other.close()
        async with asyncio.timeout(10):
            await store.flushed_or_retrying()
    finally:
        await store.close()
    assert Store(path).open().nodes == [NodeRecord(NodeName("cn01"))]


def test_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    with pytest.raises(CraneError, match="newer version"):
        Store(path).open()


def test_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(CraneError, match="cannot open the store"):
        Store(path).open()
