"""The example scheduler as a process of its own beside a controller and two nodes, all real."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from crane.hooks.v1.ctld_service_pb2_grpc import SchedulerServiceStub
from cranecli.hookctl.local_cluster import LocalCluster
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Role, daemon_metadata, identity_of_peer, read_secret
from tests.support.eventually import eventually, eventually_async

ROOT = Path(__file__).parents[2]

CONFIG = """ClusterName: site
Nodes:
  - {{name: 'cn[01-02]', address: 'unix:/run/crane/{{name}}.sock', cpu: 4, memory: 4G}}
Partitions:
  - {{name: main, nodes: 'cn[01-02]', default: true}}
Scheduler: {{Kind: external}}
RequeueDelay: 0.5
JobLifecycleHook:
  Prolog: {prolog}
"""


class Scheduler:
    """`examples/scheduler.py`, started and ended."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.state_file = directory / "scheduler.json"
        self.log = directory / "scheduler.log"
        self._argv = [
            sys.executable, str(ROOT / "examples" / "scheduler.py"),
            "--address", str(cluster.daemons["cranectld"].ready["address"]),
            "--secret-file", str(cluster.state_dir / "cluster.secret"),
            "--state-file", str(self.state_file),
        ]  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ended as by a crash."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
            assert process.poll() is None, self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def placements(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if " placed on " in line]


