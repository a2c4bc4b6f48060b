"""The extern step by a real supervisor: it runs hooks of the node in the job's place, tells of them again, and ends when it is told to."""

import os
from pathlib import Path

from crane.hooks.v1 import hook_pb2, job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb
from tests.support.eventually import eventually_async
from tests.support.supervisor_peer import SupervisorPeer

PROLOG = hook_pb2.HOOK_POINT_PROLOG
EPILOG = hook_pb2.HOOK_POINT_EPILOG


def extern(craned: SupervisorPeer) -> pb.SupervisorBootstrap:
    step = job_pb2.StepSpec(step_id="extern", stdio=job_pb2.STDIO_MODE_FILES, cwd="/")
    message = craned.bootstrap(step_id="extern", cgroup_root="job_42/step_extern", task_ids=())
    message.step.CopyFrom(step)
    return message


def order(craned: SupervisorPeer, point: hook_pb2.HookPoint.ValueType, text: str, *, timeout_s: float = 30.0) -> pb.RunNodeHook:
    path = craned.home / f"node_{point}.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return pb.RunNodeHook(
        point=point,
        scripts=[os.fsencode(path)],
        environment={"CRANE_JOB_ID": b"42", "ODD": b"\xff"},
        timeout_s=timeout_s,
        grace_s=0.2,
        unkillable_after_s=10.0,
        output_limit_bytes=1 << 20,
        user="root",
    )


async def ran(craned: SupervisorPeer, number: int = 1) -> hook_pb2.HookRun:
    await eventually_async(lambda: len(craned.said.hook_runs()) >= number)
    return craned.said.hook_runs()[number - 1]


async def test_hooks_run_as_the_daemon_in_the_jobs_place_each_once(craned: SupervisorPeer, home: Path) -> None:
    await craned.start(extern(craned), attach=False)
    await craned.tasks_started()
    started = next(message.tasks_started for message in craned.said.messages if message.WhichOneof("message") == "tasks_started")
    prolog = order(
        craned, PROLOG, f"id -u; echo $CRANE_JOB_ID; cat /proc/self/cgroup; echo ran >> {home}/ran; env | grep -c ^ODD="
    )
    craned.send(pb.ToSupervisor(run_hook=prolog))
    craned.send(pb.ToSupervisor(run_hook=prolog))
    run = await ran(craned)
    assert run.run_id == "42.1/prolog@cn01"
    assert (run.outcome.kind, run.user) == (hook_pb2.OUTCOME_KIND_OK, "root")
    lines = run.scripts[0].output.splitlines()
    assert lines[:2] == [str(os.geteuid()), "42"]
    assert lines[-1] == "1"
    if started.cgroup:
        assert started.cgroup.endswith("/job_42/step_extern")
        assert any("/job_42/step_extern/" in line for line in lines)
    craned.send(pb.ToSupervisor(run_hook=order(craned, EPILOG, "echo bye >&2; exit 5")))
    run = await ran(craned, 2)
    assert (run.outcome.kind, run.outcome.code) == (hook_pb2.OUTCOME_KIND_EXIT, 5)
    assert run.scripts[0].output == "bye\n"
    craned.terminate("the job is over")
    end = await craned.ended()
    assert (list(end.tasks), end.reason) == ([], "the job is over")
    assert (home / "ran").read_text() == "ran\n"


async def test_a_timeout_a_stop_and_an_end_stop_a_hook(craned: SupervisorPeer) -> None:
    await craned.start(extern(craned), attach=False)
    await craned.tasks_started()
    craned.send(pb.ToSupervisor(run_hook=order(craned, PROLOG, "trap '' TERM; while :; do sleep 0.05; done", timeout_s=0.2)))
    assert (await ran(craned)).outcome.kind == hook_pb2.OUTCOME_KIND_TIMEOUT
    craned.send(pb.ToSupervisor(run_hook=order(craned, EPILOG, f"touch {craned.home}/begun; exec sleep 60")))
    await eventually_async((craned.home / "begun").exists)
    craned.send(pb.ToSupervisor(stop_hook=pb.StopNodeHook(point=EPILOG)))
    assert (await ran(craned, 2)).outcome.kind == hook_pb2.OUTCOME_KIND_STOPPED
    craned.terminate("over")
    await craned.ended()


async def test_what_runs_is_stopped_when_the_step_is_ended(craned: SupervisorPeer) -> None:
    await craned.start(extern(craned), attach=False)
    await craned.tasks_started()
    craned.send(pb.ToSupervisor(run_hook=order(craned, PROLOG, f"touch {craned.home}/begun; exec sleep 60")))
    await eventually_async((craned.home / "begun").exists)
    craned.terminate("the job is over")
    await craned.ended()
    assert craned.said.hook_runs()[0].outcome.kind == hook_pb2.OUTCOME_KIND_STOPPED
    assert craned.said.kinds()[-2:] == ["hook_run", "step_ended"]


async def test_it_lives_on_without_a_craned_and_says_again_what_it_was_given_and_how_that_ended(craned: SupervisorPeer) -> None:
    await craned.start(extern(craned), attach=False)
    await craned.tasks_started()
    gate = craned.home / "gate"
    waits = f"touch {craned.home}/begun; while [ ! -e {gate} ]; do sleep 0.02; done; echo survived"
    craned.send(pb.ToSupervisor(run_hook=order(craned, PROLOG, waits)))
    await eventually_async((craned.home / "begun").exists)
    await craned.hang_up()
    await craned.listen()
    await craned.said_hello(2)
    hellos = [message.hello for message in craned.said.messages if message.WhichOneof("message") == "hello"]
    assert [list(hello.node_hooks) for hello in hellos] == [[], [PROLOG]]
    gate.touch()
    assert (await ran(craned)).scripts[0].output == "survived\n"
    await craned.hang_up()
    await craned.listen()
    await craned.said_hello(3)
    assert (await ran(craned, 2)).run_id == (await ran(craned)).run_id
    craned.terminate("over")
    await craned.ended()
