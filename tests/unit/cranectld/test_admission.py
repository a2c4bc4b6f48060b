from dataclasses import replace

import pytest

from cranectld.admission import Admission, Partition, array_indexes
from cranectld.nodes.model import Node, NodeConfig
from cranehooks.model.ids import NodeName
from cranehooks.model.job import JobSpec
from cranekit.errors import CraneError, ErrorCode
from tests.unit.cranectld.builders import spec

NAMES = (NodeName("cn01"), NodeName("cn02"))
NODES = {name: Node(NodeConfig(name, 4.0, 4 << 30, "gpu:2", partitions=("main",))) for name in NAMES}
ADMISSION = Admission({"main": Partition("main", NAMES, 3600.0)}, "main", allow_root_jobs=False)


def changed(**changes: object) -> JobSpec:
    return replace(spec(num_nodes=1), **changes)  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (changed(partition="gpu"), "partition 'gpu' does not exist; expected one of: main"),
        (changed(num_nodes=3), "3 nodes are more than the 2"),
        (changed(exclude=(NAMES[0],), num_nodes=2), "more than the 1"),
        (changed(nodelist=(NodeName("zz"),)), "node zz is not in partition main"),
        (changed(nodelist=NAMES[:1], exclude=NAMES[:1]), "both asked for and excluded"),
        (changed(cpus_per_task=5.0), "5 CPUs"),
        (changed(memory_per_node_bytes=5 << 30), "5120 MiB"),
        (changed(gres="gpu:3"), "gres gpu:3"),
        (changed(gres="gpu:x:y:z"), "expected name"),
        (changed(gpus="x:y:1"), "expected name"),
        (changed(gpus="2,nic:1"), "expected .type:.count"),
        (changed(gpus="3"), "gres gpu:3"),
        (changed(gpus="1", num_nodes=2), "1 GPUs for 2 nodes: expected at least one each"),
        (changed(gpus="1", gres="gpu:1"), "both ask for GPUs"),
        (changed(memory_per_node_bytes=1 << 20, memory_per_cpu_bytes=1 << 20), "expected one of them"),
        (changed(memory_per_cpu_bytes=2 << 30, cpus_per_task=3.0), "6144 MiB"),
        (changed(memory_per_cpu_bytes=2 << 30, exclusive=True), "8192 MiB|does not have that|no node"),
        (changed(time_limit_s=7200.0), "exceeds the 3600 s of partition main"),
        (changed(time_limit_s=0.0), "more than 0"),
        (changed(script="echo hi"), "must start with #!"),
        (changed(script=""), "empty"),
        (changed(script="#!/bin/sh\n\0"), "NUL"),
        (changed(ntasks=5, ntasks_per_node=2), "do not fit"),
        (changed(name="a\nb"), "printable"),
    ],
)
def test_impossible_jobs_are_refused_with_what_would_be_possible(wanted: JobSpec, message: str) -> None:
    with pytest.raises(CraneError, match=message) as refused:
        ADMISSION.admit(wanted, NODES)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_root_jobs_need_permission() -> None:
    with pytest.raises(CraneError, match="AllowRootJobs") as refused:
        ADMISSION.admit(changed(uid=0), NODES)
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    assert replace(ADMISSION, allow_root_jobs=True).admit(changed(uid=0), NODES).uid == 0


def test_defaults() -> None:
    admitted = ADMISSION.admit(changed(partition="", ntasks=0, num_nodes=2, cpus_per_task=0.0), NODES)

    assert (admitted.partition, admitted.ntasks, admitted.cpus_per_task, admitted.time_limit_s) == ("main", 2, 1.0, 3600.0)


@pytest.mark.parametrize(
    ("expression", "expected"), [("3", (3,)), ("0-3", (0, 1, 2, 3)), ("0-9:4,20", (0, 4, 8, 20)), ("1,1", (1,))]
)
def test_array(expression: str, expected: tuple[int, ...]) -> None:
    assert tuple(array_indexes(expression)) == expected


@pytest.mark.parametrize(
    "bad", ["", "x", "3-1", "1-", "0-9:0", "0-99999999", "1%2", "9" * 40, ",".join(["0-9999"] * 3) + ",10000-19999"]
)
def test_bad_array(bad: str) -> None:
    with pytest.raises(CraneError, match="array"):
        array_indexes(bad)


def test_counts_of_devices_have_one_form() -> None:
    admitted = ADMISSION.admit(changed(gres="gpu"), NODES)
    assert admitted.gres == "gpu:1"
    assert ADMISSION.admit(changed(gpus="2"), NODES).gpus == "2"
    assert ADMISSION.admit(changed(gres="gpu, gpu:1"), NODES).gres == "gpu:2"


def test_a_job_that_no_node_can_run_for_its_user_is_refused() -> None:
    alice = changed(uid=1000, user="alice")
    owned = {name: replace(node, only_uid=1001) for name, node in NODES.items()}
    text = "node cn01 runs jobs of uid 1001 only, because its craned is not root: this is a job of alice (uid 1000)"
    with pytest.raises(CraneError) as refused:
        ADMISSION.admit(alice, owned)
    assert (refused.value.code, refused.value.message) == (ErrorCode.PERMISSION_DENIED, text)
    mixed = {**NODES, NAMES[0]: owned[NAMES[0]]}
    ADMISSION.admit(alice, mixed)
    ADMISSION.admit(changed(uid=1001, num_nodes=2), owned)
    with pytest.raises(CraneError, match="1 of the 2 nodes wanted can run it"):
        ADMISSION.admit(replace(alice, num_nodes=2), mixed)
    with pytest.raises(CraneError, match="node cn01 runs jobs of uid 1001 only"):
        ADMISSION.admit(replace(alice, nodelist=NAMES[:1]), mixed)
