"""The bounded buffer keeps both ends of whatever it is fed, in whatever pieces."""

from hypothesis import given
from hypothesis import strategies as st

from cranehooks.execution.capture import Capture, whole_lines

PIECES = st.lists(st.binary(max_size=40), max_size=30)


@given(pieces=PIECES, limit=st.integers(0, 64))
def test_keeps_head_and_tail_and_counts_the_rest(pieces: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for piece in pieces:
        capture.feed(piece)
        assert capture.kept_bytes <= limit
    everything = b"".join(pieces)
    assert capture.written_bytes == len(everything)
    if len(everything) <= limit:
        assert capture.value() == everything
        return
    head, tail = everything[: limit - limit // 2], everything[len(everything) - limit // 2 :]
    marker = b"[... %d bytes dropped ...]\n" % (len(everything) - limit)
    assert capture.value() in (head + marker + tail, head + b"\n" + marker + tail)
    assert capture.dropped_bytes == len(everything) - limit


@given(
    pieces=PIECES | st.lists(st.sampled_from([b"ab\n", b"c", b"\n", b"[... 4 bytes dropped ...]\n"]), max_size=30),
    limit=st.integers(0, 64),
)
def test_whole_lines_are_lines_that_were_written(pieces: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for piece in pieces:
        capture.feed(piece)
    everything = b"".join(pieces)
    whole = whole_lines(capture.value(), capture.written_bytes, limit)
    if len(everything) <= limit:
        assert whole == everything
        return
    head, tail = everything[: limit - limit // 2], everything[len(everything) - limit // 2 :]
    assert whole == head[: head.rfind(b"\n") + 1] + tail.partition(b"\n")[2]


def test_a_marker_as_long_as_what_was_dropped_is_seen() -> None:
    capture = Capture(8)
    capture.feed(b"ab\nc" + b"x" * 28 + b"y\nde")
    assert len(capture.value()) == capture.written_bytes
    assert whole_lines(capture.value(), capture.written_bytes, 8) == b"ab\nde"


def test_the_marker_stands_on_a_line_of_its_own() -> None:
    capture = Capture(8)
    capture.feed(b"abcdXXXXefgh")
    assert capture.text() == "abcd\n[... 4 bytes dropped ...]\nefgh"


def test_what_is_no_text_is_replaced() -> None:
    capture = Capture(100)
    capture.feed(b"a\xff\n")
    assert capture.text() == "a\ufffd\n"


def test_many_small_pieces_are_not_kept_apart_for_ever() -> None:
    capture = Capture(1 << 10)
    for _ in range(10_000):
        capture.feed(b"x")
    assert capture.kept_bytes == 1 << 10
    assert len(capture._tail) <= 1 << 10
