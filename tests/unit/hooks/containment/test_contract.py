"""What every containment driver promises: no process gets away from its cell, limits hold or are named, nothing is left."""

import os
import select
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from cranehooks.execution.containment.cells import Containment
from cranehooks.execution.containment.detect import NONE, detect
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits, Usage, words
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.contained import is_alive, reap, start
from tests.support.eventually import eventually


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


# ---- limits


HOG = "held = bytearray(256 << 20); print('got it')"
FORKS = "import os, time\nfor _ in range(30):\n    if os.fork() == 0:\n        time.sleep(3600)\nprint('forked')"


def python(files: HookScripts, name: str, program: str) -> str:
    return files.write(name, program, interpreter=f"#!{sys.executable} -IS")


def needs(containment: Containment, *kinds: LimitKind) -> None:
    missing = words(frozenset(kinds) - containment.offers.enforced)
    if missing:
        pytest.skip(f"driver {containment.driver} offers no limits of {', '.join(missing)} here")


def test_a_driver_says_what_it_cannot_limit(containment: Containment) -> None:
    limits = Limits(
        memory_bytes=64 << 20,
        swap_bytes=0,
        cpu_cores=0.5,
        cpu_weight=50,
        pids=20,
        cpuset="0",
        io_weight=50,
        devices=DeviceRules((Device(DeviceKind.CHARACTER, 1, 5),)),
    )
    cell = containment.create("run", limits=limits)
    missing = words(limits.kinds - containment.offers.enforced)
    assert cell.not_enforced == missing
    for word in missing:
        # The driver without cgroups offers nothing at all.
        assert word in containment.offers.what_is_lost or "no limits," in containment.offers.what_is_lost
    cell.remove()


def test_a_cell_without_limits_misses_none(containment: Containment) -> None:
    cell = containment.create("run")
    assert cell.not_enforced == ()
    cell.remove()


def test_who_takes_more_memory_than_allowed_is_killed(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.MEMORY)
    # Without the limit of swap a host that has some would let it live.
    limits = Limits(memory_bytes=64 << 20, swap_bytes=0 if LimitKind.SWAP in containment.offers.enforced else None)
    cell = containment.create("run", limits=limits)
    process = start(cell, python(files, "hog", HOG))
    assert reap(cell, process) == signal.SIGKILL
    used = cell.usage()
    assert used.oom_kills == 1
    assert used.memory_peak_bytes is not None
    assert 32 << 20 < used.memory_peak_bytes <= 64 << 20
    assert used.cpu_s is not None
    assert used.cpu_s > 0
    cell.remove()
    assert cell.usage() == Usage()


def test_nobody_forks_beyond_the_limit(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.PIDS)
    cell = containment.create("run", limits=Limits(pids=10))
    assert reap(cell, start(cell, python(files, "forks", FORKS))) == 1 << 8
    assert 1 < len(cell.members()) < 10
    cell.kill()
    eventually(cell.is_empty)
    cell.remove()


def test_processes_run_on_the_cpus_they_may(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.CPUSET)
    cell = containment.create("run", limits=Limits(cpuset="0"))
    script = python(files, "cpus", "import os, sys; sys.exit(os.sched_getaffinity(0) != {0})")
    assert reap(cell, start(cell, script)) == 0
    cell.remove()
    with pytest.raises(OSError, match=r"cpuset\.cpus"):
        containment.create("run", limits=Limits(cpuset="4000"))


@pytest.mark.parametrize("rules", ["denied", "allowed"])
def test_only_the_devices_of_a_cell_can_be_opened(containment: Containment, files: HookScripts, rules: str) -> None:
    needs(containment, LimitKind.DEVICES)
    # /dev/kmsg is 1:11; null is open to all.
    kmsg, loop = Device(DeviceKind.CHARACTER, 1, 11), Device(DeviceKind.BLOCK, 7)
    devices = DeviceRules(denied=(kmsg,)) if rules == "denied" else DeviceRules(allowed=(loop,))
    cell = containment.create("run", limits=Limits(devices=devices))
    node = files.directory.parent / "kmsg"
    os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 11))
    script = files.write("opens", f"cat {node} > /dev/null &", "pid=$!", "echo x > /dev/null || exit 9", "wait $pid")
    assert reap(cell, start(cell, script)) == 1 << 8, "cat may not read it"
    cell.remove()


def test_cpu_time_is_bounded_and_counted(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.CPU, LimitKind.CPU_WEIGHT)
    cell = containment.create("run", limits=Limits(cpu_cores=0.25, cpu_weight=50))
    burn = "import os, time\nwhile time.process_time() < 0.3: pass"
    started = time.monotonic()
    assert reap(cell, start(cell, python(files, "burns", burn))) == 0
    assert time.monotonic() - started > 0.6, "0.3 s of CPU at a quarter of a core"
    used = cell.usage().cpu_s
    assert used is not None
    assert used >= 0.3
    cell.remove()


