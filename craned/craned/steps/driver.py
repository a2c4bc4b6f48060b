"""The steps of this node: each has a supervisor, and a launcher when somebody listens."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from craned.attempts.attempt import never_started
from craned.attempts.events import ProcessesGone, StepEnded
from craned.crew import Crew
from craned.steps.files import StepFiles
from craned.steps.node_hook_orders import NodeHookOrders
from craned.steps.stdio import InputWindow, OutputWindow
from craned.steps.supervisor_client import (
    Acknowledge,
    Ended,
    FromSupervisor,
    HookDone,
    LauncherPresence,
    Notice,
    OutputTaken,
    Signal,
    Started,
    Stdin,
    StdinTaken,
    SupervisorProtocolError,
    Terminate,
    ToSupervisor,
    Written,
)
from craned.steps.supervisors import SupervisorLink
from cranehooks.model.ids import EXTERN_STEP, AttemptKey, NodeName, RunId, StepKey, TaskId
from cranehooks.model.job import ExitStatus, JobOnNode, StepSpec, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun, HookSettings

DIAL_WITHIN_S: Final = 30.0
"""A supervisor that has not dialled by then, or not dialled again, is taken for dead."""

ENDED_KEPT: Final = 512
"""Ended steps whose end a late launcher is told."""

ENDED_OUTPUT_BYTES: Final = 16 << 20
"""Of all of them together."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.steps.driver")


class StepRefusedError(Exception):
    """The step cannot run on this node: says why."""


class StepListener(Protocol):
    """Hears what becomes of steps (`Attempts`)."""

    async def tasks_started(self, key: StepKey) -> None: ...
    async def step_ended(self, key: StepKey, event: StepEnded) -> None: ...
    async def hook_ended(self, run: HookRun) -> None: ...


class SupervisorStarter(Protocol):
    """Has supervisors forked."""

    async def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        """Asks for one; it will dial.

        Raises:
            StepRefusedError: this step cannot run here.
        """
        ...


class ProcessKiller(Protocol):
    """Ends what is left of jobs and steps."""

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        """What survives, and what the job used."""
        ...

    async def kill_step(self, job: JobOnNode, step: StepSpec) -> Usage | None:
        """What it used, where that is known."""
        ...


class Launcher(Protocol):
    """A launcher's stream. Nothing here waits."""

    def wake(self) -> None:
        """Something changed: look at the step."""
        ...

    def replaced(self) -> None:
        """Another launcher has taken its place."""
        ...


