"""NodeReportService: what craneds say."""

from typing import Any

import grpc

from crane.hooks.v1 import ctld_service_pb2 as pb
from crane.hooks.v1 import ctld_service_pb2_grpc as rpc
from cranectld.nodes.sessions import (
    HookReport,
    NodeReport,
    NodeSessions,
    PrologReport,
    Registration,
    ReleasedReport,
    StepEndedReport,
    StepStartedReport,
)
from cranectld.service.callers import caller
from cranectld.store import Store, StoreError
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName, StepId
from cranehooks.model.limits import Usage
from cranehooks.wire import WireError, duration, hook_run_from_wire, task_end_from_wire, usage_from_wire
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Role

Context = grpc.aio.ServicerContext[Any, Any]  # of any method's messages

MAX_REPORTS = 1_000
"""In one call."""


class NodeService(rpc.NodeReportServiceServicer):
    """Translates, and answers only when what was reported is durable."""

    def __init__(self, sessions: NodeSessions, store: Store) -> None:
        self._sessions = sessions
        self._store = store

    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: Context) -> pb.RegisterNodeResponse:
        node = _speaks_for(request.node)
        if failure := self._store.failure:
            # It lives, which is all that can be said of it now; it comes again until it can be taken in.
            self._sessions.heard(node)
            raise StoreError(failure)
        differs = self._sessions.register(
            Registration(
                node=node,
                instance=request.instance,
                boot_id=request.boot_id,
                version=request.version,
                address=request.address,
                config_digest=request.config_digest,
                containment=request.containment,
                containment_lost=request.containment_lost,
                only_uid=request.only_uid if request.HasField("only_uid") else None,
                attempts=tuple(AttemptKey(JobId(held.job_id), Attempt(held.attempt)) for held in request.jobs),
            )
        )
        await self._store.flushed()
        heartbeat_s = self._sessions.heartbeat.total_seconds()
        return pb.RegisterNodeResponse(heartbeat_interval=duration(heartbeat_s), config_differs=differs)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        self._sessions.heartbeat_from(_speaks_for(request.node), request.instance)
        return pb.HeartbeatResponse()

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        node = _speaks_for(request.node)
        if len(request.reports) > MAX_REPORTS:
            raise CraneError(
                ErrorCode.INVALID_ARGUMENT, f"{len(request.reports)} reports in one call: expected at most {MAX_REPORTS}"
            )
        reports = [(report.report_id, report_from_wire(report)) for report in request.reports]
        acknowledged = self._sessions.report(node, request.instance, reports)
        await self._store.flushed()
        return pb.ReportResponse(acknowledged=acknowledged)


def _speaks_for(name: str) -> NodeName:
    """The node, when the credentials are its own.

    Raises:
        CraneError: PERMISSION_DENIED.
    """
    identity = caller(Role.NODE)
    if identity.name != name:
        raise CraneError(
            ErrorCode.PERMISSION_DENIED, f"the credentials are of node {identity.name}, the message speaks for {name}"
        )
    return NodeName(name)


def report_from_wire(report: pb.NodeReport) -> NodeReport:
    """One report.

    Raises:
        CraneError: INVALID_ARGUMENT, it says nothing known.
    """
    try:
        match report.WhichOneof("report"):
            case "prolog_ended":
                return PrologReport(_key(report.prolog_ended), hook_run_from_wire(report.prolog_ended.run))
            case "step_started":
                return StepStartedReport(_key(report.step_started), StepId(report.step_started.step_id))
            case "step_ended":
                ended = report.step_ended
                tasks = tuple(map(task_end_from_wire, ended.tasks))
                return StepEndedReport(_key(ended), StepId(ended.step_id), tasks, ended.reason, _usage(ended))
            case "job_released":
                released = report.job_released
                epilog = hook_run_from_wire(released.epilog) if released.HasField("epilog") else None
                return ReleasedReport(_key(released), epilog, _usage(released))
            case "hook_ended":
                return HookReport(hook_run_from_wire(report.hook_ended.run))
            case other:
                raise CraneError(ErrorCode.INVALID_ARGUMENT, f"report {report.report_id}: unknown kind {other}")
    except WireError as error:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"report {report.report_id}: {error}") from error


def _usage(message: pb.StepEnded | pb.JobReleased) -> Usage | None:
    return usage_from_wire(message.usage) if message.HasField("usage") else None


def _key(message: pb.PrologEnded | pb.StepStarted | pb.StepEnded | pb.JobReleased) -> AttemptKey:
    return AttemptKey(JobId(message.job_id), Attempt(message.attempt))
