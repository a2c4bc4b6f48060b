import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from crane.hooks.v1 import supervisor_pb2 as pb
from craned.job.cells import JobCells
from craned.job.limits import LimitSettings
from craned.steps.accounts import Account, Accounts
from craned.steps.bootstrap import BootstrapStarter, NodePlace, StepLimits, task_hooks
from craned.steps.driver import StepRefusedError
from craned.steps.login import UserRules
from craned.steps.supervisors import Nonces, ParentGoneError
from cranehooks.model.ids import NodeName, StepKey
from cranehooks.model.job import Inherited
from cranehooks.model.points import HookPoint
from cranehooks.wire import hook_point_from_wire
from tests.unit.craned.test_attempt import BATCH, KEY, NODE, STEP_0
from tests.unit.craned.test_node_hooks import settings_of
from tests.unit.craned.test_recovery import JOB

OWN_JOB = replace(JOB, spec=replace(JOB.spec, uid=os.geteuid(), gid=os.getegid()))


class Forks:
    """A supervisor parent that keeps what it is asked."""

    def __init__(self, *, is_gone: bool = False) -> None:
        self.asked: list[pb.SupervisorBootstrap] = []
        self._is_gone = is_gone

    async def fork(self, request: bytes) -> None:
        if self._is_gone:
            raise ParentGoneError("it does not start")
        self.asked.append(pb.ParentMessage.FromString(request).fork.bootstrap)


def starter_of(directory: Path, forks: Forks, cells: JobCells | None = None) -> BootstrapStarter:
    place = NodePlace(NODE, Path("/run/crane/private/supervisors.sock"), directory / "steps", "none", "test.cn01.0")
    return BootstrapStarter(
        place,
        Nonces(directory),
        lambda: StepLimits(5.0, 30.0, UserRules(allow_root_jobs=True)),
        forks.fork,
        cells or JobCells(None, LimitSettings),
    )


def points(hooks: Iterable[pb.TaskHook]) -> list[tuple[HookPoint, list[str], bool]]:
    return [(hook_point_from_wire(hook.point), list(hook.scripts), hook.trusted_owner) for hook in hooks]


async def test_a_supervisor_is_told_all_it_needs(tmp_path: Path) -> None:
    forks = Forks()
    starter = starter_of(tmp_path, forks)
    settings = replace(settings_of(tmp_path, task_prolog="/etc/tp.sh", task_epilog="/etc/te.sh"), grace_s=0.5)
    await starter.start(OWN_JOB, settings, replace(STEP_0, task_prolog="/home/own.sh", task_epilog="none"))
    [bootstrap] = forks.asked
    key = StepKey(KEY.job_id, KEY.attempt, STEP_0.step_id)
    assert (bootstrap.job_id, bootstrap.attempt, bootstrap.step_id, bootstrap.node) == (42, 1, "0", NODE)
    assert Nonces(tmp_path).matches(key, bootstrap.nonce)
    assert [(task.task_id, task.local_id) for task in bootstrap.tasks] == [(0, 0), (1, 1)]
    assert bootstrap.tasks[1].environment["CRANE_PROCID"] == "1"
    assert bootstrap.environment["A"] == "b"
    assert {"HOME", "USER"} <= set(bootstrap.environment)
    assert points(bootstrap.hooks) == [
        (HookPoint.TASK_PROLOG, ["/etc/tp.sh"], True),
        (HookPoint.TASK_EPILOG, ["/etc/te.sh"], True),
        (HookPoint.STEP_TASK_PROLOG, ["/home/own.sh"], False),
    ]
    assert bootstrap.hooks[0].timeout_s == 60.0
    assert {hook.grace_s for hook in bootstrap.hooks} == {0.5}
    assert (bootstrap.kill_grace_s, bootstrap.launcher_grace_s) == (5.0, 30.0)
    assert (bootstrap.cgroup_root, bootstrap.cgroup_instance) == ("job_42/step_0", "test.cn01.0")
    assert bootstrap.batch_script == ""
    assert starter.gone(bootstrap.nonce) == key
    assert starter.gone(bootstrap.nonce) is None


@pytest.mark.parametrize(
    ("profile", "overrides", "action"),
    [
        ("crane-requeue", {}, pb.TASK_ACTION_CANCEL),
        ("crane-fail", {}, pb.TASK_ACTION_FAIL),
        ("slurm", {}, pb.TASK_ACTION_EXIT_AS_HOOK),
        ("sunk", {"OnTaskPrologFailure": "fail"}, pb.TASK_ACTION_FAIL),
    ],
)
async def test_a_supervisor_is_told_what_a_failing_before_hook_does(
    tmp_path: Path, profile: str, overrides: dict[str, str], action: pb.TaskAction.ValueType
) -> None:
    forks = Forks()
    settings = replace(settings_of(tmp_path, profile=profile), overrides=overrides)
    await starter_of(tmp_path, forks).start(OWN_JOB, settings, STEP_0)
    assert forks.asked[0].task_prolog_failure == action


