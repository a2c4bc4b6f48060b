import pytest

from cranecli.step.report import fate, task_ranges, task_states, tasks_report
from tests.support.front_daemon import task_end


@pytest.mark.parametrize(
    ("numbers", "text"), [([3], "task 3"), ([2, 0, 1], "tasks 0-2"), ([0, 1, 5, 7, 8], "tasks 0-1,5,7-8"), ([4, 4], "task 4")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert task_ranges(numbers) == text


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (task_end(0), ""),
        (task_end(0, 3), "Exited with exit code 3"),
        (task_end(0, signal=9), "Killed"),
        (task_end(0, signal=9, reason="oom"), "Killed (oom)"),
        (task_end(0, signal=9, reason="killed: out of memory (limit 64 MiB)"), "Killed: out of memory (limit 64 MiB)"),
        (task_end(0, signal=200), "Killed by signal 200"),
        (task_end(0, cancelled=True, reason="TaskProlog a exit 1"), "Cancelled (TaskProlog a exit 1)"),
        (task_end(0, reason="left a process behind"), "left a process behind"),
    ],
)
def test_fates(task: dict[str, object], text: str) -> None:
    assert fate(task) == text


def test_tasks_of_one_fate_share_a_line() -> None:
    assert tasks_report("cn01", [task_end(0, 1), task_end(1), task_end(2, 1), task_end(3, signal=15)]) == [
        "cn01: tasks 0,2: Exited with exit code 1",
        "cn01: task 3: Terminated",
    ]


def test_states() -> None:
    placement = {"cn01": [0, 1], "cn02": [2]}
    assert task_states(placement, ["cn01", "cn02"], {1: task_end(1)}) == ["tasks 0,2: running", "task 1: exited"]
    assert task_states(placement, [], {}) == []
