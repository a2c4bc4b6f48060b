"""A craned's life: its helper processes are started while it is small, then the rest is imported and serves."""

import asyncio
from pathlib import Path

from craned.configuration import Configuration
from craned.places import Places, cgroup_instance, prepare
from craned.steps.supervisors import SupervisorParent
from cranehooks.execution.daemon import make_room, tell_of
from cranehooks.execution.spawner_client import SpawnerClient, SpawnerError
from cranekit.daemon import Stop, protect_from_oom_killer, run_daemon
from cranekit.errors import CraneError, ErrorCode


def run(configuration: Configuration, run_dir: Path | None, state_dir: Path | None, ready_file: Path | None) -> int:
    """Serves until a signal stops it; the exit status."""
    settings = configuration.settings
    protect_from_oom_killer()
    sockets = (run_dir or Path(settings.run_dir)).absolute()

    async def live(stop: Stop) -> None:
        if configuration.node_name is None:
            from craned.app import serve_login

            await serve_login(configuration, sockets, stop, ready_file)
            return
        own_state = (state_dir or Path(settings.state_dir) / configuration.node_name).absolute()
        places = await asyncio.to_thread(prepare, sockets, own_state)
        await _live_as_node(configuration, places, stop, ready_file)

    return run_daemon(live, reload=configuration.reload)


async def _live_as_node(configuration: Configuration, places: Places, stop: Stop, ready_file: Path | None) -> None:
    settings, node = configuration.settings, configuration.node
    # Before anything is started: children are born where we are.
    await asyncio.to_thread(make_room, settings.containment.value)
    instance = cgroup_instance(settings.cluster_name, node.name, places.state_dir)
    parent = await asyncio.to_thread(SupervisorParent)
    try:
        spawning = SpawnerClient.started(containment=settings.containment.value, root_name=instance, on_ready=tell_of)
        async with spawning as spawner:
            # gRPC comes with it: a large process, with threads, which must not be the one that forks.
            from craned.app import Helpers, serve

            await serve(configuration, places, Helpers(spawner, parent, instance), stop, ready_file)
    except SpawnerError as error:
        raise CraneError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
    finally:
        await asyncio.to_thread(parent.close)
