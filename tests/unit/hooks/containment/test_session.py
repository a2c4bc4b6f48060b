"""Containment without cgroups: what the descendants of one process are, and who is none of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cranehooks.execution.containment import session
from cranehooks.execution.containment.cells import command_of
from cranehooks.execution.containment.detect import NONE, detect
from cranehooks.execution.process import SpawnRequest, spawn
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.contained import is_alive, reap, start
from tests.support.control_groups import removed_control_groups
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


BREEDER = """
import os, sys, time
open(sys.argv[1] + ".new", "w").close()
os.rename(sys.argv[1] + ".new", sys.argv[1])
for _ in range(100):
    if os.fork():
        time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
"""


def test_a_session_is_killed_although_it_forks_meanwhile(files: HookScripts, tmp_path: Path) -> None:
    path = files.write("breeds", BREEDER, interpreter=f"#!{sys.executable} -IS")
    leader = spawn(SpawnRequest(path, (path, str(tmp_path / "up")), {}))
    eventually((tmp_path / "up").exists)
    session.kill_sessions({leader.pid: leader.start_time})
    assert leader.reap(block=True) == signal.SIGKILL
    members = {leader.pid: leader.start_time}
    eventually(lambda: not list(session._members_of_sessions(members)))


def test_a_session_of_that_number_that_began_later_is_somebody_elses(files: HookScripts) -> None:
    process = spawn(SpawnRequest(path := files.hangs(), (path,), {}))
    session.kill_sessions({process.pid: process.start_time + 1_000_000})
    session.kill_sessions({})
    assert process.reap() is None
    session.kill_sessions({process.pid: process.start_time})
    assert process.reap(block=True) == signal.SIGKILL


def test_nobody_is_signalled_for_having_a_number(files: HookScripts) -> None:
    process = spawn(SpawnRequest(path := files.hangs(), (path,), {}))
    session._signal(process.pid, process.start_time + 1, signal.SIGKILL)
    assert process.reap() is None
    session._signal(process.pid, process.start_time, signal.SIGKILL)
    session._signal(2**22 + 1, 1, signal.SIGKILL)
    assert process.reap(block=True) == signal.SIGKILL
    session.kill_sessions({process.pid: process.start_time})


def test_what_a_former_driver_left_is_swept(files: HookScripts, tmp_path: Path) -> None:
    instance = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    with removed_control_groups(instance):
        former, _ = detect(None, instance)
        if former.driver == NONE:
            pytest.skip("no driver with cgroups works here")
        cell = former.create("42.1/prolog@cn01")
        process = start(cell, files.hangs())
        driver, _ = detect(NONE, instance)
        assert process.pid in [left.pid for left in driver.sweep("hooks")]
        reap(cell, process)
        cell.remove()
        former.close()
