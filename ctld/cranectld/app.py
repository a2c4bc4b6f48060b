"""Composition of the controller: makes the parts, joins them, runs them, and takes them down in order."""

import asyncio
import hashlib
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import structlog

from cranectld.bindings import Bindings
from cranectld.configuration import Configuration
from cranectld.controller import Controller
from cranectld.craned_client import CranedLinks
from cranectld.ctld_hooks import SpawnedCtldHooks
from cranectld.frontdesk import FrontDesk
from cranectld.jobs.events import StepEnded
from cranectld.metrics import ControllerMetrics
from cranectld.nodes.model import NodeUse
from cranectld.nodes.sessions import NodeSessions
from cranectld.ports import NodeCommand, RunStepCommand
from cranectld.retention import Retention
from cranectld.scheduling.external import ExternalPort, ExternalScheduling
from cranectld.scheduling.fifo import FifoScheduler
from cranectld.service.front import FrontService
from cranectld.service.nodes import NodeService
from cranectld.service.registration import SERVICES, add_services
from cranectld.service.scheduler import SchedulerPortService
from cranectld.store.sqlite import SqliteStore
from cranehooks.execution.daemon import make_room, tell_of, tell_of_gaps
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.model.ids import NodeName, TaskId
from cranehooks.model.job import ExitStatus, TaskEnd
from cranehooks.model.points import Runner, points_of
from cranehooks.settings import SchedulerKind
from cranekit.daemon import Stop, announce_ready
from cranekit.metrics import MetricsServer, make_registry
from cranekit.rpc.credentials import Authenticator, Role, daemon_metadata, identity_of_peer, read_secret
from cranekit.rpc.server import GrpcServer

_log = structlog.get_logger()

STOP_GRACE_S = 2.0
"""For calls under way when the controller stops."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """`ports.Clock` of this host."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


