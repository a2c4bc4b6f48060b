"""The memory of the programs' own (PSS): a controller with many nodes and jobs, an idle node daemon, a supervisor."""

import asyncio
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.clusters import CraneSide, Shape, sides
from bench.figures import Figure, Scale, single
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import ctld_service_pb2_grpc, job_pb2
from cranecli.hookctl.local_daemons import program_path
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import TokenMinter, create_secret, identity_of_peer, user_metadata
from tests.support.eventually import eventually

_MIB = 1 << 20


def figures(scale: Scale) -> list[Figure]:
    found = [_controller(scale)]
    with sides(Shape()) as (ours, _):
        node = ours.cluster.daemons["cn01"].pid
        idle = pss_bytes(family_of(node))
        found.append(single("idle craned with its helpers, PSS", idle / _MIB, "MiB", at_most=60))
        found.append(_supervisor(ours, node))
    return found


def _supervisor(side: CraneSide, node: int) -> Figure:
    before = set(family_of(node))
    script = side.directory / "job.sh"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    subprocess.run(side.command("sbatch", "--output=/dev/null", str(script)), env=side.env, check=True, stdout=subprocess.DEVNULL)
    new: set[int] = set()

    def sleeps() -> bool:
        new.clear()
        new.update(set(family_of(node)) - before)
        return any(_name_of(pid) == "sleep" for pid in new)

    eventually(sleeps, deadline_s=30)
    supervisors = [pid for pid in new if _name_of(pid) not in {"sleep", "sh"}]
    assert len(supervisors) == 1, f"{len(supervisors)} processes besides the job's own"
    return single("one supervisor, PSS", pss_bytes(supervisors) / _MIB, "MiB", at_most=8)


def _controller(scale: Scale) -> Figure:
    """With nodes that never come up, so that all jobs wait."""
    with tempfile.TemporaryDirectory(prefix="crane-bench-") as name:
        directory = Path(name)
        secret = create_secret(directory / "secret")
        config = directory / "config.yaml"
        config.write_text(
            f"ClusterName: bench\nControlMachine: localhost\nControlAddress: unix:{directory}/ctld.sock\n"
            f"ClusterSecretFile: {directory}/secret\nStateDir: {directory}/state\nRunDir: {directory}/run\nAllowRootJobs: true\n"
            f"Nodes:\n  - name: cn[0001-{scale.nodes:04d}]\n    cpu: 64\n    memory: 256G\n    address: unix:{directory}/{{name}}.sock\n"
            f"Partitions:\n  - name: main\n    nodes: cn[0001-{scale.nodes:04d}]\n"
        )
        with _running(directory, config) as (pid, address):
            metadata = user_metadata(TokenMinter(secret, "bench").mint(identity_of_peer(os.getuid(), os.getgid())))
            asyncio.run(_fill(address, metadata, scale.waiting_jobs))
            used = pss_bytes(family_of(pid))
    title = f"cranectld with {scale.nodes:,} nodes and {scale.waiting_jobs:,} jobs, PSS"
    return single(title, used / _MIB, "MiB", at_most=300)


@contextmanager
def _running(directory: Path, config: Path) -> Iterator[tuple[int, str]]:
    ready = directory / "ready.json"
    log = (directory / "cranectld.log").open("wb")
    process = subprocess.Popen(
        [program_path("cranectld"), "--config", str(config), "--ready-file", str(ready)], stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, (directory / "cranectld.log").read_text()
            assert time.monotonic() < deadline, "cranectld is not ready"
            time.sleep(0.02)
        yield process.pid, str(json.loads(ready.read_text())["address"])
    finally:
        process.terminate()
        process.wait(60)
        log.close()


async def _fill(address: str, metadata: tuple[tuple[str, str], ...], jobs: int) -> None:
    environment = {f"VARIABLE_{number}": "x" * 40 for number in range(30)}
    spec = job_pb2.JobSpec(
        kind=job_pb2.JOB_KIND_BATCH, script="#!/bin/sh\nexit 0\n", cwd="/tmp", requeue=True, environment=environment
    )
    slots = asyncio.Semaphore(16)
    async with open_channel(address, metadata=metadata) as channel, asyncio.TaskGroup() as tasks:
        stub: ctld_service_pb2_grpc.ControllerServiceAsyncStub = ctld_service_pb2_grpc.ControllerServiceStub(channel)

        async def one() -> None:
            async with slots:
                await stub.SubmitJob(ctld.SubmitJobRequest(spec=spec, request_id=uuid.uuid4().hex))

        for _ in range(jobs):
            tasks.create_task(one())


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: shared pages count by their share."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def family_of(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
