"""The connection to craned: dials its socket, and dials again whenever it breaks, until the end of the step is acknowledged.

What craned must not miss is said again at every dial: that the tasks were started, the hook runs, the output that was
not acknowledged, the end. Notices and stdin credit are for the present connection only.
"""

import asyncio
import logging
import os
from dataclasses import replace
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from crane.hooks.v1 import craned_service_pb2 as stdio_pb
from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks import wire
from cranehooks.model.output import clipped, clipped_script
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, RunSpec
from cranekit import crash_points, frames
from cranekit.backoff import Backoff
from csupervisor.bootstrap import Bootstrap
from csupervisor.stdio import OutputChunk, OutputWindow, StreamName
from csupervisor.step import StepEnd

FIRST_REDIAL_S: Final = 0.05
LAST_REDIAL_S: Final = 5.0
REPORTED_OUTPUT_BYTES: Final = 4096
"""Of a hook script's output, which is kept until the step's end is acknowledged."""
NODE_HOOK_OUTPUT_BYTES: Final = 2 << 20
"""Of all scripts of a node hook together: a frame holds twice as much."""
_READ_BYTES: Final = 64 << 10
_STREAMS: Final = {
    StreamName.STDOUT: stdio_pb.OUTPUT_STREAM_STDOUT,
    StreamName.STDERR: stdio_pb.OUTPUT_STREAM_STDERR,
}

_log = logging.getLogger(__name__)


class CranedListener(Protocol):
    """Who hears what craned says."""

    def dialled(self) -> None:
        """A new connection: whether a launcher is there will be said again."""
        ...

    def launcher(self, *, attached: bool) -> None: ...

    def stdin(self, data: bytes, *, eof: bool) -> None: ...

    def output_taken(self, size_bytes: int) -> None: ...

    def signalled(self, number: int) -> None: ...

    def terminated(self, reason: str) -> None: ...

    def end_acknowledged(self) -> None: ...

    def node_hook_ordered(self, spec: RunSpec) -> None:
        """For the extern step; may be repeated."""
        ...

    def node_hook_stopped(self, point: HookPoint) -> None: ...


class _ProtocolError(Exception):
    """Craned sent what it must not."""


