"""What one hook run costs, from a bare spawn to the spawner's client: medians over runs of a script that does nothing."""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cranehooks.execution.containment.detect import CGROUP2, NONE, ContainmentUnavailableError, detect
from cranehooks.execution.engine import Engine
from cranehooks.execution.process import SpawnRequest, spawn
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.model.run import HookRun
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec


def median_ms(work: Callable[[], object], runs: int) -> float:
    durations = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations) * 1e3


def with_posix_spawn(script: str) -> None:
    os.waitpid(os.posix_spawn(script, [script], {}), 0)


def with_spawn(script: str) -> None:
    spawn(SpawnRequest(script, (script,), {})).reap(block=True)


def with_engine(engine: Engine, script: str) -> None:
    done: list[HookRun] = []
    engine.start(prolog_spec(script), done.append)
    while not done:
        engine.poll(None)


async def through_the_spawner(script: str, runs: int, root_name: str) -> None:
    async with SpawnerClient.started(root_name=root_name) as spawner:
        durations = []
        for _ in range(runs):
            start = time.perf_counter()
            await spawner.run(prolog_spec(script))
            durations.append(time.perf_counter() - start)
        print(f"through the spawner            {statistics.median(durations) * 1e3:6.2f} ms")
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(runs):
                tasks.create_task(spawner.run(prolog_spec(script)))
        print(f"through the spawner, at once   {runs / (time.perf_counter() - start):6.0f} runs per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    runs: int = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory:
        script = HookScripts(Path(directory)).write("ok", "exit 0")
        print(f"posix_spawn                    {median_ms(lambda: with_posix_spawn(script), runs):6.2f} ms")
        print(f"spawn                          {median_ms(lambda: with_spawn(script), runs):6.2f} ms")
        for driver in (CGROUP2, NONE):
            try:
                containment, _ = detect(driver, f"bench.{os.getpid()}")
            except ContainmentUnavailableError as error:
                print(f"engine, {driver}: {error}")
                continue
            engine = Engine(containment)
            print(f"engine, {driver:8}               {median_ms(lambda: with_engine(engine, script), runs):6.2f} ms")  # noqa: B023
            engine.close()
            containment.close()
        asyncio.run(through_the_spawner(script, runs, f"bench.{os.getpid()}"))


if __name__ == "__main__":
    main()
