"""The output window, and pipes that feed it."""

import os
from collections.abc import Callable

import pytest

from cranehooks.model.ids import TaskId
from cranehooks.model.run import Credentials
from csupervisor import stdio
from csupervisor.stdio import CHUNK_BYTES, OutputChunk, OutputWindow, PipeOutput, StdinPipe, StreamName
from tests.support.eventually import eventually_async

ME = Credentials(os.geteuid(), os.getegid())


def chunk(data: bytes) -> OutputChunk:
    return OutputChunk(TaskId(0), StreamName.STDOUT, data)


class Sent(list[OutputChunk]):
    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self)


def test_the_window_keeps_what_was_not_taken() -> None:
    sent = Sent()
    window = OutputWindow(sent.append, limit_bytes=10)
    for data in (b"abcd", b"efgh"):
        window.push(chunk(data))
    assert window.has_room_for(2)
    assert not window.has_room_for(3)
    window.acknowledge(6)
    assert window.unacknowledged == (chunk(b"gh"),)
    assert window.has_room_for(8)


def test_more_than_was_sent_means_all() -> None:
    window = OutputWindow(Sent().append, limit_bytes=10)
    window.push(chunk(b"abcd"))
    window.acknowledge(1000)
    assert window.unacknowledged == ()
    assert window.has_room_for(10)
    assert not window.has_room_for(11)


def test_those_who_wait_are_called_in_turn() -> None:
    window = OutputWindow(Sent().append, limit_bytes=4)
    window.push(chunk(b"abcd"))
    called: list[str] = []

    def greedy(name: str) -> Callable[[], None]:
        def resume() -> None:
            called.append(name)
            window.when_room(resume)

        return resume

    window.when_room(greedy("first"))
    window.when_room(greedy("second"))
    window.acknowledge(1)
    assert called == ["first", "second"]
    window.acknowledge(1)
    assert called == ["first", "second"] * 2


async def test_lines_stay_whole_and_parts_wait_a_moment() -> None:
    sent = Sent()
    output = PipeOutput(TaskId(0), StreamName.STDOUT, OutputWindow(sent.append), ME)
    with output.for_child() as fd:
        writer = os.dup(fd)
    os.write(writer, b"one\ntw")
    await eventually_async(lambda: sent.data == b"one\ntw")
    assert [chunk.data for chunk in sent] == [b"one\n", b"tw"]
    ends: list[None] = []
    os.write(writer, b"o\nlast")
    os.close(writer)
    output.finish(lambda: ends.append(None))
    await eventually_async(lambda: len(ends) == 1)
    assert sent.data == b"one\ntwo\nlast"


async def test_what_the_supervisor_says_comes_first() -> None:
    sent = Sent()
    output = PipeOutput(TaskId(0), StreamName.STDOUT, OutputWindow(sent.append), ME)
    output.write(b"from us\n")
    with output.for_child() as fd:
        os.write(fd, b"from the task\n")
    ends: list[None] = []
    output.finish(lambda: ends.append(None))
    await eventually_async(lambda: len(ends) == 1)
    assert sent.data == b"from us\nfrom the task\n"


async def test_a_stream_that_was_never_lent_ends_at_once() -> None:
    ends: list[None] = []
    PipeOutput(TaskId(0), StreamName.STDERR, OutputWindow(Sent().append), ME).finish(lambda: ends.append(None))
    assert ends == [None]


async def test_a_full_window_stops_the_pipe() -> None:
    sent = Sent()
    window = OutputWindow(sent.append, limit_bytes=CHUNK_BYTES)
    output = PipeOutput(TaskId(0), StreamName.STDOUT, window, ME)
    with output.for_child() as fd:
        writer = os.dup(fd)
    os.set_blocking(writer, False)
    written = 0
    line = b"x" * 999 + b"\n"

    def flood() -> bool:
        nonlocal written
        try:
            while True:
                written += os.write(writer, line)
        except BlockingIOError:
            return len(sent.data) > 0 and not window.has_room_for(CHUNK_BYTES)

    await eventually_async(flood)
    # The window, what is held, and the kernel's pipe.
    assert written < 5 * CHUNK_BYTES
    ends: list[None] = []
    output.finish(lambda: ends.append(None))
    output.drop()
    assert ends == [None]
    os.close(writer)


async def test_stdin_of_an_earlier_connection_is_not_credited_to_the_next() -> None:
    granted: list[int] = []
    stdin = StdinPipe(granted.append, ME)
    stdin.feed(b"old")
    stdin.redialled()
    stdin.feed(b"newer")
    stdin.end()
    with stdin.for_child() as fd:
        reader = os.dup(fd)
    await eventually_async(lambda: sum(granted) == len(b"newer"))
    assert os.read(reader, 100) == b"oldnewer"
    assert os.read(reader, 100) == b""
    os.close(reader)


async def test_stdin_beyond_its_window_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    stdin = StdinPipe(lambda _: None, ME)
    stdin.feed(b"x" * stdio.WINDOW_BYTES)
    stdin.feed(b"y")
    assert "dropped" in caplog.text
    stdin.close()


async def test_a_task_that_is_over_takes_everything() -> None:
    granted: list[int] = []
    stdin = StdinPipe(granted.append, ME)
    stdin.feed(b"waiting")
    stdin.close()
    stdin.feed(b"late")
    assert granted == [7, 4]