def test_limits_of_a_job_bind_its_tasks_and_their_hooks(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.PIDS)
    job = containment.create_at("job_42", limits=Limits(pids=12))
    step = containment.create_at("job_42", "step_0")
    assert step.cgroup is not None
    task = containment.create_inside(step.cgroup, "task_0")
    assert task.cgroup is not None
    hook = containment.create_inside(task.cgroup, "42.1.0/task_prolog:0")
    script = python(files, "forks", FORKS)
    for cell in (hook, task):
        assert reap(cell, start(cell, script)) == 1 << 8
        cell.kill()
        eventually(job.is_empty)
    job.kill()
    for cell in (hook, task, step, job):
        eventually(cell.is_empty)
        cell.remove()
    assert containment.sweep("job_42") == []


def test_memory_is_measured_without_a_limit_where_that_is_asked_for(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.MEMORY)
    cell = containment.create_at("job_42", limits=Limits(measures_memory=True))
    assert reap(cell, start(cell, python(files, "uses", "held = bytearray(32 << 20)"))) == 0
    peak = cell.usage().memory_peak_bytes
    assert peak is not None
    assert peak > 32 << 20
    cell.remove()


def test_a_place_that_exists_is_taken_over_with_new_limits(containment: Containment, files: HookScripts) -> None:
    needs(containment, LimitKind.MEMORY)
    first = containment.create_at("job_42", limits=Limits(memory_bytes=64 << 20, swap_bytes=0))
    second = containment.create_at("job_42", limits=Limits(memory_bytes=512 << 20, swap_bytes=0))
    assert first.cgroup == second.cgroup
    assert reap(second, start(second, python(files, "hog", HOG))) == 0
    second.remove()
    first.remove()


def test_what_was_made_in_any_hierarchy_is_removed(containment: Containment, files: HookScripts, tmp_path: Path) -> None:
    here = Hierarchies.of_this_process()
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    enforced = containment.offers.enforced
    limits = Limits(memory_bytes=1 << 30 if LimitKind.MEMORY in enforced else None, pids=50)
    for cell in (containment.create("run", limits=limits), containment.create_at("job_1", "step_0", limits=limits)):
        process = start(cell, files.hangs())
        cell.kill()
        reap(cell, process)
        eventually(cell.is_empty)
        cell.remove()
    containment.sweep("job_1")
    containment.close()
    assert not [place for place in here.places(name) if place.exists()]


def test_a_dead_instance_is_swept_from_every_hierarchy(containment: Containment, files: HookScripts, tmp_path: Path) -> None:
    if containment.driver == NONE:
        pytest.skip("a process of a dead instance without cgroups is not to be found")
    here = Hierarchies.of_this_process()
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    cell = containment.create("42.1/prolog@cn01", limits=Limits(pids=50, memory_bytes=1 << 30))
    process = start(cell, files.hangs())
    successor, _ = detect(containment.driver, name)
    killed = successor.sweep("hooks")
    assert (process.pid, "/bin/sh " + str(files.directory / "hangs")) in [(one.pid, one.command) for one in killed]
    assert reap(cell, process) == signal.SIGKILL
    assert not [place for place in here.places(name, "hooks") if place.exists()]
    assert cell.is_empty()
    cell.remove()
    successor.close()


def test_a_stopped_process_dies(containment: Containment, files: HookScripts) -> None:
    cell = containment.create("run")
    process = start(cell, files.write("stops", "kill -STOP $$"))
    eventually(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    cell.signal_all(signal.SIGTERM)
    cell.kill()
    assert reap(cell, process) == signal.SIGKILL
    eventually(cell.is_empty)
    cell.remove()


def test_what_is_kept_outlives_its_instance_and_the_next_ones_sweep(
    containment: Containment, files: HookScripts, tmp_path: Path
) -> None:
    if containment.driver == NONE:
        pytest.skip("without cgroups nothing is swept, so nothing is spared")
    limits = Limits(pids=50) if LimitKind.PIDS in containment.offers.enforced else None
    kept, other = (containment.create(f"{number}.1/prolog@cn01", limits=limits) for number in (42, 43))
    processes = []
    for cell, name in ((kept, "kept"), (other, "other")):
        reap(cell, start(cell, files.leaves_daemon(tmp_path / name, name)))
        processes.append(int((tmp_path / name).read_text()))
    kept.keep()
    assert [left.pid for left in containment.sweep("hooks")] == [processes[1]]
    assert [left.pid for left in containment.kept()] == [processes[0]]
    twin = containment.create("42.1/prolog@cn01")
    reap(twin, start(twin, files.ok()))
    twin.keep()
    assert [left.pid for left in containment.end_kept("42.1/prolog@cn01")] == [processes[0]]
    assert not Path(kept.name).exists()
    assert not Path(twin.name).exists(), "what ended by itself is removed with it"
    eventually(lambda: not any(map(is_alive, processes)))
    other.remove()
