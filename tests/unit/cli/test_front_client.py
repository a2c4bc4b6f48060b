import socket
from collections.abc import Iterator

import pytest

from cranecli.front.client import FrontClient, FrontError, FrontUnavailableError
from cranekit import frames
from tests.support.front_daemon import FrontDaemon


@pytest.fixture
def ends() -> Iterator[tuple[FrontClient, socket.socket]]:
    ours, theirs = socket.socketpair()
    with FrontClient(ours, "/front.sock") as client, theirs:
        yield client, theirs


def send(theirs: socket.socket, *messages: dict[str, object]) -> None:
    theirs.sendall(b"".join(frames.encode_json(message) for message in messages))


def test_a_call_and_its_answer(ends: tuple[FrontClient, socket.socket]) -> None:
    client, theirs = ends
    send(theirs, {"id": 1, "ok": {"answer": 1}})
    assert client.call("GetCluster", {"a": "ü"}) == {"answer": 1}
    [request] = frames.FrameDecoder().feed(theirs.recv(4096))
    assert request == frames.JsonFrame({"id": 1, "method": "GetCluster", "body": {"a": "ü"}})


def test_a_refusal_has_its_code(ends: tuple[FrontClient, socket.socket]) -> None:
    client, theirs = ends
    send(theirs, {"id": 1, "error": {"code": "NOT_FOUND", "message": "no job 7"}})
    with pytest.raises(FrontError, match="no job 7") as refusal:
        client.call("GetJob", timeout_s=5)
    assert (refusal.value.code, refusal.value.exit_code) == ("NOT_FOUND", 1)
    send(theirs, {"id": 2, "error": {"code": "UNAVAILABLE", "message": "gone"}})
    with pytest.raises(FrontError, match="gone") as unreachable:
        client.call("GetJob", timeout_s=5)
    assert unreachable.value.exit_code == 3


def test_streams_and_calls_share_a_connection(ends: tuple[FrontClient, socket.socket]) -> None:
    client, theirs = ends
    stream = client.stream("FollowJob")
    send(theirs, {"id": 1, "item": {"n": 1}}, {"id": 2, "ok": {}}, {"id": 1, "item": {"n": 2}}, {"id": 1, "end": True})
    assert client.call("StartStep", timeout_s=5) == {}
    assert [item["n"] for item in stream] == [1, 2]
    assert stream.is_ended


def test_an_error_comes_after_the_items_before_it(ends: tuple[FrontClient, socket.socket]) -> None:
    client, theirs = ends
    stream = client.stream("FollowJob")
    send(theirs, {"id": 1, "item": {"n": 1}}, {"id": 1, "error": {"code": "UNAVAILABLE", "message": "gone"}})
    assert next(stream) == {"n": 1}
    with pytest.raises(FrontError, match="gone"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_cancelled_stream_is_told_and_its_rest_dropped(ends: tuple[FrontClient, socket.socket]) -> None:
    client, theirs = ends
    with client.stream("FollowJob"):
        pass
    send(theirs, {"id": 1, "item": {}}, {"id": 2, "ok": {"x": 1}})
    assert client.call("GetCluster") == {"x": 1}
    messages = [frame.value for frame in frames.FrameDecoder().feed(theirs.recv(4096)) if isinstance(frame, frames.JsonFrame)]
    assert messages[1] == {"id": 1, "cancel": True}


def test_no_answer_in_time(ends: tuple[FrontClient, socket.socket]) -> None:
    client, _ = ends
    with pytest.raises(FrontError) as late:
        client.call("GetCluster", timeout_s=0.01)
    assert late.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    "garbage", [b"", b"HTTP/1.1 400 Bad Request\r\n", frames.encode_json({"id": 0, "error": {"message": "what?"}})]
)
def test_a_connection_that_breaks_fails_what_is_open(ends: tuple[FrontClient, socket.socket], garbage: bytes) -> None:
    client, theirs = ends
    stream = client.stream("FollowJob")
    theirs.sendall(garbage)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(FrontUnavailableError):
        next(stream)
    assert client.is_broken


def test_a_new_connection_takes_the_place_of_a_broken_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "f"
    with FrontDaemon(path) as daemon, FrontClient.connect(str(path)) as client:
        client.call("A")
        daemon.connections[0].hang_up()
        with pytest.raises(FrontUnavailableError):
            client.call("B")
        client.reconnect()
        assert client.call("C") == {}


def test_a_request_that_cannot_be_sent(ends: tuple[FrontClient, socket.socket]) -> None:
    client, _ = ends
    with pytest.raises(FrontError, match="too large"):
        client.call("SubmitJob", {"script": "x" * (5 << 20)})
    with pytest.raises(FrontError, match="not UTF-8"):
        client.call("SubmitJob", {"cwd": "\udcff"})


def test_nobody_listens(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "f"
    with pytest.raises(FrontUnavailableError, match="does not exist"):
        FrontClient.connect(str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(FrontUnavailableError, match="nobody listens"):
        FrontClient.connect(str(path))
