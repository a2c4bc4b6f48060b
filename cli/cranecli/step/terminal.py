"""crun's own standard streams: written and read only as far as neither can block the program."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque

_PIPE_STEP_BYTES = 4096
"""A pipe that is ready to be written takes this much without waiting (PIPE_BUF)."""
_FILE_STEP_BYTES = 1 << 17
READ_BYTES = 1 << 16
CONGESTED_BYTES = 1 << 18
"""More than this waiting to be written: nothing further is taken from the step."""


class Sink:
    """An output stream. What it cannot take now is kept, in order."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._written_of_first = 0
        self.is_gone = False
        """Nobody reads any more: everything further is dropped."""
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            self.is_gone = True
            mode = 0
        self._is_file = stat.S_ISREG(mode)

    def fileno(self) -> int:
        return self._fd

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def is_congested(self) -> bool:
        return self._waiting_bytes > CONGESTED_BYTES

    def write(self, data: bytes) -> None:
        if data and not self.is_gone:
            self._waiting.append(data)
            self._waiting_bytes += len(data)

    def flush(self) -> None:
        """Writes what goes without waiting.

        Raises:
            OSError: the file system refuses (full, for example).
        """
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        while self._waiting and ready.poll(0):
            self._write_some()

    def flush_all(self) -> None:
        """Writes everything, however long it takes; what raises is as with `flush`."""
        while self._waiting:
            self._write_some()

    def _write_some(self) -> None:
        data = self._waiting[0]
        step = _FILE_STEP_BYTES if self._is_file else _PIPE_STEP_BYTES
        try:
            written = os.write(self._fd, data[self._written_of_first : self._written_of_first + step])
        except BlockingIOError:
            # Somebody else made this stream non-blocking; it says when it is ready.
            select.select([], [self._fd], [])
            return
        except OSError as error:
            self.drop()
            if error.errno in (errno.EPIPE, errno.EIO):
                return
            raise
        self._waiting_bytes -= written
        self._written_of_first += written
        if self._written_of_first == len(data):
            self._written_of_first = 0
            self._waiting.popleft()

    def drop(self) -> None:
        """Gives up on what waits and on what will come."""
        self.is_gone = True
        self._waiting.clear()
        self._waiting_bytes = 0


class Source:
    """The input stream. A terminal is read only while this program is in its foreground."""

    def __init__(self, fd: int, *, is_wanted: bool) -> None:
        self._fd = fd
        self.is_ended = not is_wanted or not _is_open(fd)
        """Nothing (more) comes."""
        self._is_terminal = not self.is_ended and os.isatty(fd)
        self._is_paused = False

    def fileno(self) -> int:
        return self._fd

    @property
    def is_readable_now(self) -> bool:
        """Whether it is worth waiting for."""
        return not self.is_ended and not self._is_paused and not (self._is_terminal and self._is_in_background())

    def read(self, limit: int) -> bytes | None:
        """What there is, up to `limit` bytes; empty at the end; None when there is nothing now."""
        try:
            data = os.read(self._fd, min(limit, READ_BYTES))
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO and self._is_terminal and self._is_in_background():
                self._is_paused = True
                return None
            # A terminal that was hung up, or a directory: no input comes from it.
            data = b""
        self.is_ended = not data
        return data

    def resume(self) -> None:
        """After a stop: this program may be in the foreground again."""
        self._is_paused = False

    def _is_in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) != os.getpgrp()
        except OSError:
            # Not our controlling terminal: nobody stops us from reading it.
            return False


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
