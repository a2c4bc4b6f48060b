"""A controller that is away, or does not answer: front ends say what they wait for, and give up in time."""

import io
import signal
from collections.abc import Iterator

import pytest

from cranecli.front import conversation
from cranecli.front.attention import Attention
from cranecli.front.client import FrontClient, FrontError
from cranecli.front.conversation import Conversation
from cranecli.front.status_line import StatusLine
from cranecli.hookctl import front
from tests.component.cli.front_end import run
from tests.support.front_daemon import Call, FrontDaemon

AWAY = "the controller does not answer"


@pytest.fixture
def stderr() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def talk(daemon: FrontDaemon, stderr: io.StringIO) -> Iterator[Conversation]:
    with Attention(signal.SIGUSR2) as attention, FrontClient.connect(str(daemon.path)) as client:
        yield Conversation(client, attention, StatusLine("cbatch", stderr))


def unavailable(call: Call) -> None:
    call.error("UNAVAILABLE", AWAY)


def silent(_call: Call) -> None:
    """No answer at all."""


def test_a_controller_that_is_away_is_asked_again_for_a_bounded_time(
    daemon: FrontDaemon, talk: Conversation, stderr: io.StringIO
) -> None:
    daemon.handlers["SubmitJob"] = unavailable
    with pytest.raises(FrontError) as caught:
        talk.ask("SubmitJob", {}, patience_s=1)
    assert caught.value.exit_code == 3
    assert len(daemon.called("SubmitJob")) > 1
    assert stderr.getvalue() == f"cbatch: {AWAY}; trying again for 1 s\n"


def test_a_controller_that_comes_back_is_heard(daemon: FrontDaemon, talk: Conversation, stderr: io.StringIO) -> None:
    daemon.handlers["SubmitJob"] = lambda call: (
        unavailable(call) if len(daemon.called("SubmitJob")) == 1 else call.ok({"job_ids": ["42"]})
    )
    assert talk.ask("SubmitJob", {}, patience_s=30) == {"job_ids": ["42"]}
    assert stderr.getvalue().count("trying again") == 1


def full(call: Call) -> None:
    call.error("RESOURCE_EXHAUSTED", "the queue is full", retry_after_s=0.2)


def test_a_full_queue_is_waited_for_as_long_as_the_controller_says(
    daemon: FrontDaemon, talk: Conversation, stderr: io.StringIO
) -> None:
    daemon.handlers["SubmitJob"] = lambda call: (
        full(call) if len(daemon.called("SubmitJob")) < 3 else call.ok({"job_ids": ["42"]})
    )
    # The patience is for a controller that is away, and over at once.
    assert talk.ask("SubmitJob", {}, patience_s=0.1) == {"job_ids": ["42"]}
    assert stderr.getvalue() == "cbatch: the queue is full; trying again for 120 s\n"


def test_a_queue_that_stays_full_is_told(daemon: FrontDaemon, talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "QUEUE_PATIENCE_S", 0.5)
    daemon.handlers["SubmitJob"] = full
    with pytest.raises(FrontError, match="the queue is full") as caught:
        talk.ask("SubmitJob", {}, patience_s=0.1)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("program", ["crun", "calloc"])
def test_interactive_jobs_wait_for_room(daemon: FrontDaemon, program: str) -> None:
    daemon.handlers["SubmitJob"] = lambda call: (
        full(call) if len(daemon.called("SubmitJob")) < 3 else call.error("INVALID_ARGUMENT", "no such partition")
    )
    result = run(daemon.path, program, "true")
    assert (result.returncode, len(daemon.called("SubmitJob"))) == (1, 3)
    first, *others = [call.body["request_id"] for call in daemon.called("SubmitJob")]
    assert others == [first, first]
    assert result.stderr.startswith(f"{program}: the queue is full; trying again for 120 s\n".encode())


def test_a_controller_that_hangs_is_waited_for_with_a_word(
    daemon: FrontDaemon, talk: Conversation, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "SILENT_FOR_S", 0.1)
    daemon.handlers["SubmitJob"] = silent
    with pytest.raises(FrontError, match="no answer from the controller within 2 s") as caught:
        talk.ask("SubmitJob", {}, patience_s=2)
    assert caught.value.exit_code == 3
    assert stderr.getvalue() == "cbatch: SubmitJob: waiting for the controller's answer, for at most 2 s\n"


def test_nothing_is_tried_again_where_no_job_depends_on_it(daemon: FrontDaemon) -> None:
    daemon.handlers["SubmitJob"] = unavailable
    for program in ("crun", "calloc"):
        result = run(daemon.path, program, "true")
        assert (result.returncode, result.stderr) == (3, f"{program}: error: {AWAY}\n".encode())
    assert len(daemon.called("SubmitJob")) == 2


def test_hookctl_tells_what_it_waits_for(
    daemon: FrontDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "SILENT_FOR_S", 0.1)
    daemon.handlers["ListNodes"] = silent
    with front.front(daemon.path) as client, pytest.raises(FrontError, match="ListNodes: no answer within 2 s"):
        client.call("ListNodes", {}, timeout_s=2)
    assert capsys.readouterr().err == "hookctl: waiting for the controller's answer, for at most 2 s\n"