@pytest.fixture
def prolog(tmp_path: Path) -> Path:
    """Fails where a file named as the node says so."""
    script = tmp_path / "prolog.sh"
    script.write_text(f'#!/bin/sh\n[ ! -e {tmp_path}/broken.$CRANE_NODENAME ] || {{ echo "no GPU"; exit 3; }}\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def cluster(tmp_path: Path, prolog: Path) -> Iterator[LocalCluster]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(prolog=prolog))
    with LocalCluster(config=config) as cluster:
        yield cluster


def run_tool(cluster: LocalCluster, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(name))
    return subprocess.run(
        [program, *arguments], env=cluster.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def cbatch(cluster: LocalCluster, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_tool(cluster, "cbatch", "-D", str(directory), *arguments)


def job(cluster: LocalCluster, job_id: int) -> dict[str, Any]:  # JSON
    answer: dict[str, Any] = cluster.call("GetJob", {"job_id": job_id})["job"]  # JSON
    return answer


def submitted(cluster: LocalCluster, directory: Path, *arguments: str) -> int:
    """Repeats until the scheduler listens."""

    def accepted() -> subprocess.CompletedProcess[str] | None:
        result = cbatch(cluster, directory, "--parsable", *arguments)
        return result if result.returncode == 0 else None

    result = eventually(accepted, deadline_s=30)
    assert result is not None
    return int(result.stdout)


def test_cbatch_works_through_the_scheduler_and_not_without_it(cluster: LocalCluster, tmp_path: Path) -> None:
    refused = cbatch(cluster, tmp_path, "--wrap", "true")
    assert refused.returncode == 1
    assert "external scheduler" in refused.stderr
    assert "Traceback" not in refused.stderr

    scheduler = Scheduler(cluster, tmp_path)
    with scheduler.running():
        submitted(cluster, tmp_path, "--wrap", "true")
        done = cbatch(cluster, tmp_path, "--wait", "-N", "2", "-o", "out.txt", "--wrap", "echo placed by another")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out.txt").read_text() == "placed by another\n"
        last = job(cluster, 2)
        assert sorted(last["nodes"]) == ["cn01", "cn02"]
        assert cbatch(cluster, tmp_path, "--wait", "--wrap", "exit 7").returncode == 7
        interactive = run_tool(cluster, "crun", "-N", "2", "echo", "me too")
        assert (interactive.returncode, interactive.stdout) == (0, "me too\n" * 2), interactive.stderr

    def refused_again() -> bool:
        return cbatch(cluster, tmp_path, "--wrap", "true").returncode == 1

    eventually(refused_again)


def test_failing_prolog_is_requeued_on_the_other_node_by_its_word(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "broken.cn01").touch()
    (tmp_path / "broken.cn02").touch()
    scheduler = Scheduler(cluster, tmp_path)
    with scheduler.running():
        job_id = submitted(cluster, tmp_path, "--wrap", "true")
        first = eventually(lambda: [node for node in cluster.call("ListNodes")["nodes"] if node.get("drain_causes")])[0]["name"]
        other = {"cn01": "cn02", "cn02": "cn01"}[first]
        (tmp_path / f"broken.{other}").unlink()
        eventually(lambda: job(cluster, job_id)["state"] == "JOB_STATE_COMPLETED", deadline_s=30)
        assert scheduler.placements() == [
            f"job {job_id} attempt 1 placed on ['{first}']",
            f"job {job_id} attempt 2 placed on ['{other}']",
        ]


def test_restarted_in_the_middle_it_resumes_and_places_nothing_twice(cluster: LocalCluster, tmp_path: Path) -> None:
    scheduler = Scheduler(cluster, tmp_path)
    gate = tmp_path / "gate"
    wait_for_gate = f"until [ -e {gate} ]; do sleep 0.05; done"
    with scheduler.running():
        ids = [submitted(cluster, tmp_path, "--wrap", wait_for_gate) for _ in range(4)]
        eventually(lambda: len(scheduler.placements()) == 2)
    state = json.loads(scheduler.state_file.read_text())
    assert sorted(state["placed"]) == [str(job_id) for job_id in ids[:2]]
    # While nobody listens, both jobs end; their nodes are free by decisions that are heard later.
    gate.touch()
    eventually(lambda: all(job(cluster, job_id)["state"] == "JOB_STATE_COMPLETED" for job_id in ids[:2]), deadline_s=30)
    assert job(cluster, ids[2])["state"] == "JOB_STATE_PENDING"

    with scheduler.running():
        eventually(lambda: all(job(cluster, job_id)["state"] == "JOB_STATE_COMPLETED" for job_id in ids), deadline_s=30)
        placed = [line.split()[1] for line in scheduler.placements()]
        assert sorted(placed) == [str(job_id) for job_id in ids]
        cluster.kill("cranectld")
        cluster.restart("cranectld")
        cluster.wait_until_up()
        last = submitted(cluster, tmp_path, "--wrap", "true")
        eventually(lambda: job(cluster, last)["state"] == "JOB_STATE_COMPLETED", deadline_s=30)
    assert all(job(cluster, job_id)["attempt"] == 1 for job_id in ids)


def test_cancelled_and_held_jobs_are_left_alone_until_released(cluster: LocalCluster, tmp_path: Path) -> None:
    scheduler = Scheduler(cluster, tmp_path)
    with scheduler.running():
        cluster.call("DrainNodes", {"nodes": "cn[01-02]", "reason": "not yet"})
        ids = [submitted(cluster, tmp_path, "--wrap", "true") for _ in range(2)]
        cluster.call("CancelJob", {"job_ids": ids[:1]})
        cluster.call("ResumeNodes", {"nodes": "cn[01-02]"})
        eventually(lambda: job(cluster, ids[1])["state"] == "JOB_STATE_COMPLETED", deadline_s=30)
        assert job(cluster, ids[0])["state"] == "JOB_STATE_CANCELLED"
        assert [line.split()[1] for line in scheduler.placements()] == [str(ids[1])]


async def test_job_of_the_schedulers_own_runs_its_steps(cluster: LocalCluster, tmp_path: Path) -> None:
    me = identity_of_peer(os.geteuid(), os.getegid())
    secret = read_secret(cluster.state_dir / "cluster.secret")
    address = str(cluster.daemons["cranectld"].ready["address"])
    async with open_channel(address, metadata=daemon_metadata(secret, Role.SCHEDULER)) as channel:
        scheduler = SchedulerServiceStub(channel)
        spec = job_pb2.JobSpec(
            kind=job_pb2.JOB_KIND_BATCH, uid=me.uid, gid=me.gid, user=me.user, groups=me.groups, cwd=str(tmp_path)
        )
        await scheduler.AllocateJob(ctld.AllocateJobRequest(job_id=41, attempt=1, spec=spec, nodes=["cn02", "cn01"]))
        decisions = scheduler.WatchDecisions(ctld.WatchDecisionsRequest())

        async def decided(kind: "ctld.DecisionKind.ValueType") -> ctld.WatchDecisionsResponse:
            async for said in decisions:
                if said.job_id == 41 and said.kind == kind:
                    return said
            raise AssertionError(kind)

        async def start(step_id: str, script: str) -> None:
            step = job_pb2.StepSpec(step_id=step_id, argv=["/bin/sh", "-c", script])
            await scheduler.StartJobStep(ctld.StartJobStepRequest(job_id=41, attempt=1, spec=step))

        await decided(ctld.DECISION_KIND_RUN)
        await start("0", 'echo "$CRANE_NODENAME" > task.$CRANE_PROCID')
        ended = await decided(ctld.DECISION_KIND_STEP_ENDED)
        assert (ended.step.step_id, ended.step.exit.code, ended.step.reason) == ("0", 0, "")
        assert [(tmp_path / f"task.{rank}").read_text().strip() for rank in (0, 1)] == ["cn02", "cn01"]

        await start("1", "trap 'exit 9' USR1; touch ready.$CRANE_PROCID; while :; do sleep 0.05; done")
        await eventually_async(lambda: all((tmp_path / f"ready.{rank}").exists() for rank in (0, 1)))
        await scheduler.SignalJobStep(ctld.SignalJobStepRequest(job_id=41, attempt=1, step_id="1", signal=10))
        ended = await decided(ctld.DECISION_KIND_STEP_ENDED)
        assert (ended.step.step_id, ended.step.exit.code) == ("1", 9)

        await scheduler.ReleaseAllocation(ctld.ReleaseAllocationRequest(job_id=41, attempt=1))
        end = await decided(ctld.DECISION_KIND_END)
        assert end.job.state == job_pb2.JOB_STATE_COMPLETED
        decisions.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await scheduler.AllocateJob(ctld.AllocateJobRequest(job_id=41, attempt=2, spec=spec, nodes=["cn02", "cn01"]))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
