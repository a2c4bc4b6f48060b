"""A launcher's side of a step's streams: joins every node of the step, and relays between them and a front end's connection."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog

from crane.hooks.v1 import craned_service_pb2 as pb
from crane.hooks.v1 import craned_service_pb2_grpc as pb_grpc
from crane.hooks.v1 import job_pb2
from cranehooks.wire import task_end_from_wire
from cranekit.backoff import Backoff
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import user_metadata
from cranekit.rpc.gateway import FrontRequest
from cranekit.rpc.status import error_from_rpc

STDIN_CHANNEL, STDOUT_CHANNEL, STDERR_CHANNEL = 0, 1, 2

MAX_NODES: Final = 4096
"""Of one step."""

_CHANNELS = {pb.OUTPUT_STREAM_STDOUT: STDOUT_CHANNEL, pb.OUTPUT_STREAM_STDERR: STDERR_CHANNEL}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.attach")

_Call = grpc.aio.StreamStreamCall[pb.AttachStepRequest, pb.AttachStepResponse]


@dataclass(frozen=True, slots=True)
class JoinedNode:
    """One node of the step."""

    name: str
    address: str
    received_bytes: int = 0
    """Of its output, that the front end has got from an earlier connection."""


@dataclass(frozen=True, slots=True)
class JoinedStep:
    """What a front end asks to be joined with."""

    hello: pb.AttachHello
    nodes: tuple[JoinedNode, ...]
    """The first one runs task 0."""


def step_of(body: dict[str, Any]) -> JoinedStep:  # JSON
    """The request's body, checked.

    Raises:
        CraneError: INVALID_ARGUMENT.
    """
    try:
        hello = pb.AttachHello(job_id=int(body["job_id"]), attempt=int(body["attempt"]), step_id=str(body["step_id"]))
        nodes = tuple(
            JoinedNode(str(node["node"]), str(node["address"]), max(0, int(node.get("output_received", 0))))
            for node in body["nodes"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"AttachStep: {error!r} in its body") from error
    if not 0 < len(nodes) <= MAX_NODES or not all(node.name and node.address for node in nodes):
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"AttachStep: expected 1 to {MAX_NODES} nodes with name and address")
    return JoinedStep(hello, nodes)


class StepJoin:
    """One front end with all nodes of its step."""

    def __init__(self, request: FrontRequest, step: JoinedStep, token: Callable[[], str], keepalive_s: float) -> None:
        """`token` mints a fresh token of the user; `keepalive_s` as for `open_channel`."""
        self._keepalive_s = keepalive_s
        self._request = request
        self._step = step
        self._token = token
        self._received = {node.name: node.received_bytes for node in step.nodes}
        """Bytes of each node's output that went to the front end, of this connection and of those before."""
        self._stdin_call: _Call | None = None
        self._stdin_ready = asyncio.Event()
        self._failure: CraneError | None = None

    async def run(self) -> None:
        """Relays until every node's part has ended.

        Raises:
            CraneError: a node refuses the user.
        """
        async with asyncio.TaskGroup() as group:
            stdin = group.create_task(self._relay_stdin())
            await self._join_all(self._step.nodes)
            stdin.cancel()
        if self._failure is not None:
            raise self._failure
        await self._request.end()

    async def _join_all(self, nodes: Sequence[JoinedNode]) -> None:
        async with asyncio.TaskGroup() as group:
            joins: list[asyncio.Task[None]] = []

            async def join(node: JoinedNode) -> None:
                try:
                    await self._join(node)
                except CraneError as error:
                    self._failure = self._failure or error
                    for other in joins:
                        other.cancel()
                except ConnectionError:
                    # The front end has gone: so does its connection's task, and with it this one.
                    for other in joins:
                        other.cancel()

            joins += (group.create_task(join(node), name=f"join {node.name}") for node in nodes)

    async def _join(self, node: JoinedNode) -> None:
        """One node, joined again whenever the connection breaks."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        has_told = False
        while True:
            metadata = user_metadata(self._token())
            async with open_channel(node.address, metadata=metadata, keepalive_s=self._keepalive_s) as channel:
                try:
                    if await self._converse(node, channel):
                        return
                except grpc.aio.AioRpcError as failed:
                    error = error_from_rpc(failed)
                    if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL, ErrorCode.UNAUTHENTICATED):
                        raise CraneError(error.code, f"{node.name}: {error.message}") from failed
            if not has_told:
                has_told = True
                await self._request.item({"notice": f"lost contact with {node.name}, trying again"})
            await asyncio.sleep(backoff.next_s())

    async def _converse(self, node: JoinedNode, channel: grpc.aio.Channel) -> bool:
        """Relays what the node sends; whether its part has ended."""
        stub: pb_grpc.StepStdioServiceAsyncStub = pb_grpc.StepStdioServiceStub(channel)
        call: _Call = stub.AttachStep()
        takes_stdin = node is self._step.nodes[0]
        try:
            hello = pb.AttachHello()
            hello.CopyFrom(self._step.hello)
            hello.output_received = self._received[node.name]
            await call.write(pb.AttachStepRequest(hello=hello))
            if takes_stdin:
                self._stdin_call = call
                self._stdin_ready.set()
            async for response in call:
                if await self._relay(node, call, response):
                    return True
            return False
        finally:
            if takes_stdin:
                self._stdin_ready.clear()
                self._stdin_call = None
            call.cancel()

    async def _relay(self, node: JoinedNode, call: _Call, response: pb.AttachStepResponse) -> bool:
        match response.WhichOneof("message"):
            case "output":
                output = response.output
                # Credit is given for what has been written to the front end's socket, so a slow terminal slows its step.
                await self._request.send_data(_CHANNELS.get(output.stream, STDOUT_CHANNEL), output.task_id, output.data)
                self._received[node.name] += len(output.data)
                with suppress(asyncio.InvalidStateError):
                    await call.write(pb.AttachStepRequest(output_credit=len(output.data)))
            case "stdin_credit":
                await self._request.item({"stdin_credit": response.stdin_credit})
            case "notice":
                await self._request.item({"notice": response.notice.text})
            case "ended":
                tasks = [_task_end_json(task) for task in response.ended.tasks]
                await self._request.item({"node_ended": {"node": node.name, "tasks": tasks, "reason": response.ended.reason}})
                return True
            case _:
                log.debug("unknown_response", node=node.name)
        return False

    async def _relay_stdin(self) -> None:
        while True:
            frame = await self._request.data.get()
            if frame.channel != STDIN_CHANNEL:
                continue
            message = pb.AttachStepRequest(stdin=pb.StdinData(data=frame.data, eof=not frame.data))
            is_sent = False
            while not is_sent:
                await self._stdin_ready.wait()
                is_sent = await _written(self._stdin_call, message)


async def _written(call: _Call | None, message: pb.AttachStepRequest) -> bool:
    """Whether it could be handed over; a call that has just ended takes nothing, and another one comes or the step is over."""
    if call is None:
        return False
    try:
        await call.write(message)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await asyncio.sleep(_FIRST_PAUSE_S)
        return False
    return True


def _task_end_json(message: job_pb2.TaskEnd) -> dict[str, Any]:  # JSON
    end = task_end_from_wire(message)
    return {
        "task_id": end.task_id,
        "exit": {"code": end.exit.code, "signal": end.exit.signal},
        "cancelled": end.cancelled,
        "reason": end.reason,
    }
