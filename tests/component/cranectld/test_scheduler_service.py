"""An external scheduler's calls over real gRPC: what they do, and everything they are refused for."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import ctld_service_pb2_grpc, job_pb2
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Role, TokenMinter, daemon_metadata, user_metadata
from tests.component.cranectld.conftest import ALICE, ROOT, Site, batch, becomes, status, submit
from tests.support.eventually import eventually_async

if TYPE_CHECKING:
    from crane.hooks.v1.ctld_service_pb2_grpc import SchedulerServiceAsyncStub

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)
EXTERNAL = "Scheduler: {Kind: external}"


class Decisions:
    """The stream of decisions, kept."""

    def __init__(self, scheduler: "SchedulerServiceAsyncStub", after: int = 0, *, accepts_submissions: bool = True) -> None:
        request = ctld.WatchDecisionsRequest(after_cursor=after, accepts_submissions=accepts_submissions)
        self._stream = scheduler.WatchDecisions(request)
        self.said: list[ctld.WatchDecisionsResponse] = []

    async def until(self, kind: "ctld.DecisionKind.ValueType", job_id: int = 0) -> ctld.WatchDecisionsResponse:
        """The next decision of this kind about the job."""
        async with asyncio.timeout(20):
            async for decision in self._stream:
                self.said.append(decision)
                if decision.kind == kind and decision.job_id == job_id:
                    return decision
        raise AssertionError(self.said)

    def close(self) -> None:
        self._stream.cancel()


def own(**fields: object) -> job_pb2.JobSpec:
    """A job of the scheduler's own, whose steps it starts."""
    who = {"uid": ALICE.uid, "gid": ALICE.gid, "user": ALICE.user, "groups": [ALICE.gid]}
    return batch(**{"script": "", **who, **fields})


def allocation(job_id: int, attempt: int, *nodes: str, spec: job_pb2.JobSpec | None = None) -> ctld.AllocateJobRequest:
    return ctld.AllocateJobRequest(job_id=job_id, attempt=attempt, nodes=nodes, spec=spec)


def step(job_id: int, step_id: str = "0", attempt: int = 1, **fields: object) -> ctld.StartJobStepRequest:
    values: dict[str, object] = {"step_id": step_id, "argv": ["/bin/true"], **fields}
    spec = job_pb2.StepSpec(**values)  # type: ignore[arg-type]  # any field
    return ctld.StartJobStepRequest(job_id=job_id, attempt=attempt, spec=spec)


async def refused(call: Awaitable[object], code: grpc.StatusCode, text: str = "") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    assert (refusal.value.code(), text in (refusal.value.details() or "")) == (code, True), refusal.value.details()


@pytest.fixture
async def external(site: Site) -> Site:
    site.extra = EXTERNAL
    await site.start()
    return site


async def test_embedded_scheduling_refuses_an_external_scheduler(site: Site) -> None:
    await site.start()
    scheduler = await site.as_scheduler()
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01")), grpc.StatusCode.FAILED_PRECONDITION, "Kind: external")


async def test_cbatch_is_refused_unless_a_scheduler_listens_that_accepts_submissions(external: Site) -> None:
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    node = await external.node("cn01")
    watching = Decisions(scheduler, accepts_submissions=False)
    await watching.until(ctld.DECISION_KIND_NODE)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await submit(alice)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "external scheduler" in (refusal.value.details() or "")

    accepting = Decisions(scheduler)
    await accepting.until(ctld.DECISION_KIND_NODE)
    job_id = await submit(alice)
    submitted = await accepting.until(ctld.DECISION_KIND_SUBMITTED, job_id)
    assert (submitted.job.state, submitted.job.spec.user) == (job_pb2.JOB_STATE_PENDING, "alice")
    waits = await status(alice, job_id)
    assert "waits for the external scheduler" in waits.reason
    accepting.close()

    async def says_so() -> bool:
        return "not connected" in (await status(alice, job_id)).reason

    await eventually_async(says_so)
    await scheduler.AllocateJob(allocation(job_id, 1, "cn01"))
    await node.expect(craned.RunStepRequest, job_id)


