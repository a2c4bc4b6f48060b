"""The processes that run steps: their warm parent, and the socket that each of them dials."""

import asyncio
import hashlib
import hmac
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from craned.steps.supervisor_client import (
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
from cranekit import crash_points, frames
from cranekit.aio_frames import FrameStream
from cranekit.local_socket import Handler, Peer

_MODULE: Final = "csupervisor"
BACK_WITHIN_S: Final = 15.0

_SECRET_FILE: Final = "supervisor.secret"  # noqa: S105 - a file's name
_SECRET_BYTES: Final = 32

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.steps.supervisors")


class ParentGoneError(Exception):
    """The supervisor parent cannot be reached; no step can start until it is back."""


class SupervisorParent:
    """The small process that forks supervisors. Started before anything heavy is imported here, and again when it dies."""

    def __init__(self) -> None:
        self._process, self._socket = self._start()
        self._writer: asyncio.StreamWriter | None = None
        self._is_served = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def fork(self, request: bytes) -> None:
        """Asks for a supervisor; the answers come to `serve`'s listener. Waits while the parent is being started again.

        Raises:
            ParentGoneError: it is not back in time.
        """
        try:
            async with asyncio.timeout(BACK_WITHIN_S):
                await self._is_served.wait()
        except TimeoutError:
            raise ParentGoneError("the supervisor parent does not start") from None
        if self._writer is not None:
            self._writer.write(frames.encode_raw(request))

    async def serve(self, heard: Callable[[Forked | Gone], None]) -> None:
        """Listens until cancelled; a parent that dies is reaped and started anew."""
        while True:
            reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
            stream = FrameStream(reader, self._writer)
            self._is_served.set()
            try:
                while (payload := await _payload(stream)) is not None:
                    heard(parent_message_from_bytes(payload))
            except SupervisorProtocolError:
                log.exception("supervisor_parent_protocol_error")
                self._process.kill()
            finally:
                self._is_served.clear()
                self._writer.close()
            status = await asyncio.to_thread(self._process.wait)
            log.error("supervisor_parent_died", status=status)
            # vfork and exec: neither size nor threads of this process matter.
            self._process, self._socket = await asyncio.to_thread(self._start)

    def close(self) -> None:
        """Lets the parent go; supervisors that run live on. Blocks until it has exited."""
        # Its transport, if there was one, has been closed by `serve`.
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

    def __init__(self, hello: Hello, stream: FrameStream) -> None:
        self.hello = hello
        self._stream = stream
        # What is sent is bounded by the windows and by what a controller asks of one step.
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, message: ToSupervisor) -> None:
        """Never waits. On a broken connection it is lost, and whoever reads hears of that."""
        crash_points.reached(f"craned says to supervisor: {type(message).__name__}")
        self._outgoing.put_nowait(frames.encode_raw(to_bytes(message)))

    def close(self) -> None:
        """Ends the connection once everything has been sent."""
        self._outgoing.put_nowait(None)

    async def messages(self) -> AsyncIterator[FromSupervisor]:
        """Until the connection ends, however it ends.

        Raises:
            SupervisorProtocolError: it says what it must not.
        """
        while (message := await _receive(self._stream)) is not None:
            crash_points.reached(f"craned hears from supervisor: {type(message).__name__}")
            yield message

    async def send_all(self) -> None:
        """Sends until closed, or until the connection breaks."""
        with suppress(ConnectionError):
            while (frame := await self._outgoing.get()) is not None:
                await self._stream.send(frame)
        await self._stream.close()


Adopt = Callable[[SupervisorLink], Awaitable[None]]


def supervisor_handler(nonces: Nonces, adopt: Adopt) -> Handler:
    """Serves each connection to the supervisors' socket: it must come from the daemon's user and know its step's nonce."""

    async def serve(stream: FrameStream, peer: Peer) -> None:
        try:
            _check_peer(peer)
            async with asyncio.timeout(HELLO_WITHIN_S):
                link = SupervisorLink(_checked(await _receive(stream), nonces), stream)
        except (SupervisorProtocolError, TimeoutError) as error:
            log.warning("supervisor_connection_closed", reason=str(error) or "it says nothing")
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(link.send_all())
            try:
                await adopt(link)
            finally:
                link.close()

    return serve


def _check_peer(peer: Peer) -> None:
    if peer.uid != os.geteuid():
        raise SupervisorProtocolError(f"process {peer.pid} of uid {peer.uid} dialled the supervisors' socket")


def _checked(hello: FromSupervisor | None, nonces: Nonces) -> Hello:
    if not isinstance(hello, Hello) or not nonces.matches(hello.key, hello.nonce):
        raise SupervisorProtocolError("its first message is no hello with the nonce of its step")
    return hello


async def _receive(stream: FrameStream) -> FromSupervisor | None:
    """The next message; None when the connection has ended."""
    payload = await _payload(stream)
    return None if payload is None else from_bytes(payload)


async def _payload(stream: FrameStream) -> bytes | None:
    try:
        frame = await stream.recv()
    except ConnectionError:
        return None
    except frames.FrameError as error:
        raise SupervisorProtocolError(error.message) from error
    match frame:
        case None:
            return None
        case frames.RawFrame(payload):
            return payload
        case _:
            raise SupervisorProtocolError(f"a {type(frame).__name__}, expected a protobuf message")
