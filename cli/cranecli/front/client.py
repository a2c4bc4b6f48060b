"""Client of the local daemon's socket, which relays a user's calls to the controller: standard library only, and as little of it as will do."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque

from cranecli import exits
from cranekit import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    Body = dict[str, Any]
    """A message as JSON: what it holds is the protobuf contract's to say."""

DEFAULT_SOCKET = "/run/crane/front.sock"
SOCKET_VARIABLE = "CRANE_FRONT_SOCKET"
CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 60.0
_READ_BYTES = 1 << 18
_UNREACHABLE_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


class FrontError(Exception):
    """A call was refused or could not be made. `code` is the name of a gRPC status, `message` is for a person.

    `retry_after_s` is set where the controller said when the call may be made again.
    """

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def exit_code(self) -> int:
        """What a front end exits with when this ends it."""
        return exits.UNREACHABLE if self.code in _UNREACHABLE_CODES else exits.FAILED


class FrontUnavailableError(FrontError):
    """There is no connection to the local daemon, or no longer."""

    def __init__(self, message: str) -> None:
        super().__init__("UNAVAILABLE", message)


class FrontStream:
    """The answers to one request, in order. Iterating waits for the next; `take` does not.

    Closing it, as a context manager or by `cancel`, tells the daemon that nobody listens any more.
    """

    def __init__(self, client: FrontClient, request_id: int) -> None:
        self._client = client
        self._id = request_id
        self._items: deque[Body] = deque()
        self._error: FrontError | None = None
        self.is_ended = False
        """No item comes after those that `take` still gives."""

    def __iter__(self) -> Iterator[Body]:
        return self

    def __next__(self) -> Body:
        """The next item, as soon as there is one.

        Raises:
            FrontError: the daemon or the controller ended the stream with an error, or the connection broke.
            StopIteration: the stream is complete.
        """
        while True:
            item = self.take()
            if item is not None:
                return item
            if self.is_ended:
                raise StopIteration
            self._client.wait(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def take(self) -> Body | None:
        """An item that has come, or None; never waits.

        Raises:
            FrontError: the stream has ended with an error. Items before it are given first.
        """
        if self._items:
            return self._items.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return None

    def cancel(self) -> None:
        """Stop listening. Safe to repeat, and after the end."""
        if not self.is_ended:
            self.is_ended = True
            self._items.clear()
            self._client.forget(self._id)

    def receive(self, message: Body) -> bool:
        """Takes one answer in; whether it was the last (called by the client)."""
        if "error" in message:
            error = message["error"]
            retry_after_s = error.get("retry_after_s")
            return self.fail(FrontError(str(error.get("code", "UNKNOWN")), str(error.get("message", "")), retry_after_s))
        if "item" in message:
            self._items.append(message["item"])
            return False
        if "ok" in message:
            self._items.append(message["ok"])
        self.is_ended = True
        return True

    def fail(self, error: FrontError) -> bool:
        """Ends the stream with an error (called by the client)."""
        self._error = error
        self.is_ended = True
        return True


class FrontClient:
    """One connection. Several requests may be under way at a time; it is used from one thread.

    A program with a loop of its own watches `fileno()` and calls `receive()` when it is readable; all others just call.
    """

    def __init__(self, connection: socket.socket, path: str) -> None:
        self._socket = connection
        self._path = path
        self._frames = frames.FrameDecoder()
        self._streams: dict[int, FrontStream] = {}
        self._last_id = 0
        self.is_broken = False
        """The connection is gone: another one must be made."""

    @classmethod
    def connect(cls, path: str | None = None) -> Self:
        """Connects to the daemon of this host.

        Args:
            path: its socket; None: as the environment says, or the usual one.

        Raises:
            FrontUnavailableError: nobody listens there. The message says what to do.
        """
        path = path or socket_path()
        return cls(open_socket(path), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up: what is bound to the connection ends."""
        self._socket.close()

    def reconnect(self) -> None:
        """Makes a new connection in place of a broken one. Streams of the old one have failed.

        Raises:
            FrontUnavailableError: nobody listens there.
        """
        connection = open_socket(self._path)
        self._break("the connection was replaced")
        self._socket.close()
        self._socket = connection
        self._frames = frames.FrameDecoder()
        self.is_broken = False

    def fileno(self) -> int:
        """Readable when `receive` has something to do."""
        return self._socket.fileno()

    def call(self, method: str, body: Body | None = None, timeout_s: float | None = CALL_TIMEOUT_S) -> Body:
        """Makes one call and waits for its answer.

        Raises:
            FrontError: refused (code of the gRPC status), or no answer in time (`DEADLINE_EXCEEDED`), or no connection.
        """
        stream = self.stream(method, body)
        answer = self.answer(stream, timeout_s)
        if answer is None:
            stream.cancel()
            raise FrontError("DEADLINE_EXCEEDED", f"{method}: no answer within {timeout_s:g} s (asked by way of {self._path})")
        return answer

    def answer(self, stream: FrontStream, timeout_s: float | None = CALL_TIMEOUT_S) -> Body | None:
        """Waits for the next item of a stream; None when there was none in time, an empty body when it ended without one.

        Raises:
            FrontError: the stream has ended with an error.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            item = stream.take()
            if item is not None:
                return item
            if stream.is_ended:
                return {}
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return None
            self.wait(remaining)

    def stream(self, method: str, body: Body | None = None) -> FrontStream:
        """Sends a request and returns at once; its answers are read from what is returned (also that of a simple call).

        Raises:
            FrontUnavailableError: the connection is broken.
        """
        self._last_id += 1
        stream = FrontStream(self, self._last_id)
        self._send({"id": self._last_id, "method": method, "body": body or {}})
        self._streams[self._last_id] = stream
        return stream

    def forget(self, request_id: int) -> None:
        """Cancels one request; what is still on its way is dropped."""
        if self._streams.pop(request_id, None) is not None:
            try:
                self._send({"id": request_id, "cancel": True})
            except FrontUnavailableError:
                # A broken connection has cancelled it.
                return

    def wait(self, timeout_s: float | None) -> bool:
        """Waits until something has come and takes it in; False when nothing came in time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
            return False
        self.receive()
        return True

    def receive(self) -> None:
        """Takes in what has come, without waiting. A broken connection fails every stream that is open."""
        try:
            data = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(f"lost the connection to {self._path}: {error.strerror}")
            return
        if not data:
            self._break(f"the daemon on {self._path} has hung up: it is stopping, or was restarted")
            return
        try:
            received = self._frames.feed(data)
        except frames.FrameError as error:
            self._break(f"what came from {self._path} is no answer of a daemon: {error}")
            return
        for frame in received:
            if isinstance(frame, frames.JsonFrame):
                self._dispatch(frame.value)

    def _dispatch(self, message: Body) -> None:
        request_id = message.get("id", 0)
        if request_id == 0:
            # Not the answer to one request: the daemon did not understand the connection as such.
            self._break(str((message.get("error") or {}).get("message", "the daemon has given up on the connection")))
            return
        stream = self._streams.get(request_id)
        if stream is not None and stream.receive(message):
            del self._streams[request_id]

    def _break(self, message: str) -> None:
        self.is_broken = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(FrontUnavailableError(message))

    def _send(self, message: Body) -> None:
        try:
            frame = frames.encode_json(message)
        except frames.FrameError as error:
            raise FrontError("INVALID_ARGUMENT", f"the request is too large: {error.message}") from error
        except UnicodeEncodeError as error:
            raise FrontError("INVALID_ARGUMENT", f"the request holds text that is not UTF-8: {error.object[:80]!r}") from error
        try:
            self._socket.sendall(frame)
        except OSError as error:
            self.is_broken = True
            raise FrontUnavailableError(f"lost the connection to {self._path}: {error.strerror}") from error


def socket_path() -> str:
    """Where the local daemon listens."""
    return os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET


def open_socket(path: str) -> socket.socket:
    """A connection to the local daemon.

    Raises:
        FrontUnavailableError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise FrontUnavailableError(_cannot_connect(path, error)) from error
    connection.settimeout(None)
    return connection


def _cannot_connect(path: str, error: OSError) -> str:
    start = "start craned on this host (craned --login on a login host), or name the socket of a running one"
    hint = f"{start} in {SOCKET_VARIABLE}"
    if isinstance(error, FileNotFoundError):
        return f"no daemon on this host: {path} does not exist; {hint}"
    if isinstance(error, ConnectionRefusedError):
        return f"the daemon of this host has stopped: nobody listens on {path}; {hint}"
    if isinstance(error, TimeoutError):
        return f"the daemon of this host does not answer: {path}; is it stopped or overloaded?"
    return f"cannot connect to the daemon on {path}: {error.strerror or error}; {hint}"
