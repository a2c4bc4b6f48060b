"""`hookctl events --follow` goes on where it was, whoever is restarted meanwhile."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.component.cli.front_end import environment
from tests.support.front_daemon import Call, FrontDaemon

FOLLOW = [
    sys.executable,
    "-c",
    "import sys; from cranecli.hookctl.main import main; main()",
    "events",
    "--follow",
    "--kind",
    "state",
]


def send_event(call: Call, cursor: int) -> None:
    call.item({"event": {"cursor": str(cursor), "kind": "state", "text": f"event {cursor}"}})


def follow(daemon: FrontDaemon, stderr: int) -> tuple[list[bytes], list[str], int]:
    """Lines, the cursors asked for, and the exit status of a follower that sees two restarts and is interrupted then."""
    cursors: list[str] = []

    def watch(call: Call) -> None:
        cursors.append(call.body["after_cursor"])
        match len(cursors):
            case 1:
                send_event(call, 1)
                send_event(call, 7)
                call.connection.hang_up()
            case 2:
                call.error("UNAVAILABLE", "the controller does not answer")
            case 3:
                call.end()
            case _:
                send_event(call, 9)

    daemon.handlers["WatchEvents"] = watch
    with subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, stderr=stderr, env=environment(daemon.path)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        return lines, cursors, process.wait(30)


def test_it_resumes_from_its_cursor_and_is_silent_elsewhere_than_on_a_terminal(daemon: FrontDaemon, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        lines, cursors, status = follow(daemon, stderr.fileno())
    assert [line.split()[-1] for line in lines] == [b"1", b"7", b"9"]
    assert cursors == ["0", "7", "7", "7"]
    assert status == 130
    assert (tmp_path / "stderr").read_bytes() == b""


def test_a_terminal_is_told_once(daemon: FrontDaemon) -> None:
    ours, theirs = os.openpty()
    try:
        follow(daemon, theirs)
        told = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "has hung up" in told
    assert told.count("trying again, from cursor 7") == 1


def test_who_is_away_from_the_start_is_not_waited_for(daemon: FrontDaemon) -> None:
    daemon.handlers["GetCluster"] = lambda call: call.error("UNAVAILABLE", "the controller does not answer")
    result = subprocess.run(FOLLOW, capture_output=True, env=environment(daemon.path), timeout=60, check=False)
    assert (result.returncode, result.stderr) == (3, b"hookctl: error: the controller does not answer\n")


def test_a_refusal_ends_it(daemon: FrontDaemon) -> None:
    daemon.handlers["WatchEvents"] = lambda call: call.error("PERMISSION_DENIED", "events of a node are for administrators")
    result = subprocess.run(FOLLOW, capture_output=True, env=environment(daemon.path), timeout=60, check=False)
    assert (result.returncode, result.stderr) == (1, b"hookctl: error: events of a node are for administrators\n")
    assert daemon.methods() == ["GetCluster", "WatchEvents"]
