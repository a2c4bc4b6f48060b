"""A controller for a node's tests: real gRPC both ways, no scheduling. It keeps what the node reports and asks what the test says."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import craned_service_pb2_grpc, ctld_service_pb2_grpc
from crane.hooks.v1 import ctld_service_pb2 as ctld
from cranehooks import wire
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, JobKind, JobOnNode, JobSpec, NodeShare, StdioMode, StepSpec
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Authenticator, Role, daemon_metadata
from tests.support.eventually import eventually_async


def own_job(job_id: int, node: str, attempt: int = 1, **spec: Any) -> JobOnNode:  # Any: fields of JobSpec
    """A job of whoever runs the test."""
    fields: dict[str, Any] = {
        "cwd": "/",
        "environment": {},
        "script": "#!/bin/sh\nexit 0\n",
        "name": "test",
        "stdout_path": "/dev/null",
        **spec,
    }
    job = JobSpec(JobKind.BATCH, os.geteuid(), os.getegid(), "tester", **fields)
    name = NodeName(node)
    return JobOnNode(JobId(job_id), Attempt(attempt), job, (name,), NodeShare(name, 1, 1.0, 1 << 28), "test", 1.0, 0.0)


def own_step(step_id: str, node: str, *argv: str, **fields: Any) -> StepSpec:  # Any: fields of StepSpec
    """A step with one task, writing to files unless the test says otherwise."""
    defaults: dict[str, Any] = {"stdio": StdioMode.FILES, "tasks_per_node": {NodeName(node): (TaskId(0),)}, "ntasks": 1}
    return StepSpec(StepId(step_id), argv, **{**defaults, **fields})


@dataclass
class FakeController(ctld_service_pb2_grpc.NodeReportServiceServicer):
    """Reports are kept once each, in the order of their ids."""

    secret: bytes
    registrations: list[ctld.RegisterNodeRequest] = field(default_factory=list)
    heartbeats: int = 0
    reports: list[ctld.NodeReport] = field(default_factory=list)
    acknowledges: bool = True
    """False: reports arrive and are not taken."""
    deliveries: int = 0
    address: str = ""

    async def RegisterNode(self, request: ctld.RegisterNodeRequest, context: Any) -> ctld.RegisterNodeResponse:  # noqa: N802
        del context
        self.registrations.append(request)
        return ctld.RegisterNodeResponse(heartbeat_interval=wire.duration(0.1))

    async def Heartbeat(self, request: ctld.HeartbeatRequest, context: Any) -> ctld.HeartbeatResponse:  # noqa: N802
        if not self.registrations or self.registrations[-1].instance != request.instance:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "register first")
        self.heartbeats += 1
        return ctld.HeartbeatResponse()

    async def Report(self, request: ctld.ReportRequest, context: Any) -> ctld.ReportResponse:  # noqa: N802
        del context
        self.deliveries += 1
        if not self.acknowledges:
            return ctld.ReportResponse(acknowledged=0)
        self.reports += request.reports
        return ctld.ReportResponse(acknowledged=request.reports[-1].report_id)

    def of_kind(self, kind: str, job_id: int) -> list[Any]:
        """The reports of a kind (`prolog_ended`, …) about a job, in order."""
        found = []
        for report in self.reports:
            if report.WhichOneof("report") == kind:
                content = getattr(report, kind)
                if (content.run.job_id if kind == "hook_ended" else content.job_id) == job_id:
                    found.append(content)
        return found

    def kinds(self, job_id: int) -> list[str]:
        """The kinds of all reports about a job, in order."""
        names = ("prolog_ended", "step_started", "step_ended", "job_released", "hook_ended")
        told = [(report, report.WhichOneof("report")) for report in self.reports]
        return [str(kind) for report, kind in told if kind in names and report in self._about(job_id)]

    def _about(self, job_id: int) -> list[ctld.NodeReport]:
        about = []
        for report in self.reports:
            kind = report.WhichOneof("report")
            content = getattr(report, str(kind))
            if (content.run.job_id if kind == "hook_ended" else content.job_id) == job_id:
                about.append(report)
        return about

    async def expect(self, kind: str, job_id: int, number: int = 1) -> Any:
        """The `number`-th report of a kind about a job, when it comes."""
        await eventually_async(lambda: len(self.of_kind(kind, job_id)) >= number, deadline_s=30.0)
        return self.of_kind(kind, job_id)[number - 1]


class NodeCommands:
    """The controller's calls to one node."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: craned_service_pb2_grpc.CranedServiceAsyncStub = craned_service_pb2_grpc.CranedServiceStub(channel)

    async def prepare(self, job: JobOnNode) -> None:
        await self.stub.PrepareJob(craned.PrepareJobRequest(job=wire.job_on_node_to_wire(job)))

    async def run_step(self, job: JobOnNode, step: StepSpec) -> None:
        await self.stub.RunStep(craned.RunStepRequest(job=wire.job_on_node_to_wire(job), step=wire.step_spec_to_wire(step)))

    async def terminate(self, job: JobOnNode, step_id: str, reason: str) -> None:
        await self.stub.SignalTasks(
            craned.SignalTasksRequest(job_id=job.job_id, attempt=job.attempt, step_id=step_id, terminate=True, reason=reason)
        )

    async def release(self, job: JobOnNode, code: int = 0, reason: str = "") -> None:
        exit_status = wire.exit_status_to_wire(ExitStatus(code))
        await self.stub.ReleaseJob(craned.ReleaseJobRequest(job=wire.job_on_node_to_wire(job), exit=exit_status, reason=reason))


@asynccontextmanager
async def fake_controller(secret: bytes, address: str) -> AsyncIterator[FakeController]:
    """Serves `NodeReportService` on `address` (`unix:…`)."""
    controller = FakeController(secret, address=address)
    server = grpc.aio.server()
    ctld_service_pb2_grpc.add_NodeReportServiceServicer_to_server(controller, server)
    front = FakeFrontService(secret, "test")  # type: ignore[abstract]  # the calls that tests make
    ctld_service_pb2_grpc.add_ControllerServiceServicer_to_server(front, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield controller
    finally:
        await server.stop(0)


@asynccontextmanager
async def commands_to(secret: bytes, address: str) -> AsyncIterator[NodeCommands]:
    """Calls to the node that serves on `address`."""
    async with open_channel(address, metadata=daemon_metadata(secret, Role.CONTROLLER)) as channel:
        yield NodeCommands(channel)


class FakeFrontService(ctld_service_pb2_grpc.ControllerServiceServicer):
    """Answers a few calls of front ends with who asked."""

    def __init__(self, secret: bytes, cluster: str) -> None:
        self._authenticator = Authenticator(secret, cluster)

    async def GetCluster(self, request: ctld.GetClusterRequest, context: Any) -> ctld.GetClusterResponse:  # noqa: N802
        del request
        identity = self._authenticator.authenticate(context.invocation_metadata())
        return ctld.GetClusterResponse(name=f"{identity.role.value} {identity.uid}")

    async def GetJob(self, request: ctld.GetJobRequest, context: Any) -> ctld.GetJobResponse:  # noqa: N802
        await context.abort(grpc.StatusCode.NOT_FOUND, f"no job {request.job_id}")
        raise AssertionError

    async def WatchEvents(self, request: ctld.WatchEventsRequest, context: Any) -> AsyncIterator[ctld.WatchEventsResponse]:  # noqa: N802
        del context
        for cursor in range(request.after_cursor + 1, request.after_cursor + 4):
            yield ctld.WatchEventsResponse(event=ctld.Event(cursor=cursor))
