"""Signals, terminations, launchers and daemons that go away."""

import os
import signal
from pathlib import Path

import pytest

from crane.hooks.v1 import hook_pb2
from cranehooks.execution.containment.detect import AUTO, DRIVERS
from tests.support.drivers_exercised import needs_driver
from tests.support.eventually import eventually_async
from tests.support.supervisor_peer import SupervisorPeer

TRAPPING = "trap 'echo got TERM' TERM; echo up; while :; do sleep 0.05; done"


async def up(craned: SupervisorPeer, task_id: int = 0) -> None:
    await eventually_async(lambda: craned.said.stdout(task_id).startswith(b"up\n"))


@pytest.mark.parametrize("containment", [AUTO, *DRIVERS])
async def test_a_termination_asks_and_then_kills(craned: SupervisorPeer, containment: str) -> None:
    needs_driver(containment)
    await craned.start(craned.bootstrap("sh", "-c", TRAPPING, kill_grace_s=0.4, containment=containment))
    await up(craned)
    craned.terminate("cancelled by its owner")
    end = await craned.ended()
    assert craned.said.stdout() == b"up\ngot TERM\n"
    assert (end.tasks[0].exit.signal, end.tasks[0].reason, end.reason) == (9, *["cancelled by its owner"] * 2)


async def test_what_a_shell_started_has_the_grace_too(craned: SupervisorPeer) -> None:
    saved = craned.home / "work" / "saved"
    inner = f"trap 'sleep 0.3; touch {saved}; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    await craned.start(craned.bootstrap("sh", "-c", f'sh -c "{inner}"; true', kill_grace_s=20.0))
    await up(craned)
    craned.terminate("time limit of 60 s")
    end = await craned.ended()
    assert saved.exists()
    assert end.tasks[0].exit.signal == 15


async def test_a_stopped_task_is_terminated(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "echo up; kill -STOP $$; echo never"))
    await up(craned)
    craned.terminate("cancelled by its owner")
    end = await craned.ended()
    assert end.tasks[0].exit.signal == 15


async def test_a_signal_reaches_every_process_of_every_task(craned: SupervisorPeer) -> None:
    child = "trap 'echo child; exit' USR1; echo up; while :; do sleep 0.05; done"
    program = f'trap "wait; exit 5" USR1; sh -c "{child}" & wait'
    await craned.start(craned.bootstrap("sh", "-c", program, task_ids=(0, 1)))
    await up(craned, 0)
    await up(craned, 1)
    craned.signal(signal.SIGUSR1)
    end = await craned.ended()
    assert [task.exit.code for task in end.tasks] == [5, 5]
    assert (craned.said.stdout(0), craned.said.stdout(1)) == (b"up\nchild\n", b"up\nchild\n")


async def test_a_launcher_that_stays_away_ends_the_step(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "echo up; sleep 1000", launcher_grace_s=0.3))
    await up(craned)
    craned.attach(attached=False)
    end = await craned.ended()
    assert (end.reason, end.tasks[0].reason, end.tasks[0].exit.signal) == ("launcher gone", "launcher gone", 15)


async def test_a_launcher_that_comes_back_keeps_the_step(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "echo up; read line; echo $line", launcher_grace_s=20.0))
    await up(craned)
    craned.attach(attached=False)
    craned.attach()
    craned.stdin(b"still here\n")
    end = await craned.ended()
    assert (end.reason, craned.said.stdout()) == ("", b"up\nstill here\n")


async def test_a_launcher_that_goes_while_output_is_left_does_not_hold_the_step(craned: SupervisorPeer) -> None:
    craned.takes_output = False
    await craned.start(craned.bootstrap("sh", "-c", "head -c 300000 /dev/zero", launcher_grace_s=0.2))
    await eventually_async(lambda: len(craned.said.stdout()) == 256 * 1024)
    craned.attach(attached=False)
    end = await craned.ended()
    assert end.tasks[0].exit.code in (0, 128 + 15) or end.tasks[0].exit.signal == 15


