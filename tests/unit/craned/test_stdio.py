import pytest
from hypothesis import given
from hypothesis import strategies as st

from craned.steps.stdio import WINDOW_BYTES, InputWindow, Output, OutputWindow, StdinOverrunError, Stream
from cranehooks.model.ids import TaskId


def out(data: bytes) -> Output:
    return Output(TaskId(0), Stream.STDOUT, data)


def test_what_a_lost_launcher_did_not_consume_goes_to_the_next() -> None:
    window = OutputWindow()
    window.put(out(b"abc"))
    window.put(out(b"def"))
    assert window.take() == out(b"abc")
    assert window.consumed(2) == 2
    assert window.resume(0) == 0
    assert [window.take(), window.take(), window.take()] == [out(b"c"), out(b"def"), None]


def test_a_launcher_cannot_consume_what_it_was_not_sent() -> None:
    window = OutputWindow()
    window.put(out(b"abc"))
    window.put(out(b"def"))
    window.take()
    assert window.consumed(100) == 3
    assert window.kept_bytes == 3
    assert window.drop() == 3


@given(st.lists(st.binary(min_size=1, max_size=10), max_size=20), st.lists(st.integers(1, 15)))
def test_every_byte_is_consumed_once_and_in_order(chunks: list[bytes], consumptions: list[int]) -> None:
    window, sent, credited = OutputWindow(), b"", 0
    for chunk in chunks:
        window.put(out(chunk))
    for consumption in [*consumptions, *[15] * 20]:
        while (output := window.take()) is not None:
            sent += output.data
        credited += window.consumed(consumption)
    assert sent == b"".join(chunks)
    assert credited == len(sent)


@given(st.lists(st.sampled_from(["write", "read", "credit", "new stream", "new craned", "lost link"]), max_size=60))
def test_a_launcher_that_joins_again_gets_every_byte_once(events: list[str]) -> None:
    """Streams, links and node daemons break at any moment, with whatever credit was on its way."""
    written, received, credited_by_launcher = b"", b"", 0
    window = OutputWindow()
    unacknowledged = b""  # at the supervisor, which is told what `credit` returns

    def supervisor_is_told(count: int) -> None:
        nonlocal unacknowledged
        assert count <= len(unacknowledged)
        unacknowledged = unacknowledged[count:]

    def dial() -> None:
        resent = unacknowledged
        window.begin_at(len(written) - len(resent))
        for number in range(0, len(resent), 2):
            supervisor_is_told(window.put(out(resent[number : number + 2])))

    for number, event in enumerate([*events, "new stream", "read", "read", "read", *["read"] * len(events)]):
        match event:
            case "write":
                chunk = bytes([number % 251]) * 3
                written += chunk
                unacknowledged += chunk
                supervisor_is_told(window.put(out(chunk)))
            case "read":
                if (output := window.take()) is not None:
                    received += output.data
            case "credit":
                supervisor_is_told(window.consumed(len(received) - credited_by_launcher))
                credited_by_launcher = len(received)
            case "new stream":
                # What was credited and not heard is heard now.
                supervisor_is_told(window.resume(len(received)))
                credited_by_launcher = len(received)
            case "new craned":
                window = OutputWindow()
                dial()
                supervisor_is_told(window.resume(len(received)))
                credited_by_launcher = len(received)
            case _:
                dial()
    assert received == written


def test_stdin_is_bounded_and_an_earlier_launchers_credit_is_not_the_next_ones() -> None:
    window = InputWindow()
    window.sent(WINDOW_BYTES)
    with pytest.raises(StdinOverrunError):
        window.sent(1)
    window = InputWindow()
    window.sent(10)
    window.new_launcher()
    window.sent(WINDOW_BYTES)
    assert window.credited(4) == 0
    assert window.credited(10) == 4
    assert window.credited(1 << 30) == WINDOW_BYTES - 4
