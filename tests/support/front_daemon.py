"""A local daemon for tests of the front ends: a real Unix socket that speaks the wire protocol, with scripted answers."""

import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from cranekit import frames
from tests.support.eventually import eventually

Json = dict[str, Any]  # as JSON has it
STDIN, STDOUT, STDERR = 0, 1, 2


class Call:
    """One request of a front end, and the way to answer it."""

    def __init__(self, connection: "Connection", call_id: int, method: str, body: Json) -> None:
        self.connection = connection
        self.call_id = call_id
        self.method = method
        self.body = body
        self.is_cancelled = False

    def ok(self, answer: Json | None = None) -> None:
        self.connection.send(frames.encode_json({"id": self.call_id, "ok": answer or {}}))

    def error(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        error: Json = {"code": code, "message": message}
        if retry_after_s is not None:
            error["retry_after_s"] = retry_after_s
        self.connection.send(frames.encode_json({"id": self.call_id, "error": error}))

    def item(self, item: Json) -> None:
        self.connection.send(frames.encode_json({"id": self.call_id, "item": item}))

    def end(self) -> None:
        self.connection.send(frames.encode_json({"id": self.call_id, "end": True}))

    def output(self, task_id: int, data: bytes, channel: int = STDOUT) -> None:
        self.connection.send(frames.encode_data(channel, task_id, data))

    def node_ended(self, node: str, tasks: list[Json], reason: str = "") -> None:
        self.item({"node_ended": {"node": node, "tasks": tasks, "reason": reason}})


class Connection:
    """One front end's connection."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.stdin = bytearray()
        self.is_stdin_ended = False
        self.is_gone = False
        self.attached: Call | None = None

    def send(self, frame: bytes) -> None:
        try:
            self.peer.sendall(frame)
        except OSError:
            self.is_gone = True

    def hang_up(self) -> None:
        try:
            self.peer.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.is_gone = True


class FrontDaemon:
    """Answers every method by its handler; what has none is answered with an empty `ok`. One thread per connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.connections: list[Connection] = []
        self.handlers: dict[str, Callable[[Call], None]] = {}
        self.on_stdin: Callable[[Connection], None] | None = None
        self._threads: deque[threading.Thread] = deque()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self.connections:
            connection.hang_up()
        while self._threads:
            self._threads.popleft().join(10)
        self._listener.close()

    def methods(self) -> list[str]:
        return [call.method for call in list(self.calls)]

    def called(self, method: str) -> list[Call]:
        return [call for call in list(self.calls) if call.method == method]

    def wait_for(self, method: str, count: int = 1) -> Call:
        """The nth call of a method, once it has come."""
        return eventually(lambda: self.called(method)[count - 1 :])[0]

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(peer)
            self.connections.append(connection)
            self._start(partial(self._serve, connection))

    def _serve(self, connection: Connection) -> None:
        decoder = frames.FrameDecoder()
        with connection.peer:
            while True:
                try:
                    data = connection.peer.recv(1 << 16)
                except OSError:
                    data = b""
                if not data:
                    connection.is_gone = True
                    return
                for frame in decoder.feed(data):
                    self._take(connection, frame)

    def _take(self, connection: Connection, frame: frames.Frame) -> None:
        if isinstance(frame, frames.DataFrame):
            connection.stdin += frame.data
            connection.is_stdin_ended |= not frame.data
            if self.on_stdin is not None:
                self.on_stdin(connection)
        elif isinstance(frame, frames.JsonFrame):
            message = frame.value
            if message.get("cancel"):
                for call in self.calls:
                    if call.connection is connection and call.call_id == message["id"]:
                        call.is_cancelled = True
                return
            call = Call(connection, message["id"], message["method"], message["body"])
            if call.method == "AttachStep":
                connection.attached = call
            self.calls.append(call)
            handler = self.handlers.get(call.method)
            if handler is None:
                call.ok()
            else:
                handler(call)


def job_update(state: str, job_id: int = 42, **fields: object) -> Json:
    """A FollowJobResponse."""
    final = bool(fields.pop("final", False))
    waiting_for = fields.pop("waiting_for", "")
    job = {
        "job_id": str(job_id),
        "attempt": 1,
        "state": f"JOB_STATE_{state}",
        "reason": "",
        "nodes": ["cn01"],
        "steps": [],
        **fields,
    }
    return {"job": job, "waiting_for": waiting_for, "final": final}


def task_end(task_id: int, code: int = 0, signal: int = 0, *, cancelled: bool = False, reason: str = "") -> Json:
    return {"task_id": task_id, "exit": {"code": code, "signal": signal}, "cancelled": cancelled, "reason": reason}


class Cluster:
    """A daemon whose job 42 gets nodes at once and runs one step: tests change what they are about."""

    def __init__(self, daemon: FrontDaemon, ntasks: int = 1, nodes: tuple[str, ...] = ("cn01",)) -> None:
        self.daemon = daemon
        self.nodes = nodes
        self.placement: dict[str, list[int]] = {node: [] for node in nodes}
        for task_id in range(ntasks):
            self.placement[nodes[task_id * len(nodes) // ntasks]].append(task_id)
        self.ntasks = ntasks
        self.site: Json = {
            "node": "", "cluster": "test", "profile": "crane-requeue", "output_limit_bytes": 1 << 20, "slurm_compatible_env": False,
            "config_dir": "/etc/crane",
            "crun_prolog": {"patterns": [], "timeout_s": None},
            "crun_epilog": {"patterns": [], "timeout_s": None},
        }  # fmt: skip
        self.run_tasks: Callable[[Call], None] = self.end_step
        self._attached: Call | None = None
        daemon.handlers.update(
            {
                "LaunchHooks": lambda call: call.ok(self.site),
                "SubmitJob": lambda call: call.ok({"job_ids": ["42"]}),
                "FollowJob": lambda call: call.item(job_update("RUNNING", nodes=list(nodes))),
                "CreateStep": self.create_step,
                "AttachStep": self.attach_step,
                "StartStep": self.start_step,
                "CancelStep": self.cancel_step,
            }
        )

    def create_step(self, call: Call) -> None:
        placement = [{"node": node, "task_ids": ids} for node, ids in self.placement.items()]
        call.ok(
            {
                "attempt": 1,
                "spec": {**call.body["spec"], "step_id": "0", "ntasks": self.ntasks, "placement": placement},
                "nodes": [{"node": node, "address": f"unix:/{node}"} for node in self.nodes],
                "job": job_update("RUNNING", job_id=int(call.body["job_id"]), nodes=list(self.nodes))["job"],
            }
        )

    def attach_step(self, call: Call) -> None:
        self._attached = call

    def start_step(self, call: Call) -> None:
        call.ok()
        # AttachStep came on another connection, and may be noticed after this call.
        self.run_tasks(self.daemon.wait_for("AttachStep"))

    def cancel_step(self, call: Call) -> None:
        call.ok()
        attached = self.daemon.called("AttachStep")
        if attached:
            for node, ids in self.placement.items():
                attached[-1].node_ended(node, [task_end(task_id, signal=15) for task_id in ids])
            attached[-1].end()

    def end_step(self, attached: Call, codes: dict[int, int] | None = None) -> None:
        for node, ids in self.placement.items():
            attached.node_ended(node, [task_end(task_id, (codes or {}).get(task_id, 0)) for task_id in ids])
        attached.end()
