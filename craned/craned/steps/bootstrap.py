"""What a supervisor is told at its start: built here from the step, the job's hooks and this node, so that it reads no file."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from crane.hooks.v1 import supervisor_pb2 as pb
from craned.hooks.node_hooks import planned, timeout_scope
from craned.job.cells import JobCells
from craned.steps.accounts import Accounts
from craned.steps.driver import StepRefusedError
from craned.steps.login import Login, UserRules, login_of
from craned.steps.supervisors import Nonces, ParentGoneError
from cranehooks import wire
from cranehooks.environment import task_environment
from cranehooks.model.ids import BATCH_STEP, EXTERN_STEP, NodeName, StepKey, TaskId
from cranehooks.model.job import SOFT_LIMITS, Inherited, JobOnNode, StepSpec
from cranehooks.model.points import CONTRACTS, HookPoint, Phase
from cranehooks.model.run import HookSettings, TimeoutScope
from cranehooks.plan import Plan, PlanFailure
from cranehooks.profiles import TaskEpilogOutput, TaskEpilogView, effective

NO_HOOK: Final = "none"
"""In place of a user's script: the step has no such hook."""

_CONFIGURED: Final = (HookPoint.TASK_PROLOG, HookPoint.TASK_EPILOG)


@dataclass(frozen=True, slots=True)
class NodePlace:
    """What is the same for all steps of this node."""

    node: NodeName
    craned_socket: Path
    steps_dir: Path
    """For the steps' own files: users may pass through it, and run what is theirs."""
    containment: str
    cgroup_instance: str


@dataclass(frozen=True, slots=True)
class StepLimits:
    """From the configuration of the moment."""

    kill_grace_s: float
    launcher_grace_s: float
    users: UserRules
    propagated: frozenset[str] = frozenset(SOFT_LIMITS)
    """Soft limits that tasks take over from where they were asked for, by name."""
    allow_setuid_programs: bool = False


