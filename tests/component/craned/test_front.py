"""Front ends at the node's socket, launchers on their steps, and what happens when supervisors and users are not there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as pb
from crane.hooks.v1 import craned_service_pb2_grpc
from cranehooks.model.ids import BATCH_STEP
from cranehooks.model.job import JobOnNode, StdioMode
from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.frames import DataFrame, JsonFrame
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Identity, Role, TokenMinter, read_secret, user_metadata
from tests.component.craned.conftest import NODE, Site, controlled, node_of
from tests.support.eventually import eventually_async
from tests.support.fake_controller import own_job, own_step
from tests.support.metrics import scrape
from tests.support.programs import running

pytestmark = pytest.mark.may_leak("gRPC keeps threads of its own")


class Front:
    """One front end's connection."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream

    async def ask(self, call_id: int, method: str, body: dict[str, Any]) -> None:
        await self.stream.send(frames.encode_json({"id": call_id, "method": method, "body": body}))

    async def next(self) -> frames.Frame:
        async with asyncio.timeout(20):
            frame = await self.stream.recv()
        assert frame is not None
        return frame

    async def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        await self.ask(1, method, body)
        frame = await self.next()
        assert isinstance(frame, JsonFrame)
        return frame.value


@asynccontextmanager
async def front_of(path: Path) -> AsyncIterator[Front]:
    stream = FrameStream(*await asyncio.open_unix_connection(path))
    try:
        yield Front(stream)
    finally:
        await stream.close()


def attachment(site: Site, job: JobOnNode, step_id: str) -> dict[str, Any]:
    nodes = [{"node": NODE, "address": site.node_address}]
    return {"job_id": str(job.job_id), "attempt": job.attempt, "step_id": step_id, "nodes": nodes}


async def collected(front: Front) -> tuple[dict[int, bytes], list[dict[str, Any]]]:
    """Output by channel, and the items, up to the end."""
    output: dict[int, bytes] = {1: b"", 2: b""}
    items: list[dict[str, Any]] = []
    while True:
        frame = await front.next()
        if isinstance(frame, DataFrame):
            output[frame.channel] += frame.data
        elif isinstance(frame, JsonFrame):
            assert "error" not in frame.value, frame
            if frame.value.get("end"):
                return output, items
            items.append(frame.value["item"])


async def test_calls_are_relayed_with_the_identity_of_the_peer(site: Site) -> None:
    site.hook("CrunProlog", "crun_prolog.sh")
    async with node_of(site), front_of(site.front_socket) as front:
        assert (await front.call("GetCluster", {}))["ok"]["name"] == f"user {os.geteuid()}"
        assert (await front.call("GetJob", {"job_id": "5"}))["error"]["code"] == "NOT_FOUND"
        assert (await front.call("Nonsense", {}))["error"]["code"] == "UNIMPLEMENTED"
        hooks = (await front.call("LaunchHooks", {}))["ok"]
        assert (hooks["node"], hooks["cluster"]) == (NODE, "test")
        assert hooks["grace_s"] == 5.0
        assert hooks["crun_prolog"] == {"patterns": [str(site.directory / "scripts/crun_prolog.sh")], "timeout_s": None}
        await front.ask(2, "WatchEvents", {"after_cursor": "3"})
        answers = [(await front.next()).value for _ in range(4)]  # type: ignore[union-attr]  # JSON each
        assert [answer["item"]["event"]["cursor"] for answer in answers[:3]] == ["4", "5", "6"]
        assert answers[3] == {"id": 2, "end": True}


async def test_a_launcher_that_comes_before_its_step_gets_notice_output_and_end(site: Site) -> None:
    go = site.directory / "go"
    site.hook("Prolog", "prolog.sh", f"while ! test -e {go}; do sleep 0.05; done")
    async with node_of(site) as node, front_of(site.front_socket) as front:
        job = own_job(40, NODE)
        await front.ask(1, "AttachStep", attachment(site, job, "0"))
        program = ("/bin/sh", "-c", "cat; echo oops >&2; exit 3")
        await node.commands.run_step(job, own_step("0", NODE, *program, stdio=StdioMode.ATTACHED))
        frame = await front.next()
        assert frame == JsonFrame({"id": 1, "item": {"notice": f"waiting for Prolog on {NODE}"}})
        go.touch()
        await front.stream.send(frames.encode_data(0, 0, b"hello\n"))
        await front.stream.send(frames.encode_data(0, 0, b""))
        output, items = await collected(front)
        assert output == {1: b"hello\n", 2: b"oops\n"}
        [ended] = [item["node_ended"] for item in items if "node_ended" in item]
        assert ended["tasks"] == [{"task_id": 0, "exit": {"code": 3, "signal": 0}, "cancelled": False, "reason": ""}]
        assert sum(item.get("stdin_credit", 0) for item in items) == 6


async def test_more_output_than_any_window_arrives_whole_and_in_order(site: Site) -> None:
    async with node_of(site) as node, front_of(site.front_socket) as front:
        job = own_job(41, NODE)
        await front.ask(1, "AttachStep", attachment(site, job, "0"))
        step = own_step("0", NODE, "/bin/sh", "-c", "seq 1 300000", stdio=StdioMode.ATTACHED)
        await node.commands.run_step(job, step)
        output, _ = await collected(front)
        assert output[1] == b"".join(b"%d\n" % number for number in range(1, 300001))


