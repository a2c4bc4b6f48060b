"""Ten thousand jobs wait: what a pass of the scheduler looks at does not grow with them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

import pytest

from cranectld.jobs.model import Job, JobState
from cranectld.nodes.model import Node, NodeConfig
from cranectld.queue import JobQueue
from cranectld.scheduling import Placement
from cranectld.scheduling.fifo import FifoScheduler
from cranehooks.model.ids import JobId
from tests.unit.cranectld.builders import CN1, CN2, job, spec

WAITING = 10_000


class Watched(Sequence[Job]):
    """Counts the jobs that are looked at."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self.looked_at = 0

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | Sequence[Job]:
        self.looked_at += 1
        return self._jobs[index]

    def __iter__(self) -> Iterator[Job]:
        for each in self._jobs:
            self.looked_at += 1
            yield each


@pytest.fixture
def nodes() -> list[Node]:
    return [
        Node(NodeConfig(name=name, cpus=4, memory_bytes=1 << 30, gres="", address="", partitions=("main",)), up=True)
        for name in (CN1, CN2)
    ]


def test_a_pass_costs_the_head_of_the_queue(nodes: list[Node]) -> None:
    queue = JobQueue()
    wide = spec(num_nodes=1)
    for number in range(1, WAITING + 1):
        queue.changed(None, replace(job(wide), job_id=JobId(number)))
    watched = Watched(queue.pending)
    answers = FifoScheduler().place(watched, nodes, 1.0)
    placed = [answer.job_id for answer in answers if isinstance(answer, Placement)]
    assert placed == list(range(1, 9)), "eight CPUs"
    assert watched.looked_at < 20
    for number in placed:
        waiting = replace(job(wide), job_id=JobId(number))
        queue.changed(waiting, replace(waiting, state=JobState.CONFIGURING))
    assert queue.pending[0].job_id == 9
    assert queue.waiting == WAITING - 8
