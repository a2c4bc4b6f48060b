"""The standard streams of tasks: pipes to and from the launcher in bounded memory, or the job's output files.

Output flows through one window per step: no more than its limit is sent without having been taken. While it is full,
pipes are not read, and so a task that writes more waits in its `write`.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from cranehooks.model.ids import TaskId
from cranehooks.model.run import Credentials

WINDOW_BYTES: Final = 256 << 10
CHUNK_BYTES: Final = 64 << 10
"""Longest chunk, and longest line that is kept in one piece."""
PARTIAL_LINE_S: Final = 0.05
"""How long the beginning of a line waits for its end: a prompt has none."""

_log = logging.getLogger(__name__)


class StreamName(Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """What one stream of a task gave, as it came."""

    task_id: TaskId
    stream: StreamName
    data: bytes


class OutputWindow:
    """What was sent and is not known to have been taken; it is sent again after a redial."""

    def __init__(self, send: Callable[[OutputChunk], None], limit_bytes: int = WINDOW_BYTES) -> None:
        self._send = send
        self._limit_bytes = limit_bytes
        self._unacknowledged: deque[OutputChunk] = deque()
        self._in_flight_bytes = 0
        self.taken_bytes = 0
        """Of all that was sent, how much is known to have been taken."""
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def unacknowledged(self) -> tuple[OutputChunk, ...]:
        """In the order they were sent."""
        return tuple(self._unacknowledged)

    def has_room_for(self, size_bytes: int) -> bool:
        return self._in_flight_bytes + size_bytes <= self._limit_bytes

    def push(self, chunk: OutputChunk) -> None:
        """Send a chunk for which there is room."""
        self._unacknowledged.append(chunk)
        self._in_flight_bytes += len(chunk.data)
        self._send(chunk)

    def when_room(self, resume: Callable[[], None]) -> None:
        """Have `resume` called once something was taken; those who wait are called in turn."""
        self._waiting.append(resume)

    def acknowledge(self, taken_bytes: int) -> None:
        """So many of the oldest bytes were taken; more than were sent (an answer to an earlier dial) means all."""
        while taken_bytes > 0 and self._unacknowledged:
            oldest = self._unacknowledged.popleft()
            taken = min(taken_bytes, len(oldest.data))
            taken_bytes -= taken
            self._in_flight_bytes -= taken
            self.taken_bytes += taken
            if taken < len(oldest.data):
                self._unacknowledged.appendleft(OutputChunk(oldest.task_id, oldest.stream, oldest.data[taken:]))
        # Who still finds no room joins the end of the line again.
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()

    def drop(self) -> None:
        """Nobody will take anything any more."""
        self._unacknowledged.clear()
        self._in_flight_bytes = 0
        self._waiting.clear()


class Output(Protocol):
    """Where one stream of a task goes."""

    def write(self, data: bytes) -> None:
        """Add what the supervisor itself has to say, in front of what the task writes later."""
        ...

    def for_child(self) -> AbstractContextManager[int]:
        """Lends the descriptor that the task's process gets."""
        ...


