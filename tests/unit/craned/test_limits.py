"""What the processes of a job may use on a node."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from craned.job.limits import LimitSettings, closed_devices, job_limits, missing_files
from cranehooks.model.gres import HeldDevices, NodeDevice
from cranehooks.model.job import JobOnNode, NodeShare
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits
from cranehooks.settings.limits import JobLimitsSection
from tests.unit.craned.test_attempt import NODE
from tests.unit.craned.test_recovery import JOB

MIB = 1 << 20


def section(**changes: object) -> JobLimitsSection:
    return JobLimitsSection().model_copy(update=changes)


def job(
    *, memory_bytes: int = 0, cpus: float = 2.0, cpus_requested: bool = False, gres: str = "", held: tuple[int, ...] = ()
) -> JobOnNode:
    share = NodeShare(NODE, 1, cpus, memory_bytes, gres, (HeldDevices("gpu", held),) if held else ())
    return replace(JOB, share=share, spec=replace(JOB.spec, cpus_requested=cpus_requested))


def test_a_job_that_asked_for_nothing_is_not_limited() -> None:
    assert job_limits(job(), LimitSettings()) == Limits(kills_all=False)


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        ({}, Limits(memory_bytes=64 * MIB, swap_bytes=0, cpu_cores=2.0)),
        ({"allowed_swap_space": 50.0}, Limits(memory_bytes=64 * MIB, swap_bytes=32 * MIB, cpu_cores=2.0)),
        ({"constrain_swap_space": False}, Limits(memory_bytes=64 * MIB, cpu_cores=2.0)),
        ({"constrain_ram_space": False}, Limits(cpu_cores=2.0)),
        ({"constrain_cores": False, "max_processes": 10}, Limits(memory_bytes=64 * MIB, swap_bytes=0, pids=10)),
    ],
)
def test_what_it_asked_for_is_its_limit(changes: dict[str, object], limits: Limits) -> None:
    asked = job(memory_bytes=64 * MIB, cpus_requested=True)
    assert job_limits(asked, LimitSettings(section(**changes))) == replace(limits, kills_all=False)


def test_the_settings_tell_which_limits_may_come() -> None:
    assert LimitSettings().wanted == {LimitKind.MEMORY, LimitKind.SWAP, LimitKind.CPU}
    devices = (NodeDevice("gpu", 0, "", ("/dev/full",)),)
    assert LimitKind.DEVICES in LimitSettings(devices=devices).wanted
    assert LimitSettings(section(constrain_devices=False), devices).wanted == LimitSettings().wanted
    assert LimitKind.PIDS in LimitSettings(section(max_processes=1)).wanted


def number(path: str) -> Device:
    found = os.stat(path)
    return Device(DeviceKind.CHARACTER, os.major(found.st_rdev), os.minor(found.st_rdev))


DEVICES = (
    NodeDevice("gpu", 0, "", ("/dev/full",)),
    NodeDevice("gpu", 1, "", ("/dev/zero", "/dev/random")),
    NodeDevice("nic", 0),
    NodeDevice("nic", 1, "", ("/nonexistent/nic1",)),
)


@pytest.mark.parametrize(
    ("share", "closed"),
    [
        (job(), ("/dev/full", "/dev/zero", "/dev/random")),
        (job(gres="gpu:1", held=(0,)), ("/dev/zero", "/dev/random")),
        (job(gres="gpu:1", held=(1,)), ("/dev/full",)),
        (job(gres="gpu:2", held=(0, 1)), ()),
        # Allocated before devices were told apart.
        (job(gres="gpu:1"), ()),
    ],
)
def test_what_it_does_not_hold_is_closed(share: JobOnNode, closed: tuple[str, ...]) -> None:
    rules = closed_devices(share.share, DEVICES)
    assert set(rules.denied if rules is not None else ()) == set(map(number, closed))
    assert job_limits(share, LimitSettings(devices=DEVICES)).devices == rules


def test_a_number_that_is_its_own_too_stays_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/full")
    devices = (NodeDevice("gpu", 0, "", ("/dev/full",)), NodeDevice("gpu", 1, "", (str(tmp_path / "link"), "/dev/zero")))
    assert closed_devices(job(gres="gpu:1", held=(0,)).share, devices) == DeviceRules((number("/dev/zero"),))


def test_files_that_keep_nobody_out_are_named(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert missing_files((*DEVICES, NodeDevice("nic", 2, "", (str(plain),)))) == ("/nonexistent/nic1", str(plain))
