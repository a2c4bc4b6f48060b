"""The cell that each job has on this node: it holds the limits of all the job's processes, and tells what they have used."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from craned.job.limits import LimitSettings, job_limits, missing_files
from cranehooks.execution.containment.cells import Cell, Containment
from cranehooks.model.ids import AttemptKey
from cranehooks.model.job import JobOnNode, StepSpec
from cranehooks.model.limits import LimitKind, Limits, Usage, words

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.job.cells")

_MEASURED: Final = Limits(measures_memory=True)


class JobCells:
    """Made before the first process of a job here starts, given up after its last one is gone. Everything blocks.

    A cell outlives this daemon: after a restart it is taken over where it is needed next.
    """

    def __init__(self, containment: Containment | None, settings: Callable[[], LimitSettings]) -> None:
        """`containment`: None without control groups; then nothing is limited, and nothing is told."""
        self._containment = containment
        self._settings = settings
        self._cells: dict[AttemptKey, Cell] = {}
        self._lock = threading.Lock()

    @property
    def constrains_devices(self) -> bool:
        """Whether a job can open no device of the node that it does not hold."""
        return self._settings().constrains_devices and LimitKind.DEVICES in self._enforced

    @property
    def _enforced(self) -> frozenset[LimitKind]:
        return frozenset() if self._containment is None else self._containment.offers.enforced

    def warn_of_gaps(self) -> None:
        """Tells an administrator which limits of the configuration do not hold on this node."""
        settings = self._settings()
        if missing := words(settings.wanted - self._enforced):
            driver = "none" if self._containment is None else self._containment.driver
            log.warning("job_limits_not_enforced", limits=list(missing), containment=driver)
        if files := missing_files(settings.devices):
            log.warning(
                "device_files_missing", files=list(files), meaning="no device files on this node: nobody is kept from them"
            )

    def hold(self, job: JobOnNode) -> Limits:
        """Makes the job's cell, or sees that it is there; its limits. Safe to repeat.

        Raises:
            OSError: it cannot be made.
        """
        limits = job_limits(job, self._settings())
        if self._containment is None:
            return limits
        # Steps of one job may start at the same time.
        with self._lock:
            if (key := _key(job)) not in self._cells:
                cell = self._containment.create_at(_place(job), limits=limits if limits.kinds else None)
                self._cells[key] = cell
                if cell.not_enforced:
                    log.info("job_limits_passed_over", job_id=job.job_id, limits=list(cell.not_enforced))
        return limits

    def usage(self, job: JobOnNode) -> Usage | None:
        """What the job has used here so far, as far as its cell tells; None when it tells nothing."""
        if self._containment is None:
            return None
        try:
            self.hold(job)
        except OSError as error:
            log.warning("job_usage_unknown", job_id=job.job_id, error=str(error))
            return None
        usage = self._cells[_key(job)].usage()
        return usage if usage.cpu_s or usage.oom_kills else None

    def step_usage(self, job: JobOnNode, step: StepSpec) -> Usage | None:
        """What a step has used whose supervisor is gone."""
        if self._containment is None:
            return None
        limits = _MEASURED if job.share.memory_bytes else None
        try:
            cell = self._containment.create_at(_place(job), f"step_{step.step_id}", limits=limits)
        except OSError as error:
            log.warning("step_usage_unknown", job_id=job.job_id, step=step.step_id, error=str(error))
            return None
        usage = cell.usage()
        cell.remove()
        return usage

    def give_up(self, job: JobOnNode) -> None:
        """Nothing of the job lives any more, or it cannot be killed. Safe to repeat."""
        if (cell := self._cells.pop(_key(job), None)) is not None:
            cell.remove()


def _key(job: JobOnNode) -> AttemptKey:
    return AttemptKey(job.job_id, job.attempt)


def _place(job: JobOnNode) -> str:
    return f"job_{job.job_id}"
