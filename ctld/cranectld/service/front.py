"""ControllerService: what front ends ask for, with the caller's identity from the call's credentials."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from crane.hooks.v1 import ctld_service_pb2 as pb
from crane.hooks.v1 import ctld_service_pb2_grpc as rpc
from cranectld.admission import array_indexes
from cranectld.frontdesk import FrontDesk
from cranectld.history import EVENT_KINDS
from cranectld.jobs.events import CompletionRequested, HoldReleased, StepCancelRequested, StepSendRequested
from cranectld.jobs.machine import BREAKER_REASON
from cranectld.jobs.model import Job, JobState
from cranectld.nodes.model import DrainCause, DrainOwner
from cranectld.ports import SignalTasksCommand
from cranectld.service import views
from cranectld.service.backup import backup_pieces
from cranectld.service.callers import caller
from cranehooks.model.ids import EXTERN_STEP, Attempt, AttemptKey, JobId, StepId
from cranehooks.wire import (
    duration,
    exit_status_from_wire,
    hook_run_from_wire,
    job_spec_from_wire,
    step_spec_from_wire,
    step_spec_to_wire,
)
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Identity, Role

Context = grpc.aio.ServicerContext[Any, Any]  # of any method's messages

EVENTS_PER_READ = 500
EVENTS_OF_A_JOB = 5_000
JOBS_PER_ANSWER = 1_000
MAX_SIGNAL = 64


class FrontService(rpc.ControllerServiceServicer):
    """Each method checks who asks, translates, and lets the controller decide."""

    def __init__(self, desk: FrontDesk) -> None:
        self._desk = desk
        self._controller = desk.controller

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmitJobResponse:
        who = caller()
        spec = self._desk.identified(job_spec_from_wire(request.spec), who)
        indexes = array_indexes(request.array) if request.array else None
        ids = await self._desk.submit(spec, f"{who.uid}/{request.request_id}" if request.request_id else "", indexes)
        return pb.SubmitJobResponse(job_ids=ids)

    async def FollowJob(self, request: pb.FollowJobRequest, context: Context) -> AsyncIterator[pb.FollowJobResponse]:
        job_id = JobId(request.job_id)
        job = await self._job(job_id)
        if request.bind:
            self._desk.check_owner(job, caller(), strictly=True)
            with self._desk.bindings.bound(job_id):
                async for update in self._updates(job_id):
                    yield update
        else:
            async for update in self._updates(job_id):
                yield update

    async def _updates(self, job_id: JobId) -> AsyncIterator[pb.FollowJobResponse]:
        last: pb.FollowJobResponse | None = None
        while True:
            ticket = self._controller.bell_of(job_id).ticket()
            job = await self._job(job_id)
            await self._controller.settled()
            waiting = views.waiting_for(self._controller, job)
            update = pb.FollowJobResponse(
                job=views.job_status(job, self._controller.reason_of(job)),
                waiting_for=waiting,
                final=job.state.is_final,
            )
            if update != last:
                yield update
                last = update
            if job.state.is_final:
                return
            await ticket.wait()

    async def CompleteAllocation(self, request: pb.CompleteAllocationRequest, context: Context) -> pb.CompleteAllocationResponse:
        job = await self._own(JobId(request.job_id))
        if not job.state.is_final:
            if request.fail_reason and request.cancel_reason:
                raise CraneError(
                    ErrorCode.INVALID_ARGUMENT, "cancel_reason and fail_reason: a job is cancelled or fails, not both"
                )
            if request.fail_reason and exit_status_from_wire(request.exit).ok:
                raise CraneError(ErrorCode.INVALID_ARGUMENT, "fail_reason with exit 0: a failed job has another exit status")
            if request.cancel_reason:
                self._controller.cancel(job.job_id, request.cancel_reason)
            else:
                event = CompletionRequested(
                    self._controller.clock.now(), exit_status_from_wire(request.exit), request.fail_reason
                )
                self._controller.apply(job.job_id, event)
        await self._controller.settled()
        return pb.CompleteAllocationResponse()

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        who = caller()
        jobs = [await self._own(JobId(job_id)) for job_id in request.job_ids]
        answer = pb.CancelJobResponse()
        for job in jobs:
            if job.state.is_final:
                answer.already_ended.append(job.job_id)
            else:
                self._controller.cancel(job.job_id, request.reason or f"cancelled by {who.user}")
                answer.cancelled.append(job.job_id)
        await self._controller.settled()
        return answer

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: Context) -> pb.ReleaseHoldResponse:
        who = caller()
        self._desk.check_writable()
        jobs = [await self._own(JobId(job_id)) for job_id in request.job_ids]
        for job in jobs:
            if job.reason.startswith(BREAKER_REASON):
                self._desk.administrator(who)
        for job in jobs:
            self._controller.apply(job.job_id, HoldReleased(self._controller.clock.now(), who.user))
        await self._controller.settled()
        return pb.ReleaseHoldResponse()

    async def CreateStep(self, request: pb.CreateStepRequest, context: Context) -> pb.CreateStepResponse:
        job = await self._own(JobId(request.job_id))
        step = self._desk.create_step(job, step_spec_from_wire(request.spec), request.request_id, overcommit=request.overcommit)
        await self._controller.settled()
        answer = pb.CreateStepResponse(
            attempt=job.attempt,
            spec=step_spec_to_wire(step.spec),
            job=views.job_status(self._controller.jobs[job.job_id], with_environment=True),
        )
        for node in step.nodes:
            answer.nodes.add(node=node, address=self._controller.fleet.nodes[node].address)
        return answer

    async def StartStep(self, request: pb.StartStepRequest, context: Context) -> pb.StartStepResponse:
        self._desk.check_writable()
        job = self._current(await self._own(JobId(request.job_id)), request.attempt)
        event = StepSendRequested(self._controller.clock.now(), job.attempt, StepId(request.step_id))
        self._controller.apply(job.job_id, event)
        await self._controller.settled()
        return pb.StartStepResponse()

    async def CancelStep(self, request: pb.CancelStepRequest, context: Context) -> pb.CancelStepResponse:
        who = caller()
        job = await self._own(JobId(request.job_id))
        self._known_step(job, request.step_id)
        if not job.state.is_final and job.attempt == request.attempt:
            reason = request.reason or f"cancelled by {who.user}"
            now = self._controller.clock.now()
            event = StepCancelRequested(now, job.attempt, StepId(request.step_id), reason, request.failed)
            self._controller.apply(job.job_id, event)
        await self._controller.settled()
        return pb.CancelStepResponse()

    async def SignalStep(self, request: pb.SignalStepRequest, context: Context) -> pb.SignalStepResponse:
        job = self._current(await self._own(JobId(request.job_id)), request.attempt)
        if not 1 <= request.signal <= MAX_SIGNAL:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"signal {request.signal}: expected 1 to {MAX_SIGNAL}")
        self._known_step(job, request.step_id)
        step = job.steps[StepId(request.step_id)]
        command = SignalTasksCommand(AttemptKey(job.job_id, job.attempt), step.step_id, signal=request.signal)
        for node in step.nodes:
            if node not in step.ended_nodes:
                self._controller.signal_step(job, node, command)
        return pb.SignalStepResponse()

    async def RecordLaunchHook(self, request: pb.RecordLaunchHookRequest, context: Context) -> pb.RecordLaunchHookResponse:
        run = hook_run_from_wire(request.run)
        await self._own(run.key.job_id)
        self._desk.record_launch_run(run)
        await self._controller.settled()
        return pb.RecordLaunchHookResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        who = caller(Role.USER, Role.SCHEDULER)
        user = request.user if who.role is Role.SCHEDULER or self._desk.is_administrator(who) else who.user
        limit = min(request.limit or JOBS_PER_ANSWER, JOBS_PER_ANSWER)
        states = {views.JOB_STATES.from_wire(state) for state in request.states}
        jobs = await self._listed(states, set(request.job_ids), user, limit)
        return pb.ListJobsResponse(jobs=[views.job_status(job, self._controller.reason_of(job)) for job in jobs])

    async def _listed(self, states: set[JobState], ids: set[int], user: str, limit: int) -> list[Job]:
        held = self._controller.jobs
        if ids:
            found = [held.get(JobId(number)) or await self._controller.store.job(JobId(number)) for number in sorted(ids)]
            jobs: Iterable[Job] = [job for job in found if job is not None]
        else:
            wants_ended = not states or any(state.is_final for state in states)
            ended = await self._controller.store.ended_jobs(limit, user, states) if wants_ended else []
            jobs = sorted({job.job_id: job for job in (*ended, *held.values())}.values(), key=lambda job: job.job_id)
        chosen = [job for job in jobs if (not states or job.state in states) and (not user or job.spec.user == user)]
        return chosen[-limit:]

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        job = await self._own(JobId(request.job_id))
        status = views.job_status(job, self._controller.reason_of(job), with_environment=True)
        for event in await self._controller.store.events(0, EVENTS_OF_A_JOB, job_id=job.job_id):
            if event.run is None:
                status.history.append(views.history_event(event))
            else:
                status.runs.append(views.event_message(event).run)
        return pb.GetJobResponse(job=status)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        wanted = self._desk.nodes_of(request.nodes) if request.nodes else list(self._controller.fleet.nodes.values())
        digest = self._desk.config_digest()
        return pb.ListNodesResponse(nodes=[views.node_status(self._controller, node, digest) for node in wanted])

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.GetNodeResponse:
        who = caller()
        node = self._desk.nodes_of(request.name)[0]
        answer = pb.GetNodeResponse(node=views.node_status(self._controller, node, self._desk.config_digest()))
        if self._desk.is_administrator(who):
            for event in await self._controller.store.last_events(EVENTS_PER_READ, node.name):
                answer.events.append(views.event_message(event))
                if event.run is not None and not event.run.outcome.ok:
                    answer.failed_runs.append(views.event_message(event).run)
        return answer

    async def DrainNodes(self, request: pb.DrainNodesRequest, context: Context) -> pb.DrainNodesResponse:
        who = self._desk.administrator(caller())
        self._desk.check_writable()
        if not request.reason.strip():
            raise CraneError(ErrorCode.INVALID_ARGUMENT, "a drain needs a reason")
        nodes = self._desk.nodes_of(request.nodes)
        for node in nodes:
            cause = DrainCause(DrainOwner.ADMIN, request.reason.strip()[:256], self._controller.clock.now(), who.user)
            self._controller.fleet.drain(node.name, cause)
            self._controller.chronicle.record("drained", f"by {who.user}: {cause.reason}", node=node.name)
        await self._controller.settled()
        return pb.DrainNodesResponse(nodes=[node.name for node in nodes])

    async def ResumeNodes(self, request: pb.ResumeNodesRequest, context: Context) -> pb.ResumeNodesResponse:
        who = self._desk.administrator(caller())
        self._desk.check_writable()
        owner = views.DRAIN_OWNERS.from_wire(request.owner) if request.owner else None
        nodes = self._desk.nodes_of(request.nodes)
        resumed = [node.name for node in nodes if self._controller.fleet.resume(node.name, owner)]
        for name in resumed:
            self._controller.chronicle.record("resumed", f"by {who.user}", node=name)
        await self._controller.settled()
        return pb.ResumeNodesResponse(nodes=resumed)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> AsyncIterator[pb.WatchEventsResponse]:
        who = caller()
        everything = self._desk.is_administrator(who)
        if request.job_id:
            await self._own(JobId(request.job_id))
        elif not everything and request.node:
            raise CraneError(ErrorCode.PERMISSION_DENIED, "events of a node are for administrators")
        kinds = set(request.kinds)
        unknown = sorted(kinds - set(EVENT_KINDS))
        if unknown:
            message = f"there is no kind of event {unknown[0]!r}: expected one of {', '.join(EVENT_KINDS)}"
            raise CraneError(ErrorCode.INVALID_ARGUMENT, message)
        cursor = request.after_cursor
        history = self._controller.chronicle.history
        while True:
            ticket = history.bell.ticket()
            if cursor + 1 < history.first_cursor:
                events = await self._controller.store.events(cursor, EVENTS_PER_READ, request.job_id, request.node)
                in_memory = not events
                cursor = history.first_cursor - 1 if in_memory else cursor
            else:
                in_memory = True
                events = list(history.after(cursor))
            await self._controller.settled()
            for event in events:
                cursor = max(cursor, event.cursor)
                if (
                    (not request.job_id or event.job_id == request.job_id)
                    and (not request.node or event.node == request.node)
                    and (not kinds or event.kind in kinds)
                    and (everything or await self._may_see(event.job_id, who))
                ):
                    yield pb.WatchEventsResponse(event=views.event_message(event))
            if in_memory and cursor >= history.last_cursor:
                if not request.follow:
                    return
                await ticket.wait()
            elif in_memory and not events:
                cursor = history.last_cursor

    async def _may_see(self, job_id: JobId, who: Identity) -> bool:
        if not job_id:
            return False
        job = self._controller.jobs.get(job_id) or await self._controller.store.job(job_id)
        return job is not None and job.spec.uid == who.uid

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Context) -> pb.ListBreakersResponse:
        budget = self._controller.fleet.budget
        return pb.ListBreakersResponse(
            breakers=[views.breaker_status(self._controller, breaker) for breaker in budget.breakers.values()],
            window=duration(budget.window_s),
        )

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Context) -> pb.ResetBreakerResponse:
        who = self._desk.administrator(caller())
        self._desk.check_writable()
        reset = self._desk.reset_breakers(request.sha256, who)
        await self._controller.settled()
        return pb.ResetBreakerResponse(reset=reset)

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        answer = pb.GetClusterResponse()
        self._desk.describe(answer)
        return answer

    async def BackupStore(self, request: pb.BackupStoreRequest, context: Context) -> AsyncIterator[pb.BackupStoreResponse]:
        self._desk.administrator(caller())
        async with self._controller.store.snapshot() as copy:
            async for piece in backup_pieces(copy):
                yield piece

    async def _job(self, job_id: JobId) -> Job:
        job = self._controller.jobs.get(job_id) or await self._controller.store.job(job_id)
        if job is None:
            raise CraneError(ErrorCode.NOT_FOUND, f"job {job_id} does not exist")
        return job

    async def _own(self, job_id: JobId) -> Job:
        job = await self._job(job_id)
        self._desk.check_owner(job, caller())
        return job

    @staticmethod
    def _current(job: Job, attempt: int) -> Job:
        if Attempt(attempt) != job.attempt:
            message = f"job {job.job_id}: attempt {attempt} is over, the current one is {job.attempt}"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
        return job

    @staticmethod
    def _known_step(job: Job, step_id: str) -> None:
        if StepId(step_id) not in job.steps:
            raise CraneError(ErrorCode.NOT_FOUND, f"job {job.job_id} has no step {step_id!r}")
        if step_id == EXTERN_STEP:
            message = f"step {step_id} holds the place of job {job.job_id} and ends with it: cancel the job"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
