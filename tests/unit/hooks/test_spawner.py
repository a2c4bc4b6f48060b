"""A real spawner process, commanded by its client."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import CGROUP2, NONE
from cranehooks.execution.spawner_client import QueueFullError, SpawnerClient, SpawnerError
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.run import HookRun, RunSpec, ScriptStarted
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec
from tests.support.control_groups import removed_control_groups
from tests.support.eventually import eventually, eventually_async

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)


@pytest.fixture
def root_name(tmp_path: Path) -> Iterator[str]:
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    with removed_control_groups(name):
        yield name


@pytest.fixture(params=[CGROUP2, NONE])
async def spawner(request: pytest.FixtureRequest, root_name: str) -> AsyncIterator[SpawnerClient]:
    if request.param == CGROUP2 and os.geteuid() != 0:
        pytest.skip("cgroups are root's to make")
    async with SpawnerClient.started(containment=request.param, root_name=root_name, max_concurrent=2, max_queued=3) as client:
        assert client.ready is not None
        if client.ready.driver != request.param:
            pytest.skip(client.ready.what_is_lost)
        yield client


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def began(tasks: asyncio.TaskGroup, spawner: SpawnerClient, spec: RunSpec) -> tuple[asyncio.Task[HookRun], ScriptStarted]:
    """A run whose first script is under way."""
    first: asyncio.Future[ScriptStarted] = asyncio.get_running_loop().create_future()
    task = tasks.create_task(spawner.run(spec, first.set_result))
    return task, await first


async def test_a_run_is_told_as_it_was(spawner: SpawnerClient, files: HookScripts) -> None:
    started: list[ScriptStarted] = []
    spec = prolog_spec(files.ok(says="hello"), files.exits(3, says="broken"))
    record = await spawner.run(spec, started.append)
    assert record.key == spec.key
    assert record.outcome == EXIT_3
    assert [(script.outcome, script.output) for script in record.scripts] == [(OK, "hello\n"), (EXIT_3, "broken\n")]
    assert [(start.run_id, start.index, start.sha256) for start in started] == [
        (spec.key.run_id, index, script.sha256) for index, script in enumerate(record.scripts)
    ]
    assert record.queue_wait_s >= 0


async def test_much_output_arrives(spawner: SpawnerClient, files: HookScripts) -> None:
    record = await spawner.run(prolog_spec(*(files.floods(2_000_000, f"flood-{number}") for number in range(3))))
    assert [len(script.output) > 1_000_000 for script in record.scripts] == [True] * 3


async def test_few_run_at_a_time_some_wait_and_more_are_refused(spawner: SpawnerClient, files: HookScripts) -> None:
    hang = files.hangs()
    async with asyncio.TaskGroup() as tasks:
        runs = [await began(tasks, spawner, prolog_spec(hang)) for _ in range(2)]
        specs = [prolog_spec(files.ok()) for _ in range(3)]
        waiting = [tasks.create_task(spawner.run(spec)) for spec in specs]
        await eventually_async(lambda: spawner.waiting == 3)
        assert spawner.running == 2
        with pytest.raises(QueueFullError, match="3 runs wait, expected fewer than 3"):
            await spawner.run(prolog_spec(hang))
        with pytest.raises(ValueError, match="is under way"):
            await spawner.run(specs[0])
        assert spawner.stop(specs[1].key.run_id)
        assert (await waiting[1]).outcome.kind is OutcomeKind.STOPPED
        for _, start in runs:
            spawner.stop(start.run_id)
    assert [task.result().outcome.kind for task, _ in runs] == [OutcomeKind.STOPPED] * 2
    assert [waiting[index].result().outcome for index in (0, 2)] == [OK, OK]
    assert waiting[2].result().queue_wait_s > 0


async def test_cancelling_stops_the_script_and_waits_for_its_end(spawner: SpawnerClient, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        task, start = await began(tasks, spawner, prolog_spec(files.hangs()))
        task.cancel()
    assert task.cancelled()
    assert not is_alive(start.pid)
    assert spawner.running == 0


async def test_cancelling_twice_kills(spawner: SpawnerClient, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        task, start = await began(tasks, spawner, prolog_spec(files.ignores_term(), grace_s=3600.0))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    assert not is_alive(start.pid)


async def test_a_cancelled_run_that_waits_never_starts(spawner: SpawnerClient, files: HookScripts, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        runs = [await began(tasks, spawner, prolog_spec(files.hangs())) for _ in range(2)]
        task = tasks.create_task(spawner.run(prolog_spec(files.appends("ran", tmp_path / "trace", "traces"))))
        await eventually_async(lambda: spawner.waiting == 1)
        task.cancel()
        for _, start in runs:
            spawner.stop(start.run_id, now=True)
    assert task.cancelled()
    assert not (tmp_path / "trace").exists()


async def test_the_death_of_the_spawner_loses_its_runs_and_no_others(spawner: SpawnerClient, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        runs = [await began(tasks, spawner, prolog_spec(files.hangs())) for _ in range(2)]
        waiting = tasks.create_task(spawner.run(prolog_spec(files.ok())))
        await eventually_async(lambda: spawner.waiting == 1)
        assert spawner.pid is not None
        os.kill(spawner.pid, signal.SIGKILL)
    for task, start in runs:
        record = task.result()
        assert record.outcome == Outcome(OutcomeKind.LOST, 0, "the hook spawner died")
        assert [(script.path, script.sha256) for script in record.scripts] == [(start.path, start.sha256)]
    await eventually_async(lambda: not any(is_alive(start.pid) for _, start in runs))
    assert waiting.result().outcome == OK
    assert spawner.restarts == 1


async def test_interrupts_are_the_daemons_business(spawner: SpawnerClient, files: HookScripts) -> None:
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGINT)
    assert (await spawner.run(prolog_spec(files.ok()))).outcome == OK
    assert spawner.restarts == 0


async def test_a_spawner_that_is_told_to_end_ends_its_runs_first(spawner: SpawnerClient, files: HookScripts) -> None:
    async with asyncio.TaskGroup() as tasks:
        task, start = await began(tasks, spawner, prolog_spec(files.hangs()))
        assert spawner.pid is not None
        os.kill(spawner.pid, signal.SIGTERM)
    assert task.result().outcome.kind is OutcomeKind.STOPPED
    assert not is_alive(start.pid)
    assert (await spawner.run(prolog_spec(files.ok()))).outcome == OK
    assert spawner.restarts == 1


async def test_leaving_ends_what_runs(files: HookScripts, root_name: str) -> None:
    async with asyncio.TaskGroup() as tasks, SpawnerClient.started(root_name=root_name) as spawner:
        task, start = await began(tasks, spawner, prolog_spec(files.hangs()))
    assert task.result().outcome.kind is OutcomeKind.STOPPED
    assert not is_alive(start.pid)


@pytest.mark.parametrize("waits_for_process", [False, True])
async def test_leaving_while_it_is_being_restarted_waits_for_that_one_too(root_name: str, waits_for_process: bool) -> None:
    async with SpawnerClient.started(root_name=root_name) as spawner:
        assert spawner.pid is not None
        os.kill(spawner.pid, signal.SIGKILL)
        await eventually_async(lambda: spawner.ready is None)
        if waits_for_process:
            await eventually_async(lambda: spawner.restarts == 1 and spawner.pid is not None)
    assert spawner.pid is None


async def test_an_error_of_the_host_arrives_as_itself(root_name: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with SpawnerClient.started(containment=NONE, root_name=root_name):
            raise KeyError("mine")


async def test_a_driver_that_does_not_work_is_told_at_once(root_name: str) -> None:
    with pytest.raises(SpawnerError, match="did not start"):
        async with SpawnerClient.started(containment="cgroup3", root_name=root_name):
            raise AssertionError


DAEMON = """
import asyncio, os
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.testing.specs import prolog_spec

