"""A node daemon killed at moments that nobody chose: every hook runs at most once per boot, and every job is released."""

import asyncio
import random
from collections import Counter

import grpc
import pytest

from cranehooks.model.ids import BATCH_STEP
from cranehooks.model.job import JobOnNode
from tests.component.craned.conftest import NODE, Node, Site, controlled
from tests.support.fake_controller import own_job, own_step

pytestmark = pytest.mark.may_leak("gRPC keeps threads of its own")


async def insist(job: JobOnNode, node: Node, kind: str) -> None:
    """As a controller does: asks again until the report comes."""
    while not node.controller.of_kind(kind, job.job_id):
        try:
            if kind == "step_ended":
                await node.commands.run_step(job, own_step(BATCH_STEP, NODE))
            else:
                await node.commands.release(job)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
        await asyncio.sleep(0.2)


async def live(job: JobOnNode, node: Node) -> None:
    await insist(job, node, "step_ended")
    await insist(job, node, "job_released")


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_any_moment(site: Site, seed: int) -> None:
    moments = random.Random(seed)
    site.hook("Prolog", "prolog.sh", "sleep 0.05")
    site.hook("TaskProlog", "task_prolog.sh")
    site.hook("Epilog", "epilog.sh", "sleep 0.05")
    jobs = [own_job(number, NODE, script="#!/bin/sh\nsleep 0.05\n", cwd=str(site.directory)) for number in range(100, 112)]
    async with controlled(site) as node, asyncio.TaskGroup() as group:
        lives = [group.create_task(live(job, node)) for job in jobs]
        for _ in range(4):
            async with site.daemon() as program:
                await asyncio.sleep(moments.uniform(0.0, 0.6))
                program.kill()
        async with site.daemon(), asyncio.timeout(60):
            for each in lives:
                await each
    times = Counter(site.runs())
    assert max(times.values()) == 1, times
    for job in jobs:
        assert node.controller.of_kind("job_released", job.job_id)
        assert node.controller.of_kind("prolog_ended", job.job_id)
        epilog = node.controller.of_kind("job_released", job.job_id)[0].epilog
        assert epilog.scripts or epilog.outcome.kind
