"""The controller's own hooks: CranectldProlog and CranectldEpilog, run by its hook spawner."""

import asyncio
import time

from cranectld.jobs.model import Job
from cranehooks.environment import controller_hook_environment
from cranehooks.execution import scripts
from cranehooks.execution.spawner_client import QueueFullError, SpawnerClient
from cranehooks.model.ids import AttemptKey
from cranehooks.model.job import JobEnd, JobOnNode
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, RunSpec, TimeoutScope
from cranehooks.plan import PlanFailure
from cranehooks.profiles import TimeoutCover, effective
from cranehooks.run_metrics import HookRunMetrics


class SpawnedCtldHooks:
    """`ports.CtldHooks` over a hook spawner."""

    def __init__(self, spawner: SpawnerClient, metrics: HookRunMetrics, user: str) -> None:
        self._spawner = spawner
        self._metrics = metrics
        self._user = user

    async def run(self, job: Job, on_node: JobOnNode, point: HookPoint) -> HookRun:
        key = HookKey(point, job.job_id, job.attempt)
        started_at = time.time()
        spec = await asyncio.to_thread(self._spec, job, on_node, key)
        if isinstance(spec, Outcome):
            return HookRun(key, self._user, started_at, 0.0, spec)
        self._metrics.started(point)
        try:
            run = await self._spawner.run(spec)
        except QueueFullError as error:
            run = HookRun(key, self._user, started_at, 0.0, Outcome(OutcomeKind.SPAWN, detail=str(error)))
        self._metrics.ended(run)
        return run

    async def stop(self, key: AttemptKey, point: HookPoint) -> None:
        self._spawner.stop(HookKey(point, key.job_id, key.attempt).run_id)

    def _spec(self, job: Job, on_node: JobOnNode, key: HookKey) -> RunSpec | Outcome:
        """What to run, resolved now; an outcome where that fails or there is nothing to run."""
        hooks = job.hooks
        profile = effective(hooks)
        plan = scripts.planned(profile, hooks.patterns.get(key.point, ()), kept=hooks.keep_processes.get(key.point))
        if isinstance(plan, PlanFailure):
            return Outcome(OutcomeKind.SPAWN, detail=plan.reason)
        if not plan.scripts:
            return Outcome(OutcomeKind.OK)
        return RunSpec(
            key=key,
            scripts=plan.scripts,
            environment=controller_hook_environment(
                key.point,
                on_node,
                end=JobEnd(job.exit if job.started_at else None, job.derived_exit),
                slurm=hooks.slurm_compatible_env,
            ),
            timeout_s=hooks.timeouts_s.get(key.point),
            timeout_scope=TimeoutScope.LIST if profile.timeout_cover is TimeoutCover.LIST else TimeoutScope.SCRIPT,
            continue_on_failure=key.point in hooks.continue_on_failure,
            user=self._user,
            grace_s=hooks.grace_s,
            unkillable_after_s=hooks.unkillable_after_s,
            output_limit_bytes=hooks.output_limit_bytes,
            notes=plan.notes,
            keeps=plan.keeps,
            limits=hooks.limits.get(key.point),
        )
