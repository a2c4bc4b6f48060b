"""Version 2 control groups: limits against a hierarchy of files, killing and sweeping against the real one."""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cranehooks.execution.containment.cgroup2 import CgroupContainment
from cranehooks.execution.containment.detect import CGROUP2, ContainmentUnavailableError, detect
from cranehooks.execution.containment.tree import make_directory
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits, Usage
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.contained import reap, start
from tests.support.control_groups import removed_control_groups
from tests.support.eventually import eventually
from tests.support.fake_cgroups import FakeUnified

ALL = Limits(
    memory_bytes=64 << 20,
    swap_bytes=0,
    cpu_cores=1.5,
    cpu_weight=50,
    pids=32,
    cpuset="0-1",
    io_weight=200,
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeUnified]:
    with FakeUnified(tmp_path).working() as hierarchy:
        yield hierarchy


def text(directory: Path, name: str) -> str:
    return (directory / name).read_text().strip()


def test_every_limit_is_written_where_the_kernel_reads_it(fake: FakeUnified) -> None:
    containment = CgroupContainment(fake.base, "c.n.i")
    cell = containment.create("42.1/prolog@cn01", limits=ALL)
    written = {
        name: text(cell.directory, name)
        for name in (
            "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max", "cpuset.cpus", "io.weight",
        )
    }  # fmt: skip
    assert written == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "150000 100000",
        "cpu.weight": "50",
        "pids.max": "32",
        "cpuset.cpus": "0-1",
        "io.weight": "default 200",
    }
    assert cell.not_enforced == ()
    cell.remove()
    containment.close()
    assert not (fake.base / "crane").exists()


@pytest.mark.parametrize(("kills_all", "group"), [(True, "1"), (False, "0")])
def test_a_cell_says_whether_it_dies_as_a_whole(fake: FakeUnified, kills_all: bool, group: str) -> None:
    cell = CgroupContainment(fake.base, "c.n.i").create_at("job_1", limits=Limits(memory_bytes=64 << 20, kills_all=kills_all))
    assert text(cell.directory, "memory.oom.group") == group
    cell.remove()


def test_all_but_devices_is_offered(fake: FakeUnified) -> None:
    containment = CgroupContainment(fake.base, "c.n.i")
    assert containment.offers.enforced == frozenset(LimitKind) - {LimitKind.DEVICES}
    assert containment.offers.what_is_lost == "no limits of devices"
    cell = containment.create("run", limits=Limits(devices=DeviceRules((Device(DeviceKind.CHARACTER, 195, 0),))))
    assert cell.not_enforced == ("devices",)
    cell.remove()


def test_controllers_are_passed_on_only_where_a_limit_needs_them(fake: FakeUnified) -> None:
    containment = CgroupContainment(fake.base, "c.n.i")
    plain = containment.create("plain")
    assert text(containment.root, "cgroup.subtree_control") == ""
    job = containment.create_at("job_42", limits=Limits(memory_bytes=1 << 20))
    assert text(containment.root, "cgroup.subtree_control") == "memory"
    step = containment.create_at("job_42", "step_0", limits=Limits(pids=3))
    assert text(job.directory, "cgroup.subtree_control") == "pids"
    assert text(step.directory, "cgroup.subtree_control") == ""
    for cell in (plain, step, job):
        cell.remove()


def test_a_limit_of_no_controller_here_is_named(tmp_path: Path) -> None:
    with FakeUnified(tmp_path, "cpu pids").working() as fake:
        containment = CgroupContainment(fake.base, "c.n.i")
        assert containment.offers.enforced == {LimitKind.CPU, LimitKind.CPU_WEIGHT, LimitKind.PIDS}
        assert containment.offers.what_is_lost == "no limits of memory, swap, cpuset, io weight, devices"
        cell = containment.create("run", limits=ALL)
        assert cell.not_enforced == ("memory", "swap", "cpuset", "io weight")
        assert text(cell.directory, "pids.max") == "32"
        cell.remove()


def test_processes_in_our_cgroup_keep_controllers_from_being_passed_on(fake: FakeUnified) -> None:
    fake.populate(fake.base, 1)
    containment = CgroupContainment(fake.base, "c.n.i")
    assert containment.offers.enforced == frozenset()
    assert "cannot pass on" in containment.offers.what_is_lost
    assert "memory: Device or resource busy" in containment.offers.what_is_lost
    cell = containment.create("run", limits=Limits(memory_bytes=1))
    assert cell.not_enforced == ("memory",)
    cell.remove()


def test_a_cell_inside_a_task_does_not_make_the_task_pass_anything_on(fake: FakeUnified) -> None:
    containment = CgroupContainment(fake.base, "c.n.i")
    task = containment.create_at("job_1", "step_0", "task_0", limits=Limits(memory_bytes=1 << 20))
    hook = containment.create_inside(task.name, "hook", limits=Limits(pids=5))
    assert text(task.directory, "cgroup.subtree_control") == ""
    assert hook.not_enforced == ("pids",)
    hook.remove()
    task.remove()


def test_what_was_used_is_read_until_the_cell_is_removed(fake: FakeUnified) -> None:
    containment = CgroupContainment(fake.base, "c.n.i")
    cell = containment.create("run", limits=Limits(memory_bytes=1 << 20))
    (cell.directory / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (cell.directory / "memory.peak").write_text("4096\n")
    (cell.directory / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 1\n")
    assert cell.usage() == Usage(1.5, 4096, 2)
    cell.remove()
    assert cell.usage() == Usage()


# ---- the real one


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
