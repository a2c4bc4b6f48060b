"""Frames over asyncio streams: order, ends, and what a broken peer leads to."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.frames import DataFrame, FrameError, JsonFrame, RawFrame


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[FrameStream, asyncio.StreamWriter]]:
    """A stream, and the bare end of its peer."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    _, peer = await asyncio.open_unix_connection(sock=theirs)
    stream = FrameStream(reader, writer)
    try:
        yield stream, peer
    finally:
        peer.transport.abort()
        await stream.close()
        with contextlib.suppress(ConnectionError):
            await peer.wait_closed()


async def test_frames_come_in_order_until_the_peer_closes() -> None:
    async with connected() as (stream, peer):
        peer.write(frames.encode_json({"id": 1}) + frames.encode_data(1, 2, b"x") + frames.encode_raw(b"m"))
        peer.close()
        assert await stream.recv() == JsonFrame({"id": 1})
        assert await stream.recv() == DataFrame(1, 2, b"x")
        assert await stream.recv() == RawFrame(b"m")
        assert await stream.recv() is None
        assert await stream.recv() is None


async def test_an_end_in_the_middle_of_a_frame_is_an_error() -> None:
    async with connected() as (stream, peer):
        peer.write(frames.encode_raw(b"message")[:-1])
        peer.close()
        with pytest.raises(FrameError, match="in the middle of a frame"):
            await stream.recv()


async def test_what_is_no_frame_is_an_error() -> None:
    async with connected() as (stream, peer):
        peer.write(b"GET / HTTP/1.1\r\n")
        with pytest.raises(FrameError):
            await stream.recv()


async def test_a_cancelled_receiver_loses_nothing() -> None:
    async with connected() as (stream, peer):
        message = frames.encode_raw(b"message")
        peer.write(message[:3])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.recv()
        peer.write(message[3:])
        assert await stream.recv() == RawFrame(b"message")


async def test_frames_of_several_senders_never_mix() -> None:
    ours, theirs = socket.socketpair()
    sender = FrameStream(*await asyncio.open_unix_connection(sock=ours))
    receiver = FrameStream(*await asyncio.open_unix_connection(sock=theirs))
    payload_bytes = 300_000

    async def send(channel: int) -> None:
        for number in range(5):
            await sender.send(frames.encode_data(channel, number, bytes([channel]) * payload_bytes))

    received: list[DataFrame] = []
    async with asyncio.TaskGroup() as tasks:
        for channel in range(4):
            tasks.create_task(send(channel))
        while len(received) < 20:
            frame = await receiver.recv()
            assert isinstance(frame, DataFrame)
            assert frame.data == bytes([frame.channel]) * payload_bytes
            received.append(frame)
    for channel in range(4):
        assert [frame.number for frame in received if frame.channel == channel] == list(range(5))
    await sender.close()
    assert await receiver.recv() is None
    await receiver.close()


async def test_sending_after_closing_is_an_error() -> None:
    async with connected() as (stream, _):
        await stream.close()
        await stream.close()
        with pytest.raises(ConnectionResetError):
            await stream.send(frames.encode_json({}))
