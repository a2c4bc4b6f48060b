import socket
from collections.abc import Iterator

import pytest

from cranecli.front.client import FrontClient, FrontError
from cranecli.front.job_watch import JobWatch, ending_of, exit_code_of
from cranekit import frames
from tests.support.eventually import eventually
from tests.support.front_daemon import job_update


@pytest.fixture
def ends() -> Iterator[tuple[FrontClient, socket.socket]]:
    ours, theirs = socket.socketpair()
    with FrontClient(ours, "/front.sock") as client, theirs:
        yield client, theirs


def send(ends: tuple[FrontClient, socket.socket], message: dict[str, object]) -> None:
    ends[1].sendall(frames.encode_json(message))
    ends[0].receive()


def test_updates_until_the_last(ends: tuple[FrontClient, socket.socket]) -> None:
    watch = JobWatch(ends[0], 42, is_bound=True)
    assert watch.take() is None
    send(ends, {"id": 1, "item": job_update("COMPLETED", final=True)})
    assert watch.take() is not None
    send(ends, {"id": 1, "end": True})
    assert watch.take() is None
    assert (watch.is_final, watch.lost, watch.due_s()) == (True, None, None)


def test_a_lost_controller_is_asked_again(ends: tuple[FrontClient, socket.socket]) -> None:
    watch = JobWatch(ends[0], 42, is_bound=True)
    send(ends, {"id": 1, "error": {"code": "UNAVAILABLE", "message": "gone"}})
    assert watch.take() is None
    assert watch.lost is not None
    assert watch.due_s() is not None
    eventually(lambda: watch.take() is None and watch.due_s() is None)
    send(ends, {"id": 2, "item": job_update("RUNNING")})
    assert watch.take() is not None
    assert watch.lost is None


def test_an_unknown_job_is_an_error(ends: tuple[FrontClient, socket.socket]) -> None:
    watch = JobWatch(ends[0], 42, is_bound=False)
    send(ends, {"id": 1, "error": {"code": "NOT_FOUND", "message": "no job 42"}})
    with pytest.raises(FrontError, match="no job 42"):
        watch.take()


def test_words_and_codes() -> None:
    assert ending_of({"state": "JOB_STATE_TIMED_OUT", "reason": "limit"}) == "timed out: limit"
    assert ending_of({"state": "JOB_STATE_FAILED"}) == "failed"
    assert (exit_code_of(None), exit_code_of({"code": 3}), exit_code_of({"code": 0, "signal": 9})) == (0, 3, 137)
