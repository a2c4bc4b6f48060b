"""A daemon's Unix socket: made safely, and every connection knows who is at its other end."""

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.errors import CraneError, ErrorCode

_log = structlog.get_logger()

MAX_CONNECTIONS = 1_024
"""Connections at a time; one more gets an error frame and is closed."""

BACKLOG = 512
MAX_PATH_BYTES = 107
"""What an address of a Unix socket holds."""

PROBE_TIMEOUT_S = 1.0

_UCRED = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel saw it when it connected."""

    uid: int
    gid: int
    pid: int


Handler = Callable[[FrameStream, Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve_local(path: Path, mode: int, handler: Handler, *, max_connections: int = MAX_CONNECTIONS) -> AsyncIterator[None]:
    """Serves the socket at `path`, with file mode `mode`, while the context lasts; then cancels the handlers and removes it.

    `handler` has one task per connection, which is closed when it returns. What it raises is logged and ends only its connection.

    Raises:
        CraneError: INVALID_ARGUMENT, the path is too long; FAILED_PRECONDITION, its directory is missing or somebody else's, or
            something that is no socket is in the way; ALREADY_EXISTS, somebody listens there; UNAVAILABLE, it cannot be made.
    """
    listener, made = _listen(path, mode)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        connections = _Connections(tasks, handler, max_connections)
        try:
            # The callback is a plain function: the task of a connection belongs to the group, not to the server.
            server = await asyncio.start_unix_server(connections.accept, sock=listener)
        except BaseException:
            listener.close()
            raise
        try:
            yield
        except Exception as error:  # noqa: BLE001 - handlers never raise, so the group need not wrap what the body does
            failure = error
        finally:
            server.close()
            connections.cancel()
            _remove(path, made)
    if failure is not None:
        raise failure


class _Connections:
    """The handlers under way."""

    def __init__(self, tasks: asyncio.TaskGroup, handler: Handler, most: int) -> None:
        self._tasks = tasks
        self._handler = handler
        self._most = most
        self._running: set[asyncio.Task[None]] = set()
        self._served = 0
        self._is_closed = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            writer.transport.abort()
            return
        is_welcome = self._served < self._most
        task = self._tasks.create_task(self._serve(FrameStream(reader, writer), _peer(writer), is_welcome=is_welcome))
        if is_welcome:
            self._served += 1
            task.add_done_callback(self._leave)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task that is cancelled before it began closes nothing itself.
        task.add_done_callback(lambda _: writer.transport.abort())

    def _leave(self, _: asyncio.Task[None]) -> None:
        self._served -= 1

    def cancel(self) -> None:
        self._is_closed = True
        for task in self._running:
            task.cancel()

    async def _serve(self, stream: FrameStream, peer: Peer, *, is_welcome: bool) -> None:
        try:
            if is_welcome:
                await self._handler(stream, peer)
            else:
                _log.warning("local_socket.full", uid=peer.uid, pid=peer.pid, connections=self._most)
                await stream.send(frames.encode_json({"id": 0, "error": self._refusal()}))
        except ConnectionError:
            _log.debug("local_socket.peer_gone", uid=peer.uid, pid=peer.pid)
        except Exception:  # noqa: BLE001 - a boundary: one connection's fault must not end the others
            _log.exception("local_socket.handler_failed", uid=peer.uid, pid=peer.pid)
        finally:
            await stream.close()

    def _refusal(self) -> dict[str, object]:
        message = f"this daemon already serves {self._most} connections: try again later"
        return {"code": ErrorCode.RESOURCE_EXHAUSTED.name, "message": message, "retryable": True}


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, by SO_PEERCRED."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid=uid, gid=gid, pid=pid)


def _peer(writer: asyncio.StreamWriter) -> Peer:
    return peer_of(writer.get_extra_info("socket"))


def _listen(path: Path, mode: int) -> tuple[socket.socket, os.stat_result]:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        message = f"socket {path}: a path of {len(os.fsencode(path))} bytes, expected at most {MAX_PATH_BYTES}"
        raise CraneError(ErrorCode.INVALID_ARGUMENT, message)
    _check_directory(path)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # The file is born with this mode, less the umask: nobody can connect before it gets its own.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        path.chmod(mode)
        return listener, path.lstat()
    except OSError as error:
        listener.close()
        raise CraneError(ErrorCode.UNAVAILABLE, f"socket {path}: cannot be made: {error.strerror}") from error


def _check_directory(path: Path) -> None:
    directory = path.parent
    try:
        status = directory.stat()
    except OSError as error:
        raise _refuse(path, f"directory {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise _refuse(path, f"{directory} is no directory")
    if status.st_uid not in (0, os.geteuid()):
        raise _refuse(path, f"directory {directory} is owned by uid {status.st_uid}, expected root or uid {os.geteuid()}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(status.st_mode)
        raise _refuse(path, f"directory {directory} has mode {mode:04o}: others could replace the socket")


def _remove_stale(path: Path) -> None:
    """Removes what a daemon that died left behind."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _refuse(path, "the file there is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            _remove(path, found)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # A full backlog, for one: somebody may well be listening.
            raise _refuse(path, f"the socket there cannot be tried: {error.strerror or error}") from error
    raise CraneError(ErrorCode.ALREADY_EXISTS, f"socket {path}: another process listens there")


def _remove(path: Path, made: os.stat_result) -> None:
    """Removes the socket unless another one has taken its place."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()


def _refuse(path: Path, what: str) -> CraneError:
    return CraneError(ErrorCode.FAILED_PRECONDITION, f"socket {path}: {what}")