async def test_the_end_is_delivered_to_a_craned_that_was_away(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo up; read line; echo bye; exit 4")
    bootstrap.hooks.append(craned.hook(hook_pb2.HOOK_POINT_TASK_PROLOG, "true"))
    done = craned.home / "work" / "done"
    bootstrap.hooks.append(craned.hook(hook_pb2.HOOK_POINT_TASK_EPILOG, f"touch {done}"))
    await craned.start(bootstrap)
    await up(craned)
    craned.stdin(b"go\n")
    await craned.hang_up()
    await eventually_async(done.exists)
    await craned.listen()
    end = await craned.ended()
    assert end.tasks[0].exit.code == 4
    assert craned.said.stdout().endswith(b"bye\n")
    hellos = [message.hello.started for message in craned.said.messages if message.WhichOneof("message") == "hello"]
    assert hellos == [False, True]
    assert craned.said.points().count(hook_pb2.HOOK_POINT_TASK_EPILOG) == 1


async def test_the_end_is_repeated_until_it_is_acknowledged(craned: SupervisorPeer) -> None:
    craned.acknowledges = False
    await craned.start(craned.bootstrap("true"))
    await eventually_async(lambda: craned.said.end() is not None)
    await craned.hang_up()
    craned.acknowledges = True
    await craned.listen()
    await craned.supervisor_gone()
    assert craned.said.kinds().count("step_ended") == 2


async def test_output_that_was_not_taken_is_sent_again_to_the_next_craned(craned: SupervisorPeer) -> None:
    craned.takes_output = False
    await craned.start(craned.bootstrap("sh", "-c", "echo up; read line; echo bye"))
    await up(craned)
    craned.said.output.clear()
    await craned.hang_up()
    craned.takes_output = True
    await craned.listen()
    await up(craned)
    craned.attach()
    craned.stdin(b"go\n")
    await craned.ended()
    assert craned.said.stdout() == b"up\nbye\n"


async def test_a_launcher_that_does_not_come_back_with_its_craned_ends_the_step(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "echo up; sleep 1000", launcher_grace_s=0.3))
    await up(craned)
    await craned.hang_up()
    await craned.listen()
    end = await craned.ended()
    assert end.reason == "launcher gone"


async def test_supervisors_live_on_when_their_parent_ends(craned: SupervisorPeer) -> None:
    pid = await craned.start(craned.bootstrap("sh", "-c", "echo up; read line; exit 6"))
    await up(craned)
    craned.parent.send_signal(signal.SIGKILL)
    craned.parent.wait()
    craned.stdin(b"go\n")
    await eventually_async(lambda: craned.said.end() is not None)
    end = craned.said.end()
    assert end is not None
    assert end.tasks[0].exit.code == 6
    await eventually_async(lambda: not is_alive(pid))
    craned.forked.clear()


async def test_a_supervisor_that_is_asked_to_stop_ends_its_step(craned: SupervisorPeer) -> None:
    pid = await craned.start(craned.bootstrap("sh", "-c", "echo up; sleep 1000"))
    await up(craned)
    os.kill(pid, signal.SIGTERM)
    end = await craned.ended()
    assert end.reason == "its supervisor was asked to stop"


async def test_tasks_die_with_a_supervisor_that_is_killed(craned: SupervisorPeer) -> None:
    pid = await craned.start(craned.bootstrap("sh", "-c", "echo up; echo $$; exec sleep 1000", containment="none"))
    await eventually_async(lambda: craned.said.stdout().count(b"\n") == 2)
    task = int(craned.said.stdout().splitlines()[1])
    os.kill(pid, signal.SIGKILL)
    heard = await craned._parent_says()
    assert (heard.gone.pid, heard.gone.wait_status, heard.gone.nonce) == (pid, 9, craned.bootstrap().nonce)
    await eventually_async(lambda: not is_alive(task))
    craned.forked.clear()


async def test_a_bad_bootstrap_costs_its_own_supervisor_only(craned: SupervisorPeer) -> None:
    pid = await craned.fork(craned.bootstrap())
    heard = await craned._parent_says()
    assert (heard.gone.pid, heard.gone.wait_status) == (pid, 2 << 8)
    craned.forked.clear()
    end = await craned.run(craned.bootstrap("true"))
    assert end.tasks[0].exit.code == 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
