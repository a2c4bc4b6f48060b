"""Composition of a node daemon: makes the parts, joins them, runs them, and takes them down in order."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from craned.attempts.attempt import Phase
from craned.attempts.driver import Attempts
from craned.attempts.ledger import Ledger
from craned.attempts.records import RecordError
from craned.attempts.recovery import Memory, continuation, remember
from craned.attempts.reports import Outbox
from craned.configuration import CHECKED_POINTS, Configuration, own_user
from craned.crew import Crew
from craned.ctld_client import ControllerClient, ControllerSession, NodeCard
from craned.front.service import FrontDesk
from craned.hooks.node_hooks import NodeHooks
from craned.hooks.processes import JobProcesses, sweep_unknown_jobs
from craned.job.cells import JobCells
from craned.job.limits import LimitSettings
from craned.places import Places, boot_id, prepare_run_dir
from craned.service.craned import CranedService
from craned.service.stdio import StepStdioService
from craned.steps.bootstrap import BootstrapStarter, NodePlace, StepLimits
from craned.steps.driver import Steps
from craned.steps.extern import ExternHooks, tell_of_loss
from craned.steps.files import StepFiles
from craned.steps.login import UserRules
from craned.steps.supervisor_client import Forked, Gone
from craned.steps.supervisors import Nonces, SupervisorParent, supervisor_handler
from cranehooks.execution.containment.detect import NONE, detect
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.execution.containment.sweeping import Instance
from cranehooks.execution.daemon import tell_of_gaps
from cranehooks.execution.spawner_client import SpawnerClient
from cranehooks.journal import Journal, JournalError, Reading
from cranehooks.model.ids import AttemptKey
from cranehooks.model.limits import LimitKind
from cranehooks.run_metrics import HookRunMetrics
from cranehooks.settings import ClusterSettings
from cranehooks.settings.users import MissingHome, UnknownUser
from cranekit.daemon import Stop, announce_ready
from cranekit.errors import CraneError, ErrorCode
from cranekit.local_socket import serve_local
from cranekit.metrics import MetricsServer, make_registry
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Authenticator, Role, TokenMinter, daemon_metadata, read_secret
from cranekit.rpc.gateway import FrontMetrics
from cranekit.rpc.server import GrpcServer

STOP_GRACE_S = 2.0
"""For calls under way when the daemon stops."""

HOOKS_GRACE_S = 10.0
"""For hooks under way when the daemon stops; what is broken off then is lost."""

SERVICES = ("crane.hooks.v1.CranedService", "crane.hooks.v1.StepStdioService")

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.app")


@dataclass(frozen=True, slots=True)
class Helpers:
    """The small processes that were started before anything heavy was imported."""

    spawner: SpawnerClient
    parent: SupervisorParent
    cgroup_instance: str


async def serve(configuration: Configuration, places: Places, helpers: Helpers, stop: Stop, ready_file: Path | None) -> None:
    """Runs the node until `stop`.

    Raises:
        CraneError: it cannot start: an address, the secret, a directory.
    """
    settings, node = configuration.settings, configuration.node
    secret = read_secret(Path(settings.cluster_secret_file))
    registry = make_registry("craned", version("crane-hooks"))
    metrics = HookRunMetrics(registry)
    async with AsyncExitStack() as stack:
        journal, memory = await asyncio.to_thread(_open_journal, places.journal)
        stack.callback(journal.close)
        boot = boot_id()
        outbox = Outbox(memory.reports, next_id=memory.next_report_id)
        ledger = Ledger(journal, outbox, boot)
        attempts = Attempts(node.name, ledger, outbox, observe=metrics.observe)
        ready = helpers.spawner.ready
        driver, lost = (NONE, "") if ready is None else (ready.driver, ready.what_is_lost)
        metrics.contained_by(driver)
        enforced: frozenset[LimitKind] = frozenset() if ready is None else ready.enforced
        tell_of_gaps(configuration.hook_settings(), CHECKED_POINTS, enforced)
        configuration.when_changed(lambda: tell_of_gaps(configuration.hook_settings(), CHECKED_POINTS, enforced))
        tell_of_loss(configuration.hook_settings(), driver)
        configuration.when_changed(lambda: tell_of_loss(configuration.hook_settings(), driver))
        nonces = Nonces(places.state_dir)
        containment = None if driver == NONE else detect(driver, helpers.cgroup_instance, is_shown=True)[0]
        cells = JobCells(containment, lambda: LimitSettings(configuration.settings.job_limits, configuration.node.devices))
        await asyncio.to_thread(cells.warn_of_gaps)
        starter = BootstrapStarter(
            NodePlace(node.name, places.supervisors_socket, places.steps_dir, driver, helpers.cgroup_instance),
            nonces,
            lambda: _step_limits(configuration.settings),
            helpers.parent.fork,
            cells,
        )
        files = StepFiles(places.steps_dir)
        processes = JobProcesses(node.name, containment, cells)
        if containment is not None:
            gauge = Gauge(
                "crane_hook_kept_processes", "Processes that hooks left behind and that live (KeepProcesses).", registry=registry
            )
            gauge.set_function(lambda: len(containment.kept()))
        steps = Steps(node.name, starter, processes, files)
        hooks = NodeHooks(node.name, own_user(), helpers.spawner, metrics, processes, ExternHooks(steps, cells))
        server = GrpcServer(
            [_prepared(node.listen or node.address)],
            authenticator=Authenticator(secret, settings.cluster_name),
            registry=registry,
            reflected_services=SERVICES if settings.enable_reflection else (),
            keepalive_s=settings.keepalive_s,
        )
        CranedService(node.name, attempts, configuration.hook_settings).join(server.raw)
        StepStdioService(node.name, attempts, steps).join(server.raw)
        metrics_address = ""
        if node.metrics_listen is not None:
            metrics_address = stack.enter_context(MetricsServer(registry, node.metrics_listen)).address

        def parent_said(message: Forked | Gone) -> None:
            if isinstance(message, Gone) and (key := starter.gone(message.nonce)) is not None:
                steps.supervisor_gone(key)

        async with asyncio.TaskGroup() as group:
            crew = Crew(group)
            attempts.begin(crew, hooks, steps)
            steps.begin(crew, attempts)
            crew.start(helpers.parent.serve(parent_said), name="supervisor parent")
            crew.start(ledger.keep_small(attempts.snapshot), name="journal")
            await asyncio.to_thread(files.keep_only, _unreleased(memory))
            here = Instance(Hierarchies.of_this_process(), helpers.cgroup_instance)
            await asyncio.to_thread(sweep_unknown_jobs, here, [key.job_id for key in _unreleased(memory)])
            has_rebooted = memory.boot_id not in ("", boot)
            if not has_rebooted:
                await _end_kept(processes, memory)
            await _recover(attempts, ledger, memory, hooks.user, has_rebooted=has_rebooted)
            async with serve_local(places.supervisors_socket, 0o600, supervisor_handler(nonces, steps.serve_supervisor)):
                [listening] = await server.start()
                address = listening if node.listen is None else node.address
                try:
                    channel_metadata = daemon_metadata(secret, Role.NODE, node.name)
                    async with open_channel(
                        settings.control_address, metadata=channel_metadata, keepalive_s=settings.keepalive_s
                    ) as channel:
                        session = ControllerSession(
                            ControllerClient(channel),
                            _cards(configuration, boot, address, driver, lost),
                            lambda: attempts.held.values(),  # noqa: PLW0108 - the values of that moment
                            outbox,
                            ledger,
                        )
                        configuration.when_changed(session.card_changed)
                        reporting = group.create_task(session.run(), name="controller")
                        async with _front(configuration, secret, places.run_dir, registry):
                            facts = {
                                "node": node.name,
                                "address": address,
                                "metrics": metrics_address,
                                "front_socket": str(places.front_socket),
                            }
                            announce_ready(ready_file, facts)
                            log.info("serving", **facts, containment=driver)
                            await stop.wait()
                        await attempts.close(HOOKS_GRACE_S)
                        reporting.cancel()
                finally:
                    await server.stop(STOP_GRACE_S)
            crew.dismiss()


def _cards(configuration: Configuration, boot: str, address: str, driver: str, lost: str) -> Callable[[], NodeCard]:
    instance = secrets.token_hex(8)
    # Only root can take on somebody else's identity.
    only_uid = os.geteuid() or None

    def card() -> NodeCard:
        digest = configuration.settings.digest
        return NodeCard(configuration.node.name, instance, boot, version("crane-hooks"), address, digest, driver, lost, only_uid)

    return card


async def serve_login(configuration: Configuration, run_dir: Path, stop: Stop, ready_file: Path | None) -> None:
    """Serves the front ends of a login host until `stop`; raises as `serve`."""
    settings = configuration.settings
    secret = read_secret(Path(settings.cluster_secret_file))
    await asyncio.to_thread(prepare_run_dir, run_dir)
    registry = make_registry("craned", version("crane-hooks"))
    async with AsyncExitStack() as stack:
        metrics_address = ""
        if settings.metrics_listen.craned is not None:
            metrics_address = stack.enter_context(MetricsServer(registry, settings.metrics_listen.craned)).address
        await stack.enter_async_context(_front(configuration, secret, run_dir, registry))
        facts = {"node": "", "address": "", "metrics": metrics_address, "front_socket": str(run_dir / "front.sock")}
        announce_ready(ready_file, facts)
        log.info("serving", **facts)
        await stop.wait()


@asynccontextmanager
async def _front(configuration: Configuration, secret: bytes, run_dir: Path, registry: CollectorRegistry) -> AsyncIterator[None]:
    settings = configuration.settings
    async with open_channel(settings.control_address, keepalive_s=settings.keepalive_s) as channel:
        desk = FrontDesk(
            configuration.node_name,
            settings.cluster_name,
            configuration.hook_settings,
            channel,
            TokenMinter(secret, settings.cluster_name),
            FrontMetrics(registry),
            settings.keepalive_s,
        )
        async with desk.serving(run_dir / "front.sock"):
            yield


def _open_journal(path: Path) -> tuple[Journal, Memory]:
    try:
        journal, reading = Journal.open(path)
    except JournalError as error:
        raise CraneError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
    try:
        return journal, _remembered(reading)
    except RecordError as error:
        journal.close()
        raise CraneError(ErrorCode.FAILED_PRECONDITION, f"{path}: {error}") from error


def _remembered(reading: Reading) -> Memory:
    """What the journal holds; what is wrong with it is told, and costs no more than it must."""
    if reading.torn_bytes:
        log.warning(
            "journal_torn", bytes=reading.torn_bytes, meaning="the last write was broken off and had not been acknowledged"
        )
    for damage in reading.damage:
        log.error("journal_damaged", where=str(damage), copy="journal.damaged")
    memory = remember(reading.records)
    for problem in memory.problems:
        log.error("journal_inconsistent", problem=problem)
    return memory


async def _recover(attempts: Attempts, ledger: Ledger, memory: Memory, user: str, *, has_rebooted: bool) -> None:
    """Takes up every attempt the journal remembers, and goes on with it."""
    for key, remembered in memory.attempts.items():
        attempts.restore(key, remembered)
    await ledger.rewrite(attempts.snapshot)
    now = time.time()
    for key, remembered in memory.attempts.items():
        await attempts.go_on(key, continuation(remembered.state, user, now, has_rebooted=has_rebooted))
    if memory.attempts or memory.reports:
        log.info("recovered", attempts=len(memory.attempts), reports=len(memory.reports), has_rebooted=has_rebooted)


def _step_limits(settings: ClusterSettings) -> StepLimits:
    users = UserRules(
        allow_root_jobs=settings.allow_root_jobs,
        runs_unknown_users=settings.unknown_users is UnknownUser.RUN,
        needs_home=settings.missing_home is MissingHome.FAIL,
    )
    return StepLimits(
        settings.kill_grace,
        settings.launcher_grace,
        users,
        settings.propagate_resource_limits,
        allow_setuid_programs=settings.allow_setuid_programs,
    )


async def _end_kept(processes: JobProcesses, memory: Memory) -> None:
    """What Prologs have kept until an Epilog that is lost now: nobody else ends it."""
    for remembered in memory.attempts.values():
        if remembered.state.phase is Phase.EPILOG_RUNNING:
            await processes.end_kept(remembered.job)


def _unreleased(memory: Memory) -> list[AttemptKey]:
    return [key for key, remembered in memory.attempts.items() if remembered.state.phase is not Phase.RELEASED]


def _prepared(address: str) -> str:
    """The address, with the directory of a Unix socket made where it is missing."""
    if address.startswith("unix:"):
        Path(address.removeprefix("unix:")).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return address
