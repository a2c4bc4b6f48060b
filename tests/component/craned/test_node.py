"""The promises of a node's hooks, kept by the real daemon with real scripts and supervisors."""

import asyncio
import urllib.request

import grpc
import pytest

from crane.hooks.v1 import hook_pb2
from cranehooks.model.ids import BATCH_STEP
from tests.component.craned.conftest import NODE, Site, controlled, node_of
from tests.support.eventually import eventually_async
from tests.support.fake_controller import own_job, own_step

pytestmark = pytest.mark.may_leak("gRPC keeps threads of its own")


async def test_the_node_registers_and_a_batch_job_runs_between_its_hooks(site: Site) -> None:
    site.hook("Prolog", "prolog.sh")
    site.hook("Epilog", "epilog.sh")
    site.hook("TaskProlog", "task_prolog.sh")
    async with node_of(site) as node:
        await eventually_async(lambda: node.controller.heartbeats)
        registration = node.controller.registrations[0]
        assert (registration.node, registration.address) == (NODE, site.node_address)
        script = f"#!/bin/sh\necho task >> {site.log}\nexit 3\n"
        job = own_job(7, NODE, script=script, cwd=str(site.directory))
        await node.commands.run_step(job, own_step(BATCH_STEP, NODE))
        ended = await node.controller.expect("step_ended", 7)
        assert [(task.task_id, task.exit.code) for task in ended.tasks] == [(0, 3)], ended
        await node.commands.release(job, 3)
        released = await node.controller.expect("job_released", 7)
        assert released.epilog.outcome.kind == hook_pb2.OUTCOME_KIND_OK
        assert site.runs() == ["prolog.sh 7.1", "task_prolog.sh 7.1", "task", "epilog.sh 7.1"]
        assert node.controller.kinds(7) == ["prolog_ended", "step_started", "hook_ended", "step_ended", "job_released"] or (
            node.controller.kinds(7) == ["prolog_ended", "hook_ended", "step_started", "step_ended", "job_released"]
        )


async def test_one_prolog_for_several_simultaneous_steps(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "sleep 0.3")
    async with node_of(site) as node:
        job = own_job(8, NODE)
        steps = [own_step(str(number), NODE, "/bin/sh", "-c", f"echo step >> {site.log}") for number in range(4)]
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(node.commands.run_step(job, step))
                group.create_task(node.commands.run_step(job, step))
        for number in range(1, 5):
            await node.controller.expect("step_ended", 8, number)
        assert site.runs() == ["prolog.sh 8.1", "step", "step", "step", "step"]
        assert len(node.controller.of_kind("prolog_ended", 8)) == 1


async def test_a_failed_prolog_starts_no_task_and_the_epilog_runs_nevertheless(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "echo no GPU; exit 4")
    site.hook("Epilog", "epilog.sh")
    async with node_of(site) as node:
        job = own_job(9, NODE)
        await node.commands.run_step(job, own_step("0", NODE, "/bin/sh", "-c", f"echo step >> {site.log}"))
        prolog = await node.controller.expect("prolog_ended", 9)
        assert (prolog.run.outcome.kind, prolog.run.outcome.code) == (hook_pb2.OUTCOME_KIND_EXIT, 4)
        assert "no GPU" in prolog.run.scripts[0].output
        ended = await node.controller.expect("step_ended", 9)
        assert ended.tasks[0].cancelled
        assert "prolog.sh exit 4" in ended.reason
        await node.commands.run_step(job, own_step("1", NODE, "/bin/true"))
        await node.controller.expect("step_ended", 9, 2)
        await node.commands.release(job)
        await node.controller.expect("job_released", 9)
        assert site.runs() == ["prolog.sh 9.1", "epilog.sh 9.1"]


async def test_an_allocation_that_never_ran_here_has_its_epilog_once_however_often_it_is_released(site: Site) -> None:
    site.hook("Prolog", "prolog.sh")
    site.hook("Epilog", "epilog.sh", "sleep 0.2")
    async with node_of(site) as node:
        job = own_job(10, NODE)
        for _ in range(3):
            await node.commands.release(job)
        await node.controller.expect("job_released", 10)
        await node.commands.release(job)
        await node.controller.expect("job_released", 10, 2)
        await node.commands.run_step(job, own_step("0", NODE, "/bin/true"))
        await node.controller.expect("job_released", 10, 3)
        assert site.runs() == ["epilog.sh 10.1"]


