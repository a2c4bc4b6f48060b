"""The attempts of this node: every event is recorded, changes its attempt, and then has its effects, one event at a time per attempt."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

import structlog

from craned.attempts.attempt import AttemptState, ExternState, Phase, StepPhase, advance, extern_step
from craned.attempts.effects import (
    Effect,
    EndExtern,
    KillProcesses,
    ReportProlog,
    ReportReleased,
    ReportStepEnded,
    ReportStepStarted,
    ResumeEpilog,
    ResumeProlog,
    RunEpilog,
    RunProlog,
    SignalStep,
    StartExtern,
    StartSupervisor,
    StopProlog,
    TerminateStep,
)
from craned.attempts.events import (
    EpilogEnded,
    EpilogStarted,
    Event,
    PrepareRequested,
    ProcessesGone,
    PrologEnded,
    PrologStarted,
    ReleaseRequested,
    SignalRequested,
    StepEnded,
    StepRequested,
    TasksStarted,
)
from craned.attempts.ledger import Ledger
from craned.attempts.records import AttemptSeen
from craned.attempts.recovery import Continuation, Remembered, tombstone
from craned.attempts.reports import Outbox
from craned.crew import Crew
from cranehooks.journal import JournalWriteError
from cranehooks.model.ids import EXTERN_STEP, AttemptKey, NodeName, StepKey
from cranehooks.model.job import JobEnd, JobOnNode, StepSpec, TaskEnd
from cranehooks.model.output import clipped
from cranehooks.model.run import HookRun, HookSettings
from cranehooks.profiles import CancelDuringProlog, PrologFlag, effective
from cranekit import crash_points
from cranekit.errors import CraneError, ErrorCode

Request = PrepareRequested | StepRequested | SignalRequested | ReleaseRequested
Started = Callable[[], Awaitable[None]]

RELEASED_KEPT = 2_000
"""Released attempts that stay known, so that a late repeat is answered and not taken for something new."""

TOMBSTONE_OUTPUT_BYTES = 4096

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.attempts.driver")


class QueueFullError(CraneError):
    """Too much is under way or untold; the controller tries again."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.RESOURCE_EXHAUSTED, message, retryable=True)


class NoSuchStepError(CraneError):
    """The step is not, or no longer, here."""

    def __init__(self, key: StepKey) -> None:
        super().__init__(ErrorCode.NOT_FOUND, f"no step {key} on this node")


class HookPort(Protocol):
    """Runs the hooks of the node. `started` is awaited when its turn has come, before anything runs; `stop` ends it.

    One that is resumed runs in the extern step already, and its end is awaited.
    """

    async def run_prolog(
        self, job: JobOnNode, hooks: HookSettings, *, started: Started, stop: asyncio.Event, resumed: bool
    ) -> HookRun: ...
    async def run_epilog(
        self,
        job: JobOnNode,
        hooks: HookSettings,
        end: JobEnd,
        unkillable: tuple[str, ...],
        *,
        started: Started,
        resumed: bool,
    ) -> HookRun | None: ...
    def failure(self, run: HookRun) -> str:
        """For a person: why the run was not ok."""
        ...


class StepPort(Protocol):
    """Runs steps; answers through `Attempts.tasks_started`, `step_ended` and `hook_ended`."""

    def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None: ...
    def expect(self, job: JobOnNode, step: StepSpec, *, is_running: bool) -> None:
        """After a restart: its supervisor may live, and dials in, or the step ends."""
        ...

    def signal(self, key: StepKey, signal_number: int) -> None: ...
    def terminate(self, key: StepKey, reason: str) -> None: ...
    def ended(self, job: JobOnNode, key: StepKey, tasks: Iterable[TaskEnd], reason: str) -> None:
        """A step's end is on record, also of one that never started."""
        ...

    def announce(self) -> None:
        """An attempt changed."""
        ...

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        """Kills everything of the job on this node; what survives, as pid and command."""
        ...


