"""The controller over real gRPC: what it tells its nodes, and what follows from what they report."""

import asyncio

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2, node_pb2
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.wire import hook_run_to_wire
from tests.component.cranectld.conftest import BOB, ROOT, Site, batch, becomes, status, submit
from tests.support.eventually import eventually_async

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)


async def test_batch_job_runs_and_completes_with_all_controller_hooks(site: Site) -> None:
    log = site.directory / "hooks.log"
    site.hooks = f"""  CranectldProlog: {site.script("prolog.sh", f"echo prolog $CRANE_JOB_ID >> {log}")}
  CranectldEpilog: {site.script("epilog.sh", f"echo epilog $CRANE_JOB_ID >> {log}; exit 1")}
"""
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user()

    job_id = await submit(alice, num_nodes=2)
    command = await first.expect(craned.RunStepRequest, job_id)
    assert log.read_text() == f"prolog {job_id}\n"
    assert (command.step.step_id, command.job.spec.user) == ("batch", "alice")
    await first.prolog(command.job)
    await first.step_ended(command)
    await first.release_when_told(job_id)
    half = await status(alice, job_id)
    assert list(half.busy_nodes) == ["cn02"]
    await second.release_when_told(job_id)

    done = await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)
    assert sorted((run.point, run.node) for run in done.runs) == [(1, ""), (2, "cn01"), (9, "cn01"), (9, "cn02"), (10, "")]
    assert log.read_text() == f"prolog {job_id}\nepilog {job_id}\n"


async def test_failing_cranectldprolog_requeues_and_touches_no_node_but_for_epilogs(site: Site) -> None:
    site.hooks = f"  CranectldProlog: {site.script('prolog.sh', 'echo no licence; exit 4')}\n"
    site.extra = "MaxRequeueCount: 1"
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()

    job_id = await submit(alice)
    for number in (1, 2):
        await node.release_when_told(job_id, number=number)

    held = await becomes(alice, job_id, job_pb2.JOB_STATE_HELD)
    assert "no licence" in held.reason
    assert held.attempt == 2
    assert not [command for command in node.told if isinstance(command, craned.RunStepRequest)]


async def test_failing_prolog_drains_first_and_the_retry_goes_elsewhere(site: Site) -> None:
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user()

    job_id = await submit(alice)
    command = await first.expect(craned.RunStepRequest, job_id)
    await first.prolog(command.job, EXIT_3, "no GPU found\n")
    await first.release_when_told(job_id)
    retry = await second.expect(craned.RunStepRequest, job_id)
    assert retry.job.attempt == 2
    assert retry.job.restart_count == 1
    await second.step_ended(retry)
    await second.release_when_told(job_id)

    await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)
    nodes = (await alice.ListNodes(ctld.ListNodesRequest())).nodes
    assert [cause.reason for cause in nodes[0].drain_causes] == [
        f"prolog prolog.sh exit 3 (job {job_id}, attempt 1): no GPU found"
    ]
    assert nodes[0].drain_causes[0].owner == node_pb2.DRAIN_OWNER_HOOKS
    assert not nodes[1].drain_causes


async def test_late_report_of_an_old_attempt_changes_nothing(site: Site) -> None:
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user()
    job_id = await submit(alice)
    old = await first.expect(craned.RunStepRequest, job_id)
    await first.prolog(old.job, EXIT_3)
    await first.release_when_told(job_id)
    await second.expect(craned.RunStepRequest, job_id)

    await first.step_ended(old, code=9)
    await first.released(old.job, EXIT_3)

    now = await status(alice, job_id)
    assert (now.state, now.attempt) == (job_pb2.JOB_STATE_RUNNING, 2)


