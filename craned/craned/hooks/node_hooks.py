"""Runs Prolog and Epilog: finds their scripts, waits for their turn, and has the hook spawner run them."""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from craned.hooks.processes import EndedKept
from craned.hooks.turns import Turn, Turns
from cranehooks import environment, policy
from cranehooks.execution import scripts
from cranehooks.execution.spawner_client import QueueFullError
from cranehooks.model.ids import NodeName, RunId
from cranehooks.model.job import JobEnd, JobOnNode
from cranehooks.model.limits import Limits
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings, RunSpec, TimeoutScope
from cranehooks.plan import Plan, PlanFailure
from cranehooks.profiles import PrologFlag, TimeoutCover, effective

PROLOG_TURN_LIMIT_S: Final = 3600.0
"""How long a Prolog waits for its turn under Serial. An Epilog waits as long as it takes: it must run, and every hook before it is bounded."""

_NOTE_CHARACTERS: Final = 500

Started = Callable[[], Awaitable[None]]


class Spawner(Protocol):
    """What runs hooks: the part of `SpawnerClient` that is used here."""

    async def run(self, spec: RunSpec) -> HookRun: ...
    def stop(self, run_id: RunId) -> bool: ...


class RunObserver(Protocol):
    """Counts hook runs."""

    def started(self, point: HookPoint) -> None: ...
    def ended(self, run: HookRun) -> None: ...


def planned(hooks: HookSettings, point: HookPoint) -> Plan | PlanFailure:
    """The scripts of a configured point as they are now. Looks at the disk."""
    patterns = hooks.patterns.get(point, ())
    if not patterns:
        return Plan(())
    return scripts.planned(effective(hooks), patterns, kept=hooks.keep_processes.get(point))


def timeout_scope(hooks: HookSettings) -> TimeoutScope:
    """What a timeout of these hooks covers."""
    covers_script = effective(hooks).timeout_cover is TimeoutCover.SCRIPT
    return TimeoutScope.SCRIPT if covers_script else TimeoutScope.LIST


class KeptProcesses(Protocol):
    """Ends what Prologs have kept (`JobProcesses`)."""

    async def end_kept(self, job: JobOnNode) -> EndedKept: ...


class ExternGoneError(Exception):
    """There is no extern step, or no more, and what was asked of it has not begun: says why."""


class Extern(Protocol):
    """Hooks in the extern step (`ExternHooks`)."""

    async def ready(self, job: JobOnNode, stop: asyncio.Event) -> str | None: ...
    async def run(self, job: JobOnNode, spec: RunSpec) -> HookRun: ...
    async def resume(self, key: HookKey, user: str) -> HookRun: ...
    def stop(self, key: HookKey) -> None: ...


@dataclass(slots=True)
class _Asked:
    """One hook that is to run."""

    job: JobOnNode
    hooks: HookSettings
    point: HookPoint
    started: Started
    stop: asyncio.Event
    end: JobEnd | None = None
    cgroup: str | None = None
    """Of the job's extern step, where it is to run in one."""
    at: float = field(default_factory=time.monotonic)

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.at