async def test_a_release_stops_the_prolog_and_then_runs_the_epilog(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "exec sleep 60")
    site.hook("Epilog", "epilog.sh")
    async with node_of(site) as node:
        job = own_job(11, NODE)
        await node.commands.prepare(job)
        await eventually_async(lambda: site.runs() == ["prolog.sh 11.1"])
        await node.commands.release(job, reason="cancelled by its user")
        prolog = await node.controller.expect("prolog_ended", 11)
        assert prolog.run.outcome.kind == hook_pb2.OUTCOME_KIND_STOPPED
        await node.controller.expect("job_released", 11)
        assert site.runs() == ["prolog.sh 11.1", "epilog.sh 11.1"]


async def test_a_release_ends_a_running_step_first(site: Site) -> None:
    site.hook("Epilog", "epilog.sh")
    async with node_of(site) as node:
        job = own_job(12, NODE)
        await node.commands.run_step(job, own_step("0", NODE, "/bin/sh", "-c", "exec sleep 60"))
        await node.controller.expect("step_started", 12)
        await node.commands.release(job, reason="cancelled by its user")
        ended = await node.controller.expect("step_ended", 12)
        assert ended.tasks[0].exit.signal == 15
        await node.controller.expect("job_released", 12)
        assert node.controller.kinds(12)[-2:] == ["step_ended", "job_released"]


async def test_a_prolog_that_was_broken_off_by_a_crash_is_lost_and_not_repeated(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "exec sleep 60")
    site.hook("Epilog", "epilog.sh")
    async with controlled(site) as node:
        job = own_job(13, NODE)
        async with site.daemon() as program:
            await node.commands.run_step(job, own_step("0", NODE, "/bin/true"))
            await eventually_async(lambda: site.runs() == ["prolog.sh 13.1"])
            program.kill()
        async with site.daemon():
            prolog = await node.controller.expect("prolog_ended", 13)
            assert prolog.run.outcome.kind == hook_pb2.OUTCOME_KIND_LOST
            ended = await node.controller.expect("step_ended", 13)
            assert ended.tasks[0].cancelled
            await node.commands.release(job)
            await node.controller.expect("job_released", 13)
        assert site.runs() == ["prolog.sh 13.1", "epilog.sh 13.1"]


async def test_an_epilog_broken_off_is_lost_in_the_same_boot_and_runs_again_after_a_reboot(site: Site) -> None:
    site.hook("Epilog", "epilog.sh", f"test -e {site.directory}/quick || exec sleep 60")
    async with controlled(site) as node:
        for job_id, second_boot in ((14, "one"), (15, "two")):
            (site.directory / "quick").unlink(missing_ok=True)
            async with site.daemon(CRANE_BOOT_ID="one") as program:
                await node.commands.release(own_job(job_id, NODE))
                await site.ran(f"epilog.sh {job_id}.1")
                program.kill()
            (site.directory / "quick").touch()
            async with site.daemon(CRANE_BOOT_ID=second_boot):
                released = await node.controller.expect("job_released", job_id)
            is_lost = released.epilog.outcome.kind == hook_pb2.OUTCOME_KIND_LOST
            assert is_lost == (second_boot == "one")
        assert site.runs() == ["epilog.sh 14.1", "epilog.sh 15.1", "epilog.sh 15.1"]


async def test_a_step_lives_on_while_its_daemon_is_started_again(site: Site) -> None:
    site.hook("Epilog", "epilog.sh")
    async with controlled(site) as node:
        job = own_job(16, NODE)
        async with site.daemon() as program:
            wait = f"while ! test -e {site.directory}/go; do sleep 0.05; done; exit 5"
            await node.commands.run_step(job, own_step("0", NODE, "/bin/sh", "-c", wait))
            await node.controller.expect("step_started", 16)
            program.kill()
        async with site.daemon():
            (site.directory / "go").touch()
            ended = await node.controller.expect("step_ended", 16)
            assert ended.tasks[0].exit.code == 5
            await node.commands.release(job)
            await node.controller.expect("job_released", 16)


async def test_reports_are_kept_until_the_controller_takes_them_across_a_restart(site: Site) -> None:
    site.hook("Prolog", "prolog.sh")
    async with controlled(site) as node:
        node.controller.acknowledges = False
        async with site.daemon():
            await node.commands.prepare(own_job(17, NODE))
            await eventually_async(lambda: node.controller.deliveries >= 2)
        node.controller.acknowledges = True
        async with site.daemon():
            await node.controller.expect("prolog_ended", 17)
        assert site.runs() == ["prolog.sh 17.1"]


