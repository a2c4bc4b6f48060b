from dataclasses import replace

import pytest

from cranectld.jobs.model import Job
from cranectld.step_layout import laid_out
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId
from cranehooks.model.job import JobSpec, StepSpec
from cranekit.errors import CraneError, ErrorCode
from tests.unit.cranectld.builders import CN1, CN2, shares, spec

CN3 = NodeName("cn03")
ZERO = StepId("0")


def job(ntasks: int = 6) -> Job:
    base = spec(num_nodes=3)
    values = {name: getattr(base, name) for name in JobSpec.__dataclass_fields__}
    return Job(
        JobId(1), JobSpec(**{**values, "ntasks": ntasks, "cwd": "/home/alice"}), 0.0, Attempt(1), shares=shares(CN1, CN2, CN3)
    )


def step(**fields: object) -> StepSpec:
    values: dict[str, object] = {"step_id": ZERO, "argv": ("true",), "ntasks": 0, **fields}
    return StepSpec(**values)  # type: ignore[arg-type]  # any field


def test_what_is_left_open_comes_from_the_job() -> None:
    placed = laid_out(job(), step(), StepId("7"))
    assert placed.tasks_per_node == {CN1: (0, 1), CN2: (2, 3), CN3: (4, 5)}
    assert (placed.step_id, placed.ntasks, placed.cwd) == ("7", 6, "/home/alice")


def test_a_part_of_the_nodes_gets_one_task_each() -> None:
    assert laid_out(job(), step(num_nodes=2), ZERO).tasks_per_node == {CN1: (0,), CN2: (1,)}
    assert laid_out(job(), step(nodelist=(CN3, CN2)), ZERO).tasks_per_node == {CN2: (0,), CN3: (1,)}
    assert laid_out(job(), step(ntasks=2), ZERO).tasks_per_node == {CN1: (0,), CN2: (1,)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"argv": ()}, "no command"),
        ({"nodelist": (NodeName("cn09"),)}, "cn09 is not in the allocation"),
        ({"num_nodes": 4}, "4 nodes are more than the 3"),
        ({"num_nodes": 3, "ntasks": 2}, "2 tasks for 3 nodes"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(CraneError, match=message) as refused:
        laid_out(job(), step(**wrong), ZERO)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def uneven() -> Job:
    """With 1, 4 and 2 CPUs on its nodes."""
    base = job(ntasks=7)
    given = tuple(replace(share, cpus=cpus) for share, cpus in zip(base.shares, (1.0, 4.0, 2.0), strict=True))
    return replace(base, shares=given)


def test_tasks_go_where_their_cpus_are() -> None:
    assert laid_out(uneven(), step(ntasks=7), ZERO).tasks_per_node == {CN1: (0,), CN2: (1, 2, 3, 4), CN3: (5, 6)}
    assert laid_out(uneven(), step(ntasks=5), ZERO).tasks_per_node == {CN1: (0,), CN2: (1, 2), CN3: (3, 4)}
    assert laid_out(uneven(), step(ntasks=2, nodelist=(CN2, CN3), cpus_per_task=2.0), ZERO).tasks_per_node == {
        CN2: (0,),
        CN3: (1,),
    }
    thirds = replace(uneven(), spec=replace(uneven().spec, cpus_per_task=0.1))
    assert laid_out(thirds, step(ntasks=70), ZERO).ntasks == 70


@pytest.mark.parametrize(
    "wrong",
    [{"ntasks": 8}, {"ntasks": 50}, {"ntasks": 4, "cpus_per_task": 2.0}, {"cpus_per_task": 2.0}, {"ntasks": 2, "num_nodes": 1}],
)
def test_more_tasks_than_cpus_need_overcommit(wrong: dict[str, object]) -> None:
    with pytest.raises(CraneError, match=r"more processors requested than permitted: .*--overcommit") as refused:
        laid_out(uneven(), step(**wrong), ZERO)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    placed = laid_out(uneven(), step(**wrong), ZERO, overcommit=True)
    assert placed.ntasks == wrong.get("ntasks", 7)


def test_a_job_without_counted_cpus_has_room_for_all() -> None:
    base = job()
    nothing = replace(base, shares=tuple(replace(share, cpus=0.0) for share in base.shares))
    assert laid_out(nothing, step(ntasks=30), ZERO).ntasks == 30
