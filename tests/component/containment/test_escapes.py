"""Nothing a hook starts gets away, under any driver, and who runs it goes on answering."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import DRIVERS, NONE
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.execution.spawner_client import SpawnerClient, SpawnerError
from cranehooks.model.limits import LimitKind, words
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec
from tests.support.control_groups import removed_control_groups
from tests.support.drivers_exercised import exercised, silence
from tests.support.escapes import ESCAPES, Escape, processes_with
from tests.support.eventually import eventually_async
from tests.support.heartbeat import heartbeat

OUTPUT_LIMIT_BYTES = 1 << 16


@pytest.fixture(params=DRIVERS)
async def spawner(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SpawnerClient]:
    """A hook spawner with each driver."""
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    with removed_control_groups(name):
        try:
            async with SpawnerClient.started(containment=request.param, root_name=name) as client:
                exercised(request.node, request.param)
                yield client
        except SpawnerError:
            pytest.skip(f"driver {request.param} does not work here")
        left = [str(place) for place in Hierarchies.of_this_process().places(name) if place.exists()]
        assert left == [], "cgroups are left"


def holdings(pid: int) -> tuple[set[str], int]:
    """Descriptors and threads of a process."""
    return set(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.parametrize("escape", [pytest.param(each, id=each.name) for each in ESCAPES])
async def test_nothing_gets_away(spawner: SpawnerClient, escape: Escape, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert spawner.ready is not None
    assert spawner.pid is not None
    missing = words(escape.needs - offered(spawner.ready.driver, spawner.ready.what_is_lost))
    if missing:
        pytest.skip(f"driver {spawner.ready.driver} offers no limits of {', '.join(missing)} here")
    files, mark = HookScripts(tmp_path / "hooks.d"), {"CRANE_ESCAPE": str(tmp_path)}
    async with heartbeat(lambda: asyncio.sleep(0)) as unloaded:
        await spawner.run(prolog_spec(files.ok(), environment=mark))
    before = holdings(spawner.pid)
    spec = prolog_spec(
        escape.write(files),
        environment={**mark, "PATH": os.defpath},
        timeout_s=escape.time_s,
        grace_s=0.3,
        limits=escape.limits,
        output_limit_bytes=OUTPUT_LIMIT_BYTES,
    )
    async with heartbeat(lambda: asyncio.sleep(0)) as beat:
        record = await spawner.run(spec)
    [script] = record.scripts
    assert str(script.outcome) == escape.outcome
    assert escape.output in script.output
    assert len(script.output) <= 2 * OUTPUT_LIMIT_BYTES
    assert not escape.leaves or script.leftovers
    assert processes_with(mark) == {}
    assert await eventually_async(lambda: holdings(spawner.pid or 0) == before)
    silence(request.node, beat.slowest_s, unloaded.slowest_s)
    assert beat.slowest_s < unloaded.bound_s()


def offered(driver: str, lost: str) -> frozenset[LimitKind]:
    """What a driver enforces, by what it says is lost."""
    if driver == NONE:
        return frozenset()
    words_lost = lost.partition("no limits of ")[2].partition(" (")[0].split(", ")
    return frozenset(kind for kind in LimitKind if kind.value not in words_lost)