@dataclass(eq=False, slots=True)
class ActiveStep:
    """One step with its two ends."""

    key: StepKey
    uid: int
    job: JobOnNode | None = None
    spec: StepSpec | None = None
    link: SupervisorLink | None = None
    pidfd: int = -1
    has_gone: bool = False
    """Its process has ended; what it had sent may still be on its way."""
    is_running: bool = False
    is_over: bool = False
    """Its supervisor is done with, or it never gets one."""
    end: tuple[tuple[TaskEnd, ...], str] | None = None
    """For launchers, once it is over."""
    waiting: list[ToSupervisor] = field(default_factory=list)
    """For the supervisor when it dials: stdin (bounded by its window), signals, terminations."""
    output: OutputWindow = field(default_factory=OutputWindow)
    stdin: InputWindow = field(default_factory=InputWindow)
    stdin_credit: int = 0
    """Not yet passed on to the launcher."""
    notices: list[str] = field(default_factory=list)
    hook_runs: set[RunId] = field(default_factory=set)
    """Passed on."""
    node_hooks: NodeHookOrders | None = None
    """Of an extern step."""
    launcher: Launcher | None = None
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection comes or goes, the process ends, or the step is over."""

    def tell(self, message: ToSupervisor) -> None:
        """To the supervisor, now or when it dials."""
        if self.is_over:
            return
        if self.link is not None:
            self.link.send(message)
        elif not isinstance(message, LauncherPresence):
            self.waiting.append(message)

    def wake_launcher(self) -> None:
        if self.launcher is not None:
            self.launcher.wake()


class Steps:
    """All steps that have a supervisor here, and the ends of recent ones."""

    def __init__(self, node: NodeName, starter: SupervisorStarter, killer: ProcessKiller, files: StepFiles) -> None:
        self._node = node
        self._starter = starter
        self._killer = killer
        self._files = files
        self._steps: dict[StepKey, ActiveStep] = {}
        self._ended: OrderedDict[StepKey, ActiveStep] = OrderedDict()
        self._own_crew: Crew | None = None
        self._listener: StepListener | None = None
        self._news = asyncio.Event()

    def begin(self, crew: Crew, listener: StepListener) -> None:
        """From now on steps run, as work of `crew`."""
        self._own_crew, self._listener = crew, listener

    @property
    def _crew(self) -> Crew:
        assert self._own_crew is not None, "begin() comes first"
        return self._own_crew

    @property
    def _listening(self) -> StepListener:
        assert self._listener is not None, "begin() comes first"
        return self._listener

    @property
    def news(self) -> asyncio.Event:
        """Set, and replaced by a new one, whenever a step comes or ends, or its attempt changes."""
        return self._news

    def find(self, key: StepKey) -> ActiveStep | None:
        """A step that runs, or ended a while ago."""
        return self._steps.get(key) or self._ended.get(key)

    # ---- for the attempts

    def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        """Starts its supervisor; a step that cannot run here ends with the reason."""
        active = self._add(job, step)
        self._crew.start(self._launch(active, job, hooks, step), name=f"step {active.key}")

    def expect(self, job: JobOnNode, step: StepSpec, *, is_running: bool) -> None:
        """After a restart: its supervisor may live and dial again; if none does in time, the step ends."""
        active = self._add(job, step)
        active.is_running = is_running
        self._crew.start(self._watch(active), name=f"step {active.key}")

    def signal(self, key: StepKey, signal_number: int) -> None:
        if (active := self._steps.get(key)) is not None:
            active.tell(Signal(signal_number))

    def terminate(self, key: StepKey, reason: str) -> None:
        if (active := self._steps.get(key)) is not None:
            active.tell(Terminate(reason))

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        """What survives, and what the job used. Nothing of the job's steps is needed any more: their files go, too."""
        gone = await self._killer.kill_job(job)
        await asyncio.to_thread(self._files.remove, AttemptKey(job.job_id, job.attempt))
        return gone

    def ended(self, job: JobOnNode, key: StepKey, tasks: Iterable[TaskEnd], reason: str) -> None:
        """The step's end is on record: its launcher, present or late, is told."""
        active = self._steps.pop(key, None) or ActiveStep(key, job.spec.uid)
        active.is_over = True
        active.end = (tuple(tasks), reason)
        self._ended[key] = active
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        self._limit_kept_output()
        self.announce()
        active.wake_launcher()

    def _limit_kept_output(self) -> None:
        """Drops the oldest output that no launcher came for."""
        kept_bytes = sum(each.output.kept_bytes for each in self._ended.values())
        for each in self._ended.values():
            if kept_bytes <= ENDED_OUTPUT_BYTES:
                return
            kept_bytes -= each.output.drop()

    def announce(self) -> None:
        """Something changed that launchers may wait for."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    # ---- for launchers

    def attach(self, active: ActiveStep, launcher: Launcher, received_bytes: int = 0) -> None:
        """It gets the output from now on, and all behind what it has received that was not consumed; one that was there before is replaced."""
        if active.launcher is not None:
            active.launcher.replaced()
        active.launcher = launcher
        if credited := active.output.resume(received_bytes):
            active.tell(OutputTaken(credited))
        active.stdin.new_launcher()
        active.stdin_credit = 0
        active.tell(LauncherPresence(is_attached=True))
        launcher.wake()

    def detach(self, active: ActiveStep, launcher: Launcher) -> None:
        if active.launcher is launcher:
            active.launcher = None
            if active.end is not None and active.output.is_all_sent:
                active.output.drop()
            active.tell(LauncherPresence(is_attached=False))

    @staticmethod
    def send_stdin(active: ActiveStep, data: bytes, *, is_eof: bool) -> None:
        """Raises StdinOverrunError."""
        active.stdin.sent(len(data))
        active.tell(Stdin(data, is_eof))

    @staticmethod
    def consumed(active: ActiveStep, count_bytes: int) -> None:
        """The launcher has taken so much output."""
        if credited := active.output.consumed(count_bytes):
            active.tell(OutputTaken(credited))

    # ---- for the supervisors

    def supervisor_gone(self, key: StepKey) -> None:
        """The process of a step's supervisor has ended."""
        if (active := self._steps.get(key)) is not None:
            active.has_gone = True
            active.stirred.set()

    async def serve_supervisor(self, link: SupervisorLink) -> None:
        """Talks with a supervisor that has dialled and proved its step, until the connection ends."""
        active = self._steps.get(link.hello.key)
        if active is None:
            await self._dismiss(link)
            return
        if active.link is not None:
            active.link.close()
        active.link = link
        active.output.begin_at(link.hello.output_taken_bytes)
        self._watch_process(active, link.hello.pid)
        active.stirred.set()
        link.send(LauncherPresence(active.launcher is not None))
        for message in (*active.waiting, *(active.node_hooks.dialled(link.hello.node_hooks) if active.node_hooks else ())):
            link.send(message)
        active.waiting.clear()
        try:
            if link.hello.has_started and not active.is_running:
                await self._started(active)
            async for heard in link.messages():
                await self._hear(active, link, heard)
        except SupervisorProtocolError:
            log.exception("supervisor_protocol_error", step=str(active.key))
        finally:
            if active.link is link:
                active.link = None
                active.stirred.set()

    async def _dismiss(self, link: SupervisorLink) -> None:
        """A supervisor of a step that is over, as far as this node knows: it ends what it runs, and itself."""
        link.send(Terminate("its step is over"))
        async for heard in link.messages():
            if isinstance(heard, Ended):
                link.send(Acknowledge())

    async def _hear(self, active: ActiveStep, link: SupervisorLink, heard: FromSupervisor) -> None:
        match heard:
            case Started(cgroup):
                if active.node_hooks is not None:
                    active.node_hooks.cgroup = cgroup
                await self._started(active)
                self.announce()
            case HookDone(run) if active.node_hooks is not None:
                active.node_hooks.ended(run)
                self.announce()
            case HookDone(run):
                # Repeated at every dial.
                if run.key.run_id not in active.hook_runs:
                    active.hook_runs.add(run.key.run_id)
                    await self._listening.hook_ended(run)
            case Written(output):
                if known := active.output.put(output):
                    link.send(OutputTaken(known))
                active.wake_launcher()
            case StdinTaken(count_bytes):
                active.stdin_credit += active.stdin.credited(count_bytes)
                active.wake_launcher()
            case Notice(text):
                active.notices.append(text)
                active.wake_launcher()
            case Ended(tasks, reason, unkillable, usage):
                if unkillable:
                    log.error("step_unkillable", step=str(active.key), processes=list(unkillable))
                await self._over(active, tasks, reason, usage)
                link.send(Acknowledge())
            case _:
                text = f"{type(heard).__name__} is not expected now"
                raise SupervisorProtocolError(text)

    async def _started(self, active: ActiveStep) -> None:
        active.is_running = True
        await self._listening.tasks_started(active.key)

    async def _launch(self, active: ActiveStep, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        try:
            await self._starter.start(job, hooks, step)
        except StepRefusedError as error:
            reason = str(error)
            log.warning("step_refused", step=str(active.key), reason=reason)
            await self._over(active, never_started(step, self._node, reason), reason)
            return
        await self._watch(active)

    async def _watch(self, active: ActiveStep) -> None:
        """Until the step is over; ends it when its supervisor dies, or does not dial (again)."""
        try:
            while not active.is_over:
                active.stirred.clear()
                if active.link is not None:
                    # What a dead one had sent comes first; then the connection ends by itself.
                    await active.stirred.wait()
                elif active.has_gone:
                    await self._died(active, "supervisor died")
                else:
                    try:
                        async with asyncio.timeout(DIAL_WITHIN_S):
                            await active.stirred.wait()
                    except TimeoutError:
                        await self._died(active, f"its supervisor did not connect within {DIAL_WITHIN_S:g} s")
        finally:
            self._unwatch_process(active)

    async def _died(self, active: ActiveStep, reason: str) -> None:
        job, spec = active.job, active.spec
        assert job is not None, "a step that is watched has come with its job"
        assert spec is not None, "a step that is watched has come with its job"
        log.error("supervisor_died", step=str(active.key), reason=reason)
        usage = await self._killer.kill_step(job, spec)
        task_ids = spec.tasks_per_node.get(self._node, ())
        tasks = tuple(TaskEnd(TaskId(task_id), ExitStatus(signal=9), reason=reason) for task_id in task_ids)
        await self._over(active, tasks, reason, usage)

    async def _over(self, active: ActiveStep, tasks: tuple[TaskEnd, ...], reason: str, usage: Usage | None = None) -> None:
        await self._listening.step_ended(active.key, StepEnded(active.key.step_id, tasks, reason, usage))
        active.is_over = True
        active.stirred.set()

    def _add(self, job: JobOnNode, step: StepSpec) -> ActiveStep:
        key = StepKey(job.job_id, job.attempt, step.step_id)
        active = ActiveStep(key, job.spec.uid, job, step, node_hooks=NodeHookOrders() if step.step_id == EXTERN_STEP else None)
        self._steps[key] = active
        self.announce()
        return active

    def _watch_process(self, active: ActiveStep, pid: int) -> None:
        """Hears of its end also when it is no child of our parent process, after a restart."""
        self._unwatch_process(active)
        try:
            active.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            active.has_gone = True
            return
        asyncio.get_running_loop().add_reader(active.pidfd, self._process_ended, active)

    def _process_ended(self, active: ActiveStep) -> None:
        self._unwatch_process(active)
        active.has_gone = True
        active.stirred.set()

    @staticmethod
    def _unwatch_process(active: ActiveStep) -> None:
        if active.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(active.pidfd)
            os.close(active.pidfd)
            active.pidfd = -1
