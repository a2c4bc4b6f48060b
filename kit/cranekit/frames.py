"""Frames on a local socket: a length, a type and a payload. Standard library only, and little of it: the front ends import it.

The header is `!IB`: the payload's length in bytes and its type. A payload of type `DATA` begins with `!BI`, a channel and a number.
Two readers are offered: `FrameBuffer` gives type and payload as they came, `FrameDecoder` gives what they mean.
"""

import json
from collections.abc import Mapping
from struct import Struct

from cranekit.errors import CraneError, ErrorCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JSON = 1
"""The payload is a JSON object in UTF-8."""
DATA = 2
"""The payload is a channel, a number and raw bytes."""
PROTOBUF = 3
"""The payload is one serialised message."""

MAX_PAYLOAD_BYTES = 4 << 20

_HEADER = Struct("!IB")
_DATA_HEADER = Struct("!BI")
_KINDS = frozenset({JSON, DATA, PROTOBUF})


class FrameError(CraneError):
    """What came, or was to be sent, is no frame. A connection is of no use after it."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, message)


class JsonFrame:
    """A JSON object."""

    __slots__ = ("value",)
    __match_args__ = ("value",)

    def __init__(self, value: "dict[str, Any]") -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonFrame) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]  # its value is mutable

    def __repr__(self) -> str:
        return f"JsonFrame({self.value!r})"


class DataFrame:
    """Raw bytes of a channel. What channel and number mean is for the two ends to agree."""

    __slots__ = ("channel", "data", "number")
    __match_args__ = ("channel", "number", "data")

    def __init__(self, channel: int, number: int, data: bytes) -> None:
        self.channel = channel
        self.number = number
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataFrame) and (other.channel, other.number, other.data) == (
            self.channel,
            self.number,
            self.data,
        )

    def __hash__(self) -> int:
        return hash((self.channel, self.number, self.data))

    def __repr__(self) -> str:
        return f"DataFrame({self.channel}, {self.number}, {self.data!r})"


class RawFrame:
    """A serialised protobuf message."""

    __slots__ = ("data",)
    __match_args__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawFrame) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"RawFrame({self.data!r})"


Frame = JsonFrame | DataFrame | RawFrame


def encode(kind: int, payload: bytes) -> bytes:
    """A frame of any type.

    Raises:
        FrameError: the payload is larger than a frame may be, or there is no such type.
    """
    _check(kind, len(payload))
    return _HEADER.pack(len(payload), kind) + payload


def encode_json(value: "Mapping[str, Any]") -> bytes:
    """A frame that holds a JSON object."""
    return encode(JSON, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def encode_data(channel: int, number: int, data: bytes) -> bytes:
    """A frame that holds raw bytes of a channel (0 … 255) with a number (0 … 2**32-1)."""
    if not (0 <= channel < 1 << 8 and 0 <= number < 1 << 32):
        raise FrameError(f"channel {channel}, number {number}: expected a channel below 256 and a number below 2**32")
    return encode(DATA, _DATA_HEADER.pack(channel, number) + data)


def encode_raw(message: bytes) -> bytes:
    """A frame that holds a serialised protobuf message."""
    return encode(PROTOBUF, message)


class FrameBuffer:
    """Cuts a byte stream into frames of type and payload, whatever pieces the bytes come in."""

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """No part of a frame is left over: here a stream may end."""
        return not self._pending

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now.

        Raises:
            FrameError: a header announces too much, or a type that does not exist. The buffer is of no use afterwards.
        """
        pending = self._pending
        pending += data
        found: list[tuple[int, bytes]] = []
        start = 0
        while len(pending) - start >= _HEADER.size:
            length, kind = _HEADER.unpack_from(pending, start)
            _check(kind, length)
            end = start + _HEADER.size + length
            if len(pending) < end:
                break
            found.append((kind, bytes(pending[start + _HEADER.size : end])))
            start = end
        del pending[:start]
        return found


class FrameDecoder:
    """Reads a byte stream as frames with their meaning."""

    def __init__(self) -> None:
        self._buffer = FrameBuffer()

    @property
    def is_between_frames(self) -> bool:
        """No part of a frame is left over: here a stream may end."""
        return self._buffer.is_between_frames

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now.

        Raises:
            FrameError: one of them is none. Those before it in `data` are lost with the connection.
        """
        return [_frame(kind, payload) for kind, payload in self._buffer.feed(data)]


def _check(kind: int, length: int) -> None:
    if kind not in _KINDS:
        raise FrameError(f"a frame of type {kind}, expected {JSON}, {DATA} or {PROTOBUF}")
    if length > MAX_PAYLOAD_BYTES:
        raise FrameError(f"a frame of {length} bytes, expected at most {MAX_PAYLOAD_BYTES}")


def _frame(kind: int, payload: bytes) -> Frame:
    if kind == PROTOBUF:
        return RawFrame(payload)
    if kind == DATA:
        if len(payload) < _DATA_HEADER.size:
            raise FrameError(f"a data frame of {len(payload)} bytes, expected at least {_DATA_HEADER.size}")
        channel, number = _DATA_HEADER.unpack_from(payload)
        return DataFrame(channel, number, payload[_DATA_HEADER.size :])
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a JSON frame that is none: {error}") from error
    if not isinstance(value, dict):
        raise FrameError(f"a JSON frame that holds a {type(value).__name__}, expected an object")
    return JsonFrame(value)
