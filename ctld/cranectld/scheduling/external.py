"""An external scheduler places and retries; the controller only checks that what it asks for is possible."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cranectld.admission import Admission
from cranectld.controller import Controller
from cranectld.jobs.events import CompletionRequested, StepRequested, StepSendRequested
from cranectld.jobs.model import Job, JobState
from cranectld.nodes.model import Node
from cranectld.scheduling import Placement, Waiting
from cranectld.scheduling.fifo import begin_text
from cranectld.scheduling.shares import demand_text, shares_on
from cranectld.step_layout import laid_out
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobKind, JobSpec, NodeShare, StepSpec
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
        return [Waiting(job.job_id, begin_text(job) if job.not_before > at else word) for job in pending]

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

    def __init__(self, controller: Controller, admission: Callable[[], Admission]) -> None:
        self._controller = controller
        self._admission = admission

    async def allocate(self, job_id: JobId, attempt: Attempt, spec: JobSpec | None, names: Sequence[NodeName]) -> Job:
        """Starts an attempt on the scheduler's nodes, or finds it started.

        Raises:
            CraneError: FAILED_PRECONDITION, INVALID_ARGUMENT, ALREADY_EXISTS, NOT_FOUND: as the service documents.
        """
        controller = self._controller
        if not job_id or not attempt:
            raise _invalid("job_id and attempt: expected numbers from 1 on")
        nodes = self._nodes(names)
        # Of ended jobs only the newest are in memory; the id of an older one must not start a second job.
        ended = None if job_id in controller.jobs else await controller.store.job(job_id)
        job = controller.jobs.get(job_id, ended)
        if spec is not None:
            spec = self._own_spec(spec, nodes)
            if job is not None and job.spec != spec:
                raise CraneError(ErrorCode.ALREADY_EXISTS, f"job {job_id} is another job, or was given with another spec")
        if job is not None and attempt == job.attempt:
            if job.nodes != tuple(names):
                raise CraneError(ErrorCode.ALREADY_EXISTS, f"attempt {attempt} of job {job_id} is on {', '.join(job.nodes)}")
            return job
        if job is not None:
            self._check_job(job, attempt)
            _check_wanted(job.spec, nodes)
            shares = _available(job.spec, nodes)
        else:
            if spec is None:
                raise CraneError(ErrorCode.NOT_FOUND, f"job {job_id} does not exist: give its spec to create it")
            if attempt != 1:
                raise _refused(f"job {job_id} is new: its first attempt is 1, not {attempt}")
            _check_wanted(spec, nodes)
            shares = _available(spec, nodes)
            job = controller.adopt(job_id, spec)
        return controller.allocate(job_id, shares, attempt)

    def _own_spec(self, spec: JobSpec, nodes: Sequence[Node]) -> JobSpec:
        """A job of the scheduler's own, complete. It is a batch job: nobody holds on to it as a launcher does to an interactive one."""
        if spec.kind is not JobKind.BATCH:
            raise _invalid("a scheduler's own job is a batch job: with a script, or without one and with steps by StartJobStep")
        if not spec.user:
            raise _invalid("spec.user: expected the name of the user whose job it is")
        if spec.num_nodes not in (1, len(nodes)):
            raise _invalid(f"nodes: got {len(nodes)}, the spec says {spec.num_nodes}")
        # Left open, the number of nodes is that of the allocation, and the number of tasks follows from it.
        ntasks = 0 if spec.ntasks_per_node and spec.num_nodes != len(nodes) else spec.ntasks
        complete = replace(spec, num_nodes=len(nodes), ntasks=ntasks)
        return self._admission().admit(complete, self._controller.fleet.nodes, needs_script=False)

    def _nodes(self, names: Sequence[NodeName]) -> list[Node]:
        if not names or len(set(names)) != len(names):
            raise _invalid("nodes: expected at least one, each once")
        unknown = [name for name in names if name not in self._controller.fleet.nodes]
        if unknown:
            raise CraneError(ErrorCode.NOT_FOUND, f"node {unknown[0]} does not exist")
        return [self._controller.fleet.nodes[name] for name in names]

    def _check_job(self, job: Job, attempt: Attempt) -> None:
        if attempt < job.attempt:
            raise _refused(f"attempt {attempt} of job {job.job_id} is older than {job.attempt}")
        if job.state is not JobState.PENDING:
            raise _refused(f"job {job.job_id} is {job.state.value}: {job.reason or 'expected pending'}")
        if attempt != job.attempt + 1:
            raise _refused(f"the next attempt of job {job.job_id} is {job.attempt + 1}, not {attempt}")
        wait_s = job.not_before - self._controller.clock.now()
        if wait_s > 0:
            raise _refused(f"job {job.job_id} was requeued: not before {wait_s:.1f} s from now")

    def start_step(self, job_id: JobId, attempt: Attempt, spec: StepSpec) -> None:
        """Creates and sends a step whose id the scheduler chose; a repeat does nothing.

        Raises:
            CraneError: FAILED_PRECONDITION, INVALID_ARGUMENT, ALREADY_EXISTS, NOT_FOUND.
        """
        controller = self._controller
        job = self.current(job_id, attempt)
        step_id = spec.step_id
        if not step_id.isdecimal() or str(int(step_id)) != step_id:
            raise _invalid(f"step_id {step_id!r}: expected a decimal number")
        placed = laid_out(job, spec, step_id, overcommit=True)
        known = job.steps.get(step_id)
        if known is not None:
            if known.spec != placed:
                raise CraneError(ErrorCode.ALREADY_EXISTS, f"step {step_id} of job {job_id} is another one")
            return
        if int(step_id) < job.next_step:
            raise _refused(f"step {step_id} of job {job_id} is over, or was left out: the next one is {job.next_step}")
        at = controller.clock.now()
        controller.apply(job_id, StepRequested(at, placed, tuple(placed.tasks_per_node)))
        controller.apply(job_id, StepSendRequested(at, attempt, step_id))

    def release(self, job_id: JobId, attempt: Attempt, exit_status: ExitStatus, cancel: str) -> None:
        """Ends an attempt; one that is over already stays as it is."""
        job = self._controller.job(job_id)
        if job.attempt != attempt or not job.state.is_allocated:
            return
        if cancel:
            self._controller.cancel(job_id, cancel)
        else:
            self._controller.apply(job_id, CompletionRequested(self._controller.clock.now(), exit_status))

    def current(self, job_id: JobId, attempt: Attempt) -> Job:
        """The job, if this is its current attempt.

        Raises:
            CraneError: NOT_FOUND; FAILED_PRECONDITION, another attempt.
        """
        job = self._controller.job(job_id)
        if job.attempt != attempt:
            raise _refused(f"job {job_id}: attempt {attempt} is not the current one, which is {job.attempt}")
        return job


