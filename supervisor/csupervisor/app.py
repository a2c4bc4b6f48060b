"""Puts a supervisor together and runs it on an event loop of its own."""

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack

from csupervisor.bootstrap import Bootstrap, BootstrapError, ForkRequest
from csupervisor.cleanup import reap_orphans
from csupervisor.craned_client import CranedClient
from csupervisor.extern_run import ExternRun
from csupervisor.stdio import OutputChunk, OutputWindow
from csupervisor.step_run import StepRun

EXIT_BAD_BOOTSTRAP = 2
EXIT_BROKEN = 70

_log = logging.getLogger(__name__)


def run(request: ForkRequest) -> int:
    """Supervise a step until its end is acknowledged; the exit status of this process."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
    )
    # Our stderr is the daemon's log, and we outlive the daemon.
    logging.raiseExceptions = False
    try:
        bootstrap = request.bootstrap()
    except BootstrapError:
        _log.exception("a step cannot be supervised")
        return EXIT_BAD_BOOTSTRAP
    try:
        asyncio.run(supervise(bootstrap))
    except BaseException:  # noqa: BLE001 - the boundary: whatever it is, craned hears of it by our exit status
        _log.exception("the supervisor of step %s is broken", bootstrap.key)
        return EXIT_BROKEN
    return 0


async def supervise(bootstrap: Bootstrap) -> None:
    """Run the step and talk with craned until the end is acknowledged."""
    loop = asyncio.get_running_loop()

    def send_output(chunk: OutputChunk) -> None:
        craned.send_output(chunk)

    window = OutputWindow(send_output)
    craned = CranedClient(bootstrap, window)
    async with AsyncExitStack() as resources, asyncio.TaskGroup() as group:
        step: StepRun | ExternRun
        if bootstrap.is_extern:
            step = ExternRun(bootstrap, craned, group, resources)
        else:
            step = StepRun(bootstrap, craned, window, group, resources)
        loop.add_signal_handler(signal.SIGCHLD, reap_orphans)
        loop.add_signal_handler(signal.SIGTERM, step.stop)
        conversation = group.create_task(craned.serve(step), name="craned")
        step.begin()
        await step.over.wait()
        conversation.cancel()
