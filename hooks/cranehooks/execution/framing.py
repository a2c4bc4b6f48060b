"""Length-prefixed frames on a stream: a header `!IB` (length of the payload, type), then the payload."""

import struct
from collections.abc import Iterator

HEADER = struct.Struct("!IB")
JSON_FRAME = 1
MAX_PAYLOAD_BYTES = 1 << 30
"""Both ends are ours; this only keeps a defect from eating all memory."""


class FrameError(Exception):
    """The stream is no sequence of frames that we know."""


def frame(payload: bytes) -> bytes:
    """A JSON payload as a frame."""
    return HEADER.pack(len(payload), JSON_FRAME) + payload


def payload_bytes(header: bytes | bytearray) -> int:
    """The length of the payload that follows a header.

    Raises:
        FrameError: of an unknown type, or too long.
    """
    length, kind = HEADER.unpack(header)
    if kind != JSON_FRAME:
        raise FrameError(f"frame of type {kind}, expected {JSON_FRAME} (JSON)")
    if length > MAX_PAYLOAD_BYTES:
        raise FrameError(f"frame of {length} bytes, expected at most {MAX_PAYLOAD_BYTES}")
    return int(length)


class FrameBuffer:
    """Cuts what arrives in pieces into payloads."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads completed by `data`; consume all of them before the next call."""
        self._data += data
        while len(self._data) >= HEADER.size:
            end = HEADER.size + payload_bytes(self._data[: HEADER.size])
            if len(self._data) < end:
                return
            payload = bytes(self._data[HEADER.size : end])
            del self._data[:end]
            yield payload
