"""An external scheduler places and retries; the controller only checks that what it asks for is possible."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cranectld.admission import Admission
from cranectld.controller import Controller
from cranectld.jobs import steps
from cranectld.jobs.events import CompletionRequested, StepRequested, StepSendRequested
from cranectld.jobs.model import Job, JobState
from cranectld.nodes import Node, gres_fits
from cranectld.scheduling import Placement, Waiting
from cranectld.scheduling.fifo import shares_of
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobSpec, StepSpec
from cranekit.errors import CraneError, ErrorCode


@dataclass(slots=True)
class ExternalScheduling:
    """`Scheduling` that places nothing: jobs wait for the scheduler's word."""

    submission_streams: int = 0
    """Streams of schedulers that place what cbatch submits."""

    @property
    def accepts_submissions(self) -> bool:
        return self.submission_streams > 0

    def place(self, pending: Sequence[Job], nodes: Sequence[Node], at: float) -> list[Placement | Waiting]:
        word = "waits for the external scheduler" if self.accepts_submissions else "the external scheduler is not connected"
        return [Waiting(job.job_id, word) for job in pending]

    @contextmanager
    def submissions(self) -> Iterator[None]:
        """For as long as a scheduler listens that accepts submissions."""
        self.submission_streams += 1
        try:
            yield
        finally:
            self.submission_streams -= 1


class ExternalPort:
    """What an external scheduler may ask for; idempotent by job, attempt and step."""

    def __init__(self, controller: Controller, admission: Admission) -> None:
        self._controller = controller
        self._admission = admission

    def allocate(self, job_id: JobId, attempt: Attempt, spec: JobSpec | None, names: Sequence[NodeName]) -> Job:
        """Starts an attempt on the scheduler's nodes, or finds it started.

        Raises:
            CraneError: FAILED_PRECONDITION, INVALID_ARGUMENT, ALREADY_EXISTS, NOT_FOUND: as the service documents.
        """
        controller = self._controller
        nodes = self._nodes(names)
        job = controller.jobs.get(job_id)
        if job is None:
            if spec is None:
                raise CraneError(ErrorCode.NOT_FOUND, f"job {job_id} does not exist: give its spec to create it")
            if attempt != 1:
                raise _refused(f"job {job_id} is new: its first attempt is 1, not {attempt}")
            spec = self._admission.admit(replace(spec, num_nodes=len(nodes)), controller.nodes)
            self._check_available(spec, nodes)
            job = controller.adopt(job_id, spec)
        elif attempt == job.attempt and job.attempt:
            if job.nodes != tuple(names):
                raise CraneError(ErrorCode.ALREADY_EXISTS, f"attempt {attempt} of job {job_id} is on {', '.join(job.nodes)}")
            return job
        self._check_job(job, attempt)
        self._check_available(job.spec, nodes)
        return controller.allocate(job_id, shares_of(job.spec, tuple(names)), attempt)

    def _nodes(self, names: Sequence[NodeName]) -> list[Node]:
        if not names or len(set(names)) != len(names):
            raise CraneError(ErrorCode.INVALID_ARGUMENT, "nodes: expected at least one, each once")
        unknown = [name for name in names if name not in self._controller.nodes]
        if unknown:
            raise CraneError(ErrorCode.NOT_FOUND, f"node {unknown[0]} does not exist")
        return [self._controller.nodes[name] for name in names]

    def _check_job(self, job: Job, attempt: Attempt) -> None:
        if attempt <= job.attempt:
            raise _refused(f"attempt {attempt} of job {job.job_id} is not newer than {job.attempt}")
        if job.state is not JobState.PENDING:
            raise _refused(f"job {job.job_id} is {job.state.value}: {job.reason or 'expected pending'}")
        if attempt != job.attempt + 1:
            raise _refused(f"the next attempt of job {job.job_id} is {job.attempt + 1}, not {attempt}")
        wait_s = job.not_before - self._controller.clock.now()
        if wait_s > 0:
            raise _refused(f"job {job.job_id} was requeued: not before {wait_s:.1f} s from now")

    @staticmethod
    def _check_available(spec: JobSpec, nodes: Sequence[Node]) -> None:
        for node, share in zip(nodes, shares_of(spec, [node.name for node in nodes]), strict=True):
            if not node.takes_work:
                raise _refused(f"node {node.name} is {node.unavailable_because}")
            if node.cpus_free < share.cpus or node.memory_free_bytes < share.memory_bytes or not gres_fits(node, share.gres):
                raise _refused(f"node {node.name} has not {share.cpus:g} CPUs, the memory and the gres free")

    def start_step(self, job_id: JobId, attempt: Attempt, spec: StepSpec) -> None:
        """Creates and sends a step whose id the scheduler chose; a repeat does nothing.

        Raises:
            CraneError: FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND.
        """
        controller = self._controller
        job = self._current(job_id, attempt)
        known = job.steps.get(spec.step_id)
        if known is not None:
            if known.spec.argv != spec.argv:
                raise CraneError(ErrorCode.ALREADY_EXISTS, f"step {spec.step_id} of job {job_id} is another command")
            return
        if not spec.step_id.isdecimal() or not spec.argv:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, "a step needs a decimal step_id and a command")
        at = controller.clock.now()
        placement = steps.place_tasks(spec.ntasks or len(job.nodes), job.nodes)
        placed = replace(steps.placed(spec, spec.step_id, placement), cwd=spec.cwd or job.spec.cwd)
        controller.apply(job_id, StepRequested(at, placed, tuple(placement)))
        controller.apply(job_id, StepSendRequested(at, attempt, spec.step_id))

    def release(self, job_id: JobId, attempt: Attempt, exit_status: ExitStatus, cancel: str) -> None:
        """Ends an attempt; one that is over already stays as it is."""
        job = self._controller.job(job_id)
        if job.attempt != attempt or not job.state.is_allocated:
            return
        if cancel:
            self._controller.cancel(job_id, cancel)
        else:
            self._controller.apply(job_id, CompletionRequested(self._controller.clock.now(), exit_status))

    def _current(self, job_id: JobId, attempt: Attempt) -> Job:
        job = self._controller.job(job_id)
        if job.attempt != attempt:
            raise _refused(f"job {job_id}: attempt {attempt} is over, the current one is {job.attempt}")
        return job


def _refused(message: str) -> CraneError:
    return CraneError(ErrorCode.FAILED_PRECONDITION, message)
