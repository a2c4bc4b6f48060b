"""What crun says about the tasks of a step: in the words of srun, tasks of the same fate on one line."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cranecli.front.client import Body


def task_ranges(numbers: Iterable[int]) -> str:
    """`task 3`, `tasks 0-2,5`."""
    ordered = sorted(set(numbers))
    ranges: list[list[int]] = []
    for number in ordered:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f"task {text}" if len(ordered) == 1 else f"tasks {text}"


def fate(task: Body) -> str:
    """How a task ended, if there is anything to say; empty for an ordinary success."""
    status: Body = task.get("exit") or {}
    code, number = int(status.get("code", 0)), int(status.get("signal", 0))
    reason = str(task.get("reason", ""))
    if task.get("cancelled"):
        text = "Cancelled"
    elif number:
        text = _signal_text(number)
    elif code:
        text = f"Exited with exit code {code}"
    else:
        text = ""
    if not reason:
        return text
    if number and reason.startswith("killed: "):
        return reason[0].upper() + reason[1:]
    return f"{text} ({reason})" if text else reason


def tasks_report(node: str, tasks: Sequence[Body]) -> list[str]:
    """`cn01: tasks 0-3: Exited with exit code 3`: one line for each fate worth a line."""
    by_fate: dict[str, list[int]] = {}
    for task in tasks:
        text = fate(task)
        if text:
            by_fate.setdefault(text, []).append(int(task.get("task_id", 0)))
    return [f"{node}: {task_ranges(numbers)}: {text}" for text, numbers in by_fate.items()]


class ToldCancellations:
    """Says why tasks were cancelled as soon as a node tells, once for each reason; who was named need not be named at the end again.

    A task that failed before it started, as some profiles have it, is told like one that was cancelled.
    """

    def __init__(self, placement: Mapping[str, Sequence[int]]) -> None:
        """`placement`: the tasks of each node."""
        self._node_of = {number: node for node, numbers in placement.items() for number in numbers}
        self._named: dict[str, int] = {}
        """By reason, the task that was named for it."""

    def line_of(self, notice: str) -> str:
        """What to say of a node's notice; empty: its reason has been said."""
        subject, separator, reason = notice.partition(": ")
        match subject.split(" "):
            case ["task", number, "cancelled" | "failed"] if separator and number.isdecimal():
                pass
            case _:
                return notice
        if reason in self._named:
            return ""
        self._named[reason] = int(number)
        node = self._node_of.get(int(number))
        return f"error: {node}: {notice}" if node else f"error: {notice}"

    def without_named(self, tasks: Sequence[Body]) -> list[Body]:
        """The tasks of a report that have not been named with the same reason."""
        return [task for task in tasks if self._named.get(str(task.get("reason", ""))) != int(task.get("task_id", 0))]


def task_states(placement: Mapping[str, Sequence[int]], open_nodes: Iterable[str], ended: Mapping[int, Body]) -> list[str]:
    """`tasks 0-1: running`, `task 2: exited`: what is known while the step goes on."""
    running = [number for node in open_nodes for number in placement.get(node, ()) if number not in ended]
    lines = [f"{task_ranges(running)}: running"] if running else []
    if ended:
        lines.append(f"{task_ranges(ended)}: exited")
    return lines


def _signal_text(number: int) -> str:
    text = signal.strsignal(number) if number in signal.valid_signals() else None
    return text or f"Killed by signal {number}"
