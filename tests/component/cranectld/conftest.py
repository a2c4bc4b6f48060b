import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import ctld_service_pb2_grpc, job_pb2
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Identity, Role, TokenMinter, create_secret, daemon_metadata, user_metadata
from tests.support.eventually import eventually_async
from tests.support.fake_craned import FakeCraned, fake_craned
from tests.support.programs import Program, running

ALICE = Identity(Role.USER, uid=4001, gid=4001, user="alice", groups=(4001,))
BOB = Identity(Role.USER, uid=4002, gid=4002, user="bob", groups=(4002,))
ROOT = Identity(Role.USER, uid=0, gid=0, user="root", groups=(0,))
SCRIPT = "#!/bin/sh\ntrue\n"


@dataclass
class Site:
    """A controller as a process, nodes as fakes, and users."""

    directory: Path
    secret: bytes
    stack: AsyncExitStack
    hooks: str = ""
    extra: str = ""
    nodes: str = "cn[01-02]"
    gres: str = ""
    requeue_delay_s: str = "0.05"
    launcher_grace_s: str = "0.3"
    program: Program | None = None

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    def write_config(self) -> None:
        self.config.write_text(
            f"""ClusterName: test
CranectldListen: 127.0.0.1:0
StateDir: {self.directory}/state
RunDir: {self.directory}/run
RequeueDelay: {self.requeue_delay_s}
HeartbeatInterval: 0.2
NodeDownTimeout: 1.5
LauncherGrace: {self.launcher_grace_s}
{self.extra}
Nodes:
  - {{name: "{self.nodes}", address: "unix:{self.directory}/{{name}}.sock", cpu: 4, memory: 4G, gres: "{self.gres}"}}
Partitions:
  - {{name: main, nodes: "{self.nodes}"}}
JobLifecycleHook:
  Prolog: /etc/crane/prolog.sh
{self.hooks}
"""
        )

    def script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    async def start(self) -> None:
        self.write_config()
        self.program = await self.stack.enter_async_context(running("cranectld", ["--config", str(self.config)], self.directory))

    @property
    def address(self) -> str:
        assert self.program is not None
        return self.program.ready["address"]

    async def node(self, name: str) -> FakeCraned:
        socket = f"{self.directory}/{name}.sock"
        return await self.stack.enter_async_context(fake_craned(name, self.secret, self.address, socket))

    async def as_user(self, who: Identity = ALICE) -> "ctld_service_pb2_grpc.ControllerServiceAsyncStub":
        token = TokenMinter(self.secret, "test").mint(who)
        channel = await self.stack.enter_async_context(open_channel(self.address, metadata=user_metadata(token)))
        return ctld_service_pb2_grpc.ControllerServiceStub(channel)

    async def as_scheduler(self) -> "ctld_service_pb2_grpc.SchedulerServiceAsyncStub":
        metadata = daemon_metadata(self.secret, Role.SCHEDULER)
        channel = await self.stack.enter_async_context(open_channel(self.address, metadata=metadata))
        return ctld_service_pb2_grpc.SchedulerServiceStub(channel)


def batch(**fields: object) -> job_pb2.JobSpec:
    values: dict[str, object] = {"kind": job_pb2.JOB_KIND_BATCH, "script": SCRIPT, "cwd": "/", "requeue": True, **fields}
    return job_pb2.JobSpec(**values)  # type: ignore[arg-type]  # any field


async def submit(controller: "ctld_service_pb2_grpc.ControllerServiceAsyncStub", **fields: object) -> int:
    answer = await controller.SubmitJob(ctld.SubmitJobRequest(spec=batch(**fields), request_id=os.urandom(8).hex()))
    return answer.job_ids[0]


async def status(controller: "ctld_service_pb2_grpc.ControllerServiceAsyncStub", job_id: int) -> job_pb2.JobStatus:
    return (await controller.GetJob(ctld.GetJobRequest(job_id=job_id))).job


async def becomes(
    controller: "ctld_service_pb2_grpc.ControllerServiceAsyncStub", job_id: int, state: "job_pb2.JobState.ValueType"
) -> job_pb2.JobStatus:
    async def is_there() -> bool:
        return (await status(controller, job_id)).state == state

    await eventually_async(is_there, deadline_s=15.0)
    return await status(controller, job_id)


@pytest.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    # Unix socket paths are short.
    directory = tmp_path_factory.mktemp("ctld")
    secret = create_secret(directory / "cluster.secret")
    async with AsyncExitStack() as stack:
        yield Site(directory, secret, stack)
