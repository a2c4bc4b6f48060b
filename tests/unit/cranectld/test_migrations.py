"""Every older version's file becomes one of this version, with everything in it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cranectld.jobs.model import JobState
from cranectld.store.migrations import MIGRATIONS
from cranectld.store.sqlite import _JOB, SqliteStore
from cranehooks.model.ids import JobId
from cranekit.errors import CraneError, ErrorCode
from tests.unit.cranectld.builders import job

VERSIONS = range(len(MIGRATIONS))


def made_by(version: int, path: Path) -> None:
    """A file as the program of that version leaves it: two jobs, a node, an event, a request."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number in range(version):
            connection.executescript(MIGRATIONS[number])
        connection.execute(f"PRAGMA user_version = {version}")
        if version == 0:
            return
        bodies = {1: json.loads(_JOB.dump_json(job()))}
        bodies[2] = {**bodies[1], "job_id": 2, "state": "failed", "ended_at": 12.5}
        for number, body in bodies.items():
            columns = (number, int(number == 2), "alice", json.dumps(body))
            connection.execute("INSERT INTO jobs (job_id, final, user, body) VALUES (?, ?, ?, ?)", columns)
        connection.execute("INSERT INTO nodes VALUES ('cn01', ?)", ('{"name": "cn01", "boot_id": "b", "drains": []}',))
        connection.execute("INSERT INTO events VALUES (9, 1.5, 'submitted', 'by alice', 1, 0, '', NULL, NULL)")
        connection.execute(
            "INSERT INTO requests (request_id, body%s) VALUES ('1000/r', '[1,2]'%s)"
            % (("", "") if version == 1 else (", at", ", 1"))
        )


@pytest.mark.parametrize("version", VERSIONS)
async def test_file_of_an_older_version_is_taken_over(version: int, tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    made_by(version, path)
    store = SqliteStore(path)
    restored = store.open()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    if version == 0:
        assert restored.jobs == []
        return
    assert restored.jobs == [job()]
    assert [node.boot_id for node in restored.nodes] == ["b"]
    assert [(request.request_id, request.numbers) for request in restored.requests] == [("1000/r", (1, 2))]
    assert restored.requests[0].at > 0
    assert (restored.last_job_id, restored.last_cursor) == (2, 9)
    store.start()
    try:
        [failed] = await store.ended_jobs(10, "alice", {JobState.FAILED})
        assert (failed.job_id, failed.ended_at) == (2, 12.5)
        assert [event.text for event in await store.events(0, 10, job_id=JobId(1))] == ["by alice"]
    finally:
        await store.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_taking_over_is_repeatable(version: int, tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    made_by(version, path)
    assert SqliteStore(path).open() == SqliteStore(path).open()


def test_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ctld.db"
    made_by(len(MIGRATIONS), path)
    broken = (*MIGRATIONS, "CREATE TABLE new_one (a); CREATE TABLE jobs (b);")
    monkeypatch.setattr("cranectld.store.migrations.MIGRATIONS", broken)
    with pytest.raises(CraneError, match="already exists"):
        SqliteStore(path).open()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'new_one'").fetchone() == (0,)


def test_file_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ctld.db"
    made_by(len(MIGRATIONS), path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(
        CraneError, match=rf"newer version.*version {len(MIGRATIONS) + 1}, this one knows up to {len(MIGRATIONS)}"
    ) as caught:
        SqliteStore(path).open()
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