@dataclass(eq=False, slots=True)
class Held:
    """One attempt with what is under way for it."""

    job: JobOnNode
    hooks: HookSettings
    state: AttemptState
    is_durable: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stop_prolog: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seen(self) -> AttemptSeen:
        return AttemptSeen(self.job, self.hooks, self.state)


class Attempts:
    """Owns every attempt that this node knows, and the tasks that work for them."""

    def __init__(
        self,
        node: NodeName,
        ledger: Ledger,
        outbox: Outbox,
        *,
        observe: Callable[[HookRun], None] = lambda _: None,
        capacity: int = 4096,
    ) -> None:
        """`observe` is told of each task hook's run."""
        self._node = node
        self._ledger = ledger
        self._outbox = outbox
        self._observe = observe
        self._capacity = capacity
        self._held: dict[AttemptKey, Held] = {}
        self._released: OrderedDict[AttemptKey, None] = OrderedDict()
        self._own_crew: Crew | None = None
        self._hooks: HookPort | None = None
        self._steps: StepPort | None = None
        self._is_closing = False
        self._hooks_under_way = 0
        self._no_hooks = asyncio.Event()
        self._no_hooks.set()

    @property
    def held(self) -> Mapping[AttemptKey, AttemptState]:
        return {key: held.state for key, held in self._held.items()}

    def find(self, key: AttemptKey) -> Held | None:
        return self._held.get(key)

    def snapshot(self) -> Iterable[AttemptSeen]:
        """Everything durable, for the journal's rewriting."""
        return [held.seen for held in self._held.values() if held.is_durable]

    def begin(self, crew: Crew, hooks: HookPort, steps: StepPort) -> None:
        """Gives the attempts their hands: from now on effects are done, as work of `crew`."""
        self._own_crew, self._hooks, self._steps = crew, hooks, steps

    def restore(self, key: AttemptKey, remembered: Remembered) -> None:
        """Takes up what the journal remembers; nothing is done for it yet."""
        held = Held(remembered.job, remembered.hooks, remembered.state, is_durable=True)
        self._held[key] = held
        if held.state.phase is Phase.RELEASED:
            self._bury(key, held)

    async def go_on(self, key: AttemptKey, continuation: Continuation) -> None:
        """Goes on with a restored attempt."""
        held = self._held[key]
        for step_id in continuation.awaited_steps:
            step = held.state.step(step_id)
            if step_id == EXTERN_STEP:
                self._step_port.expect(held.job, extern_step(), is_running=held.state.extern is not ExternState.STARTING)
            elif step is not None:
                self._step_port.expect(held.job, step.spec, is_running=step.phase is StepPhase.RUNNING)
        for event in continuation.events:
            await self._happened(held, event)
        for effect in continuation.effects:
            self._perform(held, effect)

    async def request(self, job: JobOnNode, hooks: HookSettings, event: Request) -> None:
        """Notes what the controller asks for. Cancelling stops the waiting only.

        Raises:
            QueueFullError: nothing was noted; it may be asked again later.
        """
        await self._crew.finish(self._request(job, hooks, event))

    async def signal(self, key: StepKey, event: SignalRequested) -> None:
        """Notes a signal or termination for a step.

        Raises:
            NoSuchStepError: it is not here.
            QueueFullError: as `request`.
        """
        held = self._held.get(key.attempt_key)
        if held is None or held.state.step(key.step_id) is None:
            raise NoSuchStepError(key)
        await self._crew.finish(self._request(held.job, held.hooks, event))

    async def tasks_started(self, key: StepKey) -> None:
        await self._happened_to(key.attempt_key, TasksStarted(key.step_id))

    async def step_ended(self, key: StepKey, event: StepEnded) -> None:
        """Durable when this returns: the supervisor may be let go."""
        await self._happened_to(key.attempt_key, event)

    async def hook_ended(self, run: HookRun) -> None:
        """A task hook's run."""
        self._observe(run)
        await self._ledger.record_hook(run)

    async def close(self, grace_s: float) -> None:
        """Starts nothing any more and gives running hooks `grace_s` to end by themselves."""
        self._is_closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self._no_hooks.wait()
        except TimeoutError:
            log.warning("hooks_broken_off", count=self._hooks_under_way)

    @property
    def _crew(self) -> Crew:
        assert self._own_crew is not None, "begin() comes first"
        return self._own_crew

    @property
    def _hook_port(self) -> HookPort:
        assert self._hooks is not None, "begin() comes first"
        return self._hooks

    @property
    def _step_port(self) -> StepPort:
        assert self._steps is not None, "begin() comes first"
        return self._steps

    async def _request(self, job: JobOnNode, hooks: HookSettings, event: Request) -> None:
        key = AttemptKey(job.job_id, job.attempt)
        held = self._held.get(key)
        if isinstance(event, PrepareRequested | StepRequested) and _is_new(held, event):
            self._check_capacity()
        if held is None:
            is_late = any(other.job_id == key.job_id and other.attempt > key.attempt for other in self._held)
            if is_late and not isinstance(event, ReleaseRequested):
                log.info("late_request_dropped", attempt=str(key), request=type(event).__name__)
                return
            held = Held(job, hooks, _first_state(key, self._node, hooks))
            self._held[key] = held
        async with held.lock:
            state, effects = advance(held.state, event)
            if state == held.state:
                self._ledger.repeat(key, [effect for effect in effects if isinstance(effect, ReportReleased)])
                self._pass_on(held, effects)
                return
            try:
                await self._ledger.record_request(None if held.is_durable else held.seen, key, event, effects)
            except JournalWriteError as error:
                if not held.is_durable and self._held.get(key) is held:
                    del self._held[key]
                message = f"{error}; nothing was accepted"
                raise QueueFullError(message) from error
            held.is_durable = True
            self._apply(held, state, effects)

    def _check_capacity(self) -> None:
        if self._is_closing:
            message = "craned is stopping"
            raise QueueFullError(message)
        steps = sum(len(held.state.steps) for held in self._held.values())
        active = len(self._held) - len(self._released)
        if steps + active >= self._capacity or self._outbox.is_full:
            message = (
                f"too much is under way: {active} attempts, {steps} steps, {len(self._outbox.pending)} reports not acknowledged"
            )
            raise QueueFullError(message)

    async def _happened_to(self, key: AttemptKey, event: Event) -> None:
        held = self._held.get(key)
        if held is None:
            log.info("late_answer_dropped", attempt=str(key), answer=type(event).__name__)
            return
        await self._happened(held, event)

    async def _happened(self, held: Held, event: Event) -> None:
        async with held.lock:
            state, effects = advance(held.state, event)
            if state == held.state:
                self._pass_on(held, effects)
                return
            await self._ledger.record_fact(held.state.key, event, effects)
            self._apply(held, state, effects)

    def _apply(self, held: Held, state: AttemptState, effects: tuple[Effect, ...]) -> None:
        """Without yielding: see `Ledger`."""
        was_released = held.state.phase is Phase.RELEASED
        held.state = state
        if state.phase is Phase.RELEASED and not was_released:
            self._bury(state.key, held)
        self._step_port.announce()
        self._pass_on(held, effects)

    def _pass_on(self, held: Held, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._perform(held, effect)

    def _perform(self, held: Held, effect: Effect) -> None:
        crash_points.reached(f"craned: {type(effect).__name__}")
        key = held.state.key
        match effect:
            case RunProlog() | ResumeProlog():
                resumed = isinstance(effect, ResumeProlog)
                self._crew.start(self._run_prolog(held, resumed=resumed), name=f"prolog {key}")
            case StopProlog():
                held.stop_prolog.set()
            case StartExtern():
                self._step_port.start(held.job, held.hooks, extern_step())
            case EndExtern(reason):
                self._step_port.terminate(StepKey(key.job_id, key.attempt, EXTERN_STEP), reason)
            case StartSupervisor(step):
                self._step_port.start(held.job, held.hooks, step)
            case SignalStep(step_id, signal_number):
                self._step_port.signal(StepKey(key.job_id, key.attempt, step_id), signal_number)
            case TerminateStep(step_id, reason):
                self._step_port.terminate(StepKey(key.job_id, key.attempt, step_id), reason)
            case KillProcesses():
                self._crew.start(self._kill_processes(held), name=f"kill {key}")
            case RunEpilog() | ResumeEpilog():
                self._crew.start(self._run_epilog(held, effect), name=f"epilog {key}")
            case ReportStepEnded(step_id, tasks, reason):
                log.info("step_ended", step=f"{key}.{step_id}", reason=reason)
                self._step_port.ended(held.job, StepKey(key.job_id, key.attempt, step_id), tasks, reason)
            case ReportStepStarted(step_id):
                log.info("step_started", step=f"{key}.{step_id}")
            case ReportProlog(run):
                log.log(
                    _level(run), "prolog_ended", attempt=str(key), outcome=str(run.outcome), duration_s=round(run.duration_s, 3)
                )
            case ReportReleased(run):
                level = logging.INFO if run is None else _level(run)
                log.log(level, "job_released", attempt=str(key), epilog="none" if run is None else str(run.outcome))
            case _:
                assert_never(effect)

    async def _run_prolog(self, held: Held, *, resumed: bool) -> None:
        async def started() -> None:
            await self._happened(held, PrologStarted())

        with self._hook_under_way():
            run = await self._hook_port.run_prolog(held.job, held.hooks, started=started, stop=held.stop_prolog, resumed=resumed)
            await self._happened(held, PrologEnded(run, "" if run.outcome.ok else self._hook_port.failure(run)))

    async def _kill_processes(self, held: Held) -> None:
        await self._happened(held, await self._step_port.kill_job(held.job))

    async def _run_epilog(self, held: Held, effect: RunEpilog | ResumeEpilog) -> None:
        async def started() -> None:
            await self._happened(held, EpilogStarted())

        end = JobEnd(held.state.exit, held.state.derived_exit)
        with self._hook_under_way():
            run = await self._hook_port.run_epilog(
                held.job, held.hooks, end, effect.unkillable, started=started, resumed=isinstance(effect, ResumeEpilog)
            )
            await self._happened(held, EpilogEnded(run))

    def _bury(self, key: AttemptKey, held: Held) -> None:
        """Keeps of a released attempt what answers a repeat; forgets the oldest ones."""
        slim = tombstone(Remembered(held.job, held.hooks, held.state))
        held.job = slim.job
        if held.state.epilog is not None:
            held.state = replace(held.state, epilog=clipped(held.state.epilog, TOMBSTONE_OUTPUT_BYTES))
        self._released[key] = None
        while len(self._released) > RELEASED_KEPT:
            oldest, _ = self._released.popitem(last=False)
            del self._held[oldest]
            self._crew.start(self._forget(oldest))

    async def _forget(self, key: AttemptKey) -> None:
        try:
            await self._ledger.forgotten(key)
        except JournalWriteError as error:
            log.warning("journal_write_failed", error=str(error), consequence="a released attempt is kept a while longer")

    @contextmanager
    def _hook_under_way(self) -> Iterator[None]:
        self._hooks_under_way += 1
        self._no_hooks.clear()
        try:
            yield
        finally:
            self._hooks_under_way -= 1
            if not self._hooks_under_way:
                self._no_hooks.set()


def _first_state(key: AttemptKey, node: NodeName, hooks: HookSettings) -> AttemptState:
    return AttemptState(
        key,
        node,
        awaits_prolog=effective(hooks).cancel_during_prolog is CancelDuringProlog.AWAITS,
        contains=PrologFlag.CONTAIN in hooks.flags,
        runs_in_job=PrologFlag.RUN_IN_JOB in hooks.flags,
    )


def _is_new(held: Held | None, event: PrepareRequested | StepRequested) -> bool:
    """Whether the request brings work, as far as can be seen before its turn."""
    if held is None:
        return True
    return isinstance(event, StepRequested) and held.state.phase is Phase.HELD and not held.state.knows(event.step.step_id)


def _level(run: HookRun) -> int:
    return logging.INFO if run.outcome.ok else logging.WARNING
