"""No process gets away from its cell, by whatever driver."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cranehooks.execution.containment import session
from cranehooks.execution.containment.cells import Cell, Containment, command_of
from cranehooks.execution.containment.cgroup2 import CgroupContainment
from cranehooks.execution.containment.detect import CGROUP2, NONE, ContainmentUnavailableError, detect
from cranehooks.execution.containment.hierarchies import Hierarchies, parse
from cranehooks.execution.containment.tree import make_directory
from cranehooks.execution.process import Process, SpawnRequest, spawn
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.control_groups import removed_control_groups
from tests.support.eventually import eventually


def start(cell: Cell, path: str) -> Process:
    process = spawn(
        SpawnRequest(
            path, (path,), {}, cgroup_fd=cell.cgroup_fd, entry_fds=tuple(cell.entry_fds), child_subreaper=cell.wants_subreaper
        )
    )
    cell.started(process.pid)
    return process


def reap(cell: Cell, process: Process) -> None:
    process.reap(block=True)
    cell.leader_exited()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_daemon_is_found_named_and_killed(containment: Containment, files: HookScripts, tmp_path: Path) -> None:
    cell = containment.create("42.1/prolog@cn01")
    reap(cell, start(cell, files.leaves_daemon(tmp_path / "pid")))
    daemon = int((tmp_path / "pid").read_text())
    assert not cell.is_empty()
    assert (daemon, "sleep 3600") in [(member.pid, member.command) for member in cell.members()]
    cell.kill()
    eventually(cell.is_empty)
    assert not is_alive(daemon)
    assert cell.members() == []
    cell.remove()


def test_everything_hears_a_signal(containment: Containment, files: HookScripts) -> None:
    cell = containment.create("run")
    process = start(cell, files.hangs())
    eventually(lambda: len(cell.members()) == 2)
    cell.signal_all(signal.SIGTERM)
    reap(cell, process)
    eventually(cell.is_empty)
    cell.remove()


def test_a_descriptor_tells_when_a_cell_may_be_empty(containment: Containment, files: HookScripts) -> None:
    cell = containment.create("run")
    reap(cell, start(cell, files.leaves_child_on_pipe()))
    poller = select.epoll()
    while not cell.is_empty():
        for fd, mask in cell.wake_fds():
            poller.register(fd, mask)
        cell.kill()
        assert poller.poll(10), "woken in time"
        for fd, _ in cell.wake_fds():
            poller.unregister(fd)
    poller.close()
    cell.remove()


def test_cells_at_a_place_of_their_own(containment: Containment, files: HookScripts) -> None:
    first, second = (containment.create_at("job_42", "step_0", f"task_{number}") for number in (0, 1))
    processes = [start(cell, files.hangs(cell.name.rpartition("/")[2])) for cell in (first, second)]
    first.kill()
    reap(first, processes[0])
    eventually(first.is_empty)
    assert processes[1].reap() is None, "the neighbour lives"
    second.kill()
    reap(second, processes[1])
    eventually(second.is_empty)
    first.remove()
    second.remove()
    containment.sweep("job_42")


def test_removing_twice_is_safe(containment: Containment) -> None:
    cell = containment.create("run")
    cell.remove()
    cell.remove()


# ---- cgroups


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[CgroupContainment]:
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    with removed_control_groups(name):
        try:
            driver, _ = detect(CGROUP2, name)
        except ContainmentUnavailableError as error:
            pytest.skip(str(error))
        assert isinstance(driver, CgroupContainment)
        yield driver


def test_the_end_of_an_instance_leaves_the_cells_of_its_successor(cgroups: CgroupContainment, files: HookScripts) -> None:
    successor = CgroupContainment(cgroups.root.parents[1], cgroups.root.name)
    cell = successor.create("42.1/epilog@cn01")
    cgroups.close()
    process = start(cell, files.ok())
    reap(cell, process)
    assert cell.is_empty()
    cell.remove()
    successor.close()
    assert not cgroups.root.exists()


def test_a_cell_swept_by_a_successor_is_empty(cgroups: CgroupContainment, files: HookScripts) -> None:
    cell = cgroups.create("42.1/prolog@cn01")
    process = start(cell, files.hangs())
    CgroupContainment(cgroups.root.parents[1], cgroups.root.name).sweep("hooks")
    reap(cell, process)
    assert cell.is_empty()
    cell.kill()
    cell.remove()


def test_directories_are_made_while_others_remove_what_is_empty_above(tmp_path: Path) -> None:
    above = tmp_path / "crane"

    def come_and_go(name: str) -> int:
        made = 0
        for _ in range(500):
            make_directory(above / name / "hooks")
            made += 1
            for directory in (above / name / "hooks", above / name, above):
                with contextlib.suppress(OSError):
                    directory.rmdir()
        return made

    with ThreadPoolExecutor(2) as instances:
        assert list(instances.map(come_and_go, ("one", "other"))) == [500, 500]


def test_what_a_dead_instance_left_is_swept(cgroups: CgroupContainment, files: HookScripts) -> None:
    cell = cgroups.create("42.1/prolog@cn01")
    process = start(cell, files.hangs())
    (Path(cell.name) / "made-by-the-hook").mkdir()
    os.close(cell._fd)
    os.close(cell._events_fd)
    killed = cgroups.sweep("hooks")
    assert process.pid in [leftover.pid for leftover in killed]
    assert process.reap(block=True) == signal.SIGKILL
    assert not (cgroups.root / "hooks").exists()
    assert cgroups.sweep("hooks") == []
    cgroups.close()
    assert not cgroups.root.exists()


def test_what_is_kept_outlives_its_instance_and_the_next_ones_sweep(
    cgroups: CgroupContainment, files: HookScripts, tmp_path: Path
) -> None:
    kept, other = cgroups.create("42.1/prolog@cn01"), cgroups.create("43.1/prolog@cn01")
    processes = []
    for cell, name in ((kept, "kept"), (other, "other")):
        reap(cell, start(cell, files.leaves_daemon(tmp_path / name, name)))
        processes.append(int((tmp_path / name).read_text()))
    kept.keep()
    assert [left.pid for left in cgroups.sweep("hooks")] == [processes[1]]
    assert [left.pid for left in cgroups.kept()] == [processes[0]]
    twin = cgroups.create("42.1/prolog@cn01")
    reap(twin, start(twin, files.ok()))
    twin.keep()
    assert [left.pid for left in cgroups.end_kept("42.1/prolog@cn01")] == [processes[0]]
    assert not Path(kept.name).exists()
    assert not Path(twin.name).exists(), "what ended by itself is removed with it"
    eventually(lambda: not any(map(is_alive, processes)))
    other.remove()


def test_a_namesake_gets_a_directory_of_its_own(cgroups: CgroupContainment) -> None:
    first, second = cgroups.create("run"), cgroups.create("run")
    assert first.directory != second.directory
    first.remove()
    second.remove()
    cgroups.close()


def test_a_cell_inside_a_cgroup_dies_alone(cgroups: CgroupContainment, files: HookScripts) -> None:
    task = cgroups.create_at("job_1", "step_0", "task_0")
    hook = cgroups.create_inside(task.name, "1.1.0/task_prolog:0")
    task_process, hook_process = start(task, files.hangs("task")), start(hook, files.hangs("hook"))
    hook.kill()
    reap(hook, hook_process)
    assert task_process.reap() is None
    assert hook_process.pid not in [member.pid for member in task.members()]
    hook.remove()
    task.kill()
    reap(task, task_process)
    eventually(task.is_empty)
    task.remove()
    cgroups.sweep("job_1")
    cgroups.close()


def test_without_cgroup_kill_each_process_is_killed(
    cgroups: CgroupContainment, files: HookScripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_text

    def refuse(path: Path, text: str, **options: str) -> int:
        if path.name == "cgroup.kill":
            raise PermissionError(13, "an older kernel", str(path))
        return real(path, text, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    cell = cgroups.create("run")
    process = start(cell, files.hangs())
    cell.kill()
    reap(cell, process)
    eventually(cell.is_empty)
    cell.remove()
    cgroups.close()


def test_a_cgroup_that_does_not_exist_is_an_error(cgroups: CgroupContainment) -> None:
    with pytest.raises(FileNotFoundError, match="no such cgroup"):
        cgroups.create_inside("/sys/fs/cgroup/nowhere", "hook")
    cgroups.close()


UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
PURE = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
PART = "29 23 0:26 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "membership", "expected"),
    [
        (V1 + UNIFIED, "4:memory:/x\n0::/\n", "/sys/fs/cgroup/unified"),
        (PURE, "0::/system.slice/craned.service\n", "/sys/fs/cgroup/system.slice/craned.service"),
        (PART, "0::/kubepods/pod1/container\n", "/sys/fs/cgroup/container"),
        (PART, "0::/elsewhere\n", None),
        (V1, "4:memory:/x\n0::/\n", None),
        (PURE, "4:memory:/x\n", None),
        (PURE.replace("/sys/fs/cgroup ", r"/a\040b "), "0::/\n", "/a b"),
    ],
)
def test_our_directory_is_found_wherever_it_is_mounted(mountinfo: str, membership: str, expected: str | None) -> None:
    assert parse(mountinfo, membership).unified == (None if expected is None else Path(expected))


# ---- choosing


def test_a_directory_that_is_no_cgroup_falls_back_and_says_so(tmp_path: Path) -> None:
    nowhere = Hierarchies(tmp_path)
    driver, lost = detect(hierarchies=nowhere)
    assert driver.driver == NONE
    assert str(tmp_path) in lost
    assert "no limits" in lost
    with pytest.raises(ContainmentUnavailableError, match="cannot use cgroups below"):
        detect(CGROUP2, hierarchies=nowhere)


def test_an_unknown_driver_is_an_error() -> None:
    with pytest.raises(ContainmentUnavailableError, match="'cgroup3', expected auto, cgroup2, hybrid, cgroup1 or none"):
        detect("cgroup3")


# ---- without cgroups


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
