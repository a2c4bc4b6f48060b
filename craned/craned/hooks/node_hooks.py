"""Runs Prolog and Epilog: finds their scripts, waits for their turn, and has the hook spawner run them."""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from craned.hooks.processes import EndedKept
from craned.hooks.turns import Turn, Turns
from cranehooks import environment, policy
from cranehooks.execution import scripts
from cranehooks.execution.spawner_client import QueueFullError
from cranehooks.model.ids import NodeName, RunId
from cranehooks.model.job import JobEnd, JobOnNode
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


class NodeHooks:
    """The hooks of one node."""

    def __init__(self, node: NodeName, user: str, spawner: Spawner, observer: RunObserver, kept: KeptProcesses) -> None:
        self._node = node
        self._user = user
        self._spawner = spawner
        self._observer = observer
        self._kept = kept
        self._turns = Turns()

    @property
    def user(self) -> str:
        """Whose identity the hooks have."""
        return self._user

    async def run_prolog(self, job: JobOnNode, hooks: HookSettings, *, started: Started, stop: asyncio.Event) -> HookRun:
        """A Prolog without scripts is ok at once."""
        run = await self._run(job, hooks, HookPoint.PROLOG, None, started, stop)
        return run or HookRun(self._key(job, HookPoint.PROLOG), self._user, time.time(), 0.0)

    async def run_epilog(
        self,
        job: JobOnNode,
        hooks: HookSettings,
        end: JobEnd,
        unkillable: tuple[str, ...],
        *,
        started: Started,
    ) -> HookRun | None:
        """None: there is no Epilog, and nothing to tell. What the job's Prolog has kept, and no Epilog has ended, is killed then.

        Processes of either that survived KILL make it unkillable, whatever the scripts say.
        """
        run = await self._run(job, hooks, HookPoint.EPILOG, end, started, asyncio.Event())
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

    async def _run(
        self,
        job: JobOnNode,
        hooks: HookSettings,
        point: HookPoint,
        end: JobEnd | None,
        started: Started,
        stop: asyncio.Event,
    ) -> HookRun | None:
        """None: no scripts."""
        if not hooks.patterns.get(point):
            return None
        asked = time.monotonic()
        is_serial = PrologFlag.SERIAL in hooks.flags
        if is_serial:
            limit_s = PROLOG_TURN_LIMIT_S if point is HookPoint.PROLOG else None
            turn = await self._turns.take(stop, limit_s)
            if turn is not Turn.TAKEN:
                return self._never_ran(job, point, asked, turn)
        try:
            return await self._run_now(job, hooks, point, end, started, stop, asked)
        finally:
            if is_serial:
                self._turns.give_back()

    async def _run_now(
        self,
        job: JobOnNode,
        hooks: HookSettings,
        point: HookPoint,
        end: JobEnd | None,
        started: Started,
        stop: asyncio.Event,
        asked: float,
    ) -> HookRun | None:
        plan = await asyncio.to_thread(planned, hooks, point)
        if isinstance(plan, PlanFailure):
            return self._unplanned(job, point, plan.reason)
        if not plan.scripts:
            return None
        await started()
        if stop.is_set():
            return self._never_ran(job, point, asked, Turn.STOPPED)
        waited_s = time.monotonic() - asked
        self._observer.started(point)
        run = await self._spawn(self._spec(job, hooks, point, plan, end), stop)
        run = replace(run, queue_wait_s=run.queue_wait_s + waited_s, user=self._user)
        self._observer.ended(run)
        return run

    async def _spawn(self, spec: RunSpec, stop: asyncio.Event) -> HookRun:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._stop_when(stop, spec.key.run_id))
            try:
                return await self._spawner.run(spec)
            except QueueFullError as error:
                outcome = Outcome(OutcomeKind.SPAWN, errno.EAGAIN, str(error))
                return HookRun(spec.key, self._user, time.time(), 0.0, outcome)
            finally:
                watcher.cancel()

    async def _stop_when(self, stop: asyncio.Event, run_id: RunId) -> None:
        await stop.wait()
        self._spawner.stop(run_id)

    def _spec(self, job: JobOnNode, hooks: HookSettings, point: HookPoint, plan: Plan, end: JobEnd | None) -> RunSpec:
        return RunSpec(
            key=self._key(job, point),
            scripts=plan.scripts,
            environment=environment.node_hook_environment(point, job, end=end, slurm=hooks.slurm_compatible_env),
            timeout_s=hooks.timeouts_s.get(point),
            timeout_scope=timeout_scope(hooks),
            continue_on_failure=point in hooks.continue_on_failure,
            grace_s=hooks.grace_s,
            unkillable_after_s=hooks.unkillable_after_s,
            output_limit_bytes=hooks.output_limit_bytes,
            user=self._user,
            notes=plan.notes,
            keeps=plan.keeps,
            limits=hooks.limits.get(point),
        )

    def _never_ran(self, job: JobOnNode, point: HookPoint, asked: float, turn: Turn) -> HookRun:
        waited_s = time.monotonic() - asked
        if turn is Turn.TOO_LATE:
            outcome = Outcome(OutcomeKind.SPAWN, 0, f"waited {waited_s:.0f} s for its turn (PrologFlags: Serial)")
        else:
            outcome = Outcome(OutcomeKind.STOPPED, 0, "stopped before it was started")
        return HookRun(self._key(job, point), self._user, time.time(), 0.0, outcome, queue_wait_s=waited_s)

    def _unplanned(self, job: JobOnNode, point: HookPoint, reason: str) -> HookRun:
        run = HookRun(self._key(job, point), self._user, time.time(), 0.0, Outcome(OutcomeKind.SPAWN, 0, reason))
        self._observer.started(point)
        self._observer.ended(run)
        return run
