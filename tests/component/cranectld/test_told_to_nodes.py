"""What the controller tells nodes of a job besides its spec: who holds what, which array, and how its steps ended."""

import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from cranekit.rpc.credentials import Identity, Role
from tests.component.cranectld.conftest import Site, batch, becomes, submit
from tests.support.eventually import eventually_async

ALICE = Identity(Role.USER, uid=4001, gid=100, user="alice", groups=(100,), group="users")


async def test_the_layout_the_group_and_the_array(site: Site) -> None:
    site.nodes = "cn[01-02]"
    await site.start()
    first, _ = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user(ALICE)
    # The group is the caller's, whatever the request says.
    spec = batch(num_nodes=2, ntasks=3, group="wheel")
    answer = await alice.SubmitJob(ctld.SubmitJobRequest(spec=spec, request_id="a", array="8,2-4:2"))
    command = await first.expect(craned.RunStepRequest, answer.job_ids[0])
    job = command.job
    assert job.spec.group == "users"
    assert (job.spec.array_task_id, job.spec.array_job_id) == (8, answer.job_ids[0])
    bounds = job.spec.array
    assert (bounds.count, bounds.first, bounds.last, bounds.step) == (3, 2, 8, 1)
    assert [(part.nodes, part.ntasks, part.cpus) for part in job.layout] == [(1, 2, 2.0), (1, 1, 1.0)]


async def test_a_job_that_is_no_array_has_no_bounds(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    command = await node.expect(craned.RunStepRequest, await submit(await site.as_user()))
    assert not command.job.spec.HasField("array")


@pytest.mark.parametrize("is_lost", [False, True])
async def test_the_highest_end_of_the_steps_comes_with_the_release(site: Site, is_lost: bool) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice, kind=job_pb2.JOB_KIND_ALLOCATION, script="")
    await becomes(alice, job_id, job_pb2.JOB_STATE_RUNNING)
    for number, code in enumerate((2, 5, 0)):
        await alice.CreateStep(ctld.CreateStepRequest(job_id=job_id, spec=job_pb2.StepSpec(argv=["true"], ntasks=1)))
        await alice.StartStep(ctld.StartStepRequest(job_id=job_id, attempt=1, step_id=str(number)))
        command = await node.expect(craned.RunStepRequest, job_id, number + 1)
        if number == 0:
            await node.prolog(command.job)
        await node.step_ended(command, code=code)
    if is_lost:
        # Silent for longer than NodeDownTimeout, it owes the Epilog, and is told with it when it is back.
        async def is_down() -> bool:
            return not (await alice.ListNodes(ctld.ListNodesRequest())).nodes[0].up

        await eventually_async(is_down, deadline_s=15.0)
        await node.register()
    else:
        await alice.CompleteAllocation(ctld.CompleteAllocationRequest(job_id=job_id, exit=job_pb2.ExitStatus(code=1)))
    release = await node.expect(craned.ReleaseJobRequest, job_id)
    assert (release.derived_exit.code, release.derived_exit.signal) == (5, 0)
    assert release.exit.code == (0 if is_lost else 1)
