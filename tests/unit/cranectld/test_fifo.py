from dataclasses import replace

from cranectld.jobs.model import Job
from cranectld.nodes.model import DrainCause, DrainOwner, Node, NodeConfig, allocated, drained
from cranectld.scheduling import Placement, Waiting
from cranectld.scheduling.fifo import FifoScheduler, shares_of
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName
from cranehooks.model.job import NodeShare
from tests.unit.cranectld.builders import job, spec

FIFO = FifoScheduler()


def node(name: str, cpus: float = 4.0, partitions: tuple[str, ...] = ("main",), *, up: bool = True) -> Node:
    return Node(NodeConfig(NodeName(name), cpus, 1 << 30, partitions=partitions), up=up)


def pending(number: int, nodes: int = 1, cpus: float = 4.0, **changes: object) -> Job:
    wanted = replace(spec(num_nodes=nodes), cpus_per_task=cpus, **changes)  # type: ignore[arg-type]  # any field
    return replace(job(wanted), job_id=JobId(number))


def placed(answers: list[Placement | Waiting]) -> dict[int, tuple[str, ...]]:
    return {a.job_id: tuple(share.node for share in a.shares) for a in answers if isinstance(a, Placement)}


def waiting(answers: list[Placement | Waiting]) -> dict[int, str]:
    return {answer.job_id: answer.reason for answer in answers if isinstance(answer, Waiting)}


def test_jobs_take_free_nodes_in_order() -> None:
    answers = FIFO.place([pending(1), pending(2), pending(3)], [node("cn01"), node("cn02")], 0.0)

    assert placed(answers) == {1: ("cn01",), 2: ("cn02",)}
    assert waiting(answers)[3].startswith("Resources")


def test_large_job_is_not_overtaken_in_its_partition() -> None:
    busy = allocated(node("cn01"), AttemptKey(JobId(9), Attempt(1)), NodeShare(NodeName("cn01"), 1, 4.0, 0))
    other = node("gpu1", partitions=("gpu",))

    answers = FIFO.place([pending(1, nodes=2), pending(2), pending(3, partition="gpu")], [busy, node("cn02"), other], 0.0)

    assert placed(answers) == {3: ("gpu1",)}
    assert waiting(answers)[2] == "Priority: waits behind job 1"


def test_job_that_waits_for_nodes_out_of_service_holds_nobody_back() -> None:
    bad = drained(node("cn01"), DrainCause(DrainOwner.HOOKS, "prolog a.sh exit 1", 0.0))

    answers = FIFO.place([pending(1, nodelist=(NodeName("cn01"),)), pending(2)], [bad, node("cn02")], 0.0)

    assert placed(answers) == {2: ("cn02",)}
    assert "prolog a.sh exit 1" in waiting(answers)[1]


def test_requeued_job_waits_for_its_time() -> None:
    later = replace(pending(1), not_before=10.0, reason="Prolog exit 1")

    assert placed(FIFO.place([later], [node("cn01")], 9.0)) == {}
    assert placed(FIFO.place([later], [node("cn01")], 10.0)) == {1: ("cn01",)}


def test_excluded_down_and_foreign_nodes_are_left_out() -> None:
    nodes = [node("cn01"), node("cn02", up=False), node("gpu1", partitions=("gpu",)), node("cn03")]

    answers = FIFO.place([pending(1, exclude=(NodeName("cn01"),))], nodes, 0.0)

    assert placed(answers) == {1: ("cn03",)}


def test_tasks_in_blocks() -> None:
    shares = shares_of(replace(spec(num_nodes=3), ntasks=7, cpus_per_task=0.5), [NodeName(n) for n in ("a", "b", "c")])

    assert [(share.ntasks, share.cpus) for share in shares] == [(3, 1.5), (2, 1.0), (2, 1.0)]


def test_a_long_queue_costs_no_more_than_its_head() -> None:
    busy = allocated(node("cn01"), AttemptKey(JobId(9), Attempt(1)), NodeShare(NodeName("cn01"), 1, 4.0, 0))

    answers = FIFO.place([pending(number) for number in range(1, 1000)], [busy], 0.0)

    assert list(waiting(answers)) == [1]
