"""What a supervisor starts with, and what it refuses."""

from collections.abc import Callable

import pytest

from crane.hooks.v1 import hook_pb2, job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks.model.points import HookPoint
from cranehooks.model.run import TimeoutScope
from cranehooks.profiles import TaskAction
from csupervisor.bootstrap import (
    BootstrapError,
    bootstrap_from_wire,
    fork_request_from_bytes,
    forked_to_bytes,
    gone_to_bytes,
)


def test_defaults_and_common_environment(message: pb.SupervisorBootstrap) -> None:
    bootstrap = bootstrap_from_wire(message)
    assert bootstrap.tasks[0].environment == {"A": "task", "B": "common"}
    assert (bootstrap.cwd, bootstrap.containment, bootstrap.cgroup_instance, bootstrap.cgroup_root) == (
        "/scratch",
        "auto",
        "default",
        "job_42/step_0",
    )
    assert not bootstrap.is_batch
    assert bootstrap.task_prolog_failure is TaskAction.CANCEL


def test_what_a_failing_before_hook_does(message: pb.SupervisorBootstrap) -> None:
    message.task_prolog_failure = pb.TASK_ACTION_EXIT_AS_HOOK
    assert bootstrap_from_wire(message).task_prolog_failure is TaskAction.EXIT_AS_HOOK


def test_hooks(message: pb.SupervisorBootstrap) -> None:
    message.hooks.add(
        point=hook_pb2.HOOK_POINT_TASK_PROLOG, scripts=["/a", "/b"], timeout_s=60.0, trusted_owner=True, grace_s=0.5
    )
    message.hooks.add(point=hook_pb2.HOOK_POINT_STEP_TASK_EPILOG, scripts=["/c"], timeout_per_script=True)
    message.hooks.add(point=hook_pb2.HOOK_POINT_TASK_EPILOG)
    hooks = bootstrap_from_wire(message).hooks
    assert hooks.keys() == {HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_EPILOG}
    assert (hooks[HookPoint.TASK_PROLOG].timeout_s, hooks[HookPoint.STEP_TASK_EPILOG].timeout_s) == (60.0, None)
    assert hooks[HookPoint.STEP_TASK_EPILOG].timeout_scope is TimeoutScope.SCRIPT
    assert hooks[HookPoint.TASK_PROLOG].trusted_owner
    assert (hooks[HookPoint.TASK_PROLOG].grace_s, hooks[HookPoint.STEP_TASK_EPILOG].grace_s) == (0.5, 0.0)


def no_tasks(message: pb.SupervisorBootstrap) -> None:
    del message.tasks[:]


def repeated_task(message: pb.SupervisorBootstrap) -> None:
    message.tasks.add(task_id=3)


def relative_script(message: pb.SupervisorBootstrap) -> None:
    message.hooks.add(point=hook_pb2.HOOK_POINT_TASK_PROLOG, scripts=["setup.sh"])


def node_hook(message: pb.SupervisorBootstrap) -> None:
    message.hooks.add(point=hook_pb2.HOOK_POINT_PROLOG, scripts=["/a"])


def relative_directory(message: pb.SupervisorBootstrap) -> None:
    message.step.cwd = "here"


def no_program(message: pb.SupervisorBootstrap) -> None:
    del message.step.argv[:]


def batch_without_directory(message: pb.SupervisorBootstrap) -> None:
    message.step_id = "batch"


def no_nonce(message: pb.SupervisorBootstrap) -> None:
    message.nonce = ""


def outside(message: pb.SupervisorBootstrap) -> None:
    message.cgroup_root = "../../elsewhere"


def negative_grace(message: pb.SupervisorBootstrap) -> None:
    message.hooks.add(point=hook_pb2.HOOK_POINT_TASK_PROLOG, scripts=["/a"], grace_s=-1.0)


def careless(message: pb.SupervisorBootstrap) -> None:
    message.task_prolog_failure = pb.TASK_ACTION_CONTINUE


def unknown_kind(message: pb.SupervisorBootstrap) -> None:
    message.job.kind = job_pb2.JOB_KIND_UNSPECIFIED


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (no_tasks, "no task"),
        (repeated_task, "task ids repeat"),
        (relative_script, "absolute paths"),
        (node_hook, "no task hooks"),
        (relative_directory, "'here' is no absolute path"),
        (no_program, "no program"),
        (batch_without_directory, "state directory"),
        (no_nonce, "nonce"),
        (outside, "not below craned's own"),
        (negative_grace, "grace is negative"),
        (careless, "does not start after a before-hook"),
        (unknown_kind, "JobKind"),
    ],
)
def test_what_is_wrong_is_said(
    message: pb.SupervisorBootstrap, spoil: Callable[[pb.SupervisorBootstrap], None], problem: str
) -> None:
    spoil(message)
    with pytest.raises(BootstrapError, match=problem):
        bootstrap_from_wire(message)


def test_all_problems_are_said_at_once(message: pb.SupervisorBootstrap) -> None:
    no_nonce(message)
    no_program(message)
    with pytest.raises(BootstrapError, match=r"42\.1\.0.*nonce.*program"):
        bootstrap_from_wire(message)


def test_the_words_of_the_parent(message: pb.SupervisorBootstrap) -> None:
    request = fork_request_from_bytes(pb.ParentMessage(fork=pb.ForkSupervisor(bootstrap=message)).SerializeToString())
    assert (request.nonce, request.title, request.bootstrap().node) == ("secret", "csup 42.0", "cn01")
    assert pb.ParentMessage.FromString(forked_to_bytes("n", 7)).forked == pb.SupervisorForked(nonce="n", pid=7)
    gone = pb.ParentMessage.FromString(gone_to_bytes("n", 7, 9)).gone
    assert gone == pb.SupervisorGone(nonce="n", pid=7, wait_status=9)


@pytest.mark.parametrize("payload", [b"\xff\xff", b"", forked_to_bytes("n", 1)])
def test_the_parent_is_only_asked_to_fork(payload: bytes) -> None:
    with pytest.raises(BootstrapError):
        fork_request_from_bytes(payload)