async def test_requeue_comes_back_by_the_schedulers_word_and_not_before_its_time(external: Site) -> None:
    first, second = await external.node("cn01"), await external.node("cn02")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    decisions = Decisions(scheduler)
    await decisions.until(ctld.DECISION_KIND_NODE)
    job_id = await submit(alice)
    await refused(scheduler.AllocateJob(allocation(job_id, 2, "cn01")), grpc.StatusCode.FAILED_PRECONDITION, "next attempt")
    await scheduler.AllocateJob(allocation(job_id, 1, "cn01"))

    command = await first.expect(craned.RunStepRequest, job_id)
    await first.prolog(command.job, EXIT_3, "no GPU\n")
    await first.release_when_told(job_id)
    requeue = await decisions.until(ctld.DECISION_KIND_REQUEUE, job_id)
    assert (requeue.attempt, requeue.job.attempt, requeue.job.state) == (1, 1, job_pb2.JOB_STATE_PENDING)
    drained = [said for said in decisions.said if said.kind == ctld.DECISION_KIND_NODE and said.node.drain_causes]
    assert drained[0].node.name == "cn01"
    assert drained[0].cursor < requeue.cursor

    await eventually_async(lambda: time.time() > requeue.not_before.ToNanoseconds() / 1e9)
    again = allocation(job_id, 2, "cn01")
    await refused(scheduler.AllocateJob(again), grpc.StatusCode.FAILED_PRECONDITION, "drained: prolog prolog.sh exit 3")
    await scheduler.AllocateJob(allocation(job_id, 2, "cn02"))
    retry = await second.expect(craned.RunStepRequest, job_id)
    assert (retry.job.attempt, retry.job.restart_count) == (2, 1)
    await refused(scheduler.AllocateJob(allocation(job_id, 1, "cn01")), grpc.StatusCode.FAILED_PRECONDITION, "older than 2")
    await refused(scheduler.StartJobStep(step(job_id)), grpc.StatusCode.FAILED_PRECONDITION, "not the current one")
    await second.step_ended(retry)
    await second.release_when_told(job_id)
    end = await decisions.until(ctld.DECISION_KIND_END, job_id)
    assert end.job.state == job_pb2.JOB_STATE_COMPLETED


async def test_requeued_job_is_refused_before_its_time(site: Site) -> None:
    site.extra, site.requeue_delay_s = EXTERNAL, "600"
    await site.start()
    node = await site.node("cn01")
    await site.node("cn02")
    alice, scheduler = await site.as_user(), await site.as_scheduler()
    decisions = Decisions(scheduler)
    await decisions.until(ctld.DECISION_KIND_NODE)
    job_id = await submit(alice)
    await scheduler.AllocateJob(allocation(job_id, 1, "cn01"))
    command = await node.expect(craned.RunStepRequest, job_id)
    await node.prolog(command.job, EXIT_3)
    await node.release_when_told(job_id)
    requeue = await decisions.until(ctld.DECISION_KIND_REQUEUE, job_id)
    assert requeue.not_before.seconds - requeue.time.seconds in {599, 600}
    assert "requeued, not before" in (await status(alice, job_id)).reason
    again = allocation(job_id, 2, "cn02")
    await refused(scheduler.AllocateJob(again), grpc.StatusCode.FAILED_PRECONDITION, "not before")