class BootstrapStarter:
    """Has supervisors forked."""

    def __init__(
        self,
        place: NodePlace,
        nonces: Nonces,
        limits: Callable[[], StepLimits],
        fork: Callable[[bytes], Awaitable[None]],
        cells: JobCells,
        accounts: Accounts | None = None,
    ) -> None:
        self._place = place
        self._accounts = accounts or Accounts()
        self._nonces = nonces
        self._limits = limits
        self._fork = fork
        self._cells = cells
        self._keys: dict[str, StepKey] = {}
        """Of supervisors that the parent has not reported as gone."""

    def gone(self, nonce: str) -> StepKey | None:
        """Whose supervisor has ended, by its nonce."""
        return self._keys.pop(nonce, None)

    async def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        """Asks for a supervisor; it will dial. The scripts' directories are looked at in a thread.

        Raises:
            StepRefusedError: this step cannot run here.
        """
        key = StepKey(job.job_id, job.attempt, step.step_id)
        limits = self._limits()
        if step.step_id == EXTERN_STEP:
            # It runs nothing of the user's, whom this node need not know.
            login = Login({})
        else:
            login = await login_of(job.spec, self._place.node, self._accounts, limits.users)
        message = await asyncio.to_thread(self._message, key, job, hooks, step, login, limits)
        try:
            self._keys[message.nonce] = key
            await self._fork(pb.ParentMessage(fork=pb.ForkSupervisor(bootstrap=message)).SerializeToString())
        except ParentGoneError as error:
            del self._keys[message.nonce]
            raise StepRefusedError(str(error)) from error

    def _message(
        self, key: StepKey, job: JobOnNode, hooks: HookSettings, step: StepSpec, login: Login, limits: StepLimits
    ) -> pb.SupervisorBootstrap:
        place = self._place
        inherited = step.inherited or job.spec.inherited or Inherited()
        task_ids = step.tasks_per_node.get(place.node, ())
        if not task_ids and key.step_id != EXTERN_STEP:
            message = f"step {key} has no task on {place.node}"
            raise StepRefusedError(message)
        try:
            job_limits = self._cells.hold(job)
        except OSError as error:
            message = f"the limits of job {job.job_id} cannot be set on {place.node}: {error.strerror or error}"
            raise StepRefusedError(message) from error
        environments = {
            task_id: task_environment(
                job,
                step,
                TaskId(task_id),
                login=login.environment,
                slurm=hooks.slurm_compatible_env,
                constrains_devices=self._cells.constrains_devices,
            )
            for task_id in task_ids
        }
        # The tasks of a node differ in a few variables only: said once, the others leave room in the frame for many tasks.
        environment_items = [set(environment.items()) for environment in environments.values()]
        common = dict(set.intersection(*environment_items)) if environment_items else {}
        return pb.SupervisorBootstrap(
            job_id=key.job_id,
            attempt=key.attempt,
            step_id=key.step_id,
            node=place.node,
            nonce=self._nonces.of(key),
            craned_socket=str(place.craned_socket),
            job=wire.job_spec_to_wire(replace(job.spec, environment={}, script="")),
            step=wire.step_spec_to_wire(replace(step, environment={})),
            tasks=[
                pb.TaskBootstrap(
                    task_id=task_id,
                    local_id=local_id,
                    environment=dict(environments[task_id].items() - common.items()),
                )
                for local_id, task_id in enumerate(task_ids)
            ],
            hooks=list(task_hooks(hooks, step)) if task_ids else [],
            kill_grace_s=limits.kill_grace_s,
            launcher_grace_s=limits.launcher_grace_s,
            containment=place.containment,
            cgroup_instance=place.cgroup_instance,
            cgroup_root=f"job_{key.job_id}/step_{key.step_id}",
            output_limit_bytes=hooks.output_limit_bytes,
            batch_script=job.spec.script if step.step_id == BATCH_STEP else "",
            state_dir=str(place.steps_dir),
            nodes=list(job.nodes),
            unkillable_after_s=hooks.unkillable_after_s,
            environment=common,
            limits=wire.job_limits_to_wire(job_limits),
            slurm_compatible_env=hooks.slurm_compatible_env,
            task_prolog_failure=wire.task_action_to_wire(effective(hooks).task_prolog_failure),
            home=login.home,
            umask=inherited.umask,
            soft_limits={name: value for name, value in inherited.soft_limits.items() if name in limits.propagated},
            allow_setuid_programs=limits.allow_setuid_programs,
        )


def task_hooks(hooks: HookSettings, step: StepSpec) -> Iterator[pb.TaskHook]:
    """The hooks around each task. Looks at the disk."""
    for point in _CONFIGURED:
        plan = planned(hooks, point)
        if isinstance(plan, PlanFailure):
            yield pb.TaskHook(point=wire.hook_point_to_wire(point), problem=plan.reason)
        elif plan.scripts:
            yield _task_hook(hooks, point, plan, is_trusted=True)
    own = {HookPoint.STEP_TASK_PROLOG: step.task_prolog, HookPoint.STEP_TASK_EPILOG: step.task_epilog}
    for point, script in own.items():
        if script and script != NO_HOOK:
            yield _task_hook(hooks, point, Plan((script,)), is_trusted=False)


def _task_hook(hooks: HookSettings, point: HookPoint, plan: Plan, *, is_trusted: bool) -> pb.TaskHook:
    profile, is_epilog = effective(hooks), CONTRACTS[point].phase is Phase.AFTER
    return pb.TaskHook(
        point=wire.hook_point_to_wire(point),
        scripts=plan.scripts,
        timeout_s=hooks.timeouts_s.get(point) or 0.0,
        timeout_per_script=timeout_scope(hooks) is TimeoutScope.SCRIPT,
        continue_on_failure=point in hooks.continue_on_failure,
        trusted_owner=is_trusted,
        grace_s=hooks.grace_s,
        notes=plan.notes,
        shows_stderr=is_epilog and profile.task_epilog_output is TaskEpilogOutput.SHOWN,
        original_environment=is_epilog and profile.task_epilog_view is TaskEpilogView.STEP,
        limits=wire.job_limits_to_wire(hooks.limits[point]) if point in hooks.limits else None,
    )
