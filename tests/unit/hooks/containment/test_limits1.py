"""Limits as version 1 controllers read them, written to plain files."""

from pathlib import Path

import pytest

from cranehooks.execution.containment import limits1
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits, Usage


def directory_with(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("controller", "limits", "expected"),
    [
        ("memory", Limits(memory_bytes=1 << 20), {"memory.limit_in_bytes": "1048576"}),
        (
            "memory",
            Limits(memory_bytes=1 << 20, swap_bytes=1 << 20),
            {"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "2097152"},
        ),
        ("cpu", Limits(cpu_cores=1.5), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}),
        ("cpu", Limits(cpu_cores=0.001), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "1000"}),
        ("cpu", Limits(cpu_weight=100), {"cpu.shares": "1024"}),
        ("cpu", Limits(cpu_weight=1), {"cpu.shares": "10"}),
        ("cpu", Limits(cpu_weight=10_000), {"cpu.shares": "102400"}),
        ("pids", Limits(pids=7), {"pids.max": "7"}),
        ("cpuset", Limits(cpuset="0-3,8"), {"cpuset.cpus": "0-3,8"}),
        ("blkio", Limits(io_weight=10_000), {"blkio.bfq.weight": "1000"}),
        ("devices", Limits(devices=DeviceRules((Device(DeviceKind.CHARACTER, 195, 0),))), {"devices.deny": "c 195:0 rwm"}),
    ],
)
def test_each_limit_is_written_in_its_units(tmp_path: Path, controller: str, limits: Limits, expected: dict[str, str]) -> None:
    for name in expected:
        (tmp_path / name).touch()
    assert limits1.apply(controller, tmp_path, limits) == frozenset()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == expected


def test_limits_of_other_controllers_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "pids.max").touch()
    assert limits1.apply("pids", tmp_path, Limits(pids=7, memory_bytes=1)) == frozenset()


@pytest.mark.parametrize(
    ("controller", "limits", "missing"),
    [
        ("memory", Limits(memory_bytes=1 << 20, swap_bytes=0), LimitKind.SWAP),
        ("cpu", Limits(cpu_cores=1), LimitKind.CPU),
        ("blkio", Limits(io_weight=10), LimitKind.IO_WEIGHT),
        ("devices", Limits(devices=DeviceRules()), LimitKind.DEVICES),
    ],
)
def test_a_limit_without_a_file_is_missed(tmp_path: Path, controller: str, limits: Limits, missing: LimitKind) -> None:
    (tmp_path / "memory.limit_in_bytes").touch()
    assert limits1.apply(controller, tmp_path, limits) == {missing}


def test_swap_alone_cannot_be_bounded(tmp_path: Path) -> None:
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    assert limits1.apply("memory", tmp_path, Limits(swap_bytes=0)) == {LimitKind.SWAP}


def test_a_new_cpuset_takes_after_the_one_above(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "cpuset.cpus").write_text("\n")
    (inner / "cpuset.mems").write_text("1\n")
    limits1.prepare("cpuset", inner)
    assert (inner / "cpuset.cpus").read_text() == "0-1"
    assert (inner / "cpuset.mems").read_text() == "1\n", "what is set stays"


def test_limits_of_memory_bind_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "memory.use_hierarchy").write_text("0\n")
    limits1.prepare("memory", tmp_path)
    assert (tmp_path / "memory.use_hierarchy").read_text().strip() == "1"


def test_what_was_used_comes_from_the_controllers_there_are(tmp_path: Path) -> None:
    directory_with(
        tmp_path,
        cpuacct__usage="1500000000\n",
        memory__max_usage_in_bytes="4096\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    assert limits1.usage({"cpuacct": tmp_path, "memory": tmp_path}) == Usage(1.5, 4096, 2)
    assert limits1.usage({"cpuacct": tmp_path}) == Usage(1.5)
    assert limits1.usage({}) == Usage()
