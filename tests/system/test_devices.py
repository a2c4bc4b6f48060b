"""Devices of a node: each belongs to one job, which alone can open its files, and which is told of them."""

import errno
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from cranehooks.model.gres import GPU, HeldDevices, NodeDevice
from cranehooks.model.limits import LimitKind
from tests.support.offered import needs
from tests.support.scripted_cluster import ScriptedCluster

FULL, ZERO = os.makedev(1, 7), os.makedev(1, 5)
VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")


@pytest.fixture(scope="module")
def files() -> Iterator[tuple[Path, Path]]:
    """Two device files that stand for GPUs: of /dev/full and /dev/zero, which no program here misses."""
    if os.geteuid() != 0:
        pytest.skip("only root can make device files")
    directory = Path(mkdtemp(prefix="crane-devices-", dir="/tmp"))
    directory.chmod(0o755)
    paths = directory / "gpu0", directory / "gpu1"
    try:
        for path, number in zip(paths, (FULL, ZERO), strict=True):
            try:
                os.mknod(path, stat.S_IFCHR | 0o666, number)
                path.chmod(0o666)
                os.close(os.open(path, os.O_RDWR))
            except PermissionError:
                pytest.skip("device files cannot be used below /tmp")
        yield paths
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def shared_cluster(files: tuple[Path, Path]) -> Iterator[ScriptedCluster]:
    """One node with two GPUs and one that has no file."""
    devices = [NodeDevice(GPU, index, "trial", (str(path),)) for index, path in enumerate(files)]
    with ScriptedCluster(nodes=1, devices=[*devices, NodeDevice("nic", 0)], EnableSlurmCompatibleEnv=True) as cluster:
        yield cluster


def opening(*paths: Path) -> str:
    """A program that says of each file what opening it gives."""
    return (
        "import os\n"
        f"for path in {[str(path) for path in paths]}:\n"
        "    try: os.close(os.open(path, os.O_RDWR)); print(0)\n"
        "    except OSError as error: print(error.errno)\n"
    )


def opened(stage: ScriptedCluster, label: str, *options: str, paths: tuple[Path, ...]) -> list[int]:
    result = stage.run("crun", *options, stage.interpreter, "-c", opening(*paths), label=label)
    assert result.returncode == 0, result.stderr
    return list(map(int, result.stdout.split()))


@needs(LimitKind.DEVICES)
def test_a_job_opens_its_own_devices_and_those_that_are_nobodys(stage: ScriptedCluster, files: tuple[Path, Path]) -> None:
    paths = (*files, Path("/dev/null"), Path("/dev/full"))
    assert opened(stage, "none", paths=paths) == [errno.EPERM, errno.EPERM, 0, errno.EPERM]
    assert opened(stage, "one", "--gres=gpu:1", paths=paths) == [0, errno.EPERM, 0, 0]
    assert opened(stage, "typed", "--gpus=trial:2", paths=paths) == [0, 0, 0, 0]
    assert opened(stage, "whole", "--exclusive", paths=paths) == [0, 0, 0, 0]
    assert stage.ended("one").shares[0].devices == (HeldDevices(GPU, (0,)),)


@needs(LimitKind.DEVICES)
def test_jobs_at_the_same_time_have_different_devices_also_after_a_restart(
    stage: ScriptedCluster, files: tuple[Path, Path]
) -> None:
    gate = stage.gate("first")
    stage.submit("first", gate.line, "--gpus-per-node=1")
    gate.await_arrivals()
    stage.cluster.kill("cranectld", signal.SIGKILL)
    stage.cluster.restart("cranectld")
    stage.cluster.wait_until_up()

    show = 'env | grep -e VISIBLE -e ORDINAL -e AFFINITY -e _GPUS; exec "$@"'
    result = stage.run("crun", "--gres=gpu:1", "sh", "-c", show, "-", stage.interpreter, "-c", opening(*files), label="second")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-2:] == [str(errno.EPERM), "0"]
    # The job sees no other device: what it sees is counted from 0.
    seen = dict(line.split("=", 1) for line in result.stdout.split() if "=" in line)
    assert {name: seen[name] for name in VISIBLE} == dict.fromkeys(VISIBLE, "0")
    assert (seen["CRANE_JOB_GPUS"], seen["SLURM_JOB_GPUS"], seen["SLURM_STEP_GPUS"], seen["CRANE_GPUS"]) == ("1", "1", "1", "1")

    assert stage.nodes()["cn01"].gres_used == "gpu:0"
    assert "gpu:0" in stage.hookctl("node", "cn01").stdout
    gate.open()
    assert stage.ended("first").shares[0].devices == (HeldDevices(GPU, (0,)),)
    for label, index in (("first", "0"), ("second", "1")):
        for call in stage.calls(label, "Prolog", "Epilog"):
            told = {name: call.environment[name] for name in (*VISIBLE, "CRANE_JOB_GPUS", "SLURM_JOB_GPUS")}
            assert told == dict.fromkeys(told, index), call.point
    assert len(stage.calls("second", "Prolog", "Epilog")) == 2
    # The controller is another process now.
    stage.note_idle_processes()


def test_a_job_waits_for_a_device_that_another_holds(stage: ScriptedCluster) -> None:
    gate = stage.gate("holder")
    stage.submit("holder", gate.line, "--gres=gpu:2,nic:1")
    gate.await_arrivals()
    stage.submit("waiter", "true", "--gres=gpu:1")
    assert "gres gpu:1" in stage.await_state("waiter", "Pending").reason
    gate.open()
    assert stage.ended("waiter").state == "Completed"


def test_without_the_constraint_files_stay_open_and_gpus_keep_their_numbers(files: tuple[Path, Path]) -> None:
    devices = [NodeDevice(GPU, index, "", (str(path),)) for index, path in enumerate(files)]
    with ScriptedCluster(nodes=1, points=(), devices=devices, JobLimits={"ConstrainDevices": False}) as stage:
        gate = stage.gate("other")
        stage.submit("other", gate.line, "--gpus=1")
        gate.await_arrivals()
        result = stage.run("crun", "-G1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES $CRANE_JOB_GPUS", label="numbers")
        assert result.stdout == "1 1\n", result.stderr
        assert opened(stage, "open", paths=files) == [0, 0]
        gate.open()
        stage.ended("other")