async def test_with_serial_one_hook_at_a_time(site: Site) -> None:
    site.hooks += "  PrologFlags: Serial\n"
    lock = site.directory / "lock"
    site.hook("Prolog", "prolog.sh", f"mkdir {lock} || exit 9\nsleep 0.1\nrmdir {lock}")
    async with node_of(site) as node:
        for job_id in range(20, 24):
            await node.commands.prepare(own_job(job_id, NODE))
        prologs = [await node.controller.expect("prolog_ended", job_id) for job_id in range(20, 24)]
        assert {prolog.run.outcome.kind for prolog in prologs} == {hook_pb2.OUTCOME_KIND_OK}
        assert prologs[-1].run.queue_wait.ToMilliseconds() > prologs[0].run.queue_wait.ToMilliseconds()


async def test_a_job_keeps_the_hooks_it_started_with(site: Site) -> None:
    site.hook("Epilog", "old.sh")
    async with controlled(site) as node, site.daemon() as program:
        job = own_job(25, NODE)
        await node.commands.prepare(job)
        await node.controller.expect("prolog_ended", 25)
        site.hooks = ""
        site.hook("Epilog", "new.sh")
        site.write_config()
        program.process.send_signal(1)
        before = len(node.controller.registrations)
        await eventually_async(lambda: len(node.controller.registrations) > before)
        await node.commands.release(job)
        await node.commands.release(own_job(26, NODE))
        await node.controller.expect("job_released", 25)
        await node.controller.expect("job_released", 26)
        assert sorted(site.runs()) == ["new.sh 26.1", "old.sh 25.1"]


async def test_only_the_controller_commands_a_node_and_only_about_that_node(site: Site) -> None:
    async with node_of(site) as node:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node.commands.prepare(own_job(27, "cn99"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node.commands.terminate(own_job(27, NODE), "0", "test")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_metrics_tell_of_every_hook(site: Site) -> None:
    site.hook("Prolog", "prolog.sh", "exit 4")
    site.hook("TaskProlog", "task_prolog.sh")
    site.hook("Epilog", "epilog.sh")
    async with controlled(site) as node, site.daemon() as program:
        await node.commands.prepare(own_job(30, NODE))
        await node.controller.expect("prolog_ended", 30)
        await node.commands.release(own_job(30, NODE))
        await node.controller.expect("job_released", 30)
        url = f"http://{program.ready['metrics']}/metrics"
        metrics = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode()
        for line in (
            'crane_hook_runs_total{outcome="exit",point="Prolog",script="prolog.sh"} 1.0',
            'crane_hook_runs_total{outcome="ok",point="Epilog",script="epilog.sh"} 1.0',
            'crane_hook_run_duration_seconds_count{point="Epilog",script="epilog.sh"} 1.0',
            'crane_hooks_running{point="Prolog"} 0.0',
            'grpc_server_handled_total{grpc_code="OK",grpc_method="PrepareJob"',
        ):
            assert line in metrics, line


async def test_a_damaged_journal_is_told_kept_aside_and_survived(site: Site) -> None:
    site.hook("Epilog", "epilog.sh")
    async with controlled(site) as node:
        async with site.daemon():
            await node.commands.prepare(own_job(31, NODE))
            await node.controller.expect("prolog_ended", 31)
        lines = site.journal.read_bytes().split(b"\n")
        site.journal.write_bytes(b"\n".join([lines[0], b"#" + lines[1], *lines[2:]]) + b"torn")
        async with site.daemon() as program:
            await node.commands.release(own_job(31, NODE))
            await node.controller.expect("job_released", 31)
            log = program.log.read_text()
            assert "journal_damaged" in log
            assert "journal_torn" in log
        assert site.journal.with_name("journal.damaged").exists()
        assert site.runs() == ["epilog.sh 31.1"]


async def test_one_daemon_per_node(site: Site) -> None:
    async with controlled(site), site.daemon():
        with pytest.raises(AssertionError, match="in use by another process"):
            async with site.daemon():
                pass


async def test_stopping_leaves_steps_alone_and_ends_in_order(site: Site) -> None:
    async with controlled(site) as node:
        job = own_job(32, NODE)
        async with site.daemon() as program:
            wait = f"while ! test -e {site.directory}/go; do sleep 0.05; done; exit 6"
            await node.commands.run_step(job, own_step("0", NODE, "/bin/sh", "-c", wait))
            await node.controller.expect("step_started", 32)
        assert program.process.returncode == 0
        (site.directory / "go").touch()
        async with site.daemon():
            ended = await node.controller.expect("step_ended", 32)
            assert ended.tasks[0].exit.code == 6
            await node.commands.release(job)
            await node.controller.expect("job_released", 32)
