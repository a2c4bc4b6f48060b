"""The controller's store is saved while the cluster works, and a controller starts from what was saved."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster


@pytest.fixture
def stage() -> Iterator[ScriptedCluster]:
    with ScriptedCluster() as cluster:
        yield cluster


def backup(stage: ScriptedCluster, name: str) -> Path:
    path = stage.work / name
    result = stage.hookctl("backup", str(path))
    assert result.returncode == 0, result.stderr
    assert "checked" in result.stderr
    return path


def test_controller_starts_from_a_backup_made_under_load(stage: ScriptedCluster) -> None:
    stage.submit("done", "exit 3")
    stage.ended("done")
    stage.hookctl("drain", "cn02", "--reason", "new disk")
    gate = stage.gate("running")
    stage.submit("running", f"{gate.line}; exit 4", "-w", "cn01")
    gate.await_arrivals()
    stage.submit("waiting", "true", "-w", "cn02")
    path = backup(stage, "store.db")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [name for name in os.listdir(stage.work) if "store.db" in name] == ["store.db"]

    # What happens after it is not in it: a job that runs, and one that ends.
    later = stage.gate("later")
    last = stage.submit("later", later.line, "-w", "cn01")
    later.await_arrivals()
    stage.submit("forgotten", "true", "-w", "cn01")
    stage.ended("forgotten")
    stage.cluster.kill("cranectld")
    store = stage.cluster.state_dir / "state" / "cranectld.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{store}{suffix}").unlink(missing_ok=True)
    path.rename(store)
    stage.cluster.restart("cranectld")
    stage.cluster.wait_until_up()

    assert stage.job("done").exit.code == 3
    assert [event.text for event in stage.job("done").history]
    assert stage.nodes()["cn02"].drains[0].reason == "new disk"
    assert stage.job("running").state == "Running"
    gate.open()
    job = stage.ended("running")
    assert (job.state, job.exit.code, job.attempt) == ("Failed", 4, 1)
    for point in ("Prolog", "Epilog", "CranectldEpilog"):
        assert len(stage.calls("running", point)) == 1, point
    # Nobody knows the job any more that the node holds: it is ended there, with its Epilog.
    eventually(lambda: len(stage.calls("later", "Epilog")) == 1, deadline_s=PATIENCE_S)
    assert stage.jobs("later") == []
    # Numbers that were given since are not given again, nor are attempts.
    assert stage.submit("new", "true", "-w", "cn01") > last + 1_000
    assert stage.ended("new").state == "Completed"
    stage.hookctl("resume", "cn02")
    waited = stage.ended("waiting")
    assert waited.state == "Completed"
    assert waited.attempt > 1
    assert len(stage.calls("waiting", "Prolog")) == 1


def test_backup_goes_to_a_new_file(stage: ScriptedCluster) -> None:
    path = backup(stage, "store.db")
    again = stage.hookctl("backup", str(path))
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    nowhere = stage.hookctl("backup", "/nonexistent/directory/store.db")
    assert (nowhere.returncode, "no such file" in nowhere.stderr) == (1, True)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
