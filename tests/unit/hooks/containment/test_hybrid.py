"""On a host with both versions nothing is made in version 1, and nobody moves there, unless a limit needs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import HYBRID, ContainmentUnavailableError, detect
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.execution.containment.hybrid import HybridContainment
from cranehooks.model.limits import Limits
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.contained import reap, start
from tests.support.control_groups import removed_control_groups


@pytest.fixture
def instance(tmp_path: Path) -> str:
    return f"test.{tmp_path.parent.name}.{tmp_path.name}"


@pytest.fixture
def hybrid(instance: str) -> Iterator[HybridContainment]:
    with removed_control_groups(instance):
        try:
            driver, _ = detect(HYBRID, instance)
        except ContainmentUnavailableError as error:
            pytest.skip(str(error))
        assert isinstance(driver, HybridContainment)
        yield driver
        driver.close()


def version_1_places(instance: str, *parts: str) -> set[str]:
    here = Hierarchies.of_this_process()
    bases = {controller: base / "crane" / instance for controller, base in here.controllers.items()}
    return {controller for controller, top in bases.items() if top.joinpath(*parts).exists()}


def test_a_cell_without_limits_costs_nothing_in_version_1(hybrid: HybridContainment, instance: str) -> None:
    cell = hybrid.create("run")
    job = hybrid.create_at("job_1", "step_0", "task_0")
    assert cell.entry_fds == job.entry_fds == ()
    assert version_1_places(instance) == set()
    cell.remove()
    job.remove()


def test_a_cell_enters_the_controllers_of_its_limits_alone(
    hybrid: HybridContainment, instance: str, files: HookScripts, tmp_path: Path
) -> None:
    cell = hybrid.create("run", limits=Limits(pids=10))
    assert version_1_places(instance, "hooks", "run") == {"pids", "cpuacct"}
    script = files.write("where", f"cat /proc/self/cgroup > {tmp_path / 'where'}")
    assert reap(cell, start(cell, script)) == 0
    where = dict(line.split(":", 2)[1:] for line in (tmp_path / "where").read_text().splitlines())
    assert {name for name, path in where.items() if path.endswith(f"crane/{instance}/hooks/run")} == {"", "pids", "cpuacct"}
    cell.remove()
    assert version_1_places(instance, "hooks", "run") == set()


def test_a_cell_below_a_limited_one_enters_with_it(hybrid: HybridContainment, instance: str) -> None:
    job = hybrid.create_at("job_1", limits=Limits(pids=10))
    other = hybrid.create_at("job_2", "step_0")
    task = hybrid.create_at("job_1", "step_0", "task_0", limits=Limits(memory_bytes=1 << 30))
    assert len(task.entry_fds) == 3, "its own memory and cpuacct, the job's pids"
    assert other.entry_fds == ()
    task.remove()
    other.remove()
    job.remove()
    assert version_1_places(instance, "job_1") == set(), "what was made on the way to the task as well"


def test_a_hook_is_not_bound_by_limits_of_other_hooks(hybrid: HybridContainment) -> None:
    limited = hybrid.create("limited", limits=Limits(pids=10))
    free = hybrid.create("free")
    assert free.entry_fds == ()
    limited.remove()
    free.remove()