def _check_wanted(spec: JobSpec, nodes: Sequence[Node]) -> None:
    """The scheduler chooses among the nodes that the job's owner allows."""
    names = [node.name for node in nodes]
    if len(names) != spec.num_nodes:
        raise _invalid(f"nodes: got {len(names)}, the job wants {spec.num_nodes}")
    outside = [node.name for node in nodes if spec.partition not in node.config.partitions or node.name in spec.exclude]
    if outside:
        raise _invalid(f"node {outside[0]} is not in partition {spec.partition}, or the job excludes it")
    refusals = [refusal for node in nodes if (refusal := node.refusal_of(spec))]
    if refusals:
        raise _refused(refusals[0])
    missing = [name for name in spec.nodelist if name not in names]
    if missing:
        raise _invalid(f"node {missing[0]} is missing: the job asks for it")


def _available(spec: JobSpec, nodes: Sequence[Node]) -> tuple[NodeShare, ...]:
    """What the job gets of each, with its devices."""
    for node in nodes:
        if not node.takes_work:
            raise _refused(f"node {node.name} is {node.unavailable_because}")
    shares = shares_on(spec, nodes)
    if isinstance(shares, str):
        whole = " and no other job" if spec.exclusive else ""
        raise _refused(f"node {shares} has not {demand_text(spec)} free{whole}")
    return shares


def _refused(message: str) -> CraneError:
    return CraneError(ErrorCode.FAILED_PRECONDITION, message)


def _invalid(message: str) -> CraneError:
    return CraneError(ErrorCode.INVALID_ARGUMENT, message)
