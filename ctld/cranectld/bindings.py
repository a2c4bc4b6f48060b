"""Interactive jobs live as long as somebody holds on to them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from cranectld.controller import Controller
from cranectld.jobs.model import Job
from cranehooks.model.ids import JobId


class Bindings:
    """Counts the launchers bound to each interactive job; without any for `grace`, the job is cancelled."""

    def __init__(self, controller: Controller, grace: timedelta) -> None:
        self._controller = controller
        self.grace = grace
        self._bound: dict[JobId, int] = {}
        self._timers: dict[JobId, asyncio.TimerHandle] = {}

    def expect(self, job: Job) -> None:
        """A launcher should bind to this job soon: it was just submitted, or the controller restarted."""
        if job.spec.kind.is_interactive and not job.state.is_final and job.job_id not in self._bound:
            self._start_timer(job.job_id)

    @contextmanager
    def bound(self, job_id: JobId) -> Iterator[None]:
        """Holds the job for the length of the block."""
        self._bound[job_id] = self._bound.get(job_id, 0) + 1
        if (timer := self._timers.pop(job_id, None)) is not None:
            timer.cancel()
        try:
            yield
        finally:
            self._bound[job_id] -= 1
            if not self._bound[job_id]:
                del self._bound[job_id]
                if not self._over(job_id):
                    self._start_timer(job_id)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _start_timer(self, job_id: JobId) -> None:
        if job_id in self._timers:
            return
        self._timers[job_id] = asyncio.get_running_loop().call_later(self.grace.total_seconds(), self._let_go, job_id)

    def _let_go(self, job_id: JobId) -> None:
        del self._timers[job_id]
        if not self._over(job_id):
            self._controller.cancel(job_id, "its launcher is gone")

    def _over(self, job_id: JobId) -> bool:
        job = self._controller.jobs.get(job_id)
        return job is None or job.state.is_final