async def test_nodes_that_take_no_work_and_jobs_that_do_not_fit_are_refused(external: Site) -> None:
    await external.node("cn01")
    root, scheduler = await external.as_user(ROOT), await external.as_scheduler()
    await root.DrainNodes(ctld.DrainNodesRequest(nodes="cn01", reason="fan"))
    precondition, invalid = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own())), precondition, "cn01 is drained: fan")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn02", spec=own())), precondition, "cn02 is down")
    await root.ResumeNodes(ctld.ResumeNodesRequest(nodes="cn01"))
    await refused(scheduler.AllocateJob(allocation(1, 1)), invalid, "at least one")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", "cn01", spec=own())), invalid, "each once")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn09", spec=own())), grpc.StatusCode.NOT_FOUND, "cn09")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01")), grpc.StatusCode.NOT_FOUND, "give its spec")
    await refused(scheduler.AllocateJob(allocation(0, 1, "cn01", spec=own())), invalid, "job_id")
    await refused(scheduler.AllocateJob(allocation(1, 2, "cn01", spec=own())), precondition, "first attempt is 1")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(exclude="cn01"))), invalid, "excludes")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(num_nodes=3))), invalid, "got 1")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(kind=job_pb2.JOB_KIND_RUN))), invalid, "batch job")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(user=""))), invalid, "spec.user")
    await refused(scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(cpus_per_task=5))), invalid, "5 CPUs")
    await scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(cpus_per_task=3)))
    await refused(scheduler.AllocateJob(allocation(2, 1, "cn01", spec=own(cpus_per_task=2))), precondition, "2 CPUs")


async def test_jobs_of_cbatch_get_the_nodes_their_owner_wants(external: Site) -> None:
    await external.node("cn01")
    await external.node("cn02")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    decisions = Decisions(scheduler)
    await decisions.until(ctld.DECISION_KIND_NODE)
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    both = await submit(alice, num_nodes=2)
    await refused(scheduler.AllocateJob(allocation(both, 1, "cn01")), invalid, "the job wants 2")
    picky = await submit(alice, nodelist="cn02")
    await refused(scheduler.AllocateJob(allocation(picky, 1, "cn01")), invalid, "cn02 is missing")
    await refused(scheduler.AllocateJob(allocation(picky, 1, "cn02", spec=own())), grpc.StatusCode.ALREADY_EXISTS)
    await scheduler.AllocateJob(allocation(picky, 1, "cn02"))


async def test_repeats_have_no_effect_and_changed_repeats_are_told(external: Site) -> None:
    node, other = await external.node("cn01"), await external.node("cn02")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    exists = grpc.StatusCode.ALREADY_EXISTS
    answers = [await scheduler.AllocateJob(allocation(70, 1, "cn01", spec=own())) for _ in range(2)]
    assert [answer.job.attempt for answer in answers] == [1, 1]
    await refused(scheduler.AllocateJob(allocation(70, 1, "cn02", spec=own())), exists, "on cn01")
    await refused(scheduler.AllocateJob(allocation(70, 1, "cn01", spec=own(name="x"))), exists, "another spec")

    await becomes(alice, 70, job_pb2.JOB_STATE_RUNNING)
    for _ in range(2):
        await scheduler.StartJobStep(step(70, ntasks=2))
    command = await node.expect(craned.RunStepRequest, 70)
    assert (command.step.step_id, command.step.ntasks, command.step.stdio) == ("0", 2, job_pb2.STDIO_MODE_FILES)
    await refused(scheduler.StartJobStep(step(70, ntasks=3)), exists, "another one")
    await refused(scheduler.StartJobStep(step(70, argv=["/bin/false"], ntasks=2)), exists)
    await refused(scheduler.StartJobStep(step(70, "batch")), grpc.StatusCode.INVALID_ARGUMENT, "step_id")
    await refused(scheduler.StartJobStep(step(70, "1", nodelist="cn02")), grpc.StatusCode.INVALID_ARGUMENT, "allocation")
    await refused(scheduler.StartJobStep(step(70, "1", argv=[])), grpc.StatusCode.INVALID_ARGUMENT, "command")
    await node.prolog(command.job)
    await node.step_ended(command)
    await scheduler.StartJobStep(step(70, ntasks=2))
    await scheduler.StartJobStep(step(70, "4"))
    await node.expect(craned.RunStepRequest, 70, number=2)
    await refused(scheduler.StartJobStep(step(70, "2")), grpc.StatusCode.FAILED_PRECONDITION, "the next one is 5")
    assert [command.step.step_id for command in node.told if isinstance(command, craned.RunStepRequest)] == ["0", "4"]
    assert not other.told


