"""SchedulerService: an external scheduler's calls, and the stream of decisions it acts on."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import grpc

from crane.hooks.v1 import ctld_service_pb2 as pb
from crane.hooks.v1 import ctld_service_pb2_grpc as rpc
from crane.hooks.v1 import job_pb2
from cranectld.controller import Controller
from cranectld.jobs.events import DecisionKind
from cranectld.ports import SignalTasksCommand
from cranectld.scheduling.external import ExternalPort, ExternalScheduling
from cranectld.service import views
from cranectld.service.callers import caller
from cranectld.store import DecisionRecord, StoreError
from cranehooks.model.ids import EXTERN_STEP, Attempt, JobId, NodeName, StepId
from cranehooks.model.job import StdioMode
from cranehooks.wire import exit_status_from_wire, job_spec_from_wire, step_spec_from_wire, timestamp
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Role

Context = grpc.aio.ServicerContext[Any, Any]  # of any method's messages

MAX_SIGNAL = 64
_WITH_JOB = {DecisionKind.SUBMITTED, DecisionKind.RUN, DecisionKind.REQUEUE, DecisionKind.END, DecisionKind.RELEASED}
_WITH_NODE = {DecisionKind.NODE, DecisionKind.NODE_FREE}


class SchedulerPortService(rpc.SchedulerServiceServicer):
    """Serves only where the configuration says that an external scheduler places jobs."""

    def __init__(self, controller: Controller, port: ExternalPort | None, scheduling: ExternalScheduling | None) -> None:
        self._controller = controller
        self._port = port
        self._scheduling = scheduling

    async def AllocateJob(self, request: pb.AllocateJobRequest, context: Context) -> pb.AllocateJobResponse:
        port = self._checked()
        self._check_writable()
        spec = job_spec_from_wire(request.spec) if request.HasField("spec") else None
        nodes = [NodeName(name) for name in request.nodes]
        job = await port.allocate(JobId(request.job_id), Attempt(request.attempt), spec, nodes)
        await self._controller.settled()
        return pb.AllocateJobResponse(job=views.job_status(job))

    async def StartJobStep(self, request: pb.StartJobStepRequest, context: Context) -> pb.StartJobStepResponse:
        port = self._checked()
        self._check_writable()
        spec = step_spec_from_wire(request.spec)
        if request.spec.stdio == job_pb2.STDIO_MODE_UNSPECIFIED:
            spec = replace(spec, stdio=StdioMode.FILES)
        port.start_step(JobId(request.job_id), Attempt(request.attempt), spec)
        await self._controller.settled()
        return pb.StartJobStepResponse()

    async def SignalJobStep(self, request: pb.SignalJobStepRequest, context: Context) -> pb.SignalJobStepResponse:
        job = self._checked().current(JobId(request.job_id), Attempt(request.attempt))
        step = job.steps.get(StepId(request.step_id))
        if step is None or step.step_id == EXTERN_STEP:
            raise CraneError(ErrorCode.NOT_FOUND, f"job {request.job_id} has no step {request.step_id}")
        if not 1 <= request.signal <= MAX_SIGNAL:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"signal {request.signal}: expected 1 to {MAX_SIGNAL}")
        command = SignalTasksCommand(job.key, step.step_id, signal=request.signal)
        for node in step.nodes:
            if node not in step.ended_nodes:
                self._controller.signal_step(job, node, command)
        return pb.SignalJobStepResponse()

    async def ReleaseAllocation(self, request: pb.ReleaseAllocationRequest, context: Context) -> pb.ReleaseAllocationResponse:
        port = self._checked()
        cancel = (request.reason or "cancelled by the scheduler") if request.cancel else ""
        port.release(JobId(request.job_id), Attempt(request.attempt), exit_status_from_wire(request.exit), cancel)
        await self._controller.settled()
        return pb.ReleaseAllocationResponse()

    async def WatchDecisions(
        self, request: pb.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchDecisionsResponse]:
        self._checked()
        log = self._controller.chronicle.decisions
        cursor = request.after_cursor
        if cursor > log.last_cursor:
            raise CraneError(ErrorCode.OUT_OF_RANGE, f"cursor {cursor} has not been given out: the last one is {log.last_cursor}")
        scheduling = self._scheduling
        listening = scheduling.submissions() if scheduling is not None and request.accepts_submissions else nullcontext()
        try:
            with listening:
                self._controller.wake()
                while True:
                    ticket = log.bell.ticket()
                    for record in log.after(cursor):
                        cursor = record.cursor
                        await self._controller.settled()
                        yield self._message(record)
                    if cursor >= log.last_cursor:
                        await ticket.wait()
        finally:
            self._controller.wake()  # jobs wait for another reason now

    def _message(self, record: DecisionRecord) -> pb.WatchDecisionsResponse:
        kind = DecisionKind(record.kind)
        message = pb.WatchDecisionsResponse(
            cursor=record.cursor,
            time=timestamp(record.at),
            kind=views.DECISIONS.to_wire(kind),
            job_id=record.job_id,
            attempt=record.attempt,
            reason=record.reason,
        )
        if record.not_before:
            message.not_before.CopyFrom(timestamp(record.not_before))
        job = self._controller.jobs.get(JobId(record.job_id))
        if job is not None and kind in _WITH_JOB:
            message.job.CopyFrom(views.job_status(job, with_environment=False))
        if job is not None and kind is DecisionKind.STEP_ENDED and StepId(record.step_id) in job.steps:
            message.step.CopyFrom(views.step_status(job.steps[StepId(record.step_id)]))
        if kind in _WITH_NODE and NodeName(record.node) in self._controller.fleet.nodes:
            node = self._controller.fleet.nodes[NodeName(record.node)]
            message.node.CopyFrom(views.node_status(self._controller, node, ""))
        return message

    def _check_writable(self) -> None:
        if failure := self._controller.store.failure:
            raise StoreError(f"the controller takes no new work now: {failure}")

    def _checked(self) -> ExternalPort:
        caller(Role.SCHEDULER)
        if self._port is None:
            message = "this controller places jobs itself: set Scheduler: {Kind: external} to let another scheduler do it"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
        return self._port
