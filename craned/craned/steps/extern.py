"""Hooks in the extern step: until it holds the job's place, and, under RunInJob, by its supervisor."""

import asyncio
import time

import structlog

from craned.hooks.node_hooks import ExternGoneError
from craned.job.cells import JobCells
from craned.steps.driver import ActiveStep, Steps
from cranehooks.execution.containment.detect import NONE
from cranehooks.model.ids import EXTERN_STEP, StepKey
from cranehooks.model.job import JobOnNode
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.run import HookKey, HookRun, HookSettings, RunSpec
from cranehooks.profiles import PrologFlag

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.steps.extern")


class ExternHooks:
    """What the extern steps of this node do for hooks. Waiting is bounded: a supervisor dials in time, or its step ends."""

    def __init__(self, steps: Steps, cells: JobCells) -> None:
        self._steps = steps
        self._cells = cells

    async def ready(self, job: JobOnNode, stop: asyncio.Event) -> str | None:
        """Waits until the job's extern step holds its place, or until `stop` is set; its cgroup, None where there are none.

        Raises:
            ExternGoneError: it does not start, or has ended.
        """
        key = _step_key(job)
        while True:
            news = self._steps.news
            orders = self._living(key).node_hooks
            assert orders is not None, "an extern step takes node hooks"
            if orders.cgroup is not None or stop.is_set():
                return orders.cgroup or None
            await news.wait()

    async def run(self, job: JobOnNode, spec: RunSpec) -> HookRun:
        """Has the supervisor run it. Cancelling leaves it running: it may be resumed.

        Raises:
            ExternGoneError: the step ended before the hook began.
        """
        active = self._living(_step_key(job))
        orders = active.node_hooks
        assert orders is not None, "an extern step takes node hooks"
        try:
            # With the job's limits, also after everything in its cgroup has been ended.
            await asyncio.to_thread(self._cells.hold, job)
        except OSError as error:
            message = f"the limits of job {job.job_id} cannot be set: {error.strerror or error}"
            raise ExternGoneError(message) from error
        order = orders.order(spec, is_connected=active.link is not None)
        if active.link is not None:
            active.link.send(order)
        started_at, started = time.time(), time.monotonic()
        while True:
            news = self._steps.news
            if (run := orders.taken(spec.key.point)) is not None:
                return run
            if active.is_over and not orders.may_have_begun(spec.key.point):
                raise ExternGoneError(_reason(active))
            if active.is_over:
                return _lost(
                    spec.key, spec.user, started_at, time.monotonic() - started, f"the extern step ended: {_reason(active)}"
                )
            await news.wait()

    async def resume(self, key: HookKey, user: str) -> HookRun:
        """Awaits the end of a hook that a supervisor ran when this daemon was another; lost where nobody knows of it."""
        started_at, started = time.time(), time.monotonic()
        step_key = StepKey(key.job_id, key.attempt, EXTERN_STEP)
        while True:
            news = self._steps.news
            active = self._steps.find(step_key)
            orders = None if active is None else active.node_hooks
            if orders is not None and (run := orders.taken(key.point)) is not None:
                return run
            problem = ""
            if active is None or active.is_over or orders is None:
                problem = f"the extern step ended: {'nobody knows why' if active is None else _reason(active)}"
            elif orders.has_dialled and not orders.may_have_begun(key.point):
                problem = "craned ended before it was handed over"
            if problem:
                return _lost(key, user, started_at, time.monotonic() - started, problem)
            await news.wait()

    def stop(self, key: HookKey) -> None:
        """Ends it with TERM, grace and KILL; nothing happens where it has ended."""
        active = self._steps.find(StepKey(key.job_id, key.attempt, EXTERN_STEP))
        if active is not None and active.node_hooks is not None:
            message = active.node_hooks.stop(key.point)
            if active.link is not None:
                active.link.send(message)

    def _living(self, key: StepKey) -> ActiveStep:
        active = self._steps.find(key)
        if active is None or active.node_hooks is None:
            message = "there is none"
            raise ExternGoneError(message)
        if active.is_over:
            raise ExternGoneError(_reason(active))
        return active


def tell_of_loss(hooks: HookSettings, driver: str) -> None:
    """Logs which flags promise a cgroup that this node does not have."""
    promised = sorted({PrologFlag.CONTAIN.value, PrologFlag.RUN_IN_JOB.value} & hooks.flags)
    if promised and driver == NONE:
        log.warning(
            "flags_without_control_groups",
            flags=promised,
            containment=driver,
            lost="hooks run in sessions of their own, outside the job's limits, and what they keep is found by its variables",
        )


def _step_key(job: JobOnNode) -> StepKey:
    return StepKey(job.job_id, job.attempt, EXTERN_STEP)


def _reason(active: ActiveStep) -> str:
    return (active.end[1] if active.end is not None else "") or "it has ended"


def _lost(key: HookKey, user: str, started_at: float, duration_s: float, detail: str) -> HookRun:
    return HookRun(key, user, started_at, duration_s, Outcome(OutcomeKind.LOST, detail=detail))