class CranedClient:
    """Both directions. Nothing that is sent waits: output is bounded by its window, the rest by the number of hooks."""

    def __init__(self, bootstrap: Bootstrap, window: OutputWindow) -> None:
        self._bootstrap = bootstrap
        self._window = window
        self._writer: asyncio.StreamWriter | None = None
        self._hook_runs: list[HookRun] = []
        self._is_started = False
        self._cgroup = ""
        self._node_hooks: list[HookPoint] = []
        self._end: StepEnd | None = None

    # ---- to craned

    def send_started(self, cgroup: str = "") -> None:
        """`cgroup`: of the extern step, where hooks may run in it."""
        self._is_started = True
        self._cgroup = cgroup
        self._send(pb.FromSupervisor(tasks_started=pb.TasksStarted(cgroup=cgroup)))

    def send_hook_run(self, run: HookRun) -> None:
        run = replace(run, scripts=tuple(clipped_script(script, REPORTED_OUTPUT_BYTES) for script in run.scripts))
        self._hook_runs.append(run)
        self._send(pb.FromSupervisor(hook_run=wire.hook_run_to_wire(run)))

    def note_node_hook(self, point: HookPoint) -> None:
        """It was asked for: said at every dial, so that craned knows what need not be asked for again."""
        self._node_hooks.append(point)

    def send_node_hook_run(self, run: HookRun) -> None:
        """The record goes to craned as from its own hook spawner; only what no message holds is left out."""
        run = clipped(run, NODE_HOOK_OUTPUT_BYTES)
        self._hook_runs.append(run)
        self._send(pb.FromSupervisor(hook_run=wire.hook_run_to_wire(run)))

    def send_output(self, chunk: OutputChunk) -> None:
        """Repeated at the next dial as long as it is among the unacknowledged."""
        output = stdio_pb.TaskOutput(task_id=chunk.task_id, stream=_STREAMS[chunk.stream], data=chunk.data)
        self._send(pb.FromSupervisor(output=output))

    def send_stdin_credit(self, size_bytes: int) -> None:
        self._send(pb.FromSupervisor(stdin_credit=size_bytes))

    def send_notice(self, text: str) -> None:
        self._send(pb.FromSupervisor(notice=stdio_pb.StepNotice(text=text)))

    def send_end(self, end: StepEnd) -> None:
        self._end = end
        ended = pb.SupervisorStepEnded(
            tasks=[wire.task_end_to_wire(task) for task in end.tasks], reason=end.reason, unkillable=end.unkillable
        )
        if end.usage is not None:
            ended.usage.CopyFrom(wire.usage_to_wire(end.usage))
        self._send(pb.FromSupervisor(step_ended=ended))

    def _send(self, message: pb.FromSupervisor) -> None:
        if self._writer is not None and not self._writer.is_closing():
            crash_points.reached(f"supervisor says {message.WhichOneof('message')}")
            self._writer.write(frames.encode(frames.PROTOBUF, message.SerializeToString()))

    # ---- the connection

    async def serve(self, listener: CranedListener) -> None:
        """Keep a connection until cancelled."""
        backoff = Backoff(FIRST_REDIAL_S, LAST_REDIAL_S)
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._bootstrap.craned_socket)
            except OSError as error:
                _log.debug("cannot reach craned: %s", error)
            else:
                backoff.reset()
                await self._converse(reader, writer, listener)
            # A peer that accepts and hangs up is waited for as well.
            await asyncio.sleep(backoff.next_s())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: CranedListener) -> None:
        self._writer = writer
        try:
            listener.dialled()
            self._introduce()
            buffer = frames.FrameBuffer()
            while data := await reader.read(_READ_BYTES):
                for kind, payload in buffer.feed(data):
                    _hear(kind, payload, listener, self._node_key)
        except (_ProtocolError, frames.FrameError) as error:
            _log.error("hanging up on craned: %s", error)
        except ConnectionError as error:
            _log.info("lost craned: %s", error)
        finally:
            self._writer = None
            writer.close()

    @property
    def _node_key(self) -> HookKey:
        """Whose job and node the hooks of an extern step are of."""
        bootstrap = self._bootstrap
        return HookKey(HookPoint.PROLOG, bootstrap.key.job_id, bootstrap.key.attempt, bootstrap.node)

    def _introduce(self) -> None:
        key = self._bootstrap.key
        hello = pb.SupervisorHello(
            job_id=key.job_id,
            attempt=key.attempt,
            step_id=key.step_id,
            nonce=self._bootstrap.nonce,
            pid=os.getpid(),
            started=self._is_started,
            node_hooks=map(wire.hook_point_to_wire, self._node_hooks),
            output_taken=self._window.taken_bytes,
        )
        self._send(pb.FromSupervisor(hello=hello))
        for run in self._hook_runs:
            self._send(pb.FromSupervisor(hook_run=wire.hook_run_to_wire(run)))
        if self._is_started:
            self.send_started(self._cgroup)
        for chunk in self._window.unacknowledged:
            self.send_output(chunk)
        if self._end is not None:
            self.send_end(self._end)


def _hear(kind: int, payload: bytes, listener: CranedListener, node_key: HookKey) -> None:
    if kind != frames.PROTOBUF:
        problem = f"a frame of type {kind}, expected {frames.PROTOBUF}"
        raise _ProtocolError(problem)
    try:
        message = pb.ToSupervisor.FromString(payload)
    except DecodeError as error:
        problem = "a frame holds no ToSupervisor message"
        raise _ProtocolError(problem) from error
    crash_points.reached(f"supervisor hears {message.WhichOneof('message')}")
    match message.WhichOneof("message"):
        case "launcher":
            listener.launcher(attached=message.launcher.attached)
        case "stdin":
            listener.stdin(message.stdin.data, eof=message.stdin.eof)
        case "output_credit":
            listener.output_taken(message.output_credit)
        case "signal":
            listener.signalled(message.signal.signal)
        case "terminate":
            listener.terminated(message.terminate.reason)
        case "acknowledged":
            listener.end_acknowledged()
        case "run_hook":
            listener.node_hook_ordered(_node_hook(message.run_hook, node_key))
        case "stop_hook":
            listener.node_hook_stopped(_point(message.stop_hook.point))
        case None:
            # A newer craned says what an older supervisor need not know.
            _log.info("craned said something unknown")


def _node_hook(message: pb.RunNodeHook, node_key: HookKey) -> RunSpec:
    try:
        return wire.node_hook_from_wire(message, node_key)
    except (wire.WireError, ValueError) as error:
        problem = f"a hook that this supervisor does not know: {error}"
        raise _ProtocolError(problem) from error


def _point(value: int) -> HookPoint:
    try:
        return wire.hook_point_from_wire(value)
    except wire.WireError as error:
        problem = f"a hook that this supervisor does not know: {error}"
        raise _ProtocolError(problem) from error
