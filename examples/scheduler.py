"""An external scheduler in about a hundred lines: it hears the controller's decisions and places jobs round robin, one job per node.

    python examples/scheduler.py --address HOST:PORT --secret-file FILE --state-file FILE

The controller's configuration says `Scheduler: {Kind: external}`. README.md beside this file explains the choices made here.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2, node_pb2
from crane.hooks.v1.ctld_service_pb2_grpc import ControllerServiceStub, SchedulerServiceStub
from cranekit.hostlist import expand
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Role, daemon_metadata, read_secret

if TYPE_CHECKING:  # the generated stubs know more types than the generated code
    from crane.hooks.v1.ctld_service_pb2_grpc import SchedulerServiceAsyncStub

OVER = (ctld.DECISION_KIND_CANCEL, ctld.DECISION_KIND_FAIL, ctld.DECISION_KIND_END, ctld.DECISION_KIND_HOLD)
ATTEMPT_OVER = (*OVER, ctld.DECISION_KIND_REQUEUE)
RETRY_S = 1.0

Wish = dict[str, Any]  # as in the state file, which is JSON


class RoundRobin:
    """What the scheduler knows. All of it is in the state file, with the cursor up to which it has heard."""

    def __init__(self, file: Path) -> None:
        known = json.loads(file.read_text()) if file.exists() else {}
        self._file = file
        self.is_new = not known
        self.cursor: int = known.get("cursor", 0)
        self.waiting: dict[str, Wish] = known.get("waiting", {})
        """Jobs to place, by id, in the order they came."""
        self.placed: dict[str, list[str]] = known.get("placed", {})
        """The nodes that each running job still holds."""
        self.nodes: dict[str, list[str]] = known.get("nodes", {})
        """Nodes that take work, with their partitions; the next one to use comes first."""

    def save(self) -> None:
        """Written aside and renamed, so that a crash leaves the old state or the new one."""
        state = {"cursor": self.cursor, "waiting": self.waiting, "placed": self.placed, "nodes": self.nodes}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self._file)

    def hear(self, said: ctld.WatchDecisionsResponse) -> None:
        """One decision. Its `job` and `node` are as they are now, so that hearing an old decision again does no harm."""
        job_id = str(said.job_id)
        if said.kind in ATTEMPT_OVER:
            self.waiting.pop(job_id, None)
            self.placed.pop(job_id, None)
        if said.kind == ctld.DECISION_KIND_NODE_FREE and said.node.name in self.placed.get(job_id, ()):
            self.placed[job_id].remove(said.node.name)
        if said.HasField("node"):
            self.see_node(said.node)
        if said.HasField("job"):
            self.see_job(said.job)
        self.cursor = said.cursor
        self.save()

    def see_node(self, node: node_pb2.NodeStatus) -> None:
        if node.up and not node.drain_causes and not node.owed_epilogs:
            self.nodes[node.name] = list(node.partitions)
        else:
            self.nodes.pop(node.name, None)

    def see_job(self, job: job_pb2.JobStatus) -> None:
        """SUBMITTED, REQUEUE and RELEASED bring jobs to place; the controller refuses to place one too early, or an old attempt."""
        if job.state == job_pb2.JOB_STATE_PENDING and str(job.job_id) not in self.waiting:
            lists = {"nodelist": expand(job.spec.nodelist), "exclude": expand(job.spec.exclude)}
            wants = {"num_nodes": job.spec.num_nodes, "partition": job.spec.partition, **lists}
            when = {"attempt": job.attempt + 1, "not_before": job.not_before.ToNanoseconds() / 1e9}
            self.waiting[str(job.job_id)] = {**when, **wants}

    def choose(self, wish: Wish) -> list[str]:
        """Free nodes for a job, or none."""
        busy = {name for nodes in self.placed.values() for name in nodes}
        busy |= {name for other in self.waiting.values() for name in other.get("asked", ())}
        allowed = [name for name, partitions in self.nodes.items() if wish["partition"] in partitions]
        free = [name for name in allowed if name not in busy and name not in wish["exclude"]]
        chosen = sorted(free, key=lambda name: name not in wish["nodelist"])[: wish["num_nodes"]]
        return chosen if len(chosen) == wish["num_nodes"] and set(wish["nodelist"]) <= set(chosen) else []

    async def place(self, scheduler: "SchedulerServiceAsyncStub") -> None:
        """Places every job that can be placed now."""
        for job_id, wish in list(self.waiting.items()):
            if wish["not_before"] > time.time() or self.waiting.get(job_id) is not wish:
                continue
            nodes = wish.get("asked") or self.choose(wish)
            if not nodes:
                continue
            # What is asked for is saved first: after a crash, or without an answer, the same call is repeated. It is idempotent.
            wish["asked"] = nodes
            self.save()
            request = ctld.AllocateJobRequest(job_id=int(job_id), attempt=wish["attempt"], nodes=nodes)
            try:
                await scheduler.AllocateJob(request)
            except grpc.aio.AioRpcError as error:
                print(f"job {job_id} attempt {wish['attempt']} on {nodes}: {error.code().name}: {error.details()}", flush=True)
                wish["not_before"] = time.time() + RETRY_S
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    del wish["asked"]  # refused: other nodes, or later
                continue
            if self.waiting.get(job_id) is wish:  # not heard to be over meanwhile
                self.placed[job_id] = self.waiting.pop(job_id)["asked"]
            self.nodes |= {name: self.nodes.pop(name) for name in nodes if name in self.nodes}
            self.save()
            print(f"job {job_id} attempt {wish['attempt']} placed on {nodes}", flush=True)


async def run(address: str, secret_file: Path, state_file: Path) -> None:
    known = RoundRobin(state_file)
    heard = asyncio.Event()
    async with open_channel(address, metadata=daemon_metadata(read_secret(secret_file), Role.SCHEDULER)) as channel:
        scheduler, controller = SchedulerServiceStub(channel), ControllerServiceStub(channel)

        async def listen() -> None:
            while True:
                try:
                    if known.is_new:  # decisions of long ago are not kept: start from what is there
                        for node in (await controller.ListNodes(ctld.ListNodesRequest())).nodes:
                            known.see_node(node)
                        pending = ctld.ListJobsRequest(states=[job_pb2.JOB_STATE_PENDING])
                        for job in (await controller.ListJobs(pending)).jobs:
                            known.see_job(job)
                        known.is_new = False
                        heard.set()
                    request = ctld.WatchDecisionsRequest(after_cursor=known.cursor, accepts_submissions=True)
                    async for said in scheduler.WatchDecisions(request):
                        known.hear(said)
                        heard.set()
                except grpc.aio.AioRpcError as error:
                    print(f"controller: {error.code().name}: {error.details()}", flush=True)
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(RETRY_S)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            while True:
                heard.clear()
                await known.place(scheduler)
                soon = [wish["not_before"] - time.time() for wish in known.waiting.values() if wish["not_before"] > time.time()]
                try:
                    async with asyncio.timeout(min(soon, default=None)):
                        await heard.wait()
                except TimeoutError:
                    continue


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--address", required=True, help="of cranectld: HOST:PORT or unix:/path")
    options.add_argument("--secret-file", required=True, type=Path, help="the cluster's secret (ClusterSecretFile)")
    options.add_argument("--state-file", required=True, type=Path, help="kept over restarts; begins anew without it")
    given = options.parse_args()
    asyncio.run(run(given.address, given.secret_file, given.state_file))


if __name__ == "__main__":
    main()
