"""A step that is stopped while there is no craned."""

import asyncio
from contextlib import AsyncExitStack

from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks.model.run import HookRun
from csupervisor.bootstrap import bootstrap_from_wire
from csupervisor.stdio import OutputChunk, OutputWindow
from csupervisor.step import Begin, StepEnd
from csupervisor.step_run import StepRun


class NoCraned:
    """Hears everything and answers nothing."""

    def __init__(self) -> None:
        self.ends: list[StepEnd] = []

    def send_started(self) -> None: ...

    def send_hook_run(self, run: HookRun) -> None: ...

    def send_output(self, chunk: OutputChunk) -> None: ...

    def send_stdin_credit(self, size_bytes: int) -> None: ...

    def send_notice(self, text: str) -> None: ...

    def send_end(self, end: StepEnd) -> None:
        self.ends.append(end)


async def test_it_ends_though_nobody_takes_its_end(message: pb.SupervisorBootstrap) -> None:
    craned = NoCraned()
    async with AsyncExitStack() as resources, asyncio.TaskGroup() as group, asyncio.timeout(20):
        window = OutputWindow(craned.send_output)
        step = StepRun(bootstrap_from_wire(message), craned, window, group, resources, deliver_within_s=0.05)
        step.feed(Begin())
        step.stop()
        await step.over.wait()
    (end,) = craned.ends
    assert end.reason == "its supervisor was asked to stop"
    assert all(task.cancelled for task in end.tasks)
