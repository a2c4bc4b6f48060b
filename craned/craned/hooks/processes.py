"""Ends what is left of a job or a step on this node, whatever has become of its supervisors."""

import asyncio
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from craned.attempts.events import ProcessesGone
from craned.job.cells import JobCells
from cranehooks.environment import SCRIPT_CONTEXTS
from cranehooks.execution.containment.cells import command_of
from cranehooks.model.ids import JobId, NodeName
from cranehooks.model.job import JobOnNode, StepSpec
from cranehooks.model.limits import Usage
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, Leftover

GIVE_UP_AFTER_S: Final = 30.0
"""What survives KILL for so long is unkillable."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.hooks.processes")


_PROLOG_CONTEXT: Final = SCRIPT_CONTEXTS[HookPoint.PROLOG][0]
_CONTEXT_OF_PROLOG: Final = f"CRANE_SCRIPT_CONTEXT={_PROLOG_CONTEXT}".encode()


class Sweeper(Protocol):
    """Kills and removes what is below a place, or what a hook has kept: the part of a containment driver that is used here."""

    def sweep(self, *parts: str) -> list[Leftover]: ...
    def end_kept(self, name: str) -> list[Leftover]: ...


class Places(Protocol):
    """The cgroups of this node's craned (`sweeping.Instance`)."""

    def jobs(self) -> list[str]: ...
    def sweep(self, *parts: str) -> list[Leftover]: ...


def sweep_unknown_jobs(places: Places, known: Iterable[JobId]) -> None:
    """Kills and removes what is left of jobs that nobody remembers; those that are known are left to who runs them. Blocks."""
    for name in sorted(set(places.jobs()) - {job_place(job_id) for job_id in known}):
        killed = places.sweep(name)
        log.warning("leftovers_killed", place=name, processes=list(_named(killed)), why="no such job is known here")


def job_place(job_id: JobId) -> str:
    """Where a job has its cgroups, below those of this craned."""
    return f"job_{job_id}"


@dataclass(frozen=True, slots=True)
class EndedKept:
    """What became of processes that hooks had kept, each as pid and command."""

    killed: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    """Of KILL; they are among `killed`, too."""


class JobProcesses:
    """Looks in the job's control group, or, where there are none, at every process that carries the job's variables.

    Where supervisors did their work there is nothing to find.
    """

    def __init__(self, node: NodeName, sweeper: Sweeper | None, cells: JobCells) -> None:
        self._node = node
        self._sweeper = sweeper
        self._cells = cells

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        """What survives, and what the job has used. Its cell is given up."""
        return await asyncio.to_thread(self._end_job, job)

    async def end_kept(self, job: JobOnNode) -> EndedKept:
        """Kills what the job's Prolog has kept (KeepProcesses); safe to repeat."""
        return await asyncio.to_thread(self._end_kept, job)

    async def kill_step(self, job: JobOnNode, step: StepSpec) -> Usage | None:
        """What it used, where that is known."""
        return await asyncio.to_thread(self._end_step, job, step)

    def _end_job(self, job: JobOnNode) -> ProcessesGone:
        # Nothing is known of a cell that has been removed.
        usage = self._cells.usage(job)
        survivors = self._kill((job_place(job.job_id),), self._mark(job))
        self._cells.give_up(job)
        return ProcessesGone(survivors, usage)

    def _end_step(self, job: JobOnNode, step: StepSpec) -> Usage | None:
        usage = self._cells.step_usage(job, step)
        self._kill((job_place(job.job_id), f"step_{step.step_id}"), {**self._mark(job), "CRANE_STEP_ID": str(step.step_id)})
        return usage

    def _mark(self, job: JobOnNode) -> dict[str, str]:
        return {
            "CRANE_CLUSTER_NAME": job.cluster,
            "CRANE_NODENAME": self._node,
            "CRANE_JOB_ID": str(job.job_id),
            "CRANE_JOB_ATTEMPT": str(job.attempt),
        }

    def _kill(self, place: tuple[str, ...], mark: dict[str, str]) -> tuple[str, ...]:
        if self._sweeper is None:
            # What its Prolog has kept is the Epilog's to stop, and ends after it.
            return _kill_marked(_variables(mark), spared=_CONTEXT_OF_PROLOG).survivors
        killed = self._sweeper.sweep(*place)
        if not killed:
            return ()
        log.info("leftovers_killed", place="/".join(place), processes=list(_named(killed)))
        # It waits for what it kills: what a second look finds did not go.
        return _named(self._sweeper.sweep(*place))

    def _end_kept(self, job: JobOnNode) -> EndedKept:
        if self._sweeper is None:
            return _kill_marked(_variables({**self._mark(job), "CRANE_SCRIPT_CONTEXT": _PROLOG_CONTEXT}))
        name = HookKey(HookPoint.PROLOG, job.job_id, job.attempt, self._node).run_id
        killed = _named(self._sweeper.end_kept(name))
        if not killed:
            return EndedKept()
        log.info("kept_processes_killed", run=name, processes=list(killed))
        return EndedKept(killed, _named(self._sweeper.end_kept(name)))


def _variables(mark: Mapping[str, str]) -> set[bytes]:
    return {f"{name}={value}".encode() for name, value in mark.items()}


def _named(processes: Iterable[Leftover]) -> tuple[str, ...]:
    return tuple(f"{process.pid} {process.command}" for process in processes)


def _kill_marked(variables: set[bytes], *, spared: bytes | None = None) -> EndedKept:
    """Kills every process with all of these variables, but those with the one that spares."""
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    killed: dict[int, str] = {}
    while left := [pid for pid in _processes() if _carries(pid, variables, spared)]:
        named = {pid: f"{pid} {command_of(pid)}" for pid in left}
        log.info("leftovers_killed", processes=list(named.values()))
        killed |= named
        for pid in left:
            _kill_and_wait(pid, deadline)
        if time.monotonic() > deadline:
            return EndedKept(tuple(killed.values()), tuple(named[pid] for pid in left if _carries(pid, variables, spared)))
    return EndedKept(tuple(killed.values()))


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


def _carries(pid: int, variables: set[bytes], spared: bytes | None) -> bool:
    """Whether a living process has all of these in its environment. One of another user cannot be read, and is none of ours."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    own = set(environment.split(b"\0"))
    return variables <= own and spared not in own
