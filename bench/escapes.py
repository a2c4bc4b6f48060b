"""How long a daemon is silent at most while hooks try to get away from it, under each containment driver of the machine."""

import asyncio
import os
import tempfile
from pathlib import Path

from bench.figures import Figure, Scale, single
from cranehooks.execution.containment.detect import DRIVERS, ContainmentUnavailableError, detect
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.testing.faulty_scripts import HookScripts
from cranehooks.testing.specs import prolog_spec
from tests.support.escapes import ESCAPES, Escape
from tests.support.heartbeat import heartbeat

_AT_MOST_MS = 100.0


def figures(scale: Scale) -> list[Figure]:
    """The table of the escape suite, each attempt once, whatever the scale."""
    del scale
    found = []
    for driver in DRIVERS:
        name = f"bench.{os.getpid()}"
        try:
            containment, _ = detect(driver, name)
        except ContainmentUnavailableError:
            continue
        enforced = containment.offers.enforced
        containment.close()
        attempts = [escape for escape in ESCAPES if escape.needs <= enforced]
        with tempfile.TemporaryDirectory(prefix="crane-bench-") as directory:
            slowest_ms = asyncio.run(_slowest_ms(driver, name, HookScripts(Path(directory)), attempts))
        note = f"{len(attempts)} attempts, one after the other"
        found.append(single(f"slowest answer during escapes, {driver}", slowest_ms, "ms", at_most=_AT_MOST_MS, note=note))
    return found


async def _slowest_ms(driver: str, name: str, files: HookScripts, attempts: list[Escape]) -> float:
    """Of the loop that a daemon's calls are answered on."""
    async with (
        SpawnerClient.started(containment=driver, root_name=name) as spawner,
        heartbeat(lambda: asyncio.sleep(0)) as beat,
    ):
        for escape in attempts:
            script, environment = escape.write(files), {"PATH": os.defpath}
            await spawner.run(
                prolog_spec(script, environment=environment, timeout_s=escape.time_s, grace_s=0.3, limits=escape.limits)
            )
    return beat.slowest_s * 1000