class FileOutput:
    """An output file of the job, opened as its user."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            # A full disk: the task will hear of it too.
            _log.warning("cannot write to the output file: %s", error)

    @contextmanager
    def for_child(self) -> Iterator[int]:
        yield self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PipeOutput:
    """A pipe from the task into the window. Lines stay whole up to `CHUNK_BYTES`."""

    def __init__(self, task_id: TaskId, stream: StreamName, window: OutputWindow, owner: Credentials) -> None:
        self._task_id = task_id
        self._stream = stream
        self._window = window
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._held = bytearray()
        """Read and not sent: at most two chunks, and what `write` brought."""
        self._is_reading = False
        self._is_waiting = False
        self._partial_timer: asyncio.TimerHandle | None = None
        self._is_partial_due = False
        self._on_end: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        self._held += data
        self._send()

    @contextmanager
    def for_child(self) -> Iterator[int]:
        self._fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._fd, False)
            give_to(write_fd, self._owner)
            yield write_fd
        finally:
            os.close(write_fd)
            self._read_on()

    def finish(self, on_end: Callable[[], None]) -> None:
        """Nothing will be started any more: call `on_end` once the stream has ended and all of it was sent."""
        self._on_end = on_end
        self._send()

    def drop(self) -> None:
        """Give up what was not sent, and whatever may still come."""
        self._close()
        self._held.clear()
        self._is_waiting = False
        self._send()

    # ---- from the pipe

    def _read_on(self) -> None:
        if self._fd >= 0 and not self._is_reading:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            self._held += data
            self._is_partial_due = False
        else:
            self._close()
        self._send()

    def _close(self) -> None:
        self._pause()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- into the window

    def _send(self) -> None:
        if self._is_waiting:
            return
        while size_bytes := self._next_chunk_bytes():
            if not self._window.has_room_for(size_bytes):
                self._is_waiting = True
                self._pause()
                self._window.when_room(self._room)
                return
            self._window.push(OutputChunk(self._task_id, self._stream, bytes(self._held[:size_bytes])))
            del self._held[:size_bytes]
        self._read_on()
        self._arm_partial()
        if self._on_end is not None and self._fd < 0 and not self._held:
            on_end, self._on_end = self._on_end, None
            on_end()

    def _room(self) -> None:
        self._is_waiting = False
        self._send()

    def _next_chunk_bytes(self) -> int:
        """Up to the last whole line; a part of one only when it is too long, late or the last; 0 to wait for more."""
        lines_bytes = self._held.rfind(b"\n", 0, CHUNK_BYTES) + 1
        if lines_bytes or not self._held:
            return lines_bytes
        is_last = self._fd < 0 and self._on_end is not None
        if len(self._held) >= CHUNK_BYTES or is_last or self._is_partial_due:
            return min(len(self._held), CHUNK_BYTES)
        return 0

    def _arm_partial(self) -> None:
        if self._partial_timer is not None:
            self._partial_timer.cancel()
            self._partial_timer = None
        if self._held:
            self._partial_timer = self._loop.call_later(PARTIAL_LINE_S, self._partial_due)

    def _partial_due(self) -> None:
        self._partial_timer = None
        self._is_partial_due = True
        self._send()
        self._is_partial_due = False


class StdinPipe:
    """What the launcher types, for task 0. Holds no more than the window that its senders keep to."""

    def __init__(self, grant: Callable[[int], None], owner: Credentials) -> None:
        """Bytes the task's pipe has taken are told to `grant`, unless they came before the last redial."""
        self._grant = grant
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._unowed_bytes = 0
        """Of those held, from an earlier connection: nobody counts them any more."""
        self._is_writing = False
        self._is_ended = False
        self._is_closed = False

    @contextmanager
    def for_child(self) -> Iterator[int]:
        read_fd, self._fd = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._fd, False)
            give_to(read_fd, self._owner)
            yield read_fd
        finally:
            os.close(read_fd)
            self._write_on()

    def feed(self, data: bytes) -> None:
        if self._is_closed or self._is_ended:
            self._grant(len(data))
            return
        if self._held_bytes - self._unowed_bytes + len(data) > WINDOW_BYTES:
            _log.error("stdin beyond its window of %d bytes is dropped: %d bytes", WINDOW_BYTES, len(data))
            return
        self._held.append(data)
        self._held_bytes += len(data)
        self._write_on()

    def end(self) -> None:
        """Nothing more comes: the task sees the end of its input after what was fed."""
        self._is_ended = True
        self._write_on()

    def redialled(self) -> None:
        """A new sender with a window of its own has taken over."""
        self._unowed_bytes = self._held_bytes

    def close(self) -> None:
        """The task is over: what was not taken is not wanted."""
        self._is_closed = True
        taken_bytes = self._held_bytes
        self._held.clear()
        self._close_pipe()
        self._taken(taken_bytes)

    def _write_on(self) -> None:
        if self._fd >= 0 and not self._is_writing and (self._held or self._is_ended):
            self._is_writing = True
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        try:
            while self._held:
                written_bytes = os.write(self._fd, self._held[0])
                if written_bytes < len(self._held[0]):
                    self._held[0] = self._held[0][written_bytes:]
                else:
                    self._held.popleft()
                self._taken(written_bytes)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.close()
            return
        if self._is_ended:
            self.close()
        else:
            self._is_writing = False
            self._loop.remove_writer(self._fd)

    def _taken(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        unowed_bytes = min(size_bytes, self._unowed_bytes)
        self._unowed_bytes -= unowed_bytes
        if owed_bytes := size_bytes - unowed_bytes:
            self._grant(owed_bytes)

    def _close_pipe(self) -> None:
        if self._fd >= 0:
            if self._is_writing:
                self._loop.remove_writer(self._fd)
                self._is_writing = False
            os.close(self._fd)
            self._fd = -1


def give_to(fd: int, owner: Credentials) -> None:
    """Make the user the owner of a pipe, so that its programs may open /dev/stdin, /dev/stdout and /dev/stderr."""
    if os.geteuid() == 0 and owner.uid != 0:
        os.fchown(fd, owner.uid, owner.gid)


class TaskStreams:
    """The three streams of one task."""

    def __init__(self, stdin: StdinPipe | None, stdout: Output, stderr: Output) -> None:
        self.stdin = stdin
        """None: /dev/null."""
        self.stdout = stdout
        self.stderr = stderr
