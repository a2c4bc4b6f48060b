"""The contract table: the ten hook points, and what each promises. `docs/hook-points.md` is generated from it."""

from dataclasses import dataclass
from enum import Enum


class Place(Enum):
    """Where a point runs."""

    CONTROLLER = "controller"
    NODE = "node"
    LAUNCH_NODE = "launch node"


class Runner(Enum):
    """Which program runs it, and reports it."""

    CRANECTLD = "cranectld"
    CRANED = "craned"
    CSUPERVISOR = "csupervisor"
    CRUN = "crun"


class RunsAs(Enum):
    """With whose identity."""

    CRANECTLD_USER = "CranectldUser"
    CRANED_USER = "CranedUser"
    JOB_USER = "the user"


class Phase(Enum):
    """A before-point can stop what follows it; an after-point never changes a job's result."""

    BEFORE = "before"
    AFTER = "after"


class HookPoint(Enum):
    """The value is the point's name in configuration, logs, metrics and messages."""

    CRANECTLD_PROLOG = "CranectldProlog"
    PROLOG = "Prolog"
    CRUN_PROLOG = "CrunProlog"
    TASK_PROLOG = "TaskProlog"
    STEP_TASK_PROLOG = "--task-prolog"
    STEP_TASK_EPILOG = "--task-epilog"
    TASK_EPILOG = "TaskEpilog"
    CRUN_EPILOG = "CrunEpilog"
    EPILOG = "Epilog"
    CRANECTLD_EPILOG = "CranectldEpilog"


@dataclass(frozen=True, slots=True)
class PointContract:
    """What a point promises to those who write scripts for it."""

    point: HookPoint
    phase: Phase
    place: Place
    runner: Runner
    runs_as: RunsAs
    scope: str
    """Once per …: the key under which a run happens at most once."""
    moment: str
    concurrency: str
    on_failure: str
    """In the default profile."""
    timeout_key: str
    """The setting whose value bounds it."""
    replaced_by: str | None = None
    """The crun option that takes its place; `none` there means no hook."""


_C, _N, _L = Place.CONTROLLER, Place.NODE, Place.LAUNCH_NODE

CONTRACTS: dict[HookPoint, PointContract] = {
    contract.point: contract
    for contract in (
        PointContract(
            HookPoint.CRANECTLD_PROLOG,
            Phase.BEFORE,
            _C,
            Runner.CRANECTLD,
            RunsAs.CRANECTLD_USER,
            scope="job and attempt",
            moment="at allocation, before anything is sent to a node",
            concurrency="alone in its job; jobs run side by side",
            on_failure="batch job requeued, interactive job cancelled",
            timeout_key="PrologTimeout",
        ),
        PointContract(
            HookPoint.PROLOG,
            Phase.BEFORE,
            _N,
            Runner.CRANED,
            RunsAs.CRANED_USER,
            scope="job, attempt and node",
            moment="before the first step of the job on the node; at allocation with Alloc or a flag that implies it",
            concurrency="nodes side by side; every step of the job on the node waits for it; one at a time per node with Serial",
            on_failure="node drained, then the attempt ends on all nodes: batch job requeued, --no-requeue and interactive job cancelled",
            timeout_key="PrologTimeout",
        ),
        PointContract(
            HookPoint.CRUN_PROLOG,
            Phase.BEFORE,
            _L,
            Runner.CRUN,
            RunsAs.JOB_USER,
            scope="step",
            moment="after the step is created, before it is sent to a node",
            concurrency="alone in its step",
            on_failure="step cancelled, never sent; crun exits 1",
            timeout_key="CrunPrologTimeout",
            replaced_by="crun --prolog",
        ),
        PointContract(
            HookPoint.TASK_PROLOG,
            Phase.BEFORE,
            _N,
            Runner.CSUPERVISOR,
            RunsAs.JOB_USER,
            scope="task",
            moment="before each task, in the task's cgroup, working directory and environment",
            concurrency="tasks side by side",
            on_failure="task cancelled",
            timeout_key="PrologTimeout",
        ),
        PointContract(
            HookPoint.STEP_TASK_PROLOG,
            Phase.BEFORE,
            _N,
            Runner.CSUPERVISOR,
            RunsAs.JOB_USER,
            scope="task",
            moment="after TaskProlog, with the environment TaskProlog left",
            concurrency="tasks side by side",
            on_failure="task cancelled",
            timeout_key="PrologTimeout",
        ),
        PointContract(
            HookPoint.STEP_TASK_EPILOG,
            Phase.AFTER,
            _N,
            Runner.CSUPERVISOR,
            RunsAs.JOB_USER,
            scope="task",
            moment="after each task, also when it failed; not where the turn of --task-prolog never came",
            concurrency="tasks side by side",
            on_failure="logged",
            timeout_key="EpilogTimeout",
        ),
        PointContract(
            HookPoint.TASK_EPILOG,
            Phase.AFTER,
            _N,
            Runner.CSUPERVISOR,
            RunsAs.JOB_USER,
            scope="task",
            moment="after --task-epilog, also for a task that TaskProlog or --task-prolog cancelled",
            concurrency="tasks side by side",
            on_failure="logged",
            timeout_key="EpilogTimeout",
        ),
        PointContract(
            HookPoint.CRUN_EPILOG,
            Phase.AFTER,
            _L,
            Runner.CRUN,
            RunsAs.JOB_USER,
            scope="step",
            moment="after the step ended",
            concurrency="alone in its step",
            on_failure="logged; crun's exit code is the step's",
            timeout_key="CrunEpilogTimeout",
            replaced_by="crun --epilog",
        ),
        PointContract(
            HookPoint.EPILOG,
            Phase.AFTER,
            _N,
            Runner.CRANED,
            RunsAs.CRANED_USER,
            scope="job, attempt, node and boot",
            moment="after the last process of the job on the node is gone, on every allocated node, also where Prolog never ran or failed",
            concurrency="nodes side by side; one at a time per node with Serial",
            on_failure="node drained; the job's result is unchanged",
            timeout_key="EpilogTimeout",
        ),
        PointContract(
            HookPoint.CRANECTLD_EPILOG,
            Phase.AFTER,
            _C,
            Runner.CRANECTLD,
            RunsAs.CRANECTLD_USER,
            scope="job and attempt",
            moment="when the job starts Completing, in parallel with the Epilogs; also on a requeue and after a failed CranectldProlog",
            concurrency="alone in its job; jobs run side by side",
            on_failure="logged",
            timeout_key="EpilogTimeout",
        ),
    )
}


def contract_of(point: HookPoint) -> PointContract:
    return CONTRACTS[point]


def points_of(runner: Runner) -> tuple[HookPoint, ...]:
    """The points a program runs, in the order of a job's life."""
    return tuple(point for point, contract in CONTRACTS.items() if contract.runner is runner)
