"""Frames over an asyncio stream."""

import asyncio
import contextlib
from collections import deque

from cranekit.frames import Frame, FrameDecoder, FrameError

READ_BYTES = 1 << 16
CLOSE_GRACE_S = 5.0
"""How long closing waits for a peer to take what was sent; then the rest is dropped."""


class FrameStream:
    """Two ends that send each other frames. One task receives; any number may send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder()
        self._received: deque[Frame] = deque()

    async def recv(self) -> Frame | None:
        """The next frame; None when the peer has closed. Cancellation loses no frame.

        Raises:
            FrameError: what came is no frame, or the peer closed in the middle of one.
            ConnectionError: the connection broke.
        """
        while not self._received:
            data = await self._reader.read(READ_BYTES)
            if not data:
                if not self._decoder.is_between_frames:
                    raise FrameError("the connection was closed in the middle of a frame")
                return None
            self._received.extend(self._decoder.feed(data))
        return self._received.popleft()

    async def send(self, frame: bytes) -> None:
        """Sends an encoded frame; waits while the peer is slow to read.

        Raises:
            ConnectionError: the connection is closed or broke.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        # One write per frame, so that frames of several senders never mix.
        self._writer.write(frame)
        await self._writer.drain()

    async def close(self) -> None:
        """Closes after what was sent has gone out, or after a grace without it. Safe to repeat."""
        self._writer.close()
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CLOSE_GRACE_S):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()
