"""What the controller makes of hooks that run elsewhere: a launcher that gives up after its Prolog, a node's hooks around tasks."""

from dataclasses import replace

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from cranehooks.model.ids import NodeName, StepId, TaskId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.wire import hook_run_to_wire
from tests.component.cranectld.conftest import ROOT, Site, batch, becomes, submit
from tests.support.fake_craned import FakeCraned

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)


@pytest.mark.parametrize("failed", [False, True])
async def test_launcher_whose_prolog_failed_says_whether_job_and_step_failed_or_are_cancelled(site: Site, failed: bool) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    job_id = (await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(kind=job_pb2.JOB_KIND_RUN, script="")))).job_ids[0]
    follow = alice.FollowJob(ctld.FollowJobRequest(job_id=job_id, bind=True))
    async for update in follow:
        if update.job.state == job_pb2.JOB_STATE_RUNNING:
            break
    await alice.CreateStep(ctld.CreateStepRequest(job_id=job_id, spec=job_pb2.StepSpec(argv=["true"], ntasks=1), request_id="r"))
    reason = "CrunProlog setup.sh exit 3"
    await alice.CancelStep(ctld.CancelStepRequest(job_id=job_id, attempt=1, step_id="0", reason=reason, failed=failed))
    request = ctld.CompleteAllocationRequest(job_id=job_id, exit=job_pb2.ExitStatus(code=1))
    with pytest.raises(grpc.aio.AioRpcError, match="cancelled or fails, not both"):
        await alice.CompleteAllocation(ctld.CompleteAllocationRequest(job_id=job_id, fail_reason="a", cancel_reason="b"))
    with pytest.raises(grpc.aio.AioRpcError, match="fail_reason with exit 0"):
        await alice.CompleteAllocation(ctld.CompleteAllocationRequest(job_id=job_id, fail_reason="a"))
    if failed:
        request.fail_reason = reason
    else:
        request.cancel_reason = reason
    await alice.CompleteAllocation(request)
    await node.release_when_told(job_id)

    job = await becomes(alice, job_id, job_pb2.JOB_STATE_FAILED if failed else job_pb2.JOB_STATE_CANCELLED)
    assert (job.reason, job.exit.code, job.exit.signal) == (reason, 1 if failed else 0, 0 if failed else 15)
    (step,) = job.steps
    assert (step.cancelled, step.reason, step.exit.code) == (not failed, reason, 1)
    fate = "failed" if failed else "cancelled"
    assert f"step 0 {fate}, never sent: {reason}" in [event.text for event in job.history]
    assert not any(isinstance(command, craned.RunStepRequest) for command in node.told)


async def report_task_epilog(node: FakeCraned, job: job_pb2.JobOnNode, outcome: Outcome, *, about: str = "") -> None:
    run = node.run(HookPoint.TASK_EPILOG, job, outcome, "scratch is busy")
    key = replace(run.key, step_id=StepId("batch"), task_id=TaskId(0), node=NodeName(about or node.name))
    await node.report(hook_ended=ctld.HookEnded(run=hook_run_to_wire(replace(run, key=key))))


@pytest.mark.parametrize(
    ("word", "outcome", "drained"),
    [
        ("log", EXIT_3, False),
        ("drain", EXIT_3, True),
        # Something of it is still there: the node is not clean, whatever the site says.
        ("log", Outcome(OutcomeKind.UNKILLABLE), True),
    ],
)
async def test_failing_task_epilog_drains_its_node_where_the_site_wants_it(
    site: Site, word: str, outcome: Outcome, drained: bool
) -> None:
    site.hooks = f"  OnTaskEpilogFailure: {word}"
    await site.start()
    node = await site.node("cn01")
    await site.node("cn02")
    alice, root = await site.as_user(), await site.as_user(ROOT)
    job_id = await submit(alice, nodelist="cn01")
    command = await node.expect(craned.RunStepRequest, job_id)
    await report_task_epilog(node, command.job, outcome)
    await report_task_epilog(node, command.job, outcome)
    await node.step_ended(command)
    await node.release_when_told(job_id)

    assert (await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)).exit.code == 0
    causes = (await root.GetNode(ctld.GetNodeRequest(name="cn01"))).node.drain_causes
    expected = f"task epilog task_epilog.sh {outcome} (job {job_id}, attempt 1): scratch is busy"
    assert [cause.reason for cause in causes] == ([expected] if drained else [])


async def test_node_cannot_drain_another_by_its_reports(site: Site) -> None:
    site.hooks = "  OnTaskEpilogFailure: drain"
    await site.start()
    node = await site.node("cn01")
    await site.node("cn02")
    alice, root = await site.as_user(), await site.as_user(ROOT)
    job_id = await submit(alice, nodelist="cn01")
    command = await node.expect(craned.RunStepRequest, job_id)
    await report_task_epilog(node, command.job, EXIT_3, about="cn02")

    for name in ("cn01", "cn02"):
        assert not (await root.GetNode(ctld.GetNodeRequest(name=name))).node.drain_causes