async def test_own_job_lives_until_it_is_released(external: Site) -> None:
    first, second = await external.node("cn01"), await external.node("cn02")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    decisions = Decisions(scheduler, accepts_submissions=False)
    await scheduler.AllocateJob(allocation(900, 1, "cn02", "cn01", spec=own(ntasks_per_node=2)))
    await decisions.until(ctld.DECISION_KIND_RUN, 900)
    await scheduler.StartJobStep(step(900))
    commands = [await node.expect(craned.RunStepRequest, 900) for node in (second, first)]
    placement = [(place.node, list(place.task_ids)) for place in commands[0].step.placement]
    assert placement == [("cn02", [0, 1]), ("cn01", [2, 3])]

    await scheduler.SignalJobStep(ctld.SignalJobStepRequest(job_id=900, attempt=1, step_id="0", signal=10))
    for node in (first, second):
        assert (await node.expect(craned.SignalTasksRequest, 900)).signal == 10
    wrong = ctld.SignalJobStepRequest(job_id=900, attempt=2, step_id="0", signal=10)
    await refused(scheduler.SignalJobStep(wrong), grpc.StatusCode.FAILED_PRECONDITION, "attempt 2")
    wrong = ctld.SignalJobStepRequest(job_id=900, attempt=1, step_id="7", signal=10)
    await refused(scheduler.SignalJobStep(wrong), grpc.StatusCode.NOT_FOUND, "no step 7")
    wrong = ctld.SignalJobStepRequest(job_id=900, attempt=1, step_id="0", signal=99)
    await refused(scheduler.SignalJobStep(wrong), grpc.StatusCode.INVALID_ARGUMENT, "signal 99")

    for node, command in zip((second, first), commands, strict=True):
        await node.prolog(command.job)
        await node.step_ended(command)
    ended = await decisions.until(ctld.DECISION_KIND_STEP_ENDED, 900)
    assert (ended.step.step_id, ended.step.exit.code) == ("0", 0)
    assert (await status(alice, 900)).state == job_pb2.JOB_STATE_RUNNING

    for _ in range(2):
        await scheduler.ReleaseAllocation(ctld.ReleaseAllocationRequest(job_id=900, attempt=1, exit=job_pb2.ExitStatus(code=3)))
    for node in (first, second):
        await node.release_when_told(900)
    end = await decisions.until(ctld.DECISION_KIND_END, 900)
    assert (end.job.state, end.job.exit.code) == (job_pb2.JOB_STATE_FAILED, 3)
    free = [said.node.name for said in decisions.said if said.kind == ctld.DECISION_KIND_NODE_FREE]
    assert sorted(free) == ["cn01", "cn02"]
    assert await submit_refused(external) is grpc.StatusCode.FAILED_PRECONDITION


async def submit_refused(site: Site) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await submit(await site.as_user())
    return refusal.value.code()


async def test_own_job_that_is_cancelled_stays_so_and_keeps_its_id_over_a_restart(external: Site) -> None:
    node = await external.node("cn01")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    await scheduler.AllocateJob(allocation(5, 1, "cn01", spec=own()))
    await scheduler.ReleaseAllocation(ctld.ReleaseAllocationRequest(job_id=5, attempt=1, cancel=True, reason="preempted"))
    await node.release_when_told(5)
    ended = await becomes(alice, 5, job_pb2.JOB_STATE_CANCELLED)
    assert ended.reason == "preempted"
    await refused(scheduler.AllocateJob(allocation(5, 2, "cn01", spec=own())), grpc.StatusCode.FAILED_PRECONDITION, "cancelled")

    assert external.program is not None
    external.program.kill()
    await external.start()
    scheduler = await external.as_scheduler()
    again = await scheduler.AllocateJob(allocation(5, 1, "cn01", spec=own()))
    assert again.job.state == job_pb2.JOB_STATE_CANCELLED
    await refused(scheduler.AllocateJob(allocation(5, 2, "cn01", spec=own())), grpc.StatusCode.FAILED_PRECONDITION, "cancelled")


