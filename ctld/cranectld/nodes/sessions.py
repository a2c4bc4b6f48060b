"""The nodes' side of the controller: registration, heartbeats, reports, and what follows from silence."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from cranectld.controller import Controller
from cranectld.jobs import machine
from cranectld.jobs.events import (
    NodeLost,
    NodeReleased,
    PrepareNode,
    PrologEnded,
    ReleaseNode,
    SendStep,
    StepEnded,
    StepStarted,
    TaskHookEnded,
)
from cranectld.jobs.model import Job
from cranectld.nodes.model import Node
from cranectld.ports import NodeCommand, NodeLinks, ReleaseJobCommand
from cranehooks.model.ids import AttemptKey, NodeName, StepId
from cranehooks.model.job import ExitStatus, JobKind, JobOnNode, JobSpec, NodeShare, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun
from cranekit.errors import CraneError, ErrorCode

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Registration:
    """What a craned says of itself."""

    node: NodeName
    instance: str
    boot_id: str
    version: str
    address: str
    config_digest: str
    containment: str
    containment_lost: str = ""
    attempts: tuple[AttemptKey, ...] = ()
    """Attempts it knows of and has not released."""
    only_uid: int | None = None
    """Whose jobs alone it can run; None: anybody's."""


@dataclass(frozen=True, slots=True)
class PrologReport:
    key: AttemptKey
    run: HookRun


@dataclass(frozen=True, slots=True)
class StepStartedReport:
    key: AttemptKey
    step_id: StepId


@dataclass(frozen=True, slots=True)
class StepEndedReport:
    key: AttemptKey
    step_id: StepId
    tasks: tuple[TaskEnd, ...]
    reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ReleasedReport:
    key: AttemptKey
    epilog: HookRun | None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class HookReport:
    run: HookRun


NodeReport = PrologReport | StepStartedReport | StepEndedReport | ReleasedReport | HookReport


