"""What one hook run costs above the bare spawn of its script, in the engine and through the hook spawner of a daemon."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from bench.figures import Figure, Scale, median_of, quantile, single
from cranehooks.execution.containment.detect import detect
from cranehooks.execution.engine import Engine
from cranehooks.execution.process import SpawnRequest, spawn
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.journal import Journal
from cranehooks.model.run import HookRun, RunSpec
from cranehooks.run_metrics import HookRunMetrics
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec

_AT_ONCE = 16
_PAUSE_S = 0.03
"""Between runs that come one at a time, as real jobs do."""


def figures(scale: Scale) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="crane-bench-") as directory:
        script = HookScripts(Path(directory)).write("ok", "exit 0")
        found = _in_turn(script, scale.engine_runs)
        found += asyncio.run(_through_the_spawner(script, Path(directory), scale.engine_runs))
    return found


def _in_turn(script: str, runs: int) -> list[Figure]:
    """The engine alone, each run beside a bare spawn."""
    containment, _ = detect(None, f"bench.{os.getpid()}")
    engine = Engine(containment)
    found: list[Figure] = []
    try:
        for pause_s, how in ((0.0, "back to back"), (_PAUSE_S, "one at a time")):
            bare, whole = [], []
            for _ in range(runs):
                time.sleep(pause_s)
                bare.append(_seconds(lambda: spawn(SpawnRequest(script, (script,), {})).reap(block=True)))
                time.sleep(pause_s)
                whole.append(_seconds(lambda: _run(engine, script)))
            over = [(one - other) * 1e3 for one, other in zip(whole, bare, strict=True)]
            found.append(median_of(f"bare spawn, {how}", [seconds * 1e3 for seconds in bare], "ms"))
            found.append(median_of(f"engine above a bare spawn, {how}", over, "ms", note=containment.driver))
    finally:
        engine.close()
        containment.close()
    return found


async def _through_the_spawner(script: str, directory: Path, runs: int) -> list[Figure]:
    """As craned runs it: intent and outcome in the journal, capture, a cgroup of its own, metrics."""
    metrics = HookRunMetrics(CollectorRegistry())
    journal, _ = Journal.open(directory / "journal")
    found: list[Figure] = []
    async with SpawnerClient.started(root_name=f"bench.{os.getpid()}") as spawner:

        async def run() -> float:
            spec: RunSpec = prolog_spec(script)
            start = time.perf_counter()
            await journal.append([{"intent": spec.key.run_id}])
            metrics.started(spec.key.point)
            ended = await spawner.run(spec)
            assert ended.outcome.ok, ended.outcome
            metrics.ended(ended)
            await journal.append([{"outcome": spec.key.run_id}])
            return time.perf_counter() - start

        for pause_s, how in ((0.0, "back to back"), (_PAUSE_S, "one at a time")):
            over: list[float] = []
            for _ in range(runs):
                await asyncio.sleep(pause_s)
                bare = _seconds(lambda: spawn(SpawnRequest(script, (script,), {})).reap(block=True))
                await asyncio.sleep(pause_s)
                over.append((await run() - bare) * 1e3)
            note = "journal with fsync, capture, cgroup, metrics"
            found.append(median_of(f"node hook above a bare spawn, {how}", over, "ms", at_most=1.5, note=note))
            found.append(single(f"node hook above a bare spawn, {how}, p99", quantile(over, 0.99), "ms"))
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one() -> None:
            async with slots:
                await run()

        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(runs * 5):
                tasks.create_task(one())
        rate = runs * 5 / (time.perf_counter() - start)
        found.append(single(f"node hooks, {_AT_ONCE} at a time", rate, "/s", at_least=600))
    journal.close()
    return found


def _run(engine: Engine, script: str) -> None:
    done: list[HookRun] = []
    engine.start(prolog_spec(script), done.append)
    while not done:
        engine.poll(None)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
