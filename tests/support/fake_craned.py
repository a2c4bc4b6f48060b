"""A node for the controller's tests: real gRPC both ways, no processes. It records what it is told and reports what the test says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import craned_service_pb2_grpc, ctld_service_pb2_grpc, job_pb2
from crane.hooks.v1 import ctld_service_pb2 as ctld
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.outcome import OK, Outcome
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, ScriptRun
from cranehooks.wire import hook_run_to_wire
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Role, daemon_metadata
from tests.support.eventually import eventually_async

Request = TypeVar("Request")


def _job_of(command: Any) -> int:
    """Signals name the job themselves, all other commands carry it."""
    job_id: int = getattr(command, "job", command).job_id
    return job_id


@dataclass
class FakeCraned(craned_service_pb2_grpc.CranedServiceServicer):
    """One node. `told` is every command in order."""

    name: str
    reports: "ctld_service_pb2_grpc.NodeReportServiceAsyncStub"
    address: str = ""
    instance: str = "i1"
    told: list[Any] = field(default_factory=list)
    answer: Callable[[Any], None] | None = None
    """Called with each command; raises to refuse it."""
    next_report: int = 1

    async def _take(self, command: Any, answer: Request) -> Request:
        self.told.append(command)
        return answer

    async def PrepareJob(self, request: craned.PrepareJobRequest, context: Any) -> craned.PrepareJobResponse:  # noqa: N802
        return await self._take(request, craned.PrepareJobResponse())

    async def RunStep(self, request: craned.RunStepRequest, context: Any) -> craned.RunStepResponse:  # noqa: N802
        return await self._take(request, craned.RunStepResponse())

    async def SignalTasks(self, request: craned.SignalTasksRequest, context: Any) -> craned.SignalTasksResponse:  # noqa: N802
        return await self._take(request, craned.SignalTasksResponse())

    async def ReleaseJob(self, request: craned.ReleaseJobRequest, context: Any) -> craned.ReleaseJobResponse:  # noqa: N802
        return await self._take(request, craned.ReleaseJobResponse())

    async def register(self, digest: str = "d", *, only_uid: int | None = None) -> None:
        await self.reports.RegisterNode(
            ctld.RegisterNodeRequest(
                node=self.name,
                instance=self.instance,
                boot_id="b",
                address=self.address,
                config_digest=digest,
                version="0",
                only_uid=only_uid,
            )
        )

    async def heartbeat(self) -> None:
        await self.reports.Heartbeat(ctld.HeartbeatRequest(node=self.name, instance=self.instance))

    async def expect(self, kind: type[Request], job_id: int, number: int = 1) -> Request:
        """The `number`-th command of this kind about the job, when it comes."""

        def found() -> list[Any]:
            return [command for command in self.told if isinstance(command, kind) and _job_of(command) == job_id]

        await eventually_async(lambda: len(found()) >= number, deadline_s=15.0)
        command: Request = found()[number - 1]
        return command

    async def report(self, **report: Any) -> None:
        message = ctld.NodeReport(report_id=self.next_report, **report)
        self.next_report += 1
        answer = await self.reports.Report(ctld.ReportRequest(node=self.name, instance=self.instance, reports=[message]))
        assert answer.acknowledged == message.report_id

    def run(
        self, point: HookPoint, job: job_pb2.JobOnNode, outcome: Outcome = OK, last_line: str = "", digest: str = "ab" * 32
    ) -> HookRun:
        script = ScriptRun(f"/etc/crane/{point.name.lower()}.sh", outcome, 1.0, 0.1, digest, last_line)
        key = HookKey(point, JobId(job.job_id), Attempt(job.attempt), NodeName(self.name))
        return HookRun(key, "root", 1.0, 0.1, outcome, (script,))

    async def prolog(self, job: job_pb2.JobOnNode, outcome: Outcome = OK, last_line: str = "", digest: str = "ab" * 32) -> None:
        run = hook_run_to_wire(self.run(HookPoint.PROLOG, job, outcome, last_line, digest))
        await self.report(prolog_ended=ctld.PrologEnded(job_id=job.job_id, attempt=job.attempt, run=run))

    async def step_ended(self, command: craned.RunStepRequest, code: int = 0, usage: job_pb2.ResourceUsage | None = None) -> None:
        job, step_id = command.job, command.step.step_id
        tasks = [
            job_pb2.TaskEnd(task_id=task_id, exit=job_pb2.ExitStatus(code=code))
            for placement in command.step.placement
            if placement.node == self.name
            for task_id in placement.task_ids
        ]
        await self.report(step_started=ctld.StepStarted(job_id=job.job_id, attempt=job.attempt, step_id=step_id))
        ended = ctld.StepEnded(job_id=job.job_id, attempt=job.attempt, step_id=step_id, tasks=tasks, usage=usage)
        await self.report(step_ended=ended)

    async def released(
        self, job: job_pb2.JobOnNode, outcome: Outcome | None = OK, usage: job_pb2.ResourceUsage | None = None
    ) -> None:
        message = ctld.JobReleased(job_id=job.job_id, attempt=job.attempt, usage=usage)
        if outcome is not None:
            message.epilog.CopyFrom(hook_run_to_wire(self.run(HookPoint.EPILOG, job, outcome)))
        await self.report(job_released=message)

    async def release_when_told(self, job_id: int, outcome: Outcome | None = OK, number: int = 1) -> None:
        command = await self.expect(craned.ReleaseJobRequest, job_id, number)
        await self.released(command.job, outcome)


@asynccontextmanager
async def fake_craned(name: str, secret: bytes, controller: str, socket: str) -> AsyncIterator[FakeCraned]:
    """A node that serves on `unix:<socket>` and is registered with the controller."""
    async with open_channel(controller, metadata=daemon_metadata(secret, Role.NODE, name)) as channel:
        node = FakeCraned(name, ctld_service_pb2_grpc.NodeReportServiceStub(channel), f"unix:{socket}")
        server = grpc.aio.server()
        craned_service_pb2_grpc.add_CranedServiceServicer_to_server(node, server)
        server.add_insecure_port(node.address)
        await server.start()
        try:
            await node.register()
            yield node
        finally:
            await server.stop(0)