class NodeHooks:
    """The hooks of one node."""

    def __init__(
        self, node: NodeName, user: str, spawner: Spawner, observer: RunObserver, kept: KeptProcesses, extern: Extern
    ) -> None:
        self._node = node
        self._user = user
        self._spawner = spawner
        self._observer = observer
        self._kept = kept
        self._extern = extern
        self._turns = Turns()

    @property
    def user(self) -> str:
        """Whose identity the hooks have."""
        return self._user

    async def run_prolog(
        self, job: JobOnNode, hooks: HookSettings, *, started: Started, stop: asyncio.Event, resumed: bool = False
    ) -> HookRun:
        """A Prolog without scripts is ok at once; under Contain, once the extern step holds the job's place."""
        asked = _Asked(job, hooks, HookPoint.PROLOG, started, stop)
        if resumed:
            return await self._resume(asked)
        if PrologFlag.CONTAIN in hooks.flags:
            try:
                asked.cgroup = await self._extern.ready(job, stop)
            except ExternGoneError as error:
                return self._unplanned(job, HookPoint.PROLOG, f"no extern step: {error}")
        run = await self._run(asked)
        return run or HookRun(self._key(job, HookPoint.PROLOG), self._user, time.time(), 0.0)

    async def run_epilog(
        self,
        job: JobOnNode,
        hooks: HookSettings,
        end: JobEnd,
        unkillable: tuple[str, ...],
        *,
        started: Started,
        resumed: bool = False,
    ) -> HookRun | None:
        """None: there is no Epilog, and nothing to tell. What the job's Prolog has kept, and no Epilog has ended, is killed then.

        Processes of either that survived KILL make it unkillable, whatever the scripts say.
        """
        asked = _Asked(job, hooks, HookPoint.EPILOG, started, asyncio.Event(), end)
        run = await (self._resume(asked) if resumed else self._run(asked))
        ended = await self._kept.end_kept(job)
        if ended.killed:
            run = run or self._empty_epilog(job)
            run = replace(run, notes=(*run.notes, f"kept by Prolog and killed now: {', '.join(ended.killed)}"[:_NOTE_CHARACTERS]))
        survivors = (*unkillable, *ended.survivors)
        if survivors and (run is None or run.outcome.ok):
            run = run or self._empty_epilog(job)
            detail = f"survived KILL: {', '.join(survivors)}"[:_NOTE_CHARACTERS]
            return replace(run, outcome=Outcome(OutcomeKind.UNKILLABLE, 0, detail))
        return run

    def _empty_epilog(self, job: JobOnNode) -> HookRun:
        return HookRun(self._key(job, HookPoint.EPILOG), self._user, time.time(), 0.0)

    @staticmethod
    def failure(run: HookRun) -> str:
        """For a person: why the run was not ok."""
        return policy.drain_reason(run)

    def _key(self, job: JobOnNode, point: HookPoint) -> HookKey:
        return HookKey(point, job.job_id, job.attempt, self._node)

    async def _run(self, asked: _Asked) -> HookRun | None:
        """None: no scripts."""
        if not asked.hooks.patterns.get(asked.point):
            return None
        is_serial = PrologFlag.SERIAL in asked.hooks.flags
        if is_serial:
            limit_s = PROLOG_TURN_LIMIT_S if asked.point is HookPoint.PROLOG else None
            turn = await self._turns.take(asked.stop, limit_s)
            if turn is not Turn.TAKEN:
                return self._never_ran(asked, turn)
        try:
            return await self._run_now(asked)
        finally:
            if is_serial:
                self._turns.give_back()

    async def _run_now(self, asked: _Asked) -> HookRun | None:
        plan = await asyncio.to_thread(planned, asked.hooks, asked.point)
        if isinstance(plan, PlanFailure):
            return self._unplanned(asked.job, asked.point, plan.reason)
        if not plan.scripts:
            return None
        await asked.started()
        if asked.stop.is_set():
            return self._never_ran(asked, Turn.STOPPED)
        waited_s = asked.waited_s
        self._observer.started(asked.point)
        spec = self._spec(asked, plan)
        run = await (
            self._run_in_job(asked, spec) if PrologFlag.RUN_IN_JOB in asked.hooks.flags else self._spawn(spec, asked.stop)
        )
        return self._observed(replace(run, queue_wait_s=run.queue_wait_s + waited_s, user=self._user))

    async def _run_in_job(self, asked: _Asked, spec: RunSpec) -> HookRun:
        """By the supervisor of the extern step. An Epilog must run: where that step has gone, outside of the job."""
        try:
            await self._extern.ready(asked.job, asked.stop)
            return await self._until(asked.stop, lambda: self._extern.stop(spec.key), lambda: self._extern.run(asked.job, spec))
        except ExternGoneError as error:
            if asked.point is HookPoint.EPILOG:
                note = f"ran outside the job's cgroup, for want of its extern step: {error}"
                return await self._spawn(replace(spec, notes=(*spec.notes, note)), asked.stop)
            return HookRun(spec.key, self._user, time.time(), 0.0, Outcome(OutcomeKind.SPAWN, 0, f"no extern step: {error}"))

    async def _resume(self, asked: _Asked) -> HookRun:
        """One that was running in the extern step when this daemon was another."""
        key = self._key(asked.job, asked.point)
        self._observer.started(asked.point)
        return self._observed(
            await self._until(asked.stop, lambda: self._extern.stop(key), lambda: self._extern.resume(key, self._user))
        )

    def _observed(self, run: HookRun) -> HookRun:
        self._observer.ended(run)
        return run

    async def _spawn(self, spec: RunSpec, stop: asyncio.Event) -> HookRun:
        try:
            return await self._until(stop, lambda: self._spawner.stop(spec.key.run_id), lambda: self._spawner.run(spec))
        except QueueFullError as error:
            outcome = Outcome(OutcomeKind.SPAWN, errno.EAGAIN, str(error))
            return HookRun(spec.key, self._user, time.time(), 0.0, outcome)

    @staticmethod
    async def _until(stop: asyncio.Event, end: Callable[[], object], run: Callable[[], Awaitable[HookRun]]) -> HookRun:
        """The run, which is ended when `stop` is set."""

        async def end_when_asked() -> None:
            await stop.wait()
            end()

        ended: HookRun | Exception
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(end_when_asked())
            try:
                ended = await run()
            except (QueueFullError, ExternGoneError) as error:
                # A group would wrap it.
                ended = error
            finally:
                watcher.cancel()
        if isinstance(ended, Exception):
            raise ended
        return ended

    def _spec(self, asked: _Asked, plan: Plan) -> RunSpec:
        hooks, point = asked.hooks, asked.point
        return RunSpec(
            key=self._key(asked.job, point),
            scripts=plan.scripts,
            environment=environment.node_hook_environment(point, asked.job, end=asked.end, slurm=hooks.slurm_compatible_env),
            timeout_s=hooks.timeouts_s.get(point),
            timeout_scope=timeout_scope(hooks),
            continue_on_failure=point in hooks.continue_on_failure,
            grace_s=hooks.grace_s,
            unkillable_after_s=hooks.unkillable_after_s,
            output_limit_bytes=hooks.output_limit_bytes,
            user=self._user,
            cgroup=asked.cgroup,
            notes=plan.notes,
            keeps=plan.keeps,
            limits=self._limits(asked),
        )

    @staticmethod
    def _limits(asked: _Asked) -> Limits | None:
        """Of the point; within the job what it takes of the job's memory is measured, so that a kill for want of it is named."""
        limits = asked.hooks.limits.get(asked.point)
        is_in_job = asked.cgroup is not None or PrologFlag.RUN_IN_JOB in asked.hooks.flags
        if is_in_job and asked.job.share.memory_bytes:
            return replace(limits or Limits(), measures_memory=True)
        return limits

    def _never_ran(self, asked: _Asked, turn: Turn) -> HookRun:
        waited_s = asked.waited_s
        if turn is Turn.TOO_LATE:
            outcome = Outcome(OutcomeKind.SPAWN, 0, f"waited {waited_s:.0f} s for its turn (PrologFlags: Serial)")
        else:
            outcome = Outcome(OutcomeKind.STOPPED, 0, "stopped before it was started")
        return HookRun(self._key(asked.job, asked.point), self._user, time.time(), 0.0, outcome, queue_wait_s=waited_s)

    def _unplanned(self, job: JobOnNode, point: HookPoint, reason: str) -> HookRun:
        run = HookRun(self._key(job, point), self._user, time.time(), 0.0, Outcome(OutcomeKind.SPAWN, 0, reason))
        self._observer.started(point)
        self._observer.ended(run)
        return run
