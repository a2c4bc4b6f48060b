"""Supervisors' connections, and what craned makes of what they say, with a peer that the test plays."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crane.hooks.v1 import craned_service_pb2 as stdio_pb
from crane.hooks.v1 import job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb
from craned.attempts.events import ProcessesGone, StepEnded
from craned.crew import Crew
from craned.steps.driver import ActiveStep, StepRefusedError, Steps
from craned.steps.files import StepFiles
from craned.steps.supervisors import Nonces, supervisor_handler
from cranehooks.model.ids import BATCH_STEP, StepKey
from cranehooks.model.job import JobOnNode, StepSpec
from cranehooks.model.limits import Usage
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, HookSettings
from cranehooks.wire import hook_run_to_wire
from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.local_socket import serve_local
from tests.support.eventually import eventually_async
from tests.unit.craned.test_attempt import KEY, NODE, STEP_0, a_run
from tests.unit.craned.test_recovery import HOOKS, JOB

STEP_KEY = StepKey(KEY.job_id, KEY.attempt, STEP_0.step_id)


@dataclass
class FakeStarter:
    started: list[StepSpec] = field(default_factory=list)
    refusal: str = ""

    async def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        del job, hooks
        if self.refusal:
            raise StepRefusedError(self.refusal)
        self.started.append(step)


@dataclass
class FakeKiller:
    killed: list[str] = field(default_factory=list)

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        self.killed.append(f"job {job.job_id}")
        return ProcessesGone()

    async def kill_step(self, job: JobOnNode, step: StepSpec) -> Usage | None:
        self.killed.append(f"step {job.job_id}.{step.step_id}")
        return Usage(cpu_s=1.5)


@dataclass
class Rig:
    socket: Path
    nonces: Nonces
    steps: Steps
    starter: FakeStarter
    killer: FakeKiller
    heard: list[str] = field(default_factory=list)

    async def tasks_started(self, key: StepKey) -> None:
        self.heard.append(f"started {key}")

    async def step_ended(self, key: StepKey, event: StepEnded) -> None:
        self.heard.append(f"ended {key} {event.reason}")
        self.steps.ended(JOB, key, event.tasks, event.reason)

    async def hook_ended(self, run: HookRun) -> None:
        self.heard.append(f"hook {run.key.run_id}")

    @property
    def active(self) -> ActiveStep:
        active = self.steps.find(STEP_KEY)
        assert active is not None
        return active

    @asynccontextmanager
    async def supervisor(self, nonce: str | None = None, *, has_started: bool = False) -> AsyncIterator["FakeSupervisor"]:
        peer = FakeSupervisor(FrameStream(*await asyncio.open_unix_connection(self.socket)))
        hello = pb.SupervisorHello(
            job_id=STEP_KEY.job_id,
            attempt=STEP_KEY.attempt,
            step_id=STEP_KEY.step_id,
            nonce=self.nonces.of(STEP_KEY) if nonce is None else nonce,
            pid=os.getpid(),
            started=has_started,
        )
        await peer.say(hello=hello)
        try:
            yield peer
        finally:
            await peer.stream.close()


@dataclass
class FakeSupervisor:
    stream: FrameStream

    async def say(self, **message: Any) -> None:  # Any: fields of FromSupervisor
        await self.stream.send(frames.encode_raw(pb.FromSupervisor(**message).SerializeToString()))

    async def hear(self) -> pb.ToSupervisor | None:
        async with asyncio.timeout(10):
            frame = await self.stream.recv()
        return None if frame is None else pb.ToSupervisor.FromString(frame.data)  # type: ignore[union-attr]  # craned sends protobuf

    async def end(self, code: int = 0) -> None:
        tasks = [job_pb2.TaskEnd(task_id=0, exit=job_pb2.ExitStatus(code=code))]
        await self.say(step_ended=pb.SupervisorStepEnded(tasks=tasks))


class FakeLauncher:
    def __init__(self) -> None:
        self.woken = 0
        self.is_replaced = False

    def wake(self) -> None:
        self.woken += 1

    def replaced(self) -> None:
        self.is_replaced = True


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    nonces, starter, killer = Nonces(tmp_path), FakeStarter(), FakeKiller()
    steps = Steps(NODE, starter, killer, StepFiles(tmp_path / "steps"))
    rig = Rig(tmp_path / "s.sock", nonces, steps, starter, killer)
    async with asyncio.TaskGroup() as group:
        crew = Crew(group)
        steps.begin(crew, rig)
        async with serve_local(rig.socket, 0o600, supervisor_handler(nonces, steps.serve_supervisor)):
            yield rig
        crew.dismiss()


async def test_a_supervisor_needs_the_nonce_of_its_step(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    async with rig.supervisor("wrong") as peer:
        assert await peer.hear() is None
    assert rig.active.link is None


async def test_what_was_meant_for_it_before_it_dialled_reaches_it_then(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    rig.steps.signal(STEP_KEY, 10)
    rig.steps.terminate(STEP_KEY, "enough")
    async with rig.supervisor() as peer:
        heard = [await peer.hear() for _ in range(3)]
        assert [message.WhichOneof("message") for message in heard if message] == ["launcher", "signal", "terminate"]
        rig.steps.signal(STEP_KEY, 12)
        message = await peer.hear()
        assert message is not None
        assert message.signal.signal == 12


async def test_start_hooks_and_end_are_heard_once_and_the_end_is_acknowledged(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    run = a_run(HookPoint.TASK_PROLOG)
    async with rig.supervisor() as peer:
        await peer.hear()
        await peer.say(tasks_started=pb.TasksStarted())
        await peer.say(hook_run=hook_run_to_wire(run))
        await peer.say(hook_run=hook_run_to_wire(run))
        await peer.end(3)
        message = await peer.hear()
        assert message is not None
        assert message.WhichOneof("message") == "acknowledged"
    assert rig.heard == [f"started {STEP_KEY}", f"hook {run.key.run_id}", f"ended {STEP_KEY} "]
    assert rig.active.end is not None
    assert rig.active.end[0][0].exit.code == 3


async def test_one_that_dials_after_its_end_was_noted_is_let_go(rig: Rig) -> None:
    async with rig.supervisor() as peer:
        message = await peer.hear()
        assert message is not None
        assert message.WhichOneof("message") == "terminate"
        await peer.end()
        message = await peer.hear()
        assert message is not None
        assert message.WhichOneof("message") == "acknowledged"


async def test_after_a_restart_one_that_has_started_is_taken_up_again(rig: Rig) -> None:
    rig.steps.expect(JOB, STEP_0, is_running=False)
    async with rig.supervisor(has_started=True):
        await eventually_async(lambda: rig.heard == [f"started {STEP_KEY}"])


async def test_a_broken_connection_is_no_end_and_a_dead_process_is_one(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    async with rig.supervisor() as peer:
        await peer.hear()
    await eventually_async(lambda: rig.active.link is None)
    assert rig.heard == []
    rig.steps.supervisor_gone(STEP_KEY)
    await eventually_async(lambda: rig.heard == [f"ended {STEP_KEY} supervisor died"])
    assert rig.killer.killed == ["step 42.0"]


async def test_a_step_that_cannot_start_here_ends_with_the_reason(rig: Rig) -> None:
    rig.starter.refusal = "user alice is unknown on cn01"
    rig.steps.start(JOB, HOOKS, STEP_0)
    await eventually_async(lambda: rig.heard == [f"ended {STEP_KEY} user alice is unknown on cn01"])
    assert rig.active.end is not None
    assert all(task.cancelled for task in rig.active.end[0])


async def test_with_the_last_process_of_a_job_go_the_files_of_its_steps(rig: Rig, tmp_path: Path) -> None:
    for name in (f"job_{STEP_KEY.attempt_key}", "job_7.1"):
        (tmp_path / "steps" / name).mkdir(parents=True)
    await rig.steps.kill_job(JOB)
    assert rig.killer.killed == [f"job {JOB.job_id}"]
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["job_7.1"]


async def test_launchers_come_one_after_another(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    first, second = FakeLauncher(), FakeLauncher()
    async with rig.supervisor() as peer:
        assert (await peer.hear()) == pb.ToSupervisor(launcher=pb.LauncherPresence(attached=False))
        rig.steps.attach(rig.active, first)
        assert (await peer.hear()) == pb.ToSupervisor(launcher=pb.LauncherPresence(attached=True))
        output = stdio_pb.TaskOutput(task_id=0, stream=stdio_pb.OUTPUT_STREAM_STDOUT, data=b"abc")
        await peer.say(output=output)
        await eventually_async(lambda: first.woken >= 2)
        taken = rig.active.output.take()
        rig.steps.attach(rig.active, second)
        assert first.is_replaced
        assert rig.active.output.take() == taken
        rig.steps.consumed(rig.active, 3)
        await peer.hear()
        assert (await peer.hear()) == pb.ToSupervisor(output_credit=3)
        rig.steps.detach(rig.active, first)
        assert rig.active.launcher is second
        rig.steps.send_stdin(rig.active, b"in", is_eof=False)
        assert (await peer.hear()) == pb.ToSupervisor(stdin=stdio_pb.StdinData(data=b"in"))
        await peer.say(stdin_credit=2)
        await eventually_async(lambda: rig.active.stdin_credit == 2)
        rig.steps.detach(rig.active, second)
        assert (await peer.hear()) == pb.ToSupervisor(launcher=pb.LauncherPresence(attached=False))


async def test_nonsense_ends_the_connection(rig: Rig) -> None:
    rig.steps.start(JOB, HOOKS, STEP_0)
    async with rig.supervisor() as peer:
        await peer.hear()
        await peer.stream.send(frames.encode_json({"no": "protobuf"}))
        assert await peer.hear() is None


def test_nonces_survive_a_restart_and_differ_by_step(tmp_path: Path) -> None:
    other = StepKey(KEY.job_id, KEY.attempt, BATCH_STEP)
    assert Nonces(tmp_path).of(STEP_KEY) == Nonces(tmp_path).of(STEP_KEY)
    assert not Nonces(tmp_path).matches(other, Nonces(tmp_path).of(STEP_KEY))
    assert (tmp_path / "supervisor.secret").stat().st_mode & 0o777 == 0o600
