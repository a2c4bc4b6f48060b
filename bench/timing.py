"""Times commands from outside, in turn with their counterparts."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence

from bench.clusters import Side


def seconds_of(argv: Sequence[str], env: Mapping[str, str], timeout_s: float = 60) -> float:
    """How long the command takes, from its start to its end.

    Raises:
        AssertionError: It failed: a figure of failures would be a fine one.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/tmp"
    )
    _, text = process.communicate(timeout=timeout_s)
    taken = time.perf_counter() - start
    assert process.returncode == 0, f"{' '.join(argv)} exited with {process.returncode}: {text.decode().strip()}"
    return taken


def alternate(sides: Sequence[Side], command: Sequence[str], runs: int) -> list[list[float]]:
    """The times in seconds of the same command on each side, in turn, after one that does not count.

    Args:
        sides: Ours first.
        command: In Slurm's names.
        runs: On each side.
    """
    found: list[list[float]] = [[] for _ in sides]
    for number in range(runs + 1):
        for side, times in zip(sides, found, strict=True):
            taken = seconds_of(side.command(command[0], *command[1:]), side.env)
            if number:
                times.append(taken)
    return found


def cpu_count() -> int:
    return len(os.sched_getaffinity(0))
