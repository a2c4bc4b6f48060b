from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cranectld.jobs.model import Job
from cranectld.nodes.model import DrainCause, DrainOwner, Node, NodeConfig, allocated, drained, freed
from cranectld.scheduling import Placement, Waiting
from cranectld.scheduling.fifo import FifoScheduler
from cranehooks.model.gres import device_types, parse_gres
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


def test_a_long_queue_costs_no_more_than_its_head() -> None:
    busy = allocated(node("cn01"), AttemptKey(JobId(9), Attempt(1)), NodeShare(NodeName("cn01"), 1, 4.0, 0))

    answers = FIFO.place([pending(number) for number in range(1, 1000)], [busy], 0.0)

    assert list(waiting(answers)) == [1]


def test_an_exclusive_job_waits_for_an_empty_node_and_keeps_others_out() -> None:
    busy = allocated(node("cn01"), AttemptKey(JobId(9), Attempt(1)), NodeShare(NodeName("cn01"), 1, 1.0, 0))

    answers = FIFO.place([pending(1, cpus=1.0, exclusive=True), pending(2, cpus=1.0)], [busy, node("cn02")], 0.0)
    assert placed(answers) == {1: ("cn02",), 2: ("cn01",)}

    answers = FIFO.place([pending(1, cpus=1.0, exclusive=True)], [busy], 0.0)
    assert waiting(answers) == {1: "Resources: 0 of 1 nodes have 1 CPUs free and no other job"}


JOBS = st.lists(
    st.tuples(
        st.sampled_from(["", "gpu:1", "gpu:2", "gpu:a:1", "gpu:b:2", "gpu:a:1,gpu:1", "nic:1", "gpu:1,nic:1"]),
        st.sampled_from(["", "2", "3", "a:2"]),
        st.integers(1, 2),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@given(JOBS)
def test_every_device_is_held_by_one_job_and_nothing_is_given_twice(wanted: list[tuple[str, str, int, bool, bool]]) -> None:
    """Jobs come, are placed, and some of them end before the next."""
    config = {"cpus": 4.0, "memory_bytes": 1 << 30, "partitions": ("main",)}
    offers = {"cn01": "gpu:a:2,gpu:b:2,nic:1", "cn02": "gpu:a:1,gpu:b:1"}
    nodes = {name: Node(NodeConfig(NodeName(name), gres=gres, **config), up=True) for name, gres in offers.items()}  # type: ignore[arg-type]
    for number, (gres, gpus, num_nodes, exclusive, ends) in enumerate(wanted, start=1):
        in_all = gpus if "gpu" not in gres else ""
        asked = pending(number, num_nodes, 0.5, gres=gres, gpus=in_all, exclusive=exclusive, memory_per_node_bytes=300 << 20)
        for answer in FIFO.place([asked], list(nodes.values()), 0.0):
            if isinstance(answer, Waiting):
                continue
            key = AttemptKey(answer.job_id, Attempt(1))
            for share in answer.shares:
                assert {held.name: len(held.indexes) for held in share.devices} == {
                    name: sum(count.count for count in parse_gres(share.gres) if count.name == name)
                    for name in dict.fromkeys(count.name for count in parse_gres(share.gres))
                }
                nodes[share.node] = allocated(nodes[share.node], key, share)
            if in_all and not exclusive:
                total = parse_gres(f"gpu:{in_all}")[0].count
                assert sum(len(share.devices_named("gpu")) for share in answer.shares) == total
        for name, each in nodes.items():
            held = [(d.name, index) for share in each.shares.values() for d in share.devices for index in d.indexes]
            assert len(held) == len(set(held))
            types = device_types(offers[name])
            assert all(index < len(types[kind]) for kind, index in held)
            assert each.cpus_free >= 0
            assert each.memory_free_bytes >= 0
            if ends:
                nodes[name] = freed(each, AttemptKey(JobId(number), Attempt(1)))


def test_nodes_that_cannot_run_the_users_job_are_passed_over() -> None:
    own, anybodys = replace(node("cn01"), only_uid=7), node("cn02")
    assert placed(FIFO.place([pending(1)], [own, anybodys], 0.0)) == {1: ("cn02",)}
    assert placed(FIFO.place([pending(1, uid=7)], [own], 0.0)) == {1: ("cn01",)}
    for job_that_waits in (pending(1), pending(1, nodelist=(NodeName("cn01"),))):
        answers = FIFO.place([job_that_waits, pending(2, uid=7)], [own], 0.0)
        assert "node cn01 runs jobs of uid 7 only" in waiting(answers)[1]
        assert placed(answers) == {2: ("cn01",)}, "it holds nobody back"
