"""The controller's core: holds jobs and nodes, applies events to them, and carries out the effects.

Everything here runs on the event loop's thread, between awaits, so that each event is applied whole. Effects on the outside go through the ports;
nothing is promised to anybody before `settled()`.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import assert_never

import structlog

from cranectld.bell import Bell
from cranectld.chronicle import Chronicle
from cranectld.jobs import machine
from cranectld.jobs.events import (
    Allocated,
    CancelRequested,
    CtldHookEnded,
    Decide,
    DecisionKind,
    DrainNode,
    Effect,
    FreeNode,
    HoldRequested,
    InvalidTransitionError,
    NodeLost,
    OweEpilog,
    PrepareNode,
    Record,
    ReleaseNode,
    RunCtldHook,
    SendStep,
    StartTimeLimit,
    StopCtldHook,
    StopTimeLimit,
    TerminateStep,
    TimeLimitReached,
)
from cranectld.jobs.events import Event as JobEvent
from cranectld.jobs.model import Job, JobState
from cranectld.metrics import ControllerMetrics
from cranectld.nodes.breaker import DrainBudget
from cranectld.nodes.fleet import Fleet
from cranectld.nodes.model import Node
from cranectld.ports import (
    Clock,
    CtldHooks,
    NodeCommand,
    NodeLinks,
    PrepareJobCommand,
    ReleaseJobCommand,
    RunStepCommand,
    SignalTasksCommand,
)
from cranectld.queue import JobQueue
from cranectld.requests import RequestLog
from cranectld.scheduling import Placement, Scheduling
from cranectld.store import Expiry, OwedEpilog, Restored, Store
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobOnNode, JobSpec, NodeShare
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings
from cranehooks.policy import RequeuePolicy
from cranekit import crash_points
from cranekit.errors import CraneError, ErrorCode

_log = structlog.get_logger()

ENDED_JOBS_KEPT = 2_000
"""Ended jobs that stay in memory; older ones are read from the store."""

DRAINING_POINTS = (HookPoint.PROLOG, HookPoint.EPILOG, HookPoint.CRANECTLD_EPILOG)


class Controller:
    """See the module. `run` must be running for anything to happen by itself."""

    def __init__(
        self,
        *,
        cluster: str,
        nodes: Iterable[Node],
        hooks: Callable[[], HookSettings],
        requeue: RequeuePolicy,
        budget: DrainBudget,
        store: Store,
        links: NodeLinks,
        ctld_hooks: CtldHooks,
        scheduling: Scheduling,
        clock: Clock,
        metrics: ControllerMetrics,
        max_requests: Callable[[], int] = lambda: 100_000,
    ) -> None:
        """`max_requests`: how many requests are remembered, so that their repeats are recognised."""
        self.cluster = cluster
        self.jobs: dict[JobId, Job] = {}
        self._waiting: dict[JobId, str] = {}
        """Why pending jobs wait, by the scheduler's last word."""
        self.chronicle = Chronicle(store, clock, metrics)
        self.fleet = Fleet(nodes, budget, store=store, chronicle=self.chronicle, clock=clock, metrics=metrics, wake=self.wake)
        self.scheduling = scheduling
        self.clock = clock
        self.metrics = metrics
        self.requests = RequestLog(store, max_requests)
        self._hooks = hooks
        self.requeue = requeue
        self.store = store
        self._links = links
        self._ctld_hooks = ctld_hooks
        self.queue = JobQueue()
        self._last_job_id = 0
        self._bells: dict[JobId, Bell] = {}
        self._wake = asyncio.Event()
        self._timers: dict[AttemptKey, asyncio.TimerHandle] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ended: dict[JobId, None] = {}

    def restore(self, restored: Restored) -> None:
        """Takes over what the store kept. Controller hooks that were running are lost: nobody saw their end."""
        self.fleet.restore(restored)
        self.requests.restore(restored.requests)
        self._last_job_id = restored.last_job_id
        self.chronicle.history.last_cursor = restored.last_cursor
        self.chronicle.decisions.restore(restored.decisions, restored.last_decision)
        for job in restored.jobs:
            self.jobs[job.job_id] = job
            self.metrics.job_changed(None, job)
            self.queue.changed(None, job)
            if job.state.is_allocated:
                held = [share for share in job.shares if share.node in self.fleet and share.node in job.busy_nodes]
                self.fleet.allocate(job.key, held)
                if job.state is JobState.COMPLETING:
                    self.fleet.complete(job.key, [share.node for share in held])

    async def run(self) -> None:
        """Schedules, and resumes what the store left under way, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for job in list(self.jobs.values()):
                self._resume(job)
            self.wake()
            try:
                await self._schedule()
            finally:
                for timer in self._timers.values():
                    timer.cancel()
                self._timers.clear()

    def _resume(self, job: Job) -> None:
        if job.state is JobState.RUNNING and job.spec.time_limit_s is not None:
            self._start_timer(job, max(0.0, job.started_at + job.spec.time_limit_s - self.clock.now()))
        for node in job.busy_nodes:
            if node not in self.fleet:
                self.apply(job.job_id, NodeLost(self.clock.now(), node))
        for point in self._lost_ctld_hooks(job):
            run = lost_ctld_run(job, point, self.clock.now())
            self.metrics.runs.observe(run)
            self.record_run(run)
            self._ctld_hook_ended(job, run)

    @staticmethod
    def _lost_ctld_hooks(job: Job) -> list[HookPoint]:
        lost = []
        if job.state.is_allocated and job.ctld_prolog.value == "running":
            lost.append(HookPoint.CRANECTLD_PROLOG)
        if job.state is JobState.COMPLETING and job.ctld_epilog.value == "running":
            lost.append(HookPoint.CRANECTLD_EPILOG)
        return lost

    async def settled(self) -> None:
        """Returns when everything decided so far is durable.

        Raises:
            StoreError: it cannot be made so now.
        """
        await self.store.flushed()

    # Jobs

    def submit(self, specs: list[JobSpec], request_id: str) -> list[JobId]:
        """Accepts jobs as Pending. A repeated `request_id` gives the same ids and changes nothing."""
        answered = self.requests.answered(request_id)
        if answered is not None:
            return [JobId(number) for number in answered]
        at = self.clock.now()
        ids = []
        array_id = JobId(self._last_job_id + 1)
        for spec in specs:
            self._last_job_id += 1
            job_id = JobId(self._last_job_id)
            element = spec if spec.array_task_id is None else replace(spec, array_job_id=array_id)
            job = Job(job_id, element, submitted_at=at)
            self._put(job)
            self.chronicle.record("submitted", f"by {spec.user} as {spec.kind.value}", job.key)
            self.chronicle.decided(job, Decide(DecisionKind.SUBMITTED), None)
            ids.append(job_id)
        self.requests.remember(request_id, ids, at)
        self.wake()
        return ids

    def adopt(self, job_id: JobId, spec: JobSpec) -> Job:
        """Takes a job that an external scheduler numbered itself."""
        self._last_job_id = max(self._last_job_id, job_id)
        job = Job(job_id, spec, submitted_at=self.clock.now())
        self._put(job)
        self.chronicle.record("submitted", f"by the scheduler for {spec.user}", job.key)
        return job

    def allocate(self, job_id: JobId, shares: tuple[NodeShare, ...], attempt: Attempt | None = None) -> Job:
        """Starts an attempt on these nodes. The caller has checked that they take work.

        Raises:
            InvalidTransitionError: the job is not pending, or the attempt is not the next one.
        """
        job = self.jobs[job_id]
        number = Attempt(job.attempt + 1) if attempt is None else attempt
        event = Allocated(self.clock.now(), shares, self._hooks(), number)
        job, effects = machine.advance(job, event, self.requeue)
        self.fleet.allocate(job.key, shares)
        self._settle(job, effects)
        return self.jobs[job_id]

    def apply(self, job_id: JobId, event: JobEvent) -> Job:
        """Applies one event to one job and carries out its effects.

        Raises:
            CraneError: FAILED_PRECONDITION, the event is a request that the job's state refuses; NOT_FOUND, no such job.
        """
        job = self.job(job_id)
        try:
            job, effects = machine.advance(job, event, self.requeue)
        except InvalidTransitionError as refused:
            message = f"job {job_id} is {refused.state}: expected {refused.expected}"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message) from refused
        self._settle(job, effects)
        return self.jobs[job_id]

    def job(self, job_id: JobId) -> Job:
        """A job in memory.

        Raises:
            CraneError: NOT_FOUND.
        """
        try:
            return self.jobs[job_id]
        except KeyError:
            raise CraneError(ErrorCode.NOT_FOUND, f"job {job_id} does not exist or ended long ago") from None

    def bell_of(self, job_id: JobId) -> Bell:
        """Rings when the job changes."""
        job = self.jobs.get(job_id)
        if job is None or job.state.is_final:
            return Bell()  # which nobody rings any more
        return self._bells.setdefault(job_id, Bell())

    def _settle(self, job: Job, effects: list[Effect]) -> None:
        old = self.jobs.get(job.job_id)
        if old is not job:
            self._put(job)
            if job.state is JobState.COMPLETING and (old is None or old.state is not JobState.COMPLETING):
                self.fleet.complete(job.key, job.nodes)
        for effect in effects:
            self._carry_out(job, effect)

    def _put(self, job: Job) -> None:
        old = self.jobs.get(job.job_id)
        self.jobs[job.job_id] = job
        self.store.put_job(job)
        self.metrics.job_changed(old, job)
        self.queue.changed(old, job)
        if job.state is not JobState.PENDING:
            self._waiting.pop(job.job_id, None)
        if (bell := self._bells.get(job.job_id)) is not None:
            bell.ring()
        if old is None or old.state is not job.state:
            self.wake()
        if job.state.is_final:
            self._bells.pop(job.job_id, None)
            self._ended[job.job_id] = None
            while len(self._ended) > ENDED_JOBS_KEPT:
                oldest = next(iter(self._ended))
                del self._ended[oldest], self.jobs[oldest]

    def _carry_out(self, job: Job, effect: Effect) -> None:
        crash_points.reached(f"cranectld: {type(effect).__name__}")
        key = job.key
        match effect:
            case RunCtldHook(point):
                assert self._tasks is not None, "run() is running"
                self._tasks.create_task(self._run_ctld_hook(job, point))
            case StopCtldHook(point):
                assert self._tasks is not None, "run() is running"
                self._tasks.create_task(self._ctld_hooks.stop(key, point))
            case PrepareNode(node) | SendStep(node) | TerminateStep(node) | ReleaseNode(node):
                self._links.send(node, self.command(job, effect))
            case DrainNode(node, reason):
                self.fleet.drain_for_hook(node, reason)
            case FreeNode(node):
                self.fleet.free(node, key)
            case OweEpilog(node):
                ending = job.ending
                exit_status = ending.exit if ending else ExitStatus()
                self.fleet.owe(OwedEpilog(node, self.job_on_node(job, node), exit_status, f"{node} was lost", job.derived_exit))
            case StartTimeLimit(after_s):
                self._start_timer(job, after_s)
            case StopTimeLimit():
                if (timer := self._timers.pop(key, None)) is not None:
                    timer.cancel()
            case Record(kind, text, node):
                self.chronicle.record(kind, text, key, node)
            case Decide():
                self.chronicle.decided(job, effect, self.fleet.nodes.get(effect.node) if effect.node is not None else None)
            case _:
                assert_never(effect)

    def command(self, job: Job, effect: PrepareNode | SendStep | TerminateStep | ReleaseNode) -> NodeCommand:
        """What a node is told for an effect."""
        match effect:
            case PrepareNode(node):
                return PrepareJobCommand(self.job_on_node(job, node))
            case SendStep(node, step_id):
                return RunStepCommand(self.job_on_node(job, node), job.steps[step_id].spec)
            case TerminateStep(_, step_id, reason):
                return SignalTasksCommand(job.key, step_id, terminate=True, reason=reason)
            case ReleaseNode(node, exit_status, reason):
                return ReleaseJobCommand(self.job_on_node(job, node), exit_status, reason, job.derived_exit)
            case _:
                assert_never(effect)

    def signal_step(self, job: Job, node: NodeName, command: SignalTasksCommand) -> None:
        self._links.send(node, command)

    def job_on_node(self, job: Job, node: NodeName) -> JobOnNode:
        """All that `node` must know of the job's current attempt."""
        limit = job.spec.time_limit_s
        start = job.started_at or job.allocated_at
        return JobOnNode(
            job_id=job.job_id,
            attempt=job.attempt,
            spec=job.spec,
            nodes=job.nodes,
            share=job.share_of(node),
            cluster=self.cluster,
            start_time=start,
            end_time=start + limit if limit is not None else 0.0,
            restart_count=job.attempt - 1,
            layout=job.layout,
        )

    async def _run_ctld_hook(self, job: Job, point: HookPoint) -> None:
        await self.store.flushed_or_retrying()
        run = await self._ctld_hooks.run(job, self.job_on_node(job, job.nodes[0]), point)
        self.record_run(run)
        self._ctld_hook_ended(job, run)

    def _ctld_hook_ended(self, job: Job, run: HookRun) -> None:
        undrained: set[NodeName] = set()
        script = ""
        if machine.verdict(job, run).drain:
            for node in job.nodes:
                if spared_by := self.fleet.charge(run, node):
                    undrained.add(node)
                    script = spared_by
        self.apply(job.job_id, CtldHookEnded(self.clock.now(), job.attempt, run, frozenset(undrained), script))

    def _start_timer(self, job: Job, after_s: float) -> None:
        def reached() -> None:
            self._timers.pop(job.key, None)
            self.apply(job.job_id, TimeLimitReached(self.clock.now(), job.attempt))

        self._timers[job.key] = asyncio.get_running_loop().call_later(after_s, reached)

    def record_run(self, run: HookRun) -> bool:
        """Writes a hook run into the history, once per run id. False for a repeat, or where there was no script to run."""
        if not self.chronicle.record_run(run):
            return False
        if (bell := self._bells.get(run.key.job_id)) is not None:
            bell.ring()
        return True

    def charge(self, run: HookRun, job: Job) -> str:
        """Charges a failing node hook to its script's drain budget. Returns the script's name when the budget is used up."""
        node = run.key.node
        return self.fleet.charge(run, node) if node is not None and machine.verdict(job, run).drain else ""

    # Scheduling

    def wake(self) -> None:
        """Something changed that may let a job start."""
        self._wake.set()

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            # While nothing can be written, nothing new is begun: it could not be promised to anybody.
            if not self.store.failure:
                self._place()
            now = self.clock.now()
            due = self.queue.next_due(now)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else due - now):
                    await self._wake.wait()

    def _place(self) -> None:
        self._hold_for_breakers()
        for answer in self.scheduling.place(self.queue.pending, tuple(self.fleet.nodes.values()), self.clock.now()):
            if isinstance(answer, Placement):
                self.allocate(answer.job_id, answer.shares)
            elif self._waiting.get(answer.job_id) != answer.reason:
                self._waiting[answer.job_id] = answer.reason
                if (bell := self._bells.get(answer.job_id)) is not None:
                    bell.ring()

    def _hold_for_breakers(self) -> None:
        """Jobs that would run a script whose drain budget is used up wait for an administrator instead of for the next failure."""
        tripped = self.fleet.budget.tripped()
        if not tripped:
            return
        patterns = [pattern for point in DRAINING_POINTS for pattern in self._hooks().patterns.get(point, ())]
        for breaker in tripped:
            if not any(fnmatchcase(breaker.script, pattern) for pattern in patterns):
                continue
            reason = f"{machine.BREAKER_REASON} {breaker.script} drained {len(breaker.nodes)} nodes; see hookctl breaker"
            for job in list(self.queue.pending):
                self.apply(job.job_id, HoldRequested(self.clock.now(), reason))

    def reason_of(self, job: Job) -> str:
        """Why a job waits, is held, or ended, for a person."""
        if job.state is not JobState.PENDING:
            return job.reason
        return self._waiting.get(job.job_id) or job.reason or "Priority: waits behind earlier jobs"

    def cancel(self, job_id: JobId, reason: str) -> None:
        self.apply(job_id, CancelRequested(self.clock.now(), reason))

    def expire(self, expiry: Expiry) -> None:
        """Forgets here what the store forgets."""
        self.requests.expire(expiry.requests_before)
        while self._ended:
            oldest = next(iter(self._ended))
            if self.jobs[oldest].ended_at >= expiry.jobs_before:
                return
            del self._ended[oldest], self.jobs[oldest]


def lost_ctld_run(job: Job, point: HookPoint, at: float) -> HookRun:
    """The record of a controller hook whose end nobody saw."""
    outcome = Outcome(OutcomeKind.LOST, detail="the controller was restarted while it ran")
    return HookRun(HookKey(point, job.job_id, job.attempt), "", at, 0.0, outcome)
