"""Signals as bytes in a pipe, so that a program's own loop sees them among its other descriptors and nothing is interrupted half way."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What asks a front end to give up."""


class Attention:
    """Catches signals for as long as it is entered; `fileno()` is readable when `take` has some."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._previous: dict[int, Any] = {}  # what signal.signal gives back is for signal.signal alone
        self._read_fd = self._write_fd = -1

    def __enter__(self) -> Self:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._numbers:
            # What was ignored stays so: nohup asks for that.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, _noted)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        return self._read_fd

    def take(self) -> list[int]:
        """The signals that have come since the last call, in order; never waits."""
        try:
            return list(os.read(self._read_fd, 4096))
        except BlockingIOError:
            return []


def _noted(_number: int, _frame: object) -> None:
    """The byte in the pipe is all that is needed."""
