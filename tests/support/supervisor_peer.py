"""A craned that is none: the real supervisor parent on one side, a real Unix socket on the other."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from crane.hooks.v1 import craned_service_pb2 as stdio_pb
from crane.hooks.v1 import hook_pb2, job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb
from cranekit import frames
from tests.support.eventually import eventually_async

NOBODY = 65534
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CRANE_JOB_ID": "42"}


class Conversation:
    """What one supervisor said, over all its connections."""

    def __init__(self) -> None:
        self.messages: list[pb.FromSupervisor] = []
        self.output: dict[tuple[int, int], bytearray] = {}
        self.stdin_credit = 0

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("message") for message in self.messages]

    def hook_runs(self) -> list[hook_pb2.HookRun]:
        return [message.hook_run for message in self.messages if message.WhichOneof("message") == "hook_run"]

    def points(self) -> list[hook_pb2.HookPoint.ValueType]:
        return [run.point for run in self.hook_runs()]

    def notices(self) -> list[str]:
        return [message.notice.text for message in self.messages if message.WhichOneof("message") == "notice"]

    def end(self) -> pb.SupervisorStepEnded | None:
        ends = [message.step_ended for message in self.messages if message.WhichOneof("message") == "step_ended"]
        return ends[-1] if ends else None

    def stdout(self, task_id: int = 0) -> bytes:
        return bytes(self.output.get((task_id, stdio_pb.OUTPUT_STREAM_STDOUT), b""))

    def stderr(self, task_id: int = 0) -> bytes:
        return bytes(self.output.get((task_id, stdio_pb.OUTPUT_STREAM_STDERR), b""))


class SupervisorPeer:
    """Starts the parent, accepts supervisors, and takes their output as a launcher would unless told not to."""

    def __init__(self, home: Path, instance: str) -> None:
        self.home = home
        self.instance = instance
        self.socket_path = home / "supervisors.sock"
        self.said = Conversation()
        self.gone: list[pb.SupervisorGone] = []
        self.forked: list[pb.SupervisorForked] = []
        self.takes_output = True
        self.acknowledges = True
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._connections = 0

    async def __aenter__(self) -> Self:
        await self.listen()
        ours, theirs = socket.socketpair()
        with theirs:
            self.parent = subprocess.Popen(  # noqa: ASYNC220 - once, before anything else runs
                [sys.executable, "-P", "-m", "csupervisor", "--parent-fd", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        ours.setblocking(False)
        self._parent_reader, self._parent_writer = await asyncio.open_unix_connection(sock=ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._parent_writer.close()
        await self.hang_up()
        await asyncio.to_thread(self.parent.wait)
        for forked in self.forked:
            if forked.pid not in {gone.pid for gone in self.gone}:
                # A test that failed half way; the supervisor leads a session of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(forked.pid, signal.SIGKILL)

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.socket_path)

    async def hang_up(self) -> None:
        """As when craned dies."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.socket_path.unlink(missing_ok=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._connections += 1
        buffer = frames.FrameBuffer()
        try:
            while data := await reader.read(1 << 16):
                for _, payload in buffer.feed(data):
                    self._hear(pb.FromSupervisor.FromString(payload))
        except ConnectionError:
            return
        finally:
            writer.close()

    def _hear(self, message: pb.FromSupervisor) -> None:
        match message.WhichOneof("message"):
            case "output":
                output = message.output
                self.said.output.setdefault((output.task_id, output.stream), bytearray()).extend(output.data)
                if self.takes_output:
                    self.send(pb.ToSupervisor(output_credit=len(output.data)))
                return
            case "stdin_credit":
                self.said.stdin_credit += message.stdin_credit
                return
            case "step_ended" if self.acknowledges:
                self.send(pb.ToSupervisor(acknowledged=pb.StepEndAcknowledged()))
            case _:
                pass
        self.said.messages.append(message)

    def send(self, message: pb.ToSupervisor) -> None:
        if self._writer is not None:
            self._writer.write(frames.encode(frames.PROTOBUF, message.SerializeToString()))

    def attach(self, *, attached: bool = True) -> None:
        self.send(pb.ToSupervisor(launcher=pb.LauncherPresence(attached=attached)))

    def stdin(self, data: bytes, *, eof: bool = False) -> None:
        self.send(pb.ToSupervisor(stdin=stdio_pb.StdinData(data=data, eof=eof)))

    def terminate(self, reason: str) -> None:
        self.send(pb.ToSupervisor(terminate=pb.TasksTermination(reason=reason)))

    def signal(self, number: int) -> None:
        self.send(pb.ToSupervisor(signal=pb.TasksSignal(signal=number)))

    # ---- steps

    def bootstrap(self, *argv: str, task_ids: tuple[int, ...] = (0,), **changes: object) -> pb.SupervisorBootstrap:
        uid = NOBODY if os.geteuid() == 0 else os.geteuid()
        gid = NOBODY if os.geteuid() == 0 else os.getegid()
        message = pb.SupervisorBootstrap(
            job_id=42,
            attempt=1,
            step_id="0",
            node="cn01",
            nonce=f"nonce of {self.instance}",
            craned_socket=str(self.socket_path),
            job=job_pb2.JobSpec(
                kind=job_pb2.JOB_KIND_RUN, uid=uid, gid=gid, user="somebody", name="a/b", cwd=str(self.home / "work")
            ),
            step=job_pb2.StepSpec(step_id="0", argv=argv, stdio=job_pb2.STDIO_MODE_ATTACHED),
            tasks=[pb.TaskBootstrap(task_id=task, local_id=i, environment=ENVIRONMENT) for i, task in enumerate(task_ids)],
            kill_grace_s=5.0,
            launcher_grace_s=30.0,
            containment="auto",
            cgroup_instance=self.instance,
            cgroup_root="job_42/step_0",
            output_limit_bytes=1 << 20,
            state_dir=str(self.home / "state"),
            nodes=["cn01"],
            unkillable_after_s=10.0,
        )
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def hook(
        self, point: hook_pb2.HookPoint.ValueType, text: str, *, timeout_s: float = 30.0, grace_s: float = 5.0
    ) -> pb.TaskHook:
        path = self.home / f"{hook_pb2.HookPoint.Name(point).lower()}.sh"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return pb.TaskHook(point=point, scripts=[str(path)], timeout_s=timeout_s, trusted_owner=True, grace_s=grace_s)

    async def fork(self, bootstrap: pb.SupervisorBootstrap) -> int:
        message = pb.ParentMessage(fork=pb.ForkSupervisor(bootstrap=bootstrap))
        self._parent_writer.write(frames.encode(frames.PROTOBUF, message.SerializeToString()))
        heard = await self._parent_says()
        assert heard.WhichOneof("message") == "forked", heard
        self.forked.append(heard.forked)
        return heard.forked.pid

    async def _parent_says(self) -> pb.ParentMessage:
        header = await self._parent_reader.readexactly(5)
        payload = await self._parent_reader.readexactly(int.from_bytes(header[:4], "big"))
        return pb.ParentMessage.FromString(payload)

    async def start(self, bootstrap: pb.SupervisorBootstrap, *, attach: bool = True) -> int:
        """Fork, and wait for the hello; the launcher is there at once."""
        connections = self._connections
        pid = await self.fork(bootstrap)
        await self.said_hello(connections + 1)
        if attach:
            self.attach()
        return pid

    async def said_hello(self, times: int) -> None:
        await eventually_async(lambda: self.said.kinds().count("hello") >= times)

    async def tasks_started(self) -> None:
        await eventually_async(lambda: "tasks_started" in self.said.kinds())

    async def ended(self) -> pb.SupervisorStepEnded:
        """The step's end; its supervisor has gone then."""
        await eventually_async(lambda: self.said.end() is not None, deadline_s=30.0)
        await self.supervisor_gone()
        end = self.said.end()
        assert end is not None
        return end

    async def supervisor_gone(self) -> None:
        async with asyncio.timeout(30.0):
            heard = await self._parent_says()
        assert heard.WhichOneof("message") == "gone", heard
        self.gone.append(heard.gone)
        assert heard.gone.wait_status == 0, heard.gone

    async def run(self, bootstrap: pb.SupervisorBootstrap) -> pb.SupervisorStepEnded:
        await self.start(bootstrap)
        return await self.ended()
