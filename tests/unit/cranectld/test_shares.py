"""What a job holds on each of its nodes."""

from dataclasses import replace

import pytest

from cranectld.nodes.model import Node, NodeConfig, allocated
from cranectld.scheduling.shares import demand, demand_text, share_on, shares_on
from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName
from cranehooks.model.job import JobSpec, NodeShare
from tests.unit.cranectld.builders import spec

MIB = 1 << 20


def node(name: str = "cn01", gres: str = "") -> Node:
    return Node(NodeConfig(NodeName(name), 8.0, 1 << 30, gres, partitions=("main",)), up=True)


def wanted(num_nodes: int = 1, **changes: object) -> JobSpec:
    return replace(spec(num_nodes=num_nodes), **changes)  # type: ignore[arg-type]  # any field


def test_tasks_in_blocks() -> None:
    job = wanted(3, ntasks=7, cpus_per_task=0.5)

    shares = [demand(job, index) for index in range(3)]

    assert [(share.ntasks, share.cpus) for share in shares] == [(3, 1.5), (2, 1.0), (2, 1.0)]


def test_memory_per_cpu_follows_the_cpus() -> None:
    job = wanted(2, ntasks=3, cpus_per_task=2.0, memory_per_cpu_bytes=100 * MIB)

    assert [demand(job, index).memory_bytes for index in range(2)] == [400 * MIB, 200 * MIB]


def test_memory_is_held_in_whole_mib() -> None:
    assert demand(wanted(memory_per_node_bytes=1)).memory_bytes == MIB
    assert demand(wanted(memory_per_cpu_bytes=MIB, cpus_per_task=0.5)).memory_bytes == MIB
    assert demand(wanted()).memory_bytes == 0


def test_gpus_in_all_are_spread_over_the_nodes() -> None:
    shares = shares_on(
        wanted(2, gpus="a100:3", gres="nic:1"), [node("cn01", "gpu:a100:2,nic:1"), node("cn02", "nic:1,gpu:a100:1")]
    )

    assert not isinstance(shares, str)
    assert [share.gres for share in shares] == ["nic:1,gpu:a100:2", "nic:1,gpu:a100:1"]
    assert [share.devices_named("gpu") for share in shares] == [(0, 1), (0,)]


def test_the_first_node_without_enough_is_named() -> None:
    assert shares_on(wanted(2, gres="gpu:1"), [node("cn01", "gpu:1"), node("cn02")]) == "cn02"


def test_an_exclusive_job_holds_all_cpus_and_gres_and_the_memory_it_asked_for() -> None:
    job = wanted(exclusive=True, memory_per_cpu_bytes=10 * MIB, cpus_per_task=2.0)

    share = share_on(job, 0, node(gres="gpu:2"))

    assert share == NodeShare(NodeName("cn01"), 1, 8.0, 80 * MIB, "gpu:2", (HeldDevices("gpu", (0, 1)),))


def test_an_exclusive_job_shares_with_nobody() -> None:
    used = allocated(node(), AttemptKey(JobId(7), Attempt(1)), NodeShare(NodeName("cn01"), 1, 0.5, 0))

    assert share_on(wanted(exclusive=True), 0, used) is None
    assert share_on(wanted(exclusive=True, cpus_per_task=9.0), 0, node()) is None


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (wanted(), "1 CPUs"),
        (wanted(memory_per_node_bytes=512 * MIB, gres="gpu:2"), "1 CPUs, 512 MiB, gres gpu:2"),
        (wanted(2, gpus="3"), "1 CPUs, gres gpu:2"),
    ],
)
def test_people_are_told_what_one_node_must_have(job: JobSpec, text: str) -> None:
    assert demand_text(job) == text