class NodeSessions:
    """Which nodes are there, and what they say. Implements the promises of NodeReportService."""

    def __init__(
        self,
        controller: Controller,
        links: NodeLinks,
        *,
        config_digest: Callable[[], str],
        heartbeat: timedelta,
        down_after: timedelta,
    ) -> None:
        self._controller = controller
        self._links = links
        self.config_digest = config_digest
        self.heartbeat = heartbeat
        self.down_after = down_after
        self._heard: dict[NodeName, float] = {}
        """Monotonic time of the last word of each node that is Up, or was held Up over a restart."""
        self._acknowledged: dict[tuple[NodeName, str], int] = {}
        self._must_register: set[NodeName] = set()

    def register(self, registration: Registration) -> bool:
        """Takes a node in, and has it told what it should know. Returns whether its configuration differs from the controller's.

        Raises:
            CraneError: FAILED_PRECONDITION, the node is not configured.
        """
        node = self._node(registration.node)
        differs = registration.config_digest != self.config_digest()
        if node.instance != registration.instance:
            self._acknowledged = {key: value for key, value in self._acknowledged.items() if key[0] != node.name}
        returned = not node.up
        self._heard[node.name] = self._controller.clock.monotonic()
        node = replace(
            node,
            up=True,
            instance=registration.instance,
            boot_id=registration.boot_id,
            version=registration.version,
            address=registration.address,
            config_digest=registration.config_digest,
            containment=registration.containment,
            containment_lost=registration.containment_lost,
            only_uid=registration.only_uid,
            last_heartbeat=self._controller.clock.now(),
        )
        self._controller.fleet.put(node, "up" if returned else "registered again")
        if returned:
            self._controller.chronicle.record("node", f"{node.name} is up", node=node.name)
        if differs:
            _log.warning("node.config_differs", node=node.name, digest=registration.config_digest, ours=self.config_digest())
        commands = self._commands_for(node.name, registration.attempts)
        self._links.connect(node.name, registration.address, commands)
        self._must_register.discard(node.name)
        return differs

    def _commands_for(self, name: NodeName, attempts: Sequence[AttemptKey]) -> list[NodeCommand]:
        """Everything the node must be told (again), and the end of what it holds though it should not."""
        controller = self._controller
        commands: list[NodeCommand] = []
        current: set[AttemptKey] = set()
        for job in controller.jobs.values():
            if not job.state.is_allocated or name not in job.nodes:
                continue
            current.add(job.key)
            commands += [
                controller.command(job, effect)
                for effect in machine.outstanding(job)
                if isinstance(effect, PrepareNode | SendStep | ReleaseNode) and effect.node == name
            ]
        for owed in controller.fleet.owed_by(name):
            current.add(owed.key)
            commands.append(ReleaseJobCommand(owed.job, owed.exit, owed.reason, owed.derived_exit))
        for key in attempts:
            if key in current:
                continue
            known = controller.jobs.get(key.job_id)
            reason = "the attempt is over" if known is not None else "the controller does not know the job"
            exits = (known.exit, known.derived_exit) if known is not None else (ExitStatus(), ExitStatus())
            commands.append(ReleaseJobCommand(self._stray(name, key, known), exits[0], reason, exits[1]))
        return commands

    def _stray(self, name: NodeName, key: AttemptKey, known: Job | None) -> JobOnNode:
        """An attempt that a node holds though it should not: it ended, or the store was restored from a backup that is older. The node goes by
        what it has noted itself.
        """
        if known is not None and name in known.nodes:
            return replace(self._controller.job_on_node(known, name), attempt=key.attempt)
        spec = known.spec if known is not None else JobSpec(JobKind.BATCH, uid=0, gid=0, user="")
        share = NodeShare(name, 1, spec.cpus_per_task, spec.memory_per_node_bytes)
        return JobOnNode(key.job_id, key.attempt, spec, (name,), share, self._controller.cluster)

    def must_register(self, name: NodeName) -> None:
        """What was queued for the node was dropped: at its next word it is asked to register, which brings what still matters."""
        self._must_register.add(name)

    def heard(self, name: NodeName) -> None:
        """The node lives, whatever else it wanted."""
        if name in self._heard:
            self._heard[name] = self._controller.clock.monotonic()

    def heartbeat_from(self, name: NodeName, instance: str) -> None:
        """The node lives.

        Raises:
            CraneError: FAILED_PRECONDITION, it has to register first.
        """
        self._registered(name, instance)
        self._heard[name] = self._controller.clock.monotonic()
        self._controller.fleet.heard(name)

    def report(self, name: NodeName, instance: str, reports: Sequence[tuple[int, NodeReport]]) -> int:
        """Applies reports in order; those seen before are skipped. Returns the last id that is applied.

        Raises:
            CraneError: FAILED_PRECONDITION, the node has to register first.
        """
        self._registered(name, instance)
        self._heard[name] = self._controller.clock.monotonic()
        last = self._acknowledged.get((name, instance), 0)
        for report_id, report in reports:
            if report_id > last:
                self._apply(name, report)
                last = report_id
        self._acknowledged[name, instance] = last
        return last

    def _apply(self, name: NodeName, report: NodeReport) -> None:
        controller = self._controller
        at = controller.clock.now()
        if isinstance(report, HookReport):
            self._task_hook_ended(name, report.run)
            return
        key = report.key
        job = controller.jobs.get(key.job_id)
        if isinstance(report, ReleasedReport) and controller.fleet.owes(name, key):
            self._owed_released(name, report)
            return
        if job is None or name not in job.nodes:
            _log.info("report.dropped", node=name, job=key.job_id, attempt=key.attempt, report=type(report).__name__)
            return
        match report:
            case PrologReport(run=run):
                controller.record_run(run)
                over = controller.charge(run, job) if key.attempt == job.attempt else ""
                controller.apply(job.job_id, PrologEnded(at, key.attempt, name, run, over))
            case StepStartedReport(step_id=step_id):
                controller.apply(job.job_id, StepStarted(at, key.attempt, name, step_id))
            case StepEndedReport(step_id=step_id, tasks=tasks, reason=reason, usage=usage):
                controller.apply(job.job_id, StepEnded(at, key.attempt, name, step_id, tasks, reason, usage))
            case ReleasedReport(epilog=epilog, usage=usage):
                over = self._charged(epilog, job) if key.attempt == job.attempt else ""
                controller.apply(job.job_id, NodeReleased(at, key.attempt, name, epilog, over, usage))

    def _task_hook_ended(self, name: NodeName, run: HookRun) -> None:
        controller = self._controller
        job = controller.jobs.get(run.key.job_id)
        if not controller.record_run(run) or job is None or run.key.attempt != job.attempt or run.key.node != name:
            return
        controller.apply(job.job_id, TaskHookEnded(controller.clock.now(), job.attempt, name, run, controller.charge(run, job)))

    def _charged(self, epilog: HookRun | None, job: Job) -> str:
        if epilog is None:
            return ""
        self._controller.record_run(epilog)
        return self._controller.charge(epilog, job)

    def _owed_released(self, name: NodeName, report: ReleasedReport) -> None:
        """An Epilog that was owed has been run: the node may work again, unless it failed."""
        controller = self._controller
        if report.epilog is not None:
            controller.record_run(report.epilog)
        controller.fleet.settle(name, report.key, report.epilog)

    def _node(self, name: NodeName) -> Node:
        try:
            return self._controller.fleet.nodes[name]
        except KeyError:
            raise CraneError(ErrorCode.FAILED_PRECONDITION, f"node {name!r} is not in the controller's configuration") from None

    def _registered(self, name: NodeName, instance: str) -> Node:
        node = self._node(name)
        if not node.up or node.instance != instance or name in self._must_register:
            raise CraneError(ErrorCode.FAILED_PRECONDITION, f"node {name}: register first", retryable=True)
        return node

    async def watch(self) -> None:
        """Declares nodes Down that have been silent for too long, until cancelled.

        A node that held jobs when the controller was restarted has the same time to come back.
        """
        controller = self._controller
        start = controller.clock.monotonic()
        for node in controller.fleet.nodes.values():
            if node.shares:
                self._heard.setdefault(node.name, start)
        pause_s = min(self.heartbeat, self.down_after).total_seconds() / 2
        while True:
            begun = controller.clock.monotonic()
            await asyncio.sleep(pause_s)
            now = controller.clock.monotonic()
            if now - begun > 2 * pause_s:
                # The controller itself was stopped for a while, and may not have read yet what the nodes said meanwhile.
                _log.warning("controller.was_paused", pause_s=round(now - begun, 1))
                self._heard = {name: heard + now - begun for name, heard in self._heard.items()}
            limit = now - self.down_after.total_seconds()
            for name, heard in list(self._heard.items()):
                if heard < limit:
                    self._down(name)

    def _down(self, name: NodeName) -> None:
        controller = self._controller
        del self._heard[name]
        self._links.disconnect(name)
        silent_s = self.down_after.total_seconds()
        controller.chronicle.record("node", f"{name} is down: not heard of for {silent_s:g} s", node=name)
        controller.fleet.put(replace(controller.fleet.nodes[name], up=False), "down")
        _log.error("node.down", node=name, silent_s=silent_s)
        for job in list(controller.jobs.values()):
            if job.state.is_allocated and name in job.busy_nodes:
                controller.apply(job.job_id, NodeLost(controller.clock.now(), name))
