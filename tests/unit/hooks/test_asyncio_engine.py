"""Runs awaited on an event loop; cancellation ends the script, not only the waiting."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cranehooks.execution.asyncio_engine import AsyncEngine
from cranehooks.execution.containment.cells import Containment
from cranehooks.execution.engine import Engine
from cranehooks.model.outcome import OK, OutcomeKind
from cranehooks.model.run import HookRun, RunSpec, ScriptStarted
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec


@pytest.fixture
async def engine(containment: Containment) -> AsyncIterator[AsyncEngine]:
    async with AsyncEngine(Engine(containment, reaps_orphans=True)) as engine:
        yield engine


async def test_a_run_is_awaited(engine: AsyncEngine, files: HookScripts) -> None:
    started: list[ScriptStarted] = []
    record = await engine.run(prolog_spec(files.ok(says="hello")), started.append)
    assert (record.outcome, record.output, len(started)) == (OK, "hello\n", 1)


async def test_what_never_starts_is_reported_too(engine: AsyncEngine) -> None:
    assert (await engine.run(prolog_spec("/nonexistent"))).outcome.kind is OutcomeKind.SPAWN
    assert (await engine.run(prolog_spec())).outcome == OK


async def test_deadlines_fire_on_the_loop(engine: AsyncEngine, files: HookScripts) -> None:
    record = await engine.run(prolog_spec(files.ignores_term(), timeout_s=0.1, grace_s=0.1))
    assert record.outcome.kind is OutcomeKind.TIMEOUT


async def test_runs_are_side_by_side(engine: AsyncEngine, files: HookScripts) -> None:
    slow = files.write("slow", "sleep 0.2")
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(engine.run(prolog_spec(slow))) for _ in range(8)]
    assert [run.result().outcome for run in runs] == [OK] * 8


async def start(engine: AsyncEngine, spec: RunSpec, tasks: asyncio.TaskGroup) -> asyncio.Task[HookRun]:
    began = asyncio.Event()
    task: asyncio.Task[HookRun] = tasks.create_task(engine.run(spec, lambda _: began.set()))
    await began.wait()
    return task


async def test_cancelling_stops_the_script_and_waits_for_its_end(engine: AsyncEngine, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = await start(engine, prolog_spec(files.hangs()), tasks)
        task.cancel()
    assert task.cancelled()
    assert engine.active == frozenset()


async def test_cancelling_twice_kills(engine: AsyncEngine, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = await start(engine, prolog_spec(files.ignores_term(), grace_s=3600.0), tasks)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
    assert task.cancelled()
    assert engine.active == frozenset()


async def test_stopping_ends_the_run_with_a_record(engine: AsyncEngine, files: HookScripts) -> None:
    spec = prolog_spec(files.hangs())
    async with asyncio.TaskGroup() as tasks:
        task = await start(engine, spec, tasks)
        assert engine.stop(spec.key.run_id)
    record = task.result()
    assert record.outcome.kind is OutcomeKind.STOPPED
