# ruff: noqa: ASYNC240 - looking at a file of the test's own does not block

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.errors import CraneError, ErrorCode
from cranekit.local_socket import Peer, serve_local


@pytest.fixture
def path() -> Iterator[Path]:
    # pytest's own directories can be too long for a socket's address.
    with TemporaryDirectory(prefix="crane-") as directory:
        yield Path(directory, "front.sock")


async def _echo(stream: FrameStream, _: Peer) -> None:
    while (frame := await stream.recv()) is not None:
        assert isinstance(frame, frames.JsonFrame)
        await stream.send(frames.encode_json(frame.value))


async def _connect(path: Path) -> FrameStream:
    return FrameStream(*await asyncio.open_unix_connection(path))


async def test_frames_go_both_ways_whatever_their_size(path: Path) -> None:
    async with serve_local(path, 0o600, _echo):
        client = await _connect(path)
        for value in ({"n": 1}, {"text": "x" * 300_000}, {}):
            await client.send(frames.encode_json(value))
            assert await client.recv() == frames.JsonFrame(value)
        await client.close()


async def test_the_peer_is_who_connected(path: Path) -> None:
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def note(stream: FrameStream, peer: Peer) -> None:
        peers.put_nowait(peer)
        await stream.recv()

    async with serve_local(path, 0o600, note):
        client = await _connect(path)
        assert await peers.get() == Peer(os.geteuid(), os.getegid(), os.getpid())
        await client.close()


async def test_the_socket_has_its_mode_whatever_the_umask_and_goes_with_the_server(path: Path) -> None:
    before = os.umask(0o077)
    try:
        async with serve_local(path, 0o666, _echo):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o666
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_dead_daemons_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serve_local(path, 0o600, _echo):
        client = await _connect(path)
        await client.close()


async def test_a_living_daemons_socket_is_left_alone(path: Path) -> None:
    async with serve_local(path, 0o600, _echo):
        with pytest.raises(CraneError, match="another process listens") as caught:
            async with serve_local(path, 0o600, _echo):
                pass
        assert caught.value.code is ErrorCode.ALREADY_EXISTS
        client = await _connect(path)
        await client.close()


async def test_what_is_no_socket_is_never_removed(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(CraneError, match="no socket"):
        async with serve_local(path, 0o600, _echo):
            pass
    assert path.read_text() == "precious"


async def test_directories_that_will_not_do(path: Path) -> None:
    with pytest.raises(CraneError, match="No such file"):
        async with serve_local(path / "deeper" / "sock", 0o600, _echo):
            pass
    path.parent.chmod(0o777)
    with pytest.raises(CraneError, match="others could replace"):
        async with serve_local(path, 0o600, _echo):
            pass


async def test_a_path_that_no_address_holds(path: Path) -> None:
    with pytest.raises(CraneError, match="at most 107"):
        async with serve_local(path.with_name("x" * 120), 0o600, _echo):
            pass


async def test_one_handlers_fault_ends_its_connection_only(path: Path) -> None:
    async def faulty(stream: FrameStream, _: Peer) -> None:
        frame = await stream.recv()
        if frame == frames.JsonFrame({"fail": True}):
            raise ZeroDivisionError
        await stream.send(frames.encode_json({"ok": True}))

    async with serve_local(path, 0o600, faulty):
        unlucky, lucky = await _connect(path), await _connect(path)
        await unlucky.send(frames.encode_json({"fail": True}))
        assert await unlucky.recv() is None
        await lucky.send(frames.encode_json({}))
        assert await lucky.recv() == frames.JsonFrame({"ok": True})
        await unlucky.close()
        await lucky.close()


async def test_one_connection_too_many_is_told_so(path: Path) -> None:
    async with serve_local(path, 0o600, _echo, max_connections=1):
        first = await _connect(path)
        await first.send(frames.encode_json({}))
        await first.recv()
        second = await _connect(path)
        answer = await second.recv()
        assert isinstance(answer, frames.JsonFrame)
        assert answer.value["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert await second.recv() is None
        await second.close()
        await first.close()


async def test_garbage_and_half_a_frame_are_errors(path: Path) -> None:
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def note(stream: FrameStream, _: Peer) -> None:
        try:
            await stream.recv()
        except frames.FrameError as error:
            errors.put_nowait(str(error))

    async with serve_local(path, 0o600, note):
        for content, expected in (
            (b"GET / HTTP/1.0\r\n", "a frame of type"),
            (frames.encode_json({"a": 1})[:-1], "middle of a frame"),
        ):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(content)
            writer.write_eof()
            assert expected in await errors.get()
            writer.close()
            await writer.wait_closed()


async def test_leaving_cancels_the_handlers_and_raises_what_the_body_raised(path: Path) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def stay(_: FrameStream, __: Peer) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail_while_serving() -> None:
        async with serve_local(path, 0o600, stay):
            client = await _connect(path)
            await started.wait()
            await client.close()
            raise LookupError

    with pytest.raises(LookupError):
        await fail_while_serving()
    assert ended.is_set()


async def test_sending_to_a_peer_that_left_is_an_error(path: Path) -> None:
    async with serve_local(path, 0o600, _echo):
        client = await _connect(path)
        await client.close()
        await client.close()
        with pytest.raises(ConnectionError):
            await client.send(frames.encode_json({}))
