"""The example scheduler's bookkeeping, with a controller that the test plays."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2, node_pb2

SOURCE = Path(__file__).parents[3] / "examples" / "scheduler.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("example_scheduler", SOURCE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


class Controller:
    """Answers AllocateJob as told; `during` happens while the call is under way."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, list[str]]] = []
        self.refuses: grpc.StatusCode | None = None
        self.during: Callable[[], None] = lambda: None

    async def AllocateJob(self, request: ctld.AllocateJobRequest) -> ctld.AllocateJobResponse:  # noqa: N802
        self.asked.append((request.job_id, request.attempt, list(request.nodes)))
        self.during()
        if self.refuses is not None:
            raise grpc.aio.AioRpcError(self.refuses, grpc.aio.Metadata(), grpc.aio.Metadata(), "no")
        return ctld.AllocateJobResponse()


Known = Any  # the example's RoundRobin, whose type mypy cannot see here


@pytest.fixture
def known(example: ModuleType, tmp_path: Path) -> Known:
    known = example.RoundRobin(tmp_path / "state.json")
    for name in ("cn01", "cn02"):
        known.see_node(node_pb2.NodeStatus(name=name, up=True, partitions=["main"]))
    return known


def job(job_id: int, attempt: int = 0, **spec: Any) -> job_pb2.JobStatus:  # any field
    values = {"num_nodes": 1, "partition": "main", **spec}
    return job_pb2.JobStatus(job_id=job_id, attempt=attempt, state=job_pb2.JOB_STATE_PENDING, spec=job_pb2.JobSpec(**values))


def said(
    cursor: int, kind: "ctld.DecisionKind.ValueType", job_id: int, **fields: Any
) -> ctld.WatchDecisionsResponse:  # any field
    return ctld.WatchDecisionsResponse(cursor=cursor, kind=kind, job_id=job_id, **fields)


async def test_jobs_take_turns_on_the_nodes_and_wait_for_a_free_one(known: Known) -> None:
    controller = Controller()
    for number in (1, 2, 3):
        known.hear(said(number, ctld.DECISION_KIND_SUBMITTED, number, job=job(number)))
    await known.place(controller)
    assert controller.asked == [(1, 1, ["cn01"]), (2, 1, ["cn02"])]
    known.hear(said(4, ctld.DECISION_KIND_END, 2))
    await known.place(controller)
    assert controller.asked[2:] == [(3, 1, ["cn02"])]


async def test_its_owners_wishes_hold(known: Known) -> None:
    controller = Controller()
    known.hear(said(1, ctld.DECISION_KIND_SUBMITTED, 1, job=job(1, exclude="cn01")))
    known.hear(said(2, ctld.DECISION_KIND_SUBMITTED, 2, job=job(2, partition="other")))
    await known.place(controller)
    known.hear(said(3, ctld.DECISION_KIND_END, 1))
    known.hear(said(4, ctld.DECISION_KIND_SUBMITTED, 3, job=job(3, nodelist="cn02", num_nodes=2)))
    await known.place(controller)
    assert controller.asked == [(1, 1, ["cn02"]), (3, 1, ["cn02", "cn01"])]


@pytest.mark.parametrize(
    "node",
    [
        node_pb2.NodeStatus(name="cn01"),
        node_pb2.NodeStatus(name="cn01", up=True, drain_causes=[node_pb2.DrainCause(reason="fan")]),
        node_pb2.NodeStatus(name="cn01", up=True, owed_epilogs=[7]),
    ],
)
async def test_nodes_that_take_no_work_are_left_out(known: Known, node: node_pb2.NodeStatus) -> None:
    controller = Controller()
    known.hear(said(1, ctld.DECISION_KIND_NODE, 0, node=node))
    known.see_job(job(1))
    known.see_job(job(2))
    await known.place(controller)
    assert controller.asked == [(1, 1, ["cn02"])]


async def test_without_an_answer_the_same_call_is_repeated_also_after_a_restart(
    known: Known, example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = Controller()
    controller.refuses = grpc.StatusCode.UNAVAILABLE
    known.hear(said(8, ctld.DECISION_KIND_SUBMITTED, 1, job=job(1)))
    await known.place(controller)
    again = example.RoundRobin(tmp_path / "state.json")
    assert (again.cursor, again.is_new) == (8, False)
    controller.refuses = None
    monkeypatch.setattr(example.time, "time", lambda: 2e9)
    for keeper in (known, again):
        keeper.nodes = {"cn02": ["main"], "cn01": ["main"]}
        await keeper.place(controller)
    assert controller.asked == [(1, 1, ["cn01"])] * 3


async def test_what_is_refused_is_tried_elsewhere_later(
    known: Known, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = Controller()
    controller.refuses = grpc.StatusCode.FAILED_PRECONDITION
    known.see_job(job(1))
    await known.place(controller)
    await known.place(controller)
    assert len(controller.asked) == 1
    controller.refuses = None
    known.hear(said(1, ctld.DECISION_KIND_NODE, 0, node=node_pb2.NodeStatus(name="cn01")))
    monkeypatch.setattr(example.time, "time", lambda: 2e9)
    await known.place(controller)
    assert controller.asked[1] == (1, 1, ["cn02"])


async def test_an_end_that_is_heard_before_the_answer_counts(known: Known) -> None:
    controller = Controller()
    controller.during = lambda: known.hear(said(2, ctld.DECISION_KIND_REQUEUE, 1, attempt=1, job=job(1, attempt=1)))
    known.see_job(job(1))
    await known.place(controller)
    assert (known.placed, known.waiting["1"]["attempt"]) == ({}, 2)


async def test_a_node_is_free_at_its_own_epilogs_end(known: Known, tmp_path: Path) -> None:
    controller = Controller()
    known.see_job(job(1, num_nodes=2))
    await known.place(controller)
    known.see_job(job(2))
    up = node_pb2.NodeStatus(name="cn02", up=True, partitions=["main"])
    known.hear(said(1, ctld.DECISION_KIND_NODE_FREE, 1, node=up))
    await known.place(controller)
    assert controller.asked == [(1, 1, ["cn01", "cn02"]), (2, 1, ["cn02"])]
    assert json.loads((tmp_path / "state.json").read_text())["placed"] == {"1": ["cn01"], "2": ["cn02"]}


async def test_jobs_that_are_over_or_held_are_forgotten(known: Known) -> None:
    controller = Controller()
    for number, kind in enumerate((ctld.DECISION_KIND_CANCEL, ctld.DECISION_KIND_HOLD, ctld.DECISION_KIND_FAIL), 1):
        known.see_job(job(number))
        known.hear(said(number, kind, number))
    await known.place(controller)
    assert controller.asked == []
    known.hear(said(4, ctld.DECISION_KIND_RELEASED, 2, job=job(2, attempt=3)))
    await known.place(controller)
    assert controller.asked == [(2, 4, ["cn01"])]