async def test_a_launcher_that_comes_after_the_end_is_told_so(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "exit 1")
    async with node_of(site) as node, front_of(site.front_socket) as front:
        job = own_job(42, NODE)
        await node.commands.run_step(job, own_step("0", NODE, "/bin/true", stdio=StdioMode.ATTACHED))
        await node.controller.expect("step_ended", 42)
        await front.ask(1, "AttachStep", attachment(site, job, "0"))
        _, items = await collected(front)
        assert "prolog.sh exit 1" in items[0]["node_ended"]["reason"]


async def test_another_users_step_cannot_be_joined(site: Site) -> None:
    async with node_of(site) as node:
        job = own_job(43, NODE)
        step = own_step("0", NODE, "/bin/sleep", "30", stdio=StdioMode.ATTACHED)
        await node.commands.run_step(job, step)
        secret = read_secret(site.directory / "cluster.secret")
        token = TokenMinter(secret, "test").mint(Identity(Role.USER, uid=os.geteuid() + 1, gid=1, user="mallory"))
        async with open_channel(site.node_address, metadata=user_metadata(token)) as channel:
            call = craned_service_pb2_grpc.StepStdioServiceStub(channel).AttachStep()
            await call.write(pb.AttachStepRequest(hello=pb.AttachHello(job_id=43, attempt=1, step_id="0")))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await node.commands.release(job)
        await node.controller.expect("job_released", 43)


async def test_a_step_ends_when_its_launcher_is_gone(site: Site) -> None:
    async with node_of(site) as node:
        job = own_job(44, NODE)
        await node.commands.run_step(job, own_step("0", NODE, "/bin/sleep", "60", stdio=StdioMode.ATTACHED))
        async with front_of(site.front_socket) as front:
            await front.ask(1, "AttachStep", attachment(site, job, "0"))
            await node.controller.expect("step_started", 44)
        ended = await node.controller.expect("step_ended", 44)
        assert ended.reason == "launcher gone"


def processes_with(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def supervisor_of(task: int) -> int:
    return int(Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[1])


async def test_when_a_supervisor_dies_its_step_ends_and_nothing_of_it_lives_on(site: Site) -> None:
    site.hook("Epilog", "epilog.sh")
    async with node_of(site) as node:
        job = own_job(45, NODE)
        mark = f"7{os.getpid()}"
        await node.commands.run_step(job, own_step("0", NODE, "/bin/sleep", mark))
        await node.controller.expect("step_started", 45)
        await eventually_async(lambda: processes_with(mark))
        os.kill(supervisor_of(processes_with(mark)[0]), signal.SIGKILL)
        ended = await node.controller.expect("step_ended", 45)
        assert ended.reason == "supervisor died"
        assert processes_with(mark) == []
        await node.commands.release(job)
        await node.controller.expect("job_released", 45)


async def test_what_dead_supervisors_left_on_disk_is_removed(site: Site) -> None:
    stale = site.directory / "run" / "steps" / "job_99.1"
    stale.mkdir(parents=True)
    (stale / "script").touch()
    mark = f"8{os.getpid()}"
    job = own_job(46, NODE, script=f"#!/bin/sh\nexec /bin/sleep {mark}\n", cwd=str(site.directory))
    async with controlled(site) as node:
        async with site.daemon() as program:
            assert not stale.exists()
            await node.commands.run_step(job, own_step(BATCH_STEP, NODE))
            await node.controller.expect("step_started", 46)
            await eventually_async(lambda: processes_with(mark))
            program.kill()
        async with site.daemon():
            # Its script may be needed yet.
            [left] = stale.parent.iterdir()
            assert left.name == "job_46.1"
            os.kill(supervisor_of(processes_with(mark)[0]), signal.SIGKILL)
            await node.controller.expect("step_ended", 46)
            await node.commands.release(job)
            await node.controller.expect("job_released", 46)
            assert not left.exists()


async def test_a_user_who_cannot_run_here_ends_the_step_and_not_the_prolog(site: Site) -> None:
    site.hook("Prolog", "prolog.sh")
    async with node_of(site) as node:
        job = own_job(46, NODE)
        stranger = replace(job, spec=replace(job.spec, uid=4_000_000_123, user="nobody-knows"))
        await node.commands.run_step(stranger, own_step("0", NODE, "/bin/true"))
        ended = await node.controller.expect("step_ended", 46)
        assert ended.tasks[0].cancelled
        assert "nobody-knows" in ended.reason
        assert node.controller.kinds(46) == ["prolog_ended", "step_ended"]


async def test_a_login_host_serves_front_ends_and_no_jobs(site: Site) -> None:
    async with controlled(site), running("craned", ["--config", str(site.config), "--login"], site.directory) as program:
        assert (program.ready["node"], program.ready["address"]) == ("", "")
        assert program.ready["front_socket"] == str(site.front_socket)
        async with front_of(site.front_socket) as front:
            assert (await front.call("GetCluster", {}))["ok"]["name"] == f"user {os.geteuid()}"
            assert (await front.call("LaunchHooks", {}))["ok"]["node"] == ""
        metrics = await asyncio.to_thread(scrape, program.ready["metrics"])
        assert metrics['crane_front_handled_total{code="OK",method="GetCluster"}'] == 1
