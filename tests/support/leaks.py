"""What a test may leave behind in its own process: child processes, threads, open file descriptors."""

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.eventually import NeverTrueError, eventually

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_libc = ctypes.CDLL(None)

SETTLING_S: Final = 5.0
"""How long what a test started may take to end by itself: a reader thread, a child that has just been killed."""

# The standard library and the kernel's interfaces keep these open once used.
_HARMLESS_TARGETS: Final = ("/dev/urandom", "/dev/random")


def _children() -> frozenset[int]:
    """The direct children of this process, zombies too."""
    found: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            found.update(int(pid) for pid in listing.read_text().split())
    return frozenset(found)


def _describe_process(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return f"process {pid} (gone)"
    return f"process {pid}: {command or 'a zombie'}"


def _descriptors() -> frozenset[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor that read this directory
            target = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115 - no file, so no Path
            if target not in _HARMLESS_TARGETS:
                found.add((int(entry), target))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment."""

    children: frozenset[int]
    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Self:
        return cls(_children(), frozenset(threading.enumerate()), _descriptors())

    def beyond(self, earlier: Self) -> list[str]:
        """What is held now and was not then, each as a line for people."""
        return [
            *(_describe_process(pid) for pid in sorted(self.children - earlier.children)),
            *(f"thread {thread.name}" for thread in self.threads - earlier.threads),
            *(f"descriptor {number}: {target}" for number, target in sorted(self.descriptors - earlier.descriptors)),
        ]


def _nothing_beyond(earlier: Holdings) -> bool:
    if not Holdings.now().beyond(earlier):
        return True
    gc.collect()  # a cycle may hold the last reference to a socket or a file
    return not Holdings.now().beyond(earlier)


def _end(children: frozenset[int]) -> None:
    """A leaked child ends here, so that one failing test does not disturb the machine or the tests after it."""
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # its Popen has reaped it
            os.waitpid(pid, 0)


class LeakError(AssertionError):
    """A test left something behind."""


def _is_child_subreaper() -> bool:
    flag = ctypes.c_int()
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return bool(flag.value)


def _set_child_subreaper(is_one: bool) -> None:
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_one), 0, 0, 0)


def no_leaks(settling_s: float = SETTLING_S) -> Iterator[None]:
    """A fixture's body: whatever appears between its two halves must be gone ``settling_s`` seconds after the second begins.

    Raises:
        LeakError: something is left; children that are left are killed.
    """
    before = Holdings.now()
    was_subreaper = _is_child_subreaper()
    yield
    # Else the orphans of later tests would come to this process, and stay.
    _set_child_subreaper(was_subreaper)
    try:
        eventually(lambda: _nothing_beyond(before), deadline_s=settling_s)
    except NeverTrueError:
        after = Holdings.now()
        left = after.beyond(before)
        _end(after.children - before.children)
        if left:
            message = "the test left behind:\n  " + "\n  ".join(left)
            raise LeakError(message) from None
