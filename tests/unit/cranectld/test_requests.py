"""A repeated request is recognised, within bounds."""

from pathlib import Path

from cranectld.requests import RequestLog
from cranectld.store.sqlite import SqliteStore


def opened(path: Path, limit: int = 3) -> RequestLog:
    store = SqliteStore(path)
    log = RequestLog(store, lambda: limit)
    log.restore(store.open().requests)
    return log


def test_what_was_answered_is_answered_again(tmp_path: Path) -> None:
    log = opened(tmp_path / "db")
    log.remember("1000/a", [7, 8], 1.0)
    assert log.answered("1000/a") == (7, 8)
    assert log.answered("1001/a") is None
    log.forget("1000/a")
    assert log.answered("1000/a") is None


def test_requests_without_an_id_are_never_repeats(tmp_path: Path) -> None:
    log = opened(tmp_path / "db")
    log.remember("", [7], 1.0)
    assert log.answered("") is None


def test_the_oldest_go_first(tmp_path: Path) -> None:
    log = opened(tmp_path / "db", limit=2)
    for number in range(4):
        log.remember(f"r{number}", [number], float(number))
    assert [log.answered(f"r{number}") for number in range(4)] == [None, None, (2,), (3,)]
    log.expire(3.0)
    assert [log.answered(f"r{number}") for number in range(4)] == [None, None, None, (3,)]


async def test_they_outlive_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    store.open()
    store.start()
    log = RequestLog(store, lambda: 2)
    for number in range(3):
        log.remember(f"r{number}", [number], float(number))
    await store.close()
    assert [opened(tmp_path / "db").answered(f"r{number}") for number in range(3)] == [None, (1,), (2,)]
