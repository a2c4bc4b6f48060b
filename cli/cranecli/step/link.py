"""The connection that carries a step's standard streams: stdin out, output and the tasks' ends in."""

from __future__ import annotations

import socket
from collections import deque

from cranecli.front.client import FrontError, FrontUnavailableError, open_socket, socket_path
from cranekit import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cranecli.front.client import Body

STDIN = 0
STDOUT = 1
STDERR = 2
"""Channels of data frames."""
STDIN_WINDOW_BYTES = 256 << 10
"""What may be sent beyond the credit that has come."""
_READ_BYTES = 1 << 18
_CALL_ID = 1


class Output:
    """Bytes that a task wrote."""

    __slots__ = ("channel", "data", "task_id")

    def __init__(self, channel: int, task_id: int, data: bytes) -> None:
        self.channel = channel
        self.task_id = task_id
        self.data = data


class Notice:
    """A line of the node for the user."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class NodeEnded:
    """A node's part of the step is over."""

    __slots__ = ("node", "reason", "tasks")

    def __init__(self, node: str, tasks: Sequence[Body], reason: str) -> None:
        self.node = node
        self.tasks = tasks
        self.reason = reason


class StepLink:
    """Attached to the nodes of one step. Never waits: the owner's loop calls `receive` and `send` when the descriptor is ready."""

    def __init__(
        self,
        job_id: int,
        attempt: int,
        step_id: str,
        nodes: Sequence[Body],
        connect: Callable[[str], socket.socket] = open_socket,
    ) -> None:
        """Connects and asks to be attached.

        Raises:
            FrontUnavailableError: there is no connection to the local daemon.
        """
        self._path = socket_path()
        self._socket = connect(self._path)
        self._socket.setblocking(False)
        self._frames = frames.FrameDecoder()
        self._outgoing: deque[bytes] = deque()
        self._stdin_room = STDIN_WINDOW_BYTES
        self.unconfirmed_bytes = 0
        """Bytes of stdin that were sent and not yet consumed by the task."""
        self.is_complete = False
        """Every node has said all it had to say."""
        body = {"job_id": str(job_id), "attempt": attempt, "step_id": step_id, "nodes": list(nodes)}
        self._outgoing.append(frames.encode_json({"id": _CALL_ID, "method": "AttachStep", "body": body}))
        self.send()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def wants_to_send(self) -> bool:
        return bool(self._outgoing)

    @property
    def stdin_room_bytes(self) -> int:
        """How much of stdin may be given to `write_stdin` now."""
        return 0 if self._outgoing else self._stdin_room

    def write_stdin(self, data: bytes) -> None:
        """Sends input to task 0; no data: the end of it."""
        self._stdin_room -= len(data)
        self.unconfirmed_bytes += len(data)
        self._outgoing.append(frames.encode_data(STDIN, 0, data))
        self.send()

    def send(self) -> None:
        """Sends as much as goes without waiting.

        Raises:
            FrontUnavailableError: the connection broke.
        """
        while self._outgoing:
            data = self._outgoing[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                return
            except OSError as error:
                raise FrontUnavailableError(f"lost the connection to {self._path}: {error.strerror}") from error
            if sent < len(data):
                self._outgoing[0] = data[sent:]
                return
            self._outgoing.popleft()

    def receive(self) -> Iterator[Output | Notice | NodeEnded]:
        """What has come.

        Raises:
            FrontUnavailableError: the connection broke.
            FrontError: the daemon refused.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise FrontUnavailableError(f"lost the connection to {self._path}: {error.strerror}") from error
        if not data:
            if self.is_complete:
                return
            raise FrontUnavailableError(f"the daemon on {self._path} has hung up")
        try:
            received = self._frames.feed(data)
        except frames.FrameError as error:
            raise FrontUnavailableError(f"what came from {self._path} is no answer of a daemon: {error}") from error
        for frame in received:
            if isinstance(frame, frames.DataFrame):
                yield Output(frame.channel, frame.number, frame.data)
            elif isinstance(frame, frames.JsonFrame):
                event = self._read(frame.value)
                if event is not None:
                    yield event

    def _read(self, message: Body) -> Notice | NodeEnded | None:
        if "error" in message:
            error = message["error"]
            raise FrontError(str(error.get("code", "UNKNOWN")), str(error.get("message", "")))
        if message.get("end"):
            self.is_complete = True
            return None
        item: Body = message.get("item") or {}
        if "stdin_credit" in item:
            credit = int(item["stdin_credit"])
            self._stdin_room += credit
            self.unconfirmed_bytes = max(0, self.unconfirmed_bytes - credit)
        if "notice" in item:
            return Notice(str(item["notice"]))
        if "node_ended" in item:
            ended = item["node_ended"]
            return NodeEnded(str(ended.get("node", "")), ended.get("tasks") or [], str(ended.get("reason", "")))
        return None
