"""CranedService: what the controller asks of this node. Each call is noted and acknowledged; the work follows."""

from collections.abc import Callable

import grpc

from crane.hooks.v1 import craned_service_pb2 as pb
from crane.hooks.v1 import craned_service_pb2_grpc as pb_grpc
from crane.hooks.v1 import job_pb2
from craned.attempts.driver import Attempts
from craned.attempts.events import PrepareRequested, ReleaseRequested, SignalRequested, StepRequested
from cranehooks import wire
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, StepKey
from cranehooks.model.job import JobOnNode
from cranehooks.model.run import HookSettings
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Role
from cranekit.rpc.interceptors import current_identity


class CranedService(pb_grpc.CranedServiceServicer):
    """For the controller alone."""

    def __init__(self, node: NodeName, attempts: Attempts, hooks: Callable[[], HookSettings]) -> None:
        """`hooks`: the configuration of the moment, which a job that is new here keeps."""
        self._node = node
        self._attempts = attempts
        self._hooks = hooks

    def join(self, server: grpc.aio.Server) -> None:
        """Has the server serve it."""
        pb_grpc.add_CranedServiceServicer_to_server(self, server)

    async def PrepareJob(
        self, request: pb.PrepareJobRequest, context: grpc.aio.ServicerContext[pb.PrepareJobRequest, pb.PrepareJobResponse]
    ) -> pb.PrepareJobResponse:
        del context
        _require_controller()
        await self._attempts.request(self._job(request.job), self._hooks(), PrepareRequested())
        return pb.PrepareJobResponse()

    async def RunStep(
        self, request: pb.RunStepRequest, context: grpc.aio.ServicerContext[pb.RunStepRequest, pb.RunStepResponse]
    ) -> pb.RunStepResponse:
        del context
        _require_controller()
        job = self._job(request.job)
        try:
            step = wire.step_spec_from_wire(request.step)
        except wire.WireError as error:
            raise _invalid(f"step: {error}") from error
        if not step.step_id:
            raise _invalid("step.step_id: expected a step's id")
        await self._attempts.request(job, self._hooks(), StepRequested(step))
        return pb.RunStepResponse()

    async def SignalTasks(
        self, request: pb.SignalTasksRequest, context: grpc.aio.ServicerContext[pb.SignalTasksRequest, pb.SignalTasksResponse]
    ) -> pb.SignalTasksResponse:
        del context
        _require_controller()
        if not request.terminate and not 0 < request.signal < 65:
            raise _invalid(f"signal: {request.signal} is no signal")
        key = StepKey(JobId(request.job_id), Attempt(request.attempt), StepId(request.step_id))
        await self._attempts.signal(key, SignalRequested(key.step_id, request.signal, request.terminate, request.reason))
        return pb.SignalTasksResponse()

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, context: grpc.aio.ServicerContext[pb.ReleaseJobRequest, pb.ReleaseJobResponse]
    ) -> pb.ReleaseJobResponse:
        del context
        _require_controller()
        derived_exit = wire.exit_status_from_wire(request.derived_exit)
        event = ReleaseRequested(wire.exit_status_from_wire(request.exit), request.reason, derived_exit)
        await self._attempts.request(self._job(request.job), self._hooks(), event)
        return pb.ReleaseJobResponse()

    def _job(self, message: job_pb2.JobOnNode) -> JobOnNode:
        try:
            job = wire.job_on_node_from_wire(message)
        except wire.WireError as error:
            raise _invalid(f"job: {error}") from error
        if job.job_id <= 0 or job.attempt <= 0:
            raise _invalid(f"job {job.job_id}, attempt {job.attempt}: expected numbers from 1")
        if job.share.node != self._node:
            raise _invalid(f"job.share.node: {job.share.node or 'none'}, this is {self._node}")
        return job


def _require_controller() -> None:
    identity = current_identity()
    if identity.role is not Role.CONTROLLER:
        raise CraneError(ErrorCode.PERMISSION_DENIED, f"a {identity.role.value} asks for what the controller alone may")


def _invalid(message: str) -> CraneError:
    return CraneError(ErrorCode.INVALID_ARGUMENT, message)
