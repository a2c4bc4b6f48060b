"""How long one job or step takes: `crun true` beside `srun true`, with hooks and without, and a batch job to its completion."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.clusters import ALL_HOOKS, TASK_HOOKS, TRUE, CraneSide, Shape, Side, SlurmSide, sides
from bench.figures import Figure, Scale, median_of, ratio_of
from bench.timing import alternate, seconds_of
from tests.support.commands import output_of

_ON = "durable store and journal, cgroups"
_BLOCK = 10
"""Steps in one allocation before it is the other side's turn."""


def figures(scale: Scale) -> list[Figure]:
    found: list[Figure] = []
    with sides(Shape()) as (ours, theirs):
        plain = _job(found, "crun true, no hooks", [ours, theirs], scale.latency_pairs, at_most=1.0)
    with sides(Shape(hooks=tuple(TASK_HOOKS))) as (ours, theirs):
        _steps(found, [ours, theirs], scale.latency_pairs)
    with sides(Shape(hooks=tuple(ALL_HOOKS))) as (ours, theirs):
        hooked = _job(found, "crun true, six hooks", [ours, theirs], scale.latency_pairs, at_most=0.4)
        _batch(found, ours, theirs, scale.batch_pairs)
    added = [(one - other) * 1e3 for one, other in zip(sorted(hooked), sorted(plain), strict=True)]
    found.append(median_of("six hooks add to crun true", added, "ms", at_most=15, note=_ON))
    return found


def _job(found: list[Figure], name: str, pair: Sequence[Side | None], runs: int, *, at_most: float) -> list[float]:
    up = [side for side in pair if side is not None]
    times = alternate(up, ["srun", TRUE], runs)
    _tell(found, name, up, times, at_most)
    return times[0]


def _tell(found: list[Figure], name: str, up: Sequence[Side], times: Sequence[Sequence[float]], at_most: float) -> None:
    for side, taken in zip(up, times, strict=True):
        found.append(median_of(f"{name}, {side.name}", [seconds * 1e3 for seconds in taken], "ms"))
    if len(times) > 1:
        found.append(ratio_of(f"{name}, here to Slurm", times[0], times[1], at_most=at_most, note=_ON))


def _steps(found: list[Figure], pair: Sequence[Side | None], runs: int) -> None:
    up = [side for side in pair if side is not None]
    times: list[list[float]] = [[] for _ in up]
    while len(times[0]) < runs:
        for number, side in enumerate(up):
            times[number] += steps_in_an_allocation(side, min(_BLOCK, runs))
    _tell(found, "step in an allocation, task hooks", up, times, 0.8)


def steps_in_an_allocation(side: Side, steps: int, at_once: int = 1) -> list[float]:
    """The times of so many steps; of one value, the time of all, when several run at once."""
    argv = side.command(
        "salloc", sys.executable, "-m", "bench.steps", str(steps), str(at_once), *side.command("srun", "-n1", TRUE)
    )
    return [float(value) for value in json.loads(output_of(argv, side.env | {"PYTHONPATH": ":".join(sys.path)}, 300))]


def _batch(found: list[Figure], ours: CraneSide, theirs: SlurmSide | None, runs: int) -> None:
    """Ours as cbatch --wait has it, its own start and end included; Slurm's as the controller tells when it is asked all the time."""
    script = ours.directory / "job.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    here: list[float] = []
    there: list[float] = []
    for number in range(runs + 1):
        taken = seconds_of(ours.command("sbatch", "--wait", "--output=/dev/null", str(script)), ours.env)
        here += [taken] if number else []
        if theirs is not None:
            taken = _completed_s(theirs, str(script))
            there += [taken] if number else []
    pair = [here, there] if theirs is not None else [here]
    _tell(found, "batch job to its completion", [side for side in (ours, theirs) if side is not None], pair, 0.1)


def _completed_s(side: SlurmSide, script: str) -> float:
    start = time.perf_counter()
    job_id = output_of(side.command("sbatch", "--parsable", "--output=/dev/null", script), side.env).strip()
    while True:
        shown = subprocess.run(
            side.command("scontrol", "-o", "show", "job", job_id), env=side.env, capture_output=True, text=True, check=False
        )
        if "JobState=COMPLETED" in shown.stdout:
            return time.perf_counter() - start
        assert time.perf_counter() - start < 60, shown.stdout + shown.stderr
        time.sleep(0.005)
