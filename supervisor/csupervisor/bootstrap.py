"""What a supervisor is started with, and the words between it, its parent and craned: protobuf in, model values out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks import wire
from cranehooks.model.ids import BATCH_STEP, EXTERN_STEP, Attempt, JobId, NodeName, StepId, StepKey, TaskId
from cranehooks.model.job import SOFT_LIMITS, JobSpec, StepSpec
from cranehooks.model.limits import Limits
from cranehooks.model.points import HookPoint, Runner, points_of
from cranehooks.model.run import TimeoutScope
from cranehooks.profiles import TaskAction

_TASK_POINTS: Final = frozenset(points_of(Runner.CSUPERVISOR))
DEFAULT_UMASK: Final = 0o022
_DEFAULT_INSTANCE: Final = "default"


class BootstrapError(ValueError):
    """A step cannot be run as it was asked for: says what is wrong with the bootstrap."""


@dataclass(frozen=True, slots=True)
class TaskHook:
    """One task hook of the step."""

    scripts: tuple[str, ...]
    """Absolute, in the order they run."""
    timeout_s: float | None
    timeout_scope: TimeoutScope
    continue_on_failure: bool
    trusted_owner: bool
    grace_s: float
    """From TERM to KILL."""
    notes: tuple[str, ...] = ()
    """What was passed over when its scripts were looked for."""
    problem: str = ""
    """Why it fails before any script runs; it has no scripts then."""
    shows_stderr: bool = False
    """What it writes to standard error appears in that of the first task here."""
    original_environment: bool = False
    """It sees the environment of its task as it was before TaskProlog."""
    limits: Limits | None = None
    """Of each run, within those of the job."""


@dataclass(frozen=True, slots=True)
class TaskStart:
    """A task of the step on this node."""

    task_id: TaskId
    local_id: int
    environment: Mapping[str, str]
    """Complete, before TaskProlog edits it."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Everything a supervisor needs: it reads no file."""

    key: StepKey
    node: NodeName
    nonce: str
    craned_socket: str
    job: JobSpec
    step: StepSpec
    tasks: tuple[TaskStart, ...]
    hooks: Mapping[HookPoint, TaskHook]
    """Only points that have scripts."""
    task_prolog_failure: TaskAction
    """What a before-hook that fails does to its task."""
    kill_grace_s: float
    """Of tasks; hooks have their own."""
    launcher_grace_s: float
    unkillable_after_s: float
    containment: str
    cgroup_instance: str
    cgroup_root: str
    """The step's directory below the instance's: `job_42/step_0`."""
    output_limit_bytes: int
    batch_script: str
    state_dir: str
    nodes: tuple[NodeName, ...]
    limits: Limits = Limits()
    """Of the job on this node. craned has set them; here they tell what is to be measured, and what a kill was for."""
    slurm_compatible_env: bool = False
    """Hooks and tasks have the SLURM_* names."""
    home: str = ""
    """Of the user, which must be there; empty: it need not."""
    umask: int = DEFAULT_UMASK
    """Of tasks; hooks have the default."""
    soft_limits: Mapping[str, int] = field(default_factory=dict)
    """Of tasks, by name (`SOFT_LIMITS`)."""
    allow_setuid_programs: bool = False

    @property
    def is_batch(self) -> bool:
        return self.key.step_id == BATCH_STEP

    @property
    def is_extern(self) -> bool:
        return self.key.step_id == EXTERN_STEP

    @property
    def cwd(self) -> str:
        return self.step.cwd or self.job.cwd


def bootstrap_from_wire(message: pb.SupervisorBootstrap) -> Bootstrap:
    """Read and check a bootstrap.

    Raises:
        BootstrapError: all that is wrong with it, in one message.
    """
    try:
        bootstrap = _read(message)
    except (wire.WireError, ValueError) as error:
        raise BootstrapError(str(error)) from error
    if problems := _problems(bootstrap):
        text = f"bootstrap of step {bootstrap.key}: {'; '.join(problems)}"
        raise BootstrapError(text)
    return bootstrap


def _read(message: pb.SupervisorBootstrap) -> Bootstrap:
    return Bootstrap(
        key=StepKey(JobId(message.job_id), Attempt(message.attempt), StepId(message.step_id)),
        node=NodeName(message.node),
        nonce=message.nonce,
        craned_socket=message.craned_socket,
        job=wire.job_spec_from_wire(message.job),
        step=wire.step_spec_from_wire(message.step),
        tasks=tuple(
            TaskStart(TaskId(task.task_id), task.local_id, {**message.environment, **task.environment}) for task in message.tasks
        ),
        hooks={wire.hook_point_from_wire(hook.point): _read_hook(hook) for hook in message.hooks if hook.scripts or hook.problem},
        task_prolog_failure=_read_action(message.task_prolog_failure),
        kill_grace_s=message.kill_grace_s,
        launcher_grace_s=message.launcher_grace_s,
        unkillable_after_s=message.unkillable_after_s,
        containment=message.containment or "auto",
        cgroup_instance=message.cgroup_instance or _DEFAULT_INSTANCE,
        cgroup_root=message.cgroup_root or f"job_{message.job_id}/step_{message.step_id}",
        output_limit_bytes=message.output_limit_bytes,
        batch_script=message.batch_script,
        state_dir=message.state_dir,
        nodes=tuple(NodeName(node) for node in message.nodes),
        limits=wire.job_limits_from_wire(message.limits),
        slurm_compatible_env=message.slurm_compatible_env,
        home=message.home,
        umask=message.umask if message.HasField("umask") else DEFAULT_UMASK,
        soft_limits=dict(message.soft_limits),
        allow_setuid_programs=message.allow_setuid_programs,
    )


