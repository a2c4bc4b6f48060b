"""The processes that run steps: their warm parent, and the socket that each of them dials."""

import asyncio
import hashlib
import hmac
import os
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from craned.supervisor_client import (
    HELLO_WITHIN_S,
    Forked,
    FromSupervisor,
    Gone,
    Hello,
    SupervisorProtocolError,
    ToSupervisor,
    from_bytes,
    parent_message_from_bytes,
    to_bytes,
)
from cranehooks.model.ids import StepKey
from cranekit import frames

_MODULE: Final = "csupervisor"
_READ_BYTES: Final = 1 << 16
_SECRET_FILE: Final = "supervisor.secret"  # noqa: S105 - a file's name
_SECRET_BYTES: Final = 32

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.supervisors")


class ParentGoneError(Exception):
    """The supervisor parent cannot be reached; no step can start until it is back."""


class SupervisorParent:
    """The small process that forks supervisors. Started before anything heavy is imported here, and again when it dies."""

    def __init__(self) -> None:
        self._process, self._socket = self._start()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, request: bytes) -> None:
        """Asks for a supervisor; the answers come to `serve`'s listener.

        Raises:
            ParentGoneError: it is being started again.
        """
        if self._writer is None or self._writer.is_closing():
            message = "the supervisor parent is being restarted"
            raise ParentGoneError(message)
        self._writer.write(frames.encode(frames.PROTOBUF, request))

    async def serve(self, heard: Callable[[Forked | Gone], None], lost: Callable[[], None]) -> None:
        """Listens until cancelled; a parent that dies is reaped and started anew, and `lost` is told."""
        while True:
            reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
            try:
                async for payload in _payloads(reader):
                    heard(parent_message_from_bytes(payload))
            except SupervisorProtocolError:
                log.exception("supervisor_parent_protocol_error")
                self._process.kill()
            finally:
                self._writer.close()
                self._writer = None
            lost()
            status = await asyncio.to_thread(self._process.wait)
            log.error("supervisor_parent_died", status=status)
            # vfork and exec: neither size nor threads of this process matter.
            self._process, self._socket = await asyncio.to_thread(self._start)

    def close(self) -> None:
        """Lets the parent go; supervisors that run live on. Blocks until it has exited."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: the working directory of a daemon is no place to import from. Its own session: a terminal's Ctrl-C is craned's business.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, "--parent-fd", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        return process, ours


class Nonces:
    """By which a supervisor is recognised: derived from a secret of this node, so that a restarted craned knows them too."""

    def __init__(self, state_dir: Path) -> None:
        """Raises OSError where the secret can be neither read nor made."""
        path = state_dir / _SECRET_FILE
        if not path.exists():
            fresh = path.with_name(f"{path.name}.new")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
                file.flush()
                os.fsync(descriptor)
            fresh.rename(path)
        self._secret = path.read_bytes()

    def of(self, key: StepKey) -> str:
        return hmac.new(self._secret, str(key).encode(), hashlib.sha256).hexdigest()

    def matches(self, key: StepKey, nonce: str) -> bool:
        return hmac.compare_digest(self.of(key).encode(), nonce.encode())


class SupervisorLink:
    """The connection of one supervisor."""

    def __init__(self, hello: Hello, payloads: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self._payloads = payloads
        self._writer = writer

    def send(self, message: ToSupervisor) -> None:
        """Never waits: what is sent is bounded by the windows. On a broken connection it is lost, and the reader hears of that."""
        if not self._writer.is_closing():
            self._writer.write(frames.encode(frames.PROTOBUF, to_bytes(message)))

    async def messages(self) -> AsyncIterator[FromSupervisor]:
        """Until the connection ends.

        Raises:
            SupervisorProtocolError: it says what it must not.
        """
        async for payload in self._payloads:
            yield from_bytes(payload)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def listening(path: Path, nonces: Nonces, adopt: Callable[[SupervisorLink], Awaitable[None]]) -> AsyncIterator[None]:
    """The socket that supervisors dial, while the context is open.

    The directory is the daemon's own (0700); a connection must come from the daemon's user and know its step's nonce.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _check_peer(writer)
            payloads = _payloads(reader)
            async with asyncio.timeout(HELLO_WITHIN_S):
                hello = from_bytes(await anext(payloads))
            await adopt(SupervisorLink(_checked(hello, nonces), payloads, writer))
        except (SupervisorProtocolError, StopAsyncIteration, TimeoutError) as error:
            log.warning("supervisor_connection_closed", reason=str(error) or type(error).__name__)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, sock=_bound(path))
    try:
        yield
    finally:
        server.close()
        _unlink(path)


def _bound(path: Path) -> socket.socket:
    """A Unix socket in the place of one that a dead daemon left."""
    _unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _checked(hello: FromSupervisor, nonces: Nonces) -> Hello:
    if not isinstance(hello, Hello) or not nonces.matches(hello.key, hello.nonce):
        message = "its first message is no hello with the nonce of its step"
        raise SupervisorProtocolError(message)
    return hello


def _check_peer(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != os.geteuid():
        message = f"process {pid} of uid {uid} dialled the supervisors' socket"
        raise SupervisorProtocolError(message)


async def _payloads(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The protobuf frames of a stream, until it ends, however it ends."""
    buffer = frames.FrameBuffer()
    while True:
        try:
            data = await reader.read(_READ_BYTES)
        except ConnectionError:
            return
        if not data:
            return
        for kind, payload in buffer.feed(data):
            if kind != frames.PROTOBUF:
                message = f"a frame of type {kind}, expected {frames.PROTOBUF}"
                raise SupervisorProtocolError(message)
            yield payload