async def test_silent_node_goes_down_and_owes_its_epilog(site: Site) -> None:
    await site.start()
    first = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice, requeue=False)
    command = await first.expect(craned.RunStepRequest, job_id)

    await becomes(alice, job_id, job_pb2.JOB_STATE_NODE_FAIL)
    node = (await alice.ListNodes(ctld.ListNodesRequest(nodes="cn01"))).nodes[0]
    assert not node.up
    assert list(node.owed_epilogs) == [job_id]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await first.heartbeat()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    await first.register()
    waiting = await submit(alice)
    await first.release_when_told(job_id)
    retry = await first.expect(craned.RunStepRequest, waiting)
    assert command.job.job_id != retry.job.job_id
    await first.step_ended(retry)
    await first.release_when_told(waiting)
    await becomes(alice, waiting, job_pb2.JOB_STATE_COMPLETED)


async def test_restarted_controller_knows_everything(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice, root = await site.as_user(), await site.as_user(ROOT)
    running = await submit(alice)
    command = await node.expect(craned.RunStepRequest, running)
    await root.DrainNodes(ctld.DrainNodesRequest(nodes="cn02", reason="new memory"))
    waiting = await submit(alice, nodelist="cn02")
    assert site.program is not None
    site.program.kill()

    await site.start()
    alice = await site.as_user()
    again = await site.node("cn01")
    await again.step_ended(command, code=7)
    await again.release_when_told(running)

    assert (await becomes(alice, running, job_pb2.JOB_STATE_FAILED)).exit.code == 7
    assert "new memory" in (await status(alice, waiting)).reason


async def test_job_on_a_node_that_left_the_configuration_goes_on_elsewhere(site: Site) -> None:
    await site.start()
    first = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice)
    await first.expect(craned.RunStepRequest, job_id)
    assert site.program is not None
    site.program.kill()

    site.nodes = "cn[02-03]"
    await site.start()
    second = await site.node("cn02")
    retry = await second.expect(craned.RunStepRequest, job_id)
    assert retry.job.attempt == 2


async def test_cancel_during_the_prolog_releases_the_node(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice)
    command = await node.expect(craned.RunStepRequest, job_id)

    await alice.CancelJob(ctld.CancelJobRequest(job_ids=[job_id]))
    await node.expect(craned.ReleaseJobRequest, job_id)
    await node.prolog(command.job, Outcome(OutcomeKind.STOPPED))
    await node.released(command.job)

    done = await becomes(alice, job_id, job_pb2.JOB_STATE_CANCELLED)
    assert done.reason == "cancelled by alice"
    assert not (await alice.ListNodes(ctld.ListNodesRequest(nodes="cn01"))).nodes[0].drain_causes


async def test_failing_cranectld_epilog_drains_within_the_budget(site: Site) -> None:
    site.nodes = "cn[01-04]"
    site.extra = "MaxDrainsPerScript: 2"
    site.hooks = f"  CranectldEpilog: {site.script('release', 'exit 3')}\n  OnCranectldEpilogFailure: drain"
    await site.start()
    alice = await site.as_user()
    for name in ("cn01", "cn02", "cn03"):
        node = await site.node(name)
        job_id = await submit(alice)
        await node.step_ended(await node.expect(craned.RunStepRequest, job_id))
        await node.release_when_told(job_id)
        await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)

    found = {
        node.name: [cause.reason for cause in node.drain_causes]
        for node in (await alice.ListNodes(ctld.ListNodesRequest())).nodes
    }
    assert found == {
        "cn01": ["cranectld epilog release exit 3 (job 1, attempt 1)"],
        "cn02": ["cranectld epilog release exit 3 (job 2, attempt 1)"],
        "cn03": [],
        "cn04": [],
    }


