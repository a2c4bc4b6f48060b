"""Commands to nodes over gRPC: in order per node, repeated until acknowledged while the node is Up."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

import grpc
import structlog

from crane.hooks.v1 import craned_service_pb2 as pb
from crane.hooks.v1 import craned_service_pb2_grpc as rpc
from cranectld.ports import NodeCommand, PrepareJobCommand, ReleaseJobCommand, RunStepCommand, SignalTasksCommand
from cranehooks.model.ids import NodeName
from cranehooks.wire import exit_status_to_wire, job_on_node_to_wire, step_spec_to_wire
from cranekit.backoff import Backoff
from cranekit.rpc.channel import open_channel
from cranekit.rpc.server import KEEPALIVE_S

_log = structlog.get_logger()

CALL_DEADLINE_S = 10.0
SURPRISES = 5
"""How often in a row a command is repeated whose failure may be the connection's as well as the node's."""
MAX_QUEUED = 10_000
"""Commands waiting for one node; a node that falls further behind is connected anew, which brings what still matters."""

_RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


_SURPRISING = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""What a broken connection may look like, and a fault of the node."""


class CranedLinks:
    """`ports.NodeLinks` over gRPC. `run` must be running."""

    def __init__(
        self,
        credentials: Sequence[tuple[str, str]],
        settled: Callable[[], Awaitable[None]],
        refused: Callable[[NodeName, NodeCommand, str], None],
        behind: Callable[[NodeName], None],
        *,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """`settled` is awaited before a command leaves (its cause is durable then); `refused` hears what a node rejects for good, `behind` of a
        node that has to be told everything anew.
        """
        self.keepalive_s = keepalive_s
        self.behind = behind
        self.credentials = credentials
        self.settled = settled
        self.refused = refused
        self._links: dict[NodeName, _Link] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for link in self._links.values():
                link.start(tasks)
            await asyncio.Future()

    def send(self, node: NodeName, command: NodeCommand) -> None:
        if (link := self._links.get(node)) is not None:
            link.put(command)

    def connect(self, node: NodeName, address: str, commands: Sequence[NodeCommand]) -> None:
        link = self._links.get(node)
        if link is None or link.address != address:
            self.disconnect(node)
            link = _Link(node, address, self)
            self._links[node] = link
            if self._tasks is not None:
                link.start(self._tasks)
        link.replace(commands)

    def disconnect(self, node: NodeName) -> None:
        if (link := self._links.pop(node, None)) is not None:
            link.stop()


class _Link:
    """One node's queue and channel."""

    def __init__(self, node: NodeName, address: str, owner: CranedLinks) -> None:
        self.node = node
        self.address = address
        self._owner = owner
        self._queue: deque[NodeCommand] = deque()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._task = tasks.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def put(self, command: NodeCommand) -> None:
        if len(self._queue) >= MAX_QUEUED:
            _log.error("node.commands_dropped", node=self.node, queued=len(self._queue), meaning="it registers anew")
            self._queue.clear()
            self._owner.behind(self.node)
        self._queue.append(command)
        self._ready.set()

    def replace(self, commands: Sequence[NodeCommand]) -> None:
        self._queue = deque(commands)
        self._ready.set()

    async def _run(self) -> None:
        async with open_channel(self.address, metadata=self._owner.credentials, keepalive_s=self._owner.keepalive_s) as channel:
            stub = rpc.CranedServiceStub(channel)
            backoff = Backoff(first_s=0.1, cap_s=5.0)
            surprises = 0
            while True:
                while not self._queue:
                    self._ready.clear()
                    await self._ready.wait()
                command = self._queue[0]
                await self._owner.settled()
                try:
                    await _call(stub, command)
                except grpc.aio.AioRpcError as error:
                    surprises = surprises + 1 if error.code() in _SURPRISING else 0
                    if error.code() in _RETRIED or 0 < surprises < SURPRISES:
                        _log.info("node.command_retried", node=self.node, command=type(command).__name__, code=error.code().name)
                        await asyncio.sleep(backoff.next_s())
                        continue
                    self._owner.refused(self.node, command, f"{error.code().name}: {error.details()}")
                backoff.reset()
                surprises = 0
                if self._queue and self._queue[0] is command:
                    self._queue.popleft()


async def _call(stub: "rpc.CranedServiceAsyncStub", command: NodeCommand) -> None:
    match command:
        case PrepareJobCommand(job):
            await stub.PrepareJob(pb.PrepareJobRequest(job=job_on_node_to_wire(job)), timeout=CALL_DEADLINE_S)
        case RunStepCommand(job, step):
            request = pb.RunStepRequest(job=job_on_node_to_wire(job), step=step_spec_to_wire(step))
            await stub.RunStep(request, timeout=CALL_DEADLINE_S)
        case SignalTasksCommand(key, step_id, signal, terminate, reason):
            await stub.SignalTasks(
                pb.SignalTasksRequest(
                    job_id=key.job_id,
                    attempt=key.attempt,
                    step_id=step_id,
                    signal=signal,
                    terminate=terminate,
                    reason=reason,
                ),
                timeout=CALL_DEADLINE_S,
            )
        case ReleaseJobCommand(job, exit_status, reason, derived_exit):
            release = pb.ReleaseJobRequest(
                job=job_on_node_to_wire(job),
                exit=exit_status_to_wire(exit_status),
                reason=reason,
                derived_exit=exit_status_to_wire(derived_exit),
            )
            await stub.ReleaseJob(release, timeout=CALL_DEADLINE_S)
        case _:
            assert_never(command)
