"""Frames: what is encoded comes back, in whatever pieces; what is none is refused before it costs memory."""

import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranekit import frames
from cranekit.errors import ErrorCode
from cranekit.frames import DataFrame, Frame, FrameBuffer, FrameDecoder, FrameError, JsonFrame, RawFrame

json_objects = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=10), max_size=4)
any_frames = st.one_of(
    json_objects.map(JsonFrame),
    st.builds(DataFrame, st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=50)),
    st.binary(max_size=50).map(RawFrame),
)


def encoded(frame: Frame) -> bytes:
    match frame:
        case JsonFrame(value):
            return frames.encode_json(value)
        case DataFrame(channel, number, data):
            return frames.encode_data(channel, number, data)
        case RawFrame(data):
            return frames.encode_raw(data)


@given(st.lists(any_frames, max_size=6), st.integers(1, 17))
def test_frames_come_back_in_any_pieces(sent: list[Frame], piece_bytes: int) -> None:
    stream = b"".join(map(encoded, sent))
    decoder = FrameDecoder()
    received: list[Frame] = []
    for start in range(0, len(stream), piece_bytes):
        received += decoder.feed(stream[start : start + piece_bytes])
    assert received == sent
    assert decoder.is_between_frames


def test_the_bytes_on_the_socket() -> None:
    assert frames.encode_json({"a": "é"}) == b"\x00\x00\x00\x0a\x01" + '{"a":"é"}'.encode()
    assert frames.encode_data(2, 3, b"xy") == b"\x00\x00\x00\x07\x02\x02\x00\x00\x00\x03xy"
    assert frames.encode_raw(b"m") == b"\x00\x00\x00\x01\x03m"
    assert frames.encode(frames.PROTOBUF, b"") == b"\x00\x00\x00\x00\x03"


def test_a_buffer_gives_types_and_payloads() -> None:
    buffer = FrameBuffer()
    stream = frames.encode(frames.PROTOBUF, b"one") + frames.encode(frames.JSON, b"{}")
    assert buffer.feed(stream[:-1]) == [(frames.PROTOBUF, b"one")]
    assert not buffer.is_between_frames
    assert buffer.feed(stream[-1:]) == [(frames.JSON, b"{}")]
    assert buffer.is_between_frames


def test_the_bound_itself_is_allowed() -> None:
    largest = bytes(frames.MAX_PAYLOAD_BYTES)
    assert FrameDecoder().feed(frames.encode_raw(largest)) == [RawFrame(largest)]
    with pytest.raises(FrameError, match="expected at most 4194304"):
        frames.encode_raw(largest + b"!")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (struct.pack("!IB", frames.MAX_PAYLOAD_BYTES + 1, 1), "a frame of 4194305 bytes, expected at most 4194304"),
        (struct.pack("!IB", 1, 9), "a frame of type 9, expected 1, 2 or 3"),
        (frames.encode(frames.DATA, b"1234"), "a data frame of 4 bytes, expected at least 5"),
        (frames.encode(frames.JSON, b"[]"), "a JSON frame that holds a list, expected an object"),
        (frames.encode(frames.JSON, b"{"), "a JSON frame that is none"),
        (frames.encode(frames.JSON, b"\xff{}"), "a JSON frame that is none"),
        (frames.encode(frames.JSON, b'{"a":' * 100_000), "a JSON frame that is none"),
    ],
)
def test_what_is_no_frame(stream: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message) as caught:
        FrameDecoder().feed(stream)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("channel", "number"), [(256, 0), (-1, 0), (0, 2**32), (0, -1)])
def test_a_channel_and_a_number_fit_their_fields(channel: int, number: int) -> None:
    with pytest.raises(FrameError):
        frames.encode_data(channel, number, b"")


@given(st.binary(max_size=100))
def test_any_bytes_are_frames_or_an_error(stream: bytes) -> None:
    decoder = FrameDecoder()
    try:
        received = decoder.feed(stream)
    except FrameError:
        return
    assert b"".join(map(encoded, received))[:0] == b""
    assert len(received) <= len(stream) // 5


def test_importing_it_is_cheap() -> None:
    heavy = ("asyncio", "typing", "dataclasses", "structlog", "grpc", "prometheus_client")
    code = f"import sys, cranekit.frames; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