async def test_drain_budget(site: Site) -> None:
    site.nodes = "cn[01-04]"
    site.extra = "MaxDrainsPerScript: 2"
    await site.start()
    nodes = [await site.node(f"cn0{number}") for number in (1, 2, 3)]
    alice, root = await site.as_user(), await site.as_user(ROOT)
    job_id = await submit(alice)
    for node in nodes:
        command = await node.expect(craned.RunStepRequest, job_id)
        await node.prolog(command.job, EXIT_3, "broken script")
        await node.release_when_told(job_id)

    held = await becomes(alice, job_id, job_pb2.JOB_STATE_HELD)
    assert "drain budget" in held.reason
    drained = [node.name for node in (await alice.ListNodes(ctld.ListNodesRequest())).nodes if node.drain_causes]
    assert drained == ["cn01", "cn02"]
    next_job = await submit(alice)
    assert "breaker" in (await becomes(alice, next_job, job_pb2.JOB_STATE_HELD)).reason
    breaker = (await root.ListBreakers(ctld.ListBreakersRequest())).breakers[0]
    assert (breaker.tripped, sorted(breaker.held_jobs)) == (True, [job_id, next_job])

    with pytest.raises(grpc.aio.AioRpcError):
        await alice.ResetBreaker(ctld.ResetBreakerRequest())
    await root.ResetBreaker(ctld.ResetBreakerRequest(sha256="ab"))
    await root.ReleaseHold(ctld.ReleaseHoldRequest(job_ids=[next_job]))
    await nodes[2].expect(craned.RunStepRequest, next_job)


async def test_steps_of_an_allocation(site: Site) -> None:
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user()
    job_id = (await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(kind=job_pb2.JOB_KIND_ALLOCATION, num_nodes=2)))).job_ids[0]
    follow = alice.FollowJob(ctld.FollowJobRequest(job_id=job_id, bind=True))
    async for update in follow:
        if update.job.state == job_pb2.JOB_STATE_RUNNING:
            break

    request = ctld.CreateStepRequest(
        job_id=job_id, spec=job_pb2.StepSpec(argv=["true"], ntasks=3), request_id="r", overcommit=True
    )
    step = await alice.CreateStep(request)
    assert (await alice.CreateStep(request)).spec.step_id == step.spec.step_id == "0"
    assert {p.node: list(p.task_ids) for p in step.spec.placement} == {"cn01": [0, 1], "cn02": [2]}
    assert [node.address for node in step.nodes] == [first.address, second.address]
    await alice.StartStep(ctld.StartStepRequest(job_id=job_id, attempt=1, step_id="0"))
    commands = [await node.expect(craned.RunStepRequest, job_id) for node in (first, second)]
    await alice.SignalStep(ctld.SignalStepRequest(job_id=job_id, attempt=1, step_id="0", signal=10))
    assert (await first.expect(craned.SignalTasksRequest, job_id)).signal == 10
    await alice.CancelStep(ctld.CancelStepRequest(job_id=job_id, attempt=1, step_id="0", reason="enough"))
    assert (await second.expect(craned.SignalTasksRequest, job_id, 2)).terminate
    for node, command in zip((first, second), commands, strict=True):
        await node.step_ended(command, code=2)
    await alice.CompleteAllocation(ctld.CompleteAllocationRequest(job_id=job_id, exit=job_pb2.ExitStatus(code=2)))
    for node in (first, second):
        await node.release_when_told(job_id)

    async with asyncio.timeout(15):
        updates = [update async for update in follow]
    last = updates[-1]
    assert last.final
    assert (last.job.state, last.job.exit.code) == (job_pb2.JOB_STATE_FAILED, 2)


async def test_interactive_job_ends_with_its_launcher(site: Site) -> None:
    await site.start()
    await site.node("cn01")
    alice = await site.as_user()
    job_id = (await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(kind=job_pb2.JOB_KIND_RUN)))).job_ids[0]
    follow = alice.FollowJob(ctld.FollowJobRequest(job_id=job_id, bind=True))
    await follow.read()

    follow.cancel()

    async def is_ending() -> bool:
        return (await status(alice, job_id)).reason == "its launcher is gone"

    await eventually_async(is_ending, deadline_s=10)


