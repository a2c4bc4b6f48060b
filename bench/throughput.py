"""How many batch jobs and steps a second, and what CPU time each costs in all programs and scripts together."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.clusters import ALL_HOOKS, TASK_HOOKS, CraneSide, Shape, Side, sides
from bench.figures import Figure, Scale, single
from bench.latency import steps_in_an_allocation
from bench.timing import cpu_count, seconds_of
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import ctld_service_pb2_grpc, job_pb2
from cranehooks.settings import load
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import TokenMinter, identity_of_peer, read_secret, user_metadata

_ON = "durable store and journal, cgroups"
_SUBMITTING_AT_ONCE = 16
_STEPS_AT_ONCE = 8


@dataclass(slots=True)
class Rate:
    """Of jobs: how many a second, and the CPU time of each."""

    jobs: int
    seconds: float = 0.0
    cpu_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds

    @property
    def cpu_ms_per_job(self) -> float | None:
        return sum(self.cpu_s) * 1e3 / self.jobs if self.cpu_s else None


def figures(scale: Scale) -> list[Figure]:
    found: list[Figure] = []
    for title, shape in (
        ("64 at a time on one node", Shape(cpus=64, hooks=tuple(ALL_HOOKS))),
        ("4 nodes × 16", Shape(nodes=4, cpus=16, hooks=tuple(ALL_HOOKS))),
    ):
        with sides(shape) as (ours, theirs):
            rates = {"gRPC client": _submitted_by_grpc(ours, scale.jobs), "cbatch": _submitted_by_command(ours, scale.jobs)}
            sbatch = None if theirs is None else _submitted_by_command(theirs, scale.jobs)
        for how, rate in rates.items():
            _tell(found, f"batch jobs, {title}, {how}", rate, sbatch)
        if sbatch is not None:
            _tell(found, f"batch jobs, {title}, sbatch", sbatch, None)
    with sides(Shape(hooks=tuple(TASK_HOOKS))) as (ours, theirs):
        up: list[Side] = [side for side in (ours, theirs) if side is not None]
        seconds = [steps_in_an_allocation(side, scale.steps, _STEPS_AT_ONCE)[0] for side in up]
    for side, taken in zip(up, seconds, strict=True):
        found.append(single(f"steps, {_STEPS_AT_ONCE} at a time, {side.name}", scale.steps / taken, "/s"))
    if len(seconds) > 1:
        found.append(single("steps, 8 at a time, here to Slurm", seconds[1] / seconds[0], "×", at_least=2.0, note=_ON))
    return found


def _tell(found: list[Figure], name: str, rate: Rate, theirs: Rate | None) -> None:
    found.append(single(name, rate.per_second, "/s", note=f"{cpu_count()} cores"))
    if rate.cpu_ms_per_job is not None:
        found.append(single(f"{name}, CPU per job", rate.cpu_ms_per_job, "ms"))
    if theirs is None:
        return
    found.append(single(f"{name}, here to Slurm", rate.per_second / theirs.per_second, "×", at_least=2.0, note=_ON))
    if rate.cpu_ms_per_job is not None and theirs.cpu_ms_per_job:
        share = rate.cpu_ms_per_job / theirs.cpu_ms_per_job
        found.append(single(f"{name}, CPU per job, here to Slurm", share, "×", at_most=0.6, note=_ON))


@contextmanager
def _measured(side: Side, jobs: int) -> Iterator[Rate]:
    rate = Rate(jobs)
    before, start = side.account.cpu_s, time.perf_counter()
    with side.account:
        yield rate
        side.wait_until_idle()
    rate.seconds = time.perf_counter() - start
    after = side.account.cpu_s
    if before is not None and after is not None:
        rate.cpu_s.append(after - before)


def _submitted_by_command(side: Side, jobs: int) -> Rate:
    """One command per job, two at a time: more would only measure how processes start."""
    script = side.directory / "job.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    argv = side.command("sbatch", "--output=/dev/null", str(script))
    with _measured(side, jobs) as rate, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: seconds_of(argv, side.env), range(jobs)))
    return rate


def _submitted_by_grpc(side: CraneSide, jobs: int) -> Rate:
    with _measured(side, jobs) as rate:
        asyncio.run(_submit(side, jobs))
    return rate


async def _submit(side: CraneSide, jobs: int) -> None:
    """All of them through one channel."""
    settings = load(side.cluster.config_file)
    minter = TokenMinter(read_secret(Path(settings.cluster_secret_file)), settings.cluster_name)
    metadata = user_metadata(minter.mint(identity_of_peer(0, 0)))
    spec = job_pb2.JobSpec(
        kind=job_pb2.JOB_KIND_BATCH, script="#!/bin/sh\nexit 0\n", cwd="/tmp", stdout_path="/dev/null", requeue=True
    )
    address = str(side.cluster.daemons["cranectld"].ready["address"])
    slots = asyncio.Semaphore(_SUBMITTING_AT_ONCE)
    async with open_channel(address, metadata=metadata) as channel, asyncio.TaskGroup() as tasks:
        stub: ctld_service_pb2_grpc.ControllerServiceAsyncStub = ctld_service_pb2_grpc.ControllerServiceStub(channel)

        async def one() -> None:
            async with slots:
                await stub.SubmitJob(ctld.SubmitJobRequest(spec=spec, request_id=uuid.uuid4().hex))

        for _ in range(jobs):
            tasks.create_task(one())
