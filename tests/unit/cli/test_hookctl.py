"""hookctl's commands against a daemon that answers from recordings: requests sent, output, messages and exit statuses."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cranecli.hookctl.main import run
from cranekit import frames

FIXTURES = Path(__file__).with_name("fixtures")
Json = dict[str, Any]  # JSON of the front protocol


def recorded(name: str) -> Json:
    loaded: Json = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


class RecordingDaemon:
    """Serves one connection after another in a thread; answers by method, remembers what was asked."""

    def __init__(self, path: str) -> None:
        self.answers: dict[str, Json | list[Json]] = {}
        """By method: an answer, an `{"error": …}`, or the items of a stream."""
        self.successive: dict[str, list[Json]] = {}
        """By method, answers that come before that, each once."""
        self.requests: list[tuple[str, Json]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        # shutdown wakes the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        buffer = frames.FrameBuffer()
        while data := connection.recv(1 << 16):
            for _, payload in buffer.feed(data):
                message = json.loads(payload)
                if "method" in message:
                    self.requests.append((message["method"], message["body"]))
                    for answer in self._answers(message["method"]):
                        connection.sendall(frames.encode(frames.JSON, json.dumps({"id": message["id"], **answer}).encode()))

    def _answers(self, method: str) -> Iterator[Json]:
        successive = self.successive.get(method)
        answer = successive.pop(0) if successive else self.answers.get(method, {})
        if isinstance(answer, list):
            yield from ({"item": item} for item in answer)
            yield {"end": True}
        elif "error" in answer:
            yield answer
        else:
            yield {"ok": answer}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingDaemon]:
    path = str(tmp_path / "front.sock")
    monkeypatch.setenv("CRANE_FRONT_SOCKET", path)
    serving = RecordingDaemon(path)
    yield serving
    serving.close()


def error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def test_jobs_as_table_and_as_json(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["ListJobs"] = {"jobs": [recorded("requeued_job")["job"]]}
    assert run(["jobs", "--state", "completed", "--user", "alice"]) == 0
    assert daemon.requests == [("ListJobs", {"states": ["JOB_STATE_COMPLETED"], "user": "alice", "limit": 1000})]
    table = capsys.readouterr().out
    assert table.splitlines()[0].split()[:3] == ["JOB", "NAME", "USER"]
    assert "\x1b" not in table
    assert run(["jobs", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["job_id"] == 2


def test_job_prints_its_timeline(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GetJob"] = recorded("requeued_job")
    assert run(["job", "2"]) == 0
    assert "50-node-health.sh" in capsys.readouterr().out
    assert run(["job", "2", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["job"]["runs"]) == 10


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("NOT_FOUND", 5),
        ("UNAVAILABLE", 3),
        ("DEADLINE_EXCEEDED", 3),
        ("PERMISSION_DENIED", 1),
        ("FAILED_PRECONDITION", 1),
        ("INVALID_ARGUMENT", 2),
    ],
)
def test_refusals_are_one_line_and_a_status(
    daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str], code: str, status: int
) -> None:
    daemon.answers["GetJob"] = error(code, "job 9 …")
    assert run(["job", "9"]) == status
    assert capsys.readouterr().err == "hookctl: error: job 9 …\n"


def test_without_daemon_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CRANE_FRONT_SOCKET", "/nonexistent/front.sock")
    assert run(["nodes"]) == 3
    assert "start craned" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["job"], ["job", "x"], ["drain", "cn01"], ["drain", "cn01", "--reason", " "], ["jobs", "-t", "odd"], ["nodes", "cn[1"], [],
     ["explain"], ["resume", "cn01", "--owner", "me"], ["local", "--nodes", "33"]],
)  # fmt: skip
def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith("hookctl: error: ")


def test_nodes_drain_and_resume(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers |= {
        "ListNodes": recorded("nodes"), "DrainNodes": {"nodes": ["cn01", "cn02"]}, "ResumeNodes": {"nodes": ["cn01"]},
    }  # fmt: skip
    assert run(["nodes", "cn[01-04]"]) == 0
    assert "cn[02-04]" in capsys.readouterr().out
    assert run(["drain", "cn[01-02]", "--reason", "disk swap"]) == 0
    assert "drained cn[01-02]" in capsys.readouterr().err
    assert run(["resume", "cn01", "--owner", "hooks"]) == 0
    assert daemon.requests[1:] == [
        ("DrainNodes", {"nodes": "cn[01-02]", "reason": "disk swap"}),
        ("ResumeNodes", {"nodes": "cn01", "owner": "DRAIN_OWNER_HOOKS"}),
    ]


def test_node_and_explain_node(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GetNode"] = recorded("drained_node")
    assert run(["node", "cn01"]) == 0
    assert run(["explain", "node", "cn01"]) == 0
    assert "hookctl resume cn01" in capsys.readouterr().out
    assert run(["explain", "node", "cn01", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["node"]["drained"] is True


def test_explain_job_says_what_to_do(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers |= {"GetJob": recorded("held_job"), "ListNodes": recorded("nodes"), "ListBreakers": recorded("breakers")}
    assert run(["explain", "job", "3"]) == 0
    page = capsys.readouterr().out
    assert "hookctl release 3" in page
    assert "hookctl breaker reset b7b7b7b7b7b7" in page
    assert "hookctl resume cn01" in page


def test_cancel_and_release(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["CancelJob"] = {"cancelled": ["4", "5"], "already_ended": ["6"]}
    assert run(["cancel", "4-6", "--reason", "mine"]) == 0
    assert "already ended: 6" in capsys.readouterr().err
    assert run(["release", "7"]) == 0
    assert daemon.requests == [
        ("CancelJob", {"job_ids": ["4", "5", "6"], "reason": "mine"}), ("ReleaseHold", {"job_ids": ["7"]}),
    ]  # fmt: skip


def test_events_stream(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    events = recorded("drained_node")["events"]
    daemon.answers["WatchEvents"] = [{"event": events[0]}, {"event": {**events[0], "cursor": "10"}}]
    assert run(["events", "--after", "5", "--kind", "drained", "--kind", "held", "--node", "cn01", "-o", "json"]) == 0
    assert [json.loads(line)["cursor"] for line in capsys.readouterr().out.splitlines()] == [9, 10]
    assert daemon.requests[0][1] == {
        "after_cursor": "5",
        "follow": False,
        "job_id": "0",
        "node": "cn01",
        "kinds": ["drained", "held"],
    }
    assert run(["events", "--job", "2"]) == 0
    assert "prolog 50-node-health.sh" in capsys.readouterr().out


def test_breaker_list_and_reset(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers |= {"ListBreakers": recorded("breakers"), "ResetBreaker": {"reset": 1}}
    assert run(["breaker", "list"]) == 0
    assert "tripped" in capsys.readouterr().out
    assert run(["breaker", "list", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["window_s"] == 3600.0
    assert run(["breaker", "reset", "B7B7"]) == 0
    assert daemon.requests[-1] == ("ResetBreaker", {"sha256": "b7b7"})
    assert "1 breaker reset" in capsys.readouterr().err


def test_check_config_prints_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('ClusterName: c\nNodes:\n  - {name: cn01, address: "127.0.0.1:1"}\n')
    assert run(["check-config", str(path)]) == 0
    path.write_text("ClusterName: c\nNope: 1\nNodes: 3\n")
    assert run(["check-config", str(path)]) == 2
    problems = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in problems] == ["2", "3"]


def test_check_scripts_tells_order_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    texts = {
        "10-fine": "#!/bin/sh\n",
        "20-bare": "echo no line one\n",
        "30-lost": "#!/no/such/interpreter\n",
        "40-mode": "#!/bin/sh\n",
    }
    for name, text in texts.items():
        (hooks / name).write_text(text)
        (hooks / name).chmod(0o644 if name == "40-mode" else 0o755)
    path = tmp_path / "c.yaml"
    path.write_text('ClusterName: c\nNodes:\n  - {name: cn01, address: "127.0.0.1:1"}\nJobLifecycleHook: {Prolog: "hooks/*"}\n')
    assert run(["check-scripts", "--config", str(path), "-o", "json"]) == 1
    scripts = json.loads(capsys.readouterr().out)["points"][0]["scripts"]
    assert [Path(script["path"]).name for script in scripts] == ["40-mode", "30-lost", "20-bare", "10-fine"]
    assert [
        word in (script["problem"] or "fine")
        for word, script in zip(["chmod a+x", "does not exist", "#!", "fine"], scripts, strict=True)
    ] == [True] * 4
    assert run(["check-scripts", "--config", str(path)]) == 1
    assert capsys.readouterr().out.count("PROBLEM") == 3
    for name in ("20-bare", "30-lost", "40-mode"):
        (hooks / name).unlink()
    assert run(["check-scripts", "--config", str(path)]) == 0


def test_version_and_help_are_quick_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert run(["--help"]) == 0
    assert "explain" in capsys.readouterr().out


def test_help_imports_little() -> None:
    import subprocess
    import sys

    code = "import sys; from cranecli.hookctl.main import run; run(['--help']); print(sorted({'rich','pydantic','grpc','yaml','google'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def numbered_jobs(first: int, last: int, state: str) -> list[Json]:
    return [{**recorded("requeued_job")["job"], "job_id": str(number), "state": state} for number in range(first, last + 1)]


def test_jobs_lists_what_has_not_ended_and_the_newest_others(daemon: RecordingDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.successive["ListJobs"] = [
        {"jobs": numbered_jobs(7, 7, "JOB_STATE_RUNNING")},
        {"jobs": numbered_jobs(90, 92, "JOB_STATE_COMPLETED")},
    ]
    assert run(["jobs", "--limit", "3"]) == 0
    active, ended = (body for _, body in daemon.requests)
    assert ("JOB_STATE_HELD" in active["states"], active["limit"]) == (True, 1000)
    assert ("JOB_STATE_COMPLETED" in ended["states"], ended["limit"]) == (True, 4)
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["7", "91", "92"]
    assert shown.err == "hookctl: only the newest 3 jobs are listed; --state, --user and --limit (at most 1000) show others\n"