async def test_held_job_is_refused_until_released(external: Site) -> None:
    external.extra = f"{EXTERNAL}\nMaxRequeueCount: 0"
    assert external.program is not None
    external.program.kill()
    await external.start()
    node = await external.node("cn01")
    other = await external.node("cn02")
    alice, scheduler = await external.as_user(), await external.as_scheduler()
    decisions = Decisions(scheduler)
    await decisions.until(ctld.DECISION_KIND_NODE)
    job_id = await submit(alice)
    await scheduler.AllocateJob(allocation(job_id, 1, "cn01"))
    command = await node.expect(craned.RunStepRequest, job_id)
    await node.prolog(command.job, EXIT_3)
    await node.release_when_told(job_id)
    hold = await decisions.until(ctld.DECISION_KIND_HOLD, job_id)
    assert "MaxRequeueCount" in hold.reason
    await refused(scheduler.AllocateJob(allocation(job_id, 2, "cn02")), grpc.StatusCode.FAILED_PRECONDITION, "is held")
    await alice.ReleaseHold(ctld.ReleaseHoldRequest(job_ids=[job_id]))
    released = await decisions.until(ctld.DECISION_KIND_RELEASED, job_id)
    assert released.job.state == job_pb2.JOB_STATE_PENDING
    await scheduler.AllocateJob(allocation(job_id, released.job.attempt + 1, "cn02"))
    await other.expect(craned.RunStepRequest, job_id)


async def test_decisions_resume_after_a_cursor_over_a_restart_of_the_controller(external: Site) -> None:
    node = await external.node("cn01")
    scheduler = await external.as_scheduler()
    decisions = Decisions(scheduler)
    await decisions.until(ctld.DECISION_KIND_NODE)
    await scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own()))
    run = await decisions.until(ctld.DECISION_KIND_RUN, 1)
    await scheduler.ReleaseAllocation(ctld.ReleaseAllocationRequest(job_id=1, attempt=1))
    await node.release_when_told(1)
    end = await decisions.until(ctld.DECISION_KIND_END, 1)
    decisions.close()

    assert external.program is not None
    external.program.kill()
    await external.start()
    scheduler = await external.as_scheduler()
    resumed = Decisions(scheduler, after=run.cursor)
    await resumed.until(ctld.DECISION_KIND_END, 1)
    assert [said.cursor for said in resumed.said] == list(range(run.cursor + 1, end.cursor + 1))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await Decisions(scheduler, after=10_000).until(ctld.DECISION_KIND_END, 1)
    assert refusal.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_lost_node_serves_again_by_a_decision_once_it_ran_the_epilog_it_owed(external: Site) -> None:
    node = await external.node("cn01")
    scheduler = await external.as_scheduler()
    decisions = Decisions(scheduler)
    await scheduler.AllocateJob(allocation(1, 1, "cn01", spec=own(requeue=False)))
    fail = await decisions.until(ctld.DECISION_KIND_FAIL, 1)
    assert "cn01 was lost" in fail.reason
    await node.register()
    await node.release_when_told(1)
    while not (said := await decisions.until(ctld.DECISION_KIND_NODE)).reason.startswith("ran the Epilog"):
        pass
    assert (said.node.up, list(said.node.owed_epilogs)) == (True, [])


async def test_users_may_not_place_jobs_and_the_scheduler_may_list_them(external: Site) -> None:
    await external.node("cn01")
    scheduler = await external.as_scheduler()
    await scheduler.AllocateJob(allocation(3, 1, "cn01", spec=own()))
    channel = open_channel(external.address, metadata=daemon_metadata(external.secret, Role.SCHEDULER))
    async with channel:
        jobs = (await ctld_service_pb2_grpc.ControllerServiceStub(channel).ListJobs(ctld.ListJobsRequest())).jobs
    assert [(job.job_id, job.spec.user) for job in jobs] == [(3, "alice")]
    token = TokenMinter(external.secret, "test").mint(ROOT)
    async with open_channel(external.address, metadata=user_metadata(token)) as channel:
        call = ctld_service_pb2_grpc.SchedulerServiceStub(channel).AllocateJob(allocation(4, 1, "cn01", spec=own()))
        await refused(call, grpc.StatusCode.PERMISSION_DENIED, "scheduler")