def _read_action(value: int) -> TaskAction:
    return wire.task_action_from_wire(value) if value else TaskAction.CANCEL


def _read_hook(message: pb.TaskHook) -> TaskHook:
    return TaskHook(
        scripts=tuple(message.scripts),
        timeout_s=message.timeout_s or None,
        timeout_scope=TimeoutScope.SCRIPT if message.timeout_per_script else TimeoutScope.LIST,
        continue_on_failure=message.continue_on_failure,
        trusted_owner=message.trusted_owner,
        grace_s=message.grace_s,
        notes=tuple(message.notes),
        problem=message.problem,
        shows_stderr=message.shows_stderr,
        original_environment=message.original_environment,
        limits=wire.job_limits_from_wire(message.limits) if message.HasField("limits") else None,
    )


def _problems(bootstrap: Bootstrap) -> list[str]:
    task_ids = [task.task_id for task in bootstrap.tasks]
    scripts = [script for hook in bootstrap.hooks.values() for script in hook.scripts]
    components = bootstrap.cgroup_root.split("/")
    graces = [bootstrap.kill_grace_s, bootstrap.launcher_grace_s, bootstrap.unkillable_after_s]
    graces += (hook.grace_s for hook in bootstrap.hooks.values())
    checks = (
        (not bootstrap.key.job_id or not bootstrap.key.step_id, "job and step have no id"),
        (not bootstrap.nonce, "there is no nonce"),
        (not bootstrap.craned_socket.startswith("/"), f"craned's socket {bootstrap.craned_socket!r} is no absolute path"),
        (not task_ids and not bootstrap.is_extern, "there is no task"),
        (bool(task_ids) and bootstrap.is_extern, "the extern step has no tasks"),
        (not bootstrap.soft_limits.keys() <= set(SOFT_LIMITS), f"there are no such limits: {sorted(bootstrap.soft_limits)}"),
        (len(set(task_ids)) != len(task_ids), f"task ids repeat: {task_ids}"),
        (not bootstrap.hooks.keys() <= _TASK_POINTS, "there are hooks that are no task hooks"),
        (any(not script.startswith("/") for script in scripts), f"hook scripts need absolute paths: {scripts}"),
        (not bootstrap.cwd.startswith("/"), f"the working directory {bootstrap.cwd!r} is no absolute path"),
        (bootstrap.is_batch and not bootstrap.state_dir.startswith("/"), "a batch step needs a state directory"),
        (not bootstrap.is_batch and not bootstrap.is_extern and not bootstrap.step.argv, "there is no program to run"),
        (not all(components) or ".." in components, f"the cgroup {bootstrap.cgroup_root!r} is not below craned's own"),
        (bootstrap.task_prolog_failure is TaskAction.CONTINUE, "a task does not start after a before-hook that failed"),
        (min(graces) < 0, "a grace is negative"),
    )
    return [text for is_wrong, text in checks if is_wrong]


# ---- between craned and the supervisor parent


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A step to supervise. Its bootstrap is not looked into by the parent, so that a bad one costs its own supervisor only."""

    nonce: str
    title: str
    """For lists of processes."""
    _message: pb.SupervisorBootstrap

    def bootstrap(self) -> Bootstrap:
        """What the new supervisor starts with.

        Raises:
            BootstrapError: it cannot.
        """
        return bootstrap_from_wire(self._message)


def fork_request_from_bytes(payload: bytes) -> ForkRequest:
    """What craned asks the parent for.

    Raises:
        BootstrapError: the bytes are no such request.
    """
    try:
        message = pb.ParentMessage.FromString(payload)
    except DecodeError as error:
        text = "the message to the supervisor parent is no ParentMessage"
        raise BootstrapError(text) from error
    if message.WhichOneof("message") != "fork":
        text = f"the supervisor parent is only asked to fork, got {message.WhichOneof('message')}"
        raise BootstrapError(text)
    bootstrap = message.fork.bootstrap
    return ForkRequest(bootstrap.nonce, f"csup {bootstrap.job_id}.{bootstrap.step_id}", bootstrap)


def forked_to_bytes(nonce: str, pid: int) -> bytes:
    return pb.ParentMessage(forked=pb.SupervisorForked(nonce=nonce, pid=pid)).SerializeToString()


def gone_to_bytes(nonce: str, pid: int, wait_status: int) -> bytes:
    return pb.ParentMessage(gone=pb.SupervisorGone(nonce=nonce, pid=pid, wait_status=wait_status)).SerializeToString()
