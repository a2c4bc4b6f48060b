"""The leak check sees what it is there to see."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.leaks import Holdings, LeakError, no_leaks


def check(body: Callable[[], object], settling_s: float = 0.0) -> None:
    fixture = no_leaks(settling_s)
    next(fixture)
    body()
    next(fixture, None)


def test_nothing_left() -> None:
    check(lambda: subprocess.run([sys.executable, "-c", ""], check=True))


def test_a_child_is_named_and_killed() -> None:
    children: list[subprocess.Popen[bytes]] = []
    with pytest.raises(LeakError, match=r"process \d+: .*stdin\.read"):
        check(
            lambda: children.append(
                subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
            )
        )
    (child,) = children
    child.wait()
    assert child.stdin is not None
    child.stdin.close()


def test_a_thread_is_named() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left-over")
    try:
        with pytest.raises(LeakError, match="thread left-over"):
            check(thread.start)
    finally:
        end.set()
        thread.join()


def test_a_descriptor_is_named(tmp_path: Path) -> None:
    opened: list[int] = []
    path = tmp_path / "left-open"
    try:
        with pytest.raises(LeakError, match=rf"descriptor \d+: {path}"):
            check(lambda: opened.append(os.open(path, os.O_CREAT | os.O_RDWR)))
    finally:
        os.close(opened[0])


def test_what_ends_by_itself_is_no_leak() -> None:
    before = Holdings.now()
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    thread = threading.Thread(target=child.wait)
    check(thread.start, settling_s=30.0)
    eventually(lambda: not Holdings.now().beyond(before))
