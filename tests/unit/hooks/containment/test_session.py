"""Containment without cgroups: what the descendants of one process are, and who is none of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from cranehooks.execution.containment import session
from cranehooks.execution.containment.cells import command_of
from cranehooks.execution.containment.detect import NONE, detect
from cranehooks.execution.process import SpawnRequest, spawn
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.contained import is_alive, reap, start
from tests.support.eventually import eventually


def test_children_of_our_own_making_are_nobodys_leftovers(files: HookScripts) -> None:
    driver, _ = detect(NONE)
    cell = driver.create("run")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ours:
        other = spawn(SpawnRequest(path := files.hangs(), (path,), {}))
        reap(cell, start(cell, files.ok()))
        assert cell.is_empty()
        assert cell.members() == []
        os.killpg(other.pid, signal.SIGKILL)
        other.reap(block=True)
        assert ours.stdin is not None
        ours.stdin.close()
    cell.remove()


def test_two_cells_that_end_together_leave_nothing(files: HookScripts, tmp_path: Path) -> None:
    driver, _ = detect(NONE)
    cells = [driver.create(name) for name in "ab"]
    processes = [start(cell, files.leaves_daemon(tmp_path / cell.name, cell.name)) for cell in cells]
    for cell, process in zip(cells, processes, strict=True):
        reap(cell, process)
    daemons = [int((tmp_path / cell.name).read_text()) for cell in cells]
    for cell in cells:
        cell.kill()
        eventually(cell.is_empty)
    assert not any(map(is_alive, daemons))
    for cell in cells:
        cell.remove()


def test_children_are_found_on_a_kernel_without_their_file(files: HookScripts) -> None:
    process = spawn(SpawnRequest(path := files.hangs(), (path,), {}))
    eventually(lambda: session._children(process.pid))
    assert session._children_by_scan(process.pid) == session._children(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.reap(block=True)


def test_commands_are_named_while_there_is_a_process() -> None:
    assert "python" in command_of(os.getpid()) or "pytest" in command_of(os.getpid())
    assert command_of(2**22 + 1) == "?"