async def main():
    async with SpawnerClient.started(containment={driver!r}, root_name={root_name!r}) as spawner:
        def died(started):
            print(spawner.pid, started.pid, flush=True)
            os.kill(os.getpid(), 9)
        await spawner.run(prolog_spec({script!r}, grace_s=0.1), died)

asyncio.run(main())
"""


@pytest.mark.parametrize("driver", [NONE, "auto"])
@pytest.mark.parametrize("script", ["hangs", "ignores_term"])
def test_nothing_outlives_the_daemon(files: HookScripts, root_name: str, driver: str, script: str) -> None:
    program = DAEMON.format(driver=driver, root_name=root_name, script=getattr(files, script)())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    eventually(lambda: not any(map(is_alive, pids)))


def test_the_spawner_and_the_engine_import_the_standard_library_only() -> None:
    """What is imported costs every start, and every fork afterwards."""
    heavy = {"asyncio", "grpc", "google", "pydantic", "structlog", "yaml", "typer", "rich", "subprocess", "logging"}
    # -S: what the virtual environment imports at every start is not ours to judge.
    program = f"import sys; sys.path[:] = {sys.path!r}; import {{module}}; print(*sys.modules)"
    for module in ("cranehooks.execution.spawner", "cranehooks.execution.engine"):
        command = [sys.executable, "-S", "-c", program.format(module=module)]
        imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert module in imported
        assert not imported & heavy
