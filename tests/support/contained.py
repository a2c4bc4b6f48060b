"""Processes started in a cell, for tests of containment."""

from pathlib import Path

from cranehooks.execution.containment.cells import Cell
from cranehooks.execution.process import Process, SpawnRequest, spawn


def start(cell: Cell, path: str, *arguments: str) -> Process:
    """A script in a cell, as an engine starts it."""
    request = SpawnRequest(
        path,
        (path, *arguments),
        {},
        cgroup_fd=cell.cgroup_fd,
        entry_fds=tuple(cell.entry_fds),
        child_subreaper=cell.wants_subreaper,
    )
    process = spawn(request)
    cell.started(process.pid)
    return process


def reap(cell: Cell, process: Process) -> int:
    """Waits for the end of the first process; its wait status."""
    status = process.reap(block=True)
    assert status is not None
    cell.leader_exited()
    return status


def is_alive(pid: int) -> bool:
    """Zombies are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
