"""The extern step as the controller holds it: nodes are prepared for it, everybody sees it, and nobody ends it but its job."""

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from tests.component.cranectld.conftest import Site, becomes, status, submit


async def test_contain_prepares_nodes_without_any_prolog_and_its_step_is_nobodys_to_cancel(site: Site) -> None:
    site.hooks = "  PrologFlags: contain\n"
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()

    job_id = await submit(alice)
    command = await node.expect(craned.PrepareJobRequest, job_id)
    waiting = await status(alice, job_id)
    assert waiting.state == job_pb2.JOB_STATE_CONFIGURING
    assert [(step.step_id, list(step.nodes)) for step in waiting.steps] == [("extern", ["cn01"])]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await alice.CancelStep(ctld.CancelStepRequest(job_id=job_id, step_id="extern"))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cancel the job" in (refusal.value.details() or "")

    await node.prolog(command.job)
    step = await node.expect(craned.RunStepRequest, job_id)
    assert step.step.step_id == "batch"
    await node.step_ended(step)
    await node.release_when_told(job_id)
    await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)
    assert [command for command in node.told if isinstance(command, craned.RunStepRequest)] == [step]