async def serve(configuration: Configuration, stop: Stop, ready_file: Path | None) -> None:
    """Runs the controller until `stop`.

    Raises:
        CraneError: it cannot start: an address, the secret or the store.
    """
    settings = configuration.settings
    state_dir = Path(settings.state_dir)
    await asyncio.to_thread(state_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    secret = read_secret(Path(settings.cluster_secret_file))
    user = identity_of_peer(os.geteuid(), os.getegid()).user
    async with AsyncExitStack() as stack:
        root_name = _cgroup_root(settings.cluster_name, state_dir)
        # Before anything is started: children are born where we are.
        await asyncio.to_thread(make_room, settings.containment.value)
        spawner = await stack.enter_async_context(
            SpawnerClient.started(containment=settings.containment.value, root_name=root_name, on_ready=tell_of)
        )
        registry = make_registry("cranectld", version("crane-hooks"))
        metrics = ControllerMetrics(registry)
        if spawner.ready is not None:
            metrics.runs.contained_by(spawner.ready.driver)
            tell_of_gaps(configuration.hook_settings(), points_of(Runner.CRANECTLD), spawner.ready.enforced)
        store = SqliteStore(state_dir / "cranectld.db")
        restored = await asyncio.to_thread(store.open)
        metrics.watch_store(store)
        store.start(lambda: controller.wake())  # noqa: PLW0108 - there is a controller by then
        stack.push_async_callback(store.close)

        external = ExternalScheduling() if settings.scheduler.kind is SchedulerKind.EXTERNAL else None
        links = CranedLinks(
            daemon_metadata(secret, Role.CONTROLLER),
            store.flushed_or_retrying,
            lambda *refused: _refused(controller, *refused),
            lambda node: sessions.must_register(node),  # noqa: PLW0108 - there are sessions by then
            keepalive_s=settings.keepalive_s,
        )
        controller = Controller(
            cluster=settings.cluster_name,
            nodes=configuration.nodes(),
            hooks=configuration.hook_settings,
            requeue=configuration.requeue,
            budget=configuration.drain_budget(),
            store=store,
            links=links,
            ctld_hooks=SpawnedCtldHooks(spawner, metrics.runs, user),
            scheduling=external or FifoScheduler(),
            clock=SystemClock(),
            metrics=metrics,
            max_requests=lambda: configuration.settings.retention.max_requests,
        )
        retention = Retention(controller, lambda: configuration.retention)
        controller.restore(restored)
        metrics.watch_nodes(lambda: node_states(controller))
        sessions = NodeSessions(
            controller,
            links,
            config_digest=lambda: configuration.settings.digest,
            heartbeat=timedelta(seconds=settings.heartbeat_interval),
            down_after=timedelta(seconds=settings.node_down_timeout),
        )
        bindings = Bindings(controller, timedelta(seconds=settings.launcher_grace))
        stack.callback(bindings.close)
        for job in list(controller.jobs.values()):
            bindings.expect(job)
        desk = FrontDesk(
            controller,
            bindings,
            lambda: configuration.admission,
            is_administrator=configuration.is_administrator,
            max_queued_jobs=lambda: configuration.settings.max_queued_jobs,
            config_digest=lambda: configuration.settings.digest,
            profile=lambda: configuration.settings.profile_name,
            scheduler=settings.scheduler.kind.value,
            version=version("crane-hooks"),
        )
        server = GrpcServer(
            [settings.cranectld_listen],
            authenticator=Authenticator(secret, settings.cluster_name),
            registry=registry,
            reflected_services=SERVICES if settings.enable_reflection else (),
            keepalive_s=settings.keepalive_s,
        )
        port = ExternalPort(controller, lambda: configuration.admission) if external is not None else None
        add_services(
            server.raw, FrontService(desk), NodeService(sessions, store), SchedulerPortService(controller, port, external)
        )

        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [
            tasks.create_task(work, name=name)
            for name, work in (
                ("links", links.run()),
                ("controller", controller.run()),
                ("nodes", sessions.watch()),
                ("retention", retention.run()),
            )
        ]
        await asyncio.sleep(0)  # run() has its task group from its first step on
        metrics_address = ""
        if settings.metrics_listen.cranectld is not None:
            metrics_server = stack.enter_context(MetricsServer(registry, settings.metrics_listen.cranectld))
            metrics_address = metrics_server.address
        (address,) = await server.start()
        announce_ready(ready_file, {"address": address, "metrics": metrics_address})
        _log.info(
            "cranectld.serving",
            address=address,
            metrics=metrics_address,
            nodes=len(controller.fleet.nodes),
            profile=settings.profile_name,
        )
        try:
            await stop.wait()
        finally:
            _log.info("cranectld.stopping")
            await server.stop(STOP_GRACE_S)
            for task in running:
                task.cancel()


def _cgroup_root(cluster: str, state_dir: Path) -> str:
    """The same after a restart, so that what a killed instance left there is found and ended."""
    place = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]
    return f"{cluster}.cranectld.{place}"


def _refused(controller: Controller, node: NodeName, command: NodeCommand, why: str) -> None:
    """A node rejects a command for good: the step it was about has failed there."""
    _log.error("node.command_refused", node=node, command=type(command).__name__, why=why)
    if isinstance(command, RunStepCommand):
        key = command.job
        tasks = tuple(
            TaskEnd(TaskId(task_id), ExitStatus(code=1), cancelled=True, reason=why)
            for task_id in command.step.tasks_per_node.get(node, ())
        )
        event = StepEnded(controller.clock.now(), key.attempt, node, command.step.step_id, tasks, f"{node} refused it: {why}")
        if key.job_id in controller.jobs:
            controller.apply(key.job_id, event)


def node_states(controller: Controller) -> dict[str, int]:
    """How many nodes are in each state, for the metrics."""
    states = {"idle": 0, "allocated": 0, "completing": 0, "drained": 0, "down": 0}
    for node in controller.fleet.nodes.values():
        if not node.up:
            states["down"] += 1
        elif node.is_drained:
            states["drained"] += 1
        else:
            states[{NodeUse.IDLE: "idle", NodeUse.ALLOCATED: "allocated", NodeUse.COMPLETING: "completing"}[node.use]] += 1
    return states
