"""The controller, as a node talks to it: registration, heartbeats, and the outbox's reports."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
import structlog

from crane.hooks.v1 import ctld_service_pb2 as pb
from crane.hooks.v1 import ctld_service_pb2_grpc as pb_grpc
from craned.attempts.attempt import AttemptState, Phase, PrologState
from craned.attempts.ledger import Ledger
from craned.attempts.reports import Outbox, Report, clipped_content
from craned.service.messages import report_to_wire
from cranehooks import wire
from cranehooks.model.ids import AttemptKey, NodeName
from cranekit.backoff import Backoff
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.status import error_from_rpc

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
BATCH: Final = 64
"""Reports per call."""
REPORT_OUTPUT_BYTES: Final = 128 << 10
"""Of hook output per report, so that a batch fits into a message."""
SLOWEST_HEARTBEAT_S: Final = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.controller")


@dataclass(frozen=True, slots=True)
class NodeCard:
    """How a node introduces itself."""

    node: NodeName
    instance: str
    """New with every start."""
    boot_id: str
    version: str
    address: str
    config_digest: str
    containment: str
    containment_lost: str = ""
    """What that cannot do, for people; empty: nothing is missed."""
    only_uid: int | None = None
    """Whose jobs alone it can run; None: anybody's."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What the controller answers."""

    heartbeat_interval_s: float
    config_differs: bool


class Controller(Protocol):
    """The port to the controller. Every call raises CraneError when it fails."""

    async def register(self, card: NodeCard, jobs: Iterable[AttemptState]) -> Registration: ...
    async def heartbeat(self, card: NodeCard) -> None: ...
    async def report(self, card: NodeCard, reports: Sequence[Report]) -> int:
        """The id up to which reports are safe with the controller."""
        ...


class ControllerClient:
    """The port over gRPC. The channel carries this node's credentials."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: pb_grpc.NodeReportServiceAsyncStub = pb_grpc.NodeReportServiceStub(channel)

    async def register(self, card: NodeCard, jobs: Iterable[AttemptState]) -> Registration:
        request = pb.RegisterNodeRequest(
            node=card.node,
            instance=card.instance,
            boot_id=card.boot_id,
            version=card.version,
            address=card.address,
            config_digest=card.config_digest,
            containment=card.containment,
            containment_lost=card.containment_lost,
            jobs=[_held_job(state) for state in jobs if state.phase is not Phase.RELEASED],
            only_uid=card.only_uid,
        )
        try:
            answer = await self._stub.RegisterNode(request)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        interval_s = wire.seconds(answer.heartbeat_interval)
        return Registration(min(max(interval_s, 0.05), SLOWEST_HEARTBEAT_S), answer.config_differs)

    async def heartbeat(self, card: NodeCard) -> None:
        try:
            await self._stub.Heartbeat(pb.HeartbeatRequest(node=card.node, instance=card.instance))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def report(self, card: NodeCard, reports: Sequence[Report]) -> int:
        messages = []
        for report in reports:
            small = Report(report.report_id, report.at, report.key, clipped_content(report.content, REPORT_OUTPUT_BYTES))
            messages.append(report_to_wire(small))
        try:
            answer = await self._stub.Report(pb.ReportRequest(node=card.node, instance=card.instance, reports=messages))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return answer.acknowledged


def _held_job(state: AttemptState) -> pb.HeldJob:
    key: AttemptKey = state.key
    return pb.HeldJob(
        job_id=key.job_id,
        attempt=key.attempt,
        running_steps=[step.spec.step_id for step in state.steps],
        prolog_done=state.prolog is PrologState.SUCCEEDED,
        epilog_running=state.phase is Phase.EPILOG_RUNNING,
    )


class ControllerSession:
    """Keeps the node registered and its reports delivered, until cancelled."""

    def __init__(
        self,
        controller: Controller,
        card: Callable[[], NodeCard],
        jobs: Callable[[], Iterable[AttemptState]],
        outbox: Outbox,
        ledger: Ledger,
    ) -> None:
        self._controller = controller
        self._card = card
        self._jobs = jobs
        self._outbox = outbox
        self._ledger = ledger
        self._interval_s = 1.0
        self._is_registered = asyncio.Event()
        self._must_register = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_registered(), name="registration")
            group.create_task(self._deliver(), name="reports")

    def card_changed(self) -> None:
        """What the node says of itself is new: it registers again."""
        self._must_register.set()

    async def _stay_registered(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                if not self._is_registered.is_set() or self._must_register.is_set():
                    await self._register()
                else:
                    await self._controller.heartbeat(self._card())
                backoff.reset()
                await self._pause(self._interval_s)
            except CraneError as error:
                if self._is_registered.is_set():
                    log.warning("controller_lost", code=error.code.name, reason=error.message)
                    self._is_registered.clear()
                elif error.code is not ErrorCode.UNAVAILABLE:
                    log.error("registration_refused", code=error.code.name, reason=error.message)  # noqa: TRY400 - the reason says all
                await asyncio.sleep(backoff.next_s())

    async def _register(self) -> None:
        self._must_register.clear()
        registration = await self._controller.register(self._card(), self._jobs())
        self._interval_s = registration.heartbeat_interval_s
        if registration.config_differs:
            log.warning("configuration_differs", digest=self._card().config_digest)
        log.info("registered", heartbeat_interval_s=self._interval_s)
        self._is_registered.set()

    async def _pause(self, interval_s: float) -> None:
        try:
            async with asyncio.timeout(interval_s):
                await self._must_register.wait()
        except TimeoutError:
            return

    async def _deliver(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            await self._is_registered.wait()
            batch = await self._outbox.next_batch(BATCH)
            try:
                up_to = await self._controller.report(self._card(), batch)
            except CraneError as error:
                log.warning("reports_not_delivered", count=len(batch), code=error.code.name, reason=error.message)
                await asyncio.sleep(backoff.next_s())
                continue
            if up_to < batch[0].report_id:
                log.warning("reports_not_acknowledged", count=len(batch), acknowledged=up_to)
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            await self._ledger.acknowledged(min(up_to, batch[-1].report_id))
