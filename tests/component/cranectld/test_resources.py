"""Devices that the controller gives to jobs, and what nodes tell of their use, over real gRPC and restarts."""

import asyncio

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from tests.component.cranectld.conftest import ALICE, Site, batch, becomes, status, submit
from tests.support.metrics import scrape

USED_BY_STEP = job_pb2.ResourceUsage(cpu_s=1.5, memory_peak_bytes=64 << 20, oom_kills=1)
USED_BY_JOB = job_pb2.ResourceUsage(cpu_s=2.5, memory_peak_bytes=65 << 20, oom_kills=1)


def held(share: job_pb2.NodeShare) -> dict[str, list[int]]:
    return {devices.name: list(devices.indexes) for devices in share.devices}


async def test_each_device_is_given_to_one_job_also_after_a_restart(site: Site) -> None:
    site.nodes, site.gres = "cn01", "gpu:a100:1,gpu:v100:2,nic:1"
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    first = await submit(alice, gres="gpu:v100:1")
    assert held((await node.expect(craned.RunStepRequest, first)).job.share) == {"gpu": [1]}

    assert site.program is not None
    site.program.kill()
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    second = await submit(alice, gpus="2", gres="nic")
    assert held((await node.expect(craned.RunStepRequest, second)).job.share) == {"gpu": [0, 2], "nic": [0]}
    third = await submit(alice, gres="gpu")
    assert "gres gpu:1 free" in (await status(alice, third)).reason
    assert [held(share) for share in (await status(alice, second)).shares] == [{"gpu": [0, 2], "nic": [0]}]
    assert (await alice.GetNode(ctld.GetNodeRequest(name="cn01"))).node.gres_used == "gpu:0-2 nic:0"


async def test_what_a_job_used_is_kept_shown_and_counted(site: Site) -> None:
    site.nodes = "cn01"
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice, memory_per_cpu_bytes=64 << 20, cpus_per_task=2.0)
    command = await node.expect(craned.RunStepRequest, job_id)
    assert (command.job.share.memory_bytes, command.job.spec.cpus_requested) == (128 << 20, True)
    await node.step_ended(command, 137, USED_BY_STEP)
    release = await node.expect(craned.ReleaseJobRequest, job_id)
    # A report that is repeated counts once.
    await node.released(release.job, usage=USED_BY_JOB)
    await node.released(release.job, usage=USED_BY_JOB)
    await becomes(alice, job_id, job_pb2.JOB_STATE_FAILED)

    assert site.program is not None
    metrics = await asyncio.to_thread(scrape, site.program.ready["metrics"])
    assert (metrics["crane_jobs_cpu_seconds_total"], metrics["crane_jobs_oom_kills_total"]) == (2.5, 1)
    site.program.kill()
    await site.start()
    job = await status(await site.as_user(), job_id)
    assert [(used.node, used.usage) for used in job.usage] == [("cn01", USED_BY_JOB)]
    assert [(used.node, used.usage) for used in job.steps[0].usage] == [("cn01", USED_BY_STEP)]
    [told] = [event.text for event in job.history if event.kind == "usage"]
    assert told == "used on cn01: 2.5 s of CPU, at most 65.0 MiB of memory, 1 process killed for want of memory"
    metrics = await asyncio.to_thread(scrape, site.program.ready["metrics"])
    assert metrics["crane_jobs_cpu_seconds_total"] == 0


async def test_an_external_scheduler_is_told_which_devices_its_jobs_got(site: Site) -> None:
    site.nodes, site.gres, site.extra = "cn01", "gpu:2", "Scheduler: {Kind: external}"
    await site.start()
    await site.node("cn01")
    scheduler = await site.as_scheduler()
    who = {"uid": ALICE.uid, "gid": ALICE.gid, "user": ALICE.user, "script": ""}

    async def allocate(job_id: int, **fields: object) -> job_pb2.JobStatus:
        request = ctld.AllocateJobRequest(job_id=job_id, attempt=1, nodes=["cn01"], spec=batch(**who, **fields))
        return (await scheduler.AllocateJob(request)).job

    assert [held(share) for share in (await allocate(1, gres="gpu:1")).shares] == [{"gpu": [0]}]
    assert [held(share) for share in (await allocate(2, gpus="1")).shares] == [{"gpu": [1]}]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await allocate(3, gres="gpu:1")
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "node cn01 has not 1 CPUs, gres gpu:1 free" in (refusal.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await allocate(3, exclusive=True)
    assert "no other job" in (refusal.value.details() or "")
