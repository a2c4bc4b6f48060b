"""What users and administrators may do, and doing it: between the front service and the controller."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from cranectld.admission import Admission
from cranectld.bindings import Bindings
from cranectld.controller import Controller
from cranectld.jobs import steps
from cranectld.jobs.events import StepRequested
from cranectld.jobs.model import Job, JobState, Step
from cranectld.nodes.model import Node
from cranectld.step_layout import laid_out
from cranectld.store import MAX_BACKLOG, StoreError
from cranehooks.model.ids import JobId, NodeName, StepId
from cranehooks.model.job import ArrayBounds, JobSpec, StdioMode, StepSpec
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun
from cranekit.errors import CraneError, ErrorCode
from cranekit.hostlist import HostlistError, expand
from cranekit.rpc.credentials import Identity

QUEUE_FULL_RETRY_S = 5.0
"""After how long a submission that found the queue full may be tried again: jobs end at every moment."""

MAX_RUN_OUTPUT = 1 << 20


class ClusterFacts(Protocol):
    """What GetCluster tells; a protobuf message, filled in."""

    name: str
    version: str
    config_digest: str
    default_partition: str
    profile: str
    scheduler: str


class FrontDesk:
    """Checks permission and bounds, then lets the controller decide. No gRPC here."""

    def __init__(
        self,
        controller: Controller,
        bindings: Bindings,
        admission: Callable[[], Admission],
        *,
        is_administrator: Callable[[Identity], bool],
        max_queued_jobs: Callable[[], int],
        config_digest: Callable[[], str],
        profile: Callable[[], str],
        scheduler: str,
        version: str,
    ) -> None:
        self.controller = controller
        self.bindings = bindings
        self._admission = admission
        self.is_administrator = is_administrator
        self._max_queued_jobs = max_queued_jobs
        self.config_digest = config_digest
        self._profile = profile
        self._scheduler = scheduler
        self._version = version

    @staticmethod
    def identified(spec: JobSpec, who: Identity) -> JobSpec:
        """The spec with the caller's identity, whatever the request says."""
        return replace(spec, uid=who.uid, gid=who.gid, user=who.user, groups=tuple(who.groups), group=who.group)

    def check_writable(self) -> None:
        """Lets new work pass while it can be kept.

        Raises:
            StoreError: nothing can be written now.
        """
        if failure := self.controller.store.failure:
            raise StoreError(f"the controller takes no new work now: {failure}")

    async def submit(self, spec: JobSpec, request_id: str, indexes: Sequence[int] | None) -> list[JobId]:
        """Accepts a job, or an array of them, and returns when they are durable. Idempotent by `request_id`.

        Raises:
            CraneError: as `Admission.admit`; FAILED_PRECONDITION where nobody would place it; RESOURCE_EXHAUSTED, full.
            StoreError: they cannot be made durable. They are cancelled then, and a repeat is a new submission.
        """
        controller = self.controller
        answered = controller.requests.answered(request_id)
        if answered is not None:
            await controller.settled()
            return [JobId(number) for number in answered]
        if not controller.scheduling.accepts_submissions:
            message = "jobs are placed by an external scheduler that does not accept submissions, or is not connected"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
        spec = self._admission().admit(spec, controller.fleet.nodes)
        elements = [spec]
        if indexes is not None:
            array = ArrayBounds.of(indexes)
            elements = [replace(spec, array_task_id=index, array=array) for index in indexes]
        self.check_writable()
        self._check_room(len(elements))
        ids = controller.submit(elements, request_id)
        for job_id in ids:
            self.bindings.expect(controller.jobs[job_id])
        try:
            await controller.settled()
        except StoreError as error:
            self._withdraw(ids, request_id)
            raise StoreError(f"the job was not accepted: {error.message}") from error
        return ids

    def _check_room(self, number: int) -> None:
        waiting, limit, backlog = self.controller.queue.waiting, self._max_queued_jobs(), self.controller.store.backlog
        if number > limit:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{number} jobs at once are more than MaxQueuedJobs ({limit}) lets wait")
        if waiting + number > limit:
            message = f"the queue is full ({waiting} jobs wait, MaxQueuedJobs {limit}): try again later"
            raise CraneError(ErrorCode.RESOURCE_EXHAUSTED, message, retry_after_s=QUEUE_FULL_RETRY_S)
        if backlog > MAX_BACKLOG:
            message = f"the controller's disk is too slow: {backlog} changes wait to be written"
            raise CraneError(ErrorCode.RESOURCE_EXHAUSTED, message, retry_after_s=QUEUE_FULL_RETRY_S)

    def _withdraw(self, ids: Sequence[JobId], request_id: str) -> None:
        """Whoever submitted was told that it failed: the jobs must not run."""
        controller = self.controller
        controller.requests.forget(request_id)
        for job_id in ids:
            job = controller.jobs.get(job_id)
            if job is not None and not job.state.is_final:
                controller.cancel(job_id, "the submission could not be written down, and was refused")

    def create_step(self, job: Job, spec: StepSpec, request_id: str, *, overcommit: bool = False) -> Step:
        """Creates a step, placed in blocks over its nodes. Idempotent by `request_id`.

        Raises:
            CraneError: FAILED_PRECONDITION, the job is not Running; INVALID_ARGUMENT, it does not fit the allocation.
        """
        controller = self.controller
        key = f"step/{job.job_id}.{job.attempt}/{request_id}" if request_id else ""
        answered = controller.requests.answered(key)
        if answered is not None and (known := job.steps.get(StepId(str(answered[0])))) is not None:
            return known
        if job.state is not JobState.RUNNING:
            message = f"job {job.job_id} is {job.state.value}: steps need a running job"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
        self.check_writable()
        step_id = steps.next_step_id(job)
        placed = replace(laid_out(job, spec, step_id, overcommit=overcommit), stdio=StdioMode.ATTACHED)
        event = StepRequested(controller.clock.now(), placed, tuple(placed.tasks_per_node))
        step = controller.apply(job.job_id, event).steps[step_id]
        controller.requests.remember(key, [int(step_id)], event.at)
        return step

    def check_owner(self, job: Job, who: Identity, *, strictly: bool = False) -> None:
        """Lets the owner pass, and an administrator unless `strictly`.

        Raises:
            CraneError: PERMISSION_DENIED.
        """
        if job.spec.uid == who.uid or (not strictly and self.is_administrator(who)):
            return
        raise CraneError(ErrorCode.PERMISSION_DENIED, f"job {job.job_id} belongs to another user")

    def administrator(self, who: Identity) -> Identity:
        """The caller, if an administrator.

        Raises:
            CraneError: PERMISSION_DENIED.
        """
        if not self.is_administrator(who):
            raise CraneError(ErrorCode.PERMISSION_DENIED, f"user {who.user} is not an administrator (setting Administrators)")
        return who

    def nodes_of(self, hostlist: str) -> list[Node]:
        """The nodes a hostlist names.

        Raises:
            CraneError: INVALID_ARGUMENT, not a hostlist; NOT_FOUND, no such node.
        """
        try:
            names = [NodeName(name) for name in expand(hostlist)]
        except HostlistError as error:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"nodes {hostlist!r}: {error.message}") from error
        unknown = [name for name in names if name not in self.controller.fleet.nodes]
        if unknown or not names:
            raise CraneError(ErrorCode.NOT_FOUND, f"node {unknown[0] if unknown else hostlist!r} does not exist")
        return [self.controller.fleet.nodes[name] for name in names]

    def record_launch_run(self, run: HookRun) -> None:
        """Writes a crun hook's run into the history. Its output is bounded, its point must be crun's.

        Raises:
            CraneError: INVALID_ARGUMENT.
        """
        if run.key.point not in (HookPoint.CRUN_PROLOG, HookPoint.CRUN_EPILOG):
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{run.key.point.value} is not a hook of a launch node")
        if sum(len(script.output) for script in run.scripts) > MAX_RUN_OUTPUT:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"output of more than {MAX_RUN_OUTPUT} characters")
        if self.controller.record_run(run):
            self.controller.metrics.runs.observe(run)

    def reset_breakers(self, prefix: str, who: Identity) -> int:
        """Closes breakers. A prefix that matches several digests is refused.

        Raises:
            CraneError: NOT_FOUND, INVALID_ARGUMENT.
        """
        controller = self.controller
        matching = [digest for digest in controller.fleet.budget.breakers if digest.startswith(prefix)]
        if prefix and not matching:
            raise CraneError(ErrorCode.NOT_FOUND, f"no breaker for a script with digest {prefix}…")
        if prefix and len(matching) > 1:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"digest {prefix} is not unique: {len(matching)} scripts")
        return len(controller.fleet.reset_breakers(prefix, who.user))

    def describe(self, facts: ClusterFacts) -> None:
        facts.name = self.controller.cluster
        facts.version = self._version
        facts.config_digest = self.config_digest()
        facts.default_partition = self._admission().default_partition
        facts.profile = self._profile()
        facts.scheduler = self._scheduler
