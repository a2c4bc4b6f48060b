"""Ends what a task or the step leaves behind, and reaps orphans that fall to the supervisor."""

import asyncio
import os
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cranehooks.execution.containment.cells import Cell, Containment
from cranehooks.execution.containment.detect import AUTO, detect
from cranehooks.execution.process import OWNED_PIDS
from cranehooks.model.ids import TaskId
from cranehooks.model.limits import Limits, Usage
from cranehooks.model.run import Leftover
from csupervisor.bootstrap import Bootstrap

_KILL_AGAIN_S: Final = 0.2
"""A driver without an atomic kill may miss what was being forked."""


class StepCells:
    """The containment of a step: a cell per task, within one for the step where the driver nests them."""

    def __init__(self, containment: Containment, step_cell: Cell, limits: Limits | None) -> None:
        self.containment = containment
        self._step_cell = step_cell
        self._limits = limits

    @classmethod
    def open(cls, bootstrap: Bootstrap) -> "StepCells":
        """Make the step's cell.

        Raises:
            OSError: the driver does not let us.
            ContainmentUnavailableError: the driver that is asked for does not work here.
        """
        driver = bootstrap.containment
        # craned names the one it has found to work.
        containment, _ = detect(driver, bootstrap.cgroup_instance, is_shown=driver != AUTO)
        # The limits are those of the job's cell, which craned has made. Where it has one of memory, its parts are measured too.
        limits = Limits(measures_memory=True) if bootstrap.limits.memory_bytes is not None else None
        cell = containment.create_at(*bootstrap.cgroup_root.split("/"), limits=limits)
        # It has no first process: it stands for whatever falls to us and is no task's.
        cell.leader_exited()
        return cls(containment, cell, limits)

    def task_cell(self, task_id: TaskId) -> Cell:
        """A new cell for a task.

        Raises:
            OSError: it cannot be made.
        """
        name = f"task_{task_id}"
        if self._step_cell.cgroup is None:
            return self.containment.create(name)
        return self.containment.create_inside(self._step_cell.cgroup, name, limits=self._limits)

    async def clean_up(self, patience_s: float) -> tuple[tuple[str, ...], Usage]:
        """Kill what lives in the step and remove its cell; the processes that survive, as `pid command`, and what the cell tells of its use."""
        survivors = await end_all(self._step_cell, patience_s)
        usage = self._step_cell.usage()
        self._step_cell.remove()
        return tuple(f"{survivor.pid} {survivor.command}" for survivor in survivors), usage


async def emptied(cell: Cell) -> None:
    """Wait until nothing lives in the cell."""
    while not cell.is_empty():
        if wake_fds := cell.wake_fds():
            await _woken(wake_fds)
        else:
            # What lived a moment ago has gone meanwhile: there is nothing to wait for.
            await asyncio.sleep(0)


async def end_all(cell: Cell, patience_s: float) -> Sequence[Leftover]:
    """KILL what lives in the cell and wait for its end; whoever survives for `patience_s` is returned."""
    try:
        async with asyncio.timeout(patience_s):
            while not cell.is_empty():
                cell.kill()
                if cell.is_empty():
                    break
                try:
                    async with asyncio.timeout(_KILL_AGAIN_S):
                        await _woken(cell.wake_fds())
                except TimeoutError:
                    continue
    except TimeoutError:
        return cell.members()
    return ()


async def _woken(wake_fds: Sequence[tuple[int, int]]) -> None:
    """Wait until one of the descriptors is ready, with events that the loop's own selector does not know."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    with select.epoll() as poller:
        for fd, mask in wake_fds:
            poller.register(fd, mask)
        loop.add_reader(poller.fileno(), woken.set)
        try:
            await woken.wait()
        finally:
            loop.remove_reader(poller.fileno())


def reap_orphans() -> None:
    """Reap ended children that fell to us as a subreaper, and none that somebody here waits for."""
    for pid in _children():
        if pid not in OWNED_PIDS:
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                # The containment driver has been here first.
                continue


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return [pid for pid in _ended_children() if pid]


def _ended_children() -> list[int]:
    """One child that has ended, on a kernel without CONFIG_PROC_CHILDREN."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return [] if ended is None else [ended.si_pid]