async def test_others_see_and_touch_nothing(site: Site) -> None:
    site.extra = "AllowRootJobs: false"
    await site.start()
    alice, bob, root = await site.as_user(), await site.as_user(BOB), await site.as_user(ROOT)
    job_id = await submit(alice, uid=0, user="root", name="mine")

    assert (await status(alice, job_id)).spec.uid == 4001
    for call in (
        bob.GetJob(ctld.GetJobRequest(job_id=job_id)),
        bob.CancelJob(ctld.CancelJobRequest(job_ids=[job_id])),
        bob.CreateStep(ctld.CreateStepRequest(job_id=job_id)),
        bob.DrainNodes(ctld.DrainNodesRequest(nodes="cn01", reason="x")),
        bob.ResumeNodes(ctld.ResumeNodesRequest(nodes="cn01")),
        bob.ReleaseHold(ctld.ReleaseHoldRequest(job_ids=[job_id])),
        root.SubmitJob(ctld.SubmitJobRequest(spec=batch())),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not (await bob.ListJobs(ctld.ListJobsRequest(user="alice"))).jobs
    assert len((await root.ListJobs(ctld.ListJobsRequest(user="alice"))).jobs) == 1


async def test_full_queue_refuses_and_loses_nothing(site: Site) -> None:
    site.extra = "MaxQueuedJobs: 2"
    await site.start()
    alice = await site.as_user()
    ids = [await submit(alice), await submit(alice)]

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await submit(alice)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [job.job_id for job in (await alice.ListJobs(ctld.ListJobsRequest())).jobs] == ids


async def test_repeated_submission_and_repeated_report_count_once(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    request = ctld.SubmitJobRequest(spec=batch(), request_id="same", array="1-2")
    ids = list((await alice.SubmitJob(request)).job_ids)
    assert list((await alice.SubmitJob(request)).job_ids) == ids
    command = await node.expect(craned.RunStepRequest, ids[0])
    run = hook_run_to_wire(node.run(HookPoint.PROLOG, command.job))
    report = ctld.NodeReport(report_id=1, prolog_ended=ctld.PrologEnded(job_id=ids[0], attempt=1, run=run))
    for _ in range(3):
        await node.reports.Report(ctld.ReportRequest(node="cn01", instance="i1", reports=[report]))

    done = await status(alice, ids[0])
    assert len(done.runs) == 1
    assert (done.spec.array_job_id, done.spec.array_task_id) == (ids[0], 1)


async def test_events_of_a_kind_that_does_not_exist_are_refused(site: Site) -> None:
    await site.start()
    root = await site.as_user(ROOT)

    with pytest.raises(grpc.aio.AioRpcError, match=r"no kind of event 'bogus': expected one of submitted, .*drained"):
        [item async for item in root.WatchEvents(ctld.WatchEventsRequest(kinds=["drained", "bogus"]))]
    assert [item async for item in root.WatchEvents(ctld.WatchEventsRequest(kinds=["drained"]))] == []


async def test_node_speaks_only_for_itself(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    node.name = "cn02"

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.register()
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_failing_reload_keeps_the_old_configuration(site: Site) -> None:
    await site.start()
    alice = await site.as_user()
    before = await alice.GetCluster(ctld.GetClusterRequest())
    program = site.program
    assert program is not None
    good = site.config.read_text()
    site.config.write_text(good + "Nonsense: 1\n")
    program.process.send_signal(1)
    await eventually_async(lambda: "Nonsense" in program.log.read_text(), deadline_s=10)
    assert (await alice.GetCluster(ctld.GetClusterRequest())).config_digest == before.config_digest

    site.config.write_text(good.replace("RequeueDelay: 0.05", "RequeueDelay: 0.06"))
    program.process.send_signal(1)

    async def has_changed() -> bool:
        return (await alice.GetCluster(ctld.GetClusterRequest())).config_digest != before.config_digest

    await eventually_async(has_changed, deadline_s=10)


async def test_nodes_of_an_ordinary_user_take_that_users_jobs_only(site: Site) -> None:
    await site.start()
    for name in ("cn01", "cn02"):
        node = await site.node(name)
        await node.register(only_uid=BOB.uid)
    alice, bob = await site.as_user(), await site.as_user(BOB)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await submit(alice)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "node cn01 runs jobs of uid 4002 only, because its craned is not root" in str(refused.value.details())

    await becomes(bob, await submit(bob), job_pb2.JOB_STATE_RUNNING)
    [shown] = [node for node in (await bob.ListNodes(ctld.ListNodesRequest())).nodes if node.name == "cn01"]
    assert shown.only_uid == BOB.uid
