"""The variables of every hook and task: one table says which exist, what they mean, and how they are computed.

Hooks that run as another user than the job's get exactly this list, nothing of the user's environment and no PATH. A user's words
(job name, comment) are values only, their control characters replaced by blanks.
"""

from collections.abc import Mapping
from dataclasses import replace

from cranehooks.environment.values import Facts
from cranehooks.environment.variables import SCRIPT_CONTEXTS, TWIN_SCOPES, VARIABLES, Scope, Variable
from cranehooks.model.ids import TaskId
from cranehooks.model.job import ExitStatus, JobEnd, JobOnNode, StepSpec
from cranehooks.model.points import CONTRACTS, HookPoint, Phase, Place, Runner

__all__ = [
    "SCRIPT_CONTEXTS",
    "TASK_PATH",
    "TWIN_SCOPES",
    "VARIABLES",
    "Scope",
    "Variable",
    "allocation_environment",
    "controller_hook_environment",
    "launch_hook_environment",
    "node_hook_environment",
    "scope_of",
    "task_environment",
    "task_hook_environment",
    "variables_of",
]

TASK_PATH = "/usr/local/bin:/usr/bin:/bin"
"""PATH of a task whose user gave none."""


def scope_of(point: HookPoint) -> Scope:
    """The variables that a point's scripts get."""
    contract = CONTRACTS[point]
    if contract.runner is Runner.CSUPERVISOR:
        return Scope.TASK
    return {Place.CONTROLLER: Scope.CONTROLLER, Place.NODE: Scope.NODE, Place.LAUNCH_NODE: Scope.LAUNCH}[contract.place]


def variables_of(point: HookPoint) -> tuple[Variable, ...]:
    """The rows of the table that hold for a point, with the twins that exist there."""
    scope, after = scope_of(point), CONTRACTS[point].phase is Phase.AFTER
    held = (variable for variable in VARIABLES if scope in variable.scopes and (after or not variable.after_only))
    return tuple(replace(variable, twins=variable.twins_in(scope)) for variable in held)


def controller_hook_environment(
    point: HookPoint, job: JobOnNode, *, end: JobEnd | None = None, slurm: bool = False
) -> dict[str, str]:
    """Exactly what CranectldProlog or CranectldEpilog sees.

    Args:
        point: One of the controller's points.
        job: As any node of it sees it; what concerns that node alone is left out.
        end: How the job ended, for the epilog.
        slurm: Whether the SLURM_* twins are wanted.
    """
    return _hook_environment(Facts(job, point, end), slurm=slurm)


def node_hook_environment(point: HookPoint, job: JobOnNode, *, end: JobEnd | None = None, slurm: bool = False) -> dict[str, str]:
    """Exactly what Prolog or Epilog sees on `job.share.node`."""
    return _hook_environment(Facts(job, point, end), slurm=slurm)


def task_environment(
    job: JobOnNode,
    step: StepSpec,
    task_id: TaskId,
    *,
    login: Mapping[str, str] | None = None,
    slurm: bool = False,
    constrains_devices: bool = False,
) -> dict[str, str]:
    """What a task gets before TaskProlog edits it.

    Our variables over the step's environment (the job's, where the step brings none) over `login`.

    Args:
        job: On the task's node.
        step: The task's step.
        task_id: Its rank.
        login: HOME, SHELL, USER and LOGNAME of the job's user on this node: for what the user's environment lacks.
        slurm: Whether the SLURM_* twins are wanted.
        constrains_devices: Whether the task can open none but its job's devices of the node.
    """
    own = _without_own(step.environment or job.spec.environment, Scope.TASK, slurm=slurm)
    facts = Facts(job, step=step, task_id=task_id, constrains_devices=constrains_devices)
    computed = _computed(facts, Scope.TASK, slurm=slurm)
    return {"PATH": TASK_PATH, **(login or {}), **own, **computed}


def task_hook_environment(
    point: HookPoint, environment: Mapping[str, str], *, task_pid: int | None = None, slurm: bool = False
) -> dict[str, str]:
    """What a task's hook sees: the task's environment as it is then, and which hook this is.

    Args:
        point: The hook.
        environment: The task's, with what earlier hooks exported.
        task_pid: Of the task, where it is known.
        slurm: Whether the SLURM_* twins are wanted.
    """
    context, slurm_context = SCRIPT_CONTEXTS[point]
    added = {"CRANE_SCRIPT_CONTEXT": context}
    if slurm:
        added["SLURM_SCRIPT_CONTEXT"] = slurm_context
    if task_pid is not None:
        added["CRANE_TASK_PID"] = str(task_pid)
        if slurm:
            added["SLURM_TASK_PID"] = str(task_pid)
    return {**environment, **added}


def allocation_environment(job: JobOnNode, *, slurm: bool = False) -> dict[str, str]:
    """What calloc adds to the environment of its command: the job, as no node of it in particular sees it."""
    return _computed(Facts(job), Scope.LAUNCH, slurm=slurm)


def launch_hook_environment(
    point: HookPoint,
    environment: Mapping[str, str],
    job: JobOnNode,
    step: StepSpec,
    *,
    exit_status: ExitStatus | None = None,
    slurm: bool = False,
) -> dict[str, str]:
    """What CrunProlog or CrunEpilog sees: crun's own environment, which is its user's, and the step that crun has prepared.

    Args:
        point: The hook.
        environment: crun's.
        job: As no node of it in particular sees it.
        step: With its tasks placed.
        exit_status: How the step ended, for the epilog.
        slurm: Whether the SLURM_* twins are wanted.
    """
    computed = _computed(Facts(job, point, JobEnd(exit_status), step), Scope.LAUNCH, slurm=slurm)
    return {**_without_own(environment, Scope.LAUNCH, slurm=slurm), **computed}


def _hook_environment(facts: Facts, *, slurm: bool) -> dict[str, str]:
    assert facts.point is not None
    return _computed(facts, scope_of(facts.point), slurm=slurm)


def _computed(facts: Facts, scope: Scope, *, slurm: bool) -> dict[str, str]:
    """The variables of the scope that have a value."""
    after = facts.point is not None and CONTRACTS[facts.point].phase is Phase.AFTER
    result: dict[str, str] = {}
    for variable in VARIABLES:
        if scope not in variable.scopes or (variable.after_only and not after):
            continue
        if (value := variable.value(facts)) is not None:
            result[variable.name] = value
        if not slurm:
            continue
        for twin in variable.twins_in(scope):
            if (value := variable.value_of(twin)(facts)) is not None:
                result[twin] = value
    return result


def _without_own(environment: Mapping[str, str], scope: Scope, *, slurm: bool) -> dict[str, str]:
    """The user's variables that the kernel can pass on, without those of the table.

    A job submitted from within another job brings that job's variables along; what does not hold for this one must not stay.
    """
    held = [variable for variable in VARIABLES if scope in variable.scopes and not variable.is_shared]
    names = {variable.name for variable in held}
    if slurm:
        names.update(twin for variable in held if variable.twins_in(scope) for twin in variable.twins)
    return {
        name: value
        for name, value in environment.items()
        if name and name not in names and "=" not in name and "\0" not in name and "\0" not in value
    }