async def test_a_supervisor_is_told_what_tasks_take_over(tmp_path: Path) -> None:
    forks = Forks()
    accounts = Accounts(lambda _: Account("alice", "/home/alice", "/bin/sh"))
    place = NodePlace(NODE, Path("/run/crane/private/supervisors.sock"), tmp_path / "steps", "none", "test.cn01.0")
    limits = StepLimits(5.0, 30.0, UserRules(allow_root_jobs=True), frozenset({"NOFILE"}), allow_setuid_programs=True)
    starter = BootstrapStarter(place, Nonces(tmp_path), lambda: limits, forks.fork, JobCells(None, LimitSettings), accounts)
    job = replace(OWN_JOB, spec=replace(OWN_JOB.spec, inherited=Inherited(0o027, {"NOFILE": 100, "CORE": 0})))
    settings = settings_of(tmp_path)
    await starter.start(job, settings, STEP_0)
    await starter.start(job, settings, replace(STEP_0, inherited=Inherited(None, {"NOFILE": 200})))
    await starter.start(OWN_JOB, settings, STEP_0)
    assert [(told.umask if told.HasField("umask") else None, dict(told.soft_limits)) for told in forks.asked] == [
        (0o027, {"NOFILE": 100}), (None, {"NOFILE": 200}), (None, {})
    ]  # fmt: skip
    assert forks.asked[0].home == "/home/alice"
    assert forks.asked[0].allow_setuid_programs


async def test_only_the_batch_step_gets_the_script(tmp_path: Path) -> None:
    forks = Forks()
    await starter_of(tmp_path, forks).start(OWN_JOB, settings_of(tmp_path), BATCH)
    assert forks.asked[0].batch_script == JOB.spec.script


async def test_a_step_without_tasks_here_and_a_parent_that_is_gone_are_refused(tmp_path: Path) -> None:
    elsewhere = replace(STEP_0, tasks_per_node={NodeName("cn99"): (0,)})
    with pytest.raises(StepRefusedError, match="no task on cn01"):
        await starter_of(tmp_path, Forks()).start(OWN_JOB, settings_of(tmp_path), elsewhere)
    with pytest.raises(StepRefusedError, match="does not start"):
        await starter_of(tmp_path, Forks(is_gone=True)).start(OWN_JOB, settings_of(tmp_path), STEP_0)


@pytest.mark.parametrize("point", [HookPoint.TASK_PROLOG, HookPoint.TASK_EPILOG])
def test_a_task_hook_that_cannot_be_planned_says_why(tmp_path: Path, point: HookPoint) -> None:
    settings = replace(settings_of(tmp_path, profile="slurm"), patterns={point: (f"{tmp_path}/no*",)})
    (hook,) = task_hooks(settings, STEP_0)
    assert hook_point_from_wire(hook.point) is point
    assert list(hook.scripts) == []
    assert hook.problem.startswith(f"no file matches {tmp_path}/no*")


def test_a_task_hook_tells_what_was_passed_over(tmp_path: Path) -> None:
    for name in ("10-a.sh", "10-a.sh~"):
        (tmp_path / name).touch(0o755)
    settings = replace(settings_of(tmp_path, profile="sunk"), patterns={HookPoint.TASK_EPILOG: (str(tmp_path),)})
    (hook,) = task_hooks(settings, STEP_0)
    assert list(hook.scripts) == [f"{tmp_path}/10-a.sh"]
    assert list(hook.notes) == [f"passed over in {tmp_path}: 10-a.sh~ (name)"]


@pytest.mark.parametrize(
    ("profile", "overrides", "is_slurms"),
    [
        ("crane-requeue", {}, False),
        ("crane-fail", {}, False),
        ("slurm", {}, True),
        ("sunk", {}, True),
        ("slurm", {"TaskEpilogEnvironment": "task", "TaskEpilogStderr": "kept"}, False),
    ],
)
def test_what_task_epilogs_see_and_who_hears_them_is_the_profiles(
    tmp_path: Path, profile: str, overrides: dict[str, str], is_slurms: bool
) -> None:
    (tmp_path / "hook").touch(0o755)
    patterns = dict.fromkeys((HookPoint.TASK_PROLOG, HookPoint.TASK_EPILOG), (f"{tmp_path}/hook",))
    settings = replace(settings_of(tmp_path, profile=profile), patterns=patterns, overrides=overrides)
    hooks = list(task_hooks(settings, replace(STEP_0, task_prolog="/home/own", task_epilog="/home/own")))
    assert {hook_point_from_wire(hook.point).value: (hook.shows_stderr, hook.original_environment) for hook in hooks} == {
        "TaskProlog": (False, False),
        "--task-prolog": (False, False),
        "TaskEpilog": (is_slurms, is_slurms),
        "--task-epilog": (is_slurms, is_slurms),
    }
