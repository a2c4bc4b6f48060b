"""Ends what is left of a job or a step on this node, whatever has become of its supervisors."""

import asyncio
import os
import select
import signal
import time
from pathlib import Path
from typing import Final, Protocol

import structlog

from cranehooks.execution.containment.cells import command_of
from cranehooks.model.ids import NodeName
from cranehooks.model.job import JobOnNode, StepSpec
from cranehooks.model.run import Leftover

GIVE_UP_AFTER_S: Final = 30.0
"""What survives KILL for so long is unkillable."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.hooks.processes")


class Sweeper(Protocol):
    """Kills and removes what is below a place: the part of a containment driver that is used here."""

    def sweep(self, *parts: str) -> list[Leftover]: ...


class JobProcesses:
    """Looks in the job's control group, or, where there are none, at every process that carries the job's variables.

    Where supervisors did their work there is nothing to find.
    """

    def __init__(self, node: NodeName, sweeper: Sweeper | None) -> None:
        self._node = node
        self._sweeper = sweeper

    async def kill_job(self, job: JobOnNode) -> tuple[str, ...]:
        """What survives, as pid and command."""
        return await asyncio.to_thread(self._kill, (f"job_{job.job_id}",), self._mark(job))

    async def kill_step(self, job: JobOnNode, step: StepSpec) -> None:
        place = (f"job_{job.job_id}", f"step_{step.step_id}")
        await asyncio.to_thread(self._kill, place, {**self._mark(job), "CRANE_STEP_ID": str(step.step_id)})

    def _mark(self, job: JobOnNode) -> dict[str, str]:
        return {
            "CRANE_CLUSTER_NAME": job.cluster,
            "CRANE_NODENAME": self._node,
            "CRANE_JOB_ID": str(job.job_id),
            "CRANE_JOB_ATTEMPT": str(job.attempt),
        }

    def _kill(self, place: tuple[str, ...], mark: dict[str, str]) -> tuple[str, ...]:
        if self._sweeper is None:
            return _kill_marked({f"{name}={value}".encode() for name, value in mark.items()})
        killed = self._sweeper.sweep(*place)
        if not killed:
            return ()
        log.info("leftovers_killed", place="/".join(place), processes=[f"{each.pid} {each.command}" for each in killed])
        # It waits for what it kills: what a second look finds did not go.
        return tuple(f"{each.pid} {each.command}" for each in self._sweeper.sweep(*place))


def _kill_marked(variables: set[bytes]) -> tuple[str, ...]:
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while left := [pid for pid in _processes() if _carries(pid, variables)]:
        log.info("leftovers_killed", processes=[f"{pid} {command_of(pid)}" for pid in left])
        for pid in left:
            _kill_and_wait(pid, deadline)
        if time.monotonic() > deadline:
            return tuple(f"{pid} {command_of(pid)}" for pid in left if _carries(pid, variables))
    return ()


def _kill_and_wait(pid: int, deadline: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(pidfd)


def _processes() -> list[int]:
    own = os.getpid()
    # os.listdir: names alone.
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _carries(pid: int, variables: set[bytes]) -> bool:
    """Whether a living process has all of these in its environment. One of another user cannot be read, and is none of ours."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return variables <= set(environment.split(b"\0"))
