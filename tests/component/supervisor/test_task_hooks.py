"""TaskProlog, --task-prolog, --task-epilog and TaskEpilog around real tasks."""

from pathlib import Path

import pytest

from crane.hooks.v1 import hook_pb2, supervisor_pb2
from tests.support.eventually import eventually_async
from tests.support.supervisor_peer import SupervisorPeer

TASK_PROLOG = hook_pb2.HOOK_POINT_TASK_PROLOG
STEP_TASK_PROLOG = hook_pb2.HOOK_POINT_STEP_TASK_PROLOG
STEP_TASK_EPILOG = hook_pb2.HOOK_POINT_STEP_TASK_EPILOG
TASK_EPILOG = hook_pb2.HOOK_POINT_TASK_EPILOG
ALL = [TASK_PROLOG, STEP_TASK_PROLOG, STEP_TASK_EPILOG, TASK_EPILOG]


async def test_all_four_run_around_the_task_in_order(craned: SupervisorPeer) -> None:
    journal = craned.home / "work" / "journal"
    bootstrap = craned.bootstrap("sh", "-c", f"echo task >> {journal}; exit 7")
    for point in ALL:
        name = hook_pb2.HookPoint.Name(point)
        bootstrap.hooks.append(craned.hook(point, f"echo {name} $(id -u) $(pwd) >> {journal}; echo seen by $0"))
    end = await craned.run(bootstrap)
    who = f"{bootstrap.job.uid} {craned.home}/work"
    assert journal.read_text().splitlines() == [
        f"HOOK_POINT_TASK_PROLOG {who}",
        f"HOOK_POINT_STEP_TASK_PROLOG {who}",
        "task",
        f"HOOK_POINT_STEP_TASK_EPILOG {who}",
        f"HOOK_POINT_TASK_EPILOG {who}",
    ]
    assert end.tasks[0].exit.code == 7
    assert craned.said.points() == ALL
    runs = craned.said.hook_runs()
    assert {(run.user, run.task_id, run.node, run.step_id, run.job_id, run.attempt) for run in runs} == {
        ("somebody", 0, "cn01", "0", 42, 1)
    }
    assert [run.run_id for run in runs[:2]] == ["42.1.0/task_prolog:0@cn01", "42.1.0/step_task_prolog:0@cn01"]
    assert runs[0].scripts[0].output == f"seen by {bootstrap.hooks[0].scripts[0]}\n"


async def test_directives_change_the_task_and_what_comes_after(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo task: $GREETING, $CRANE_JOB_ID, $MORE")
    bootstrap.hooks.append(
        craned.hook(
            TASK_PROLOG, "echo export GREETING=hello  world\necho unset CRANE_JOB_ID\necho print from TaskProlog\necho nothing"
        )
    )
    bootstrap.hooks.append(craned.hook(STEP_TASK_PROLOG, 'echo "print option sees $GREETING"; echo export MORE=yes'))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, 'echo "epilog sees $MORE"'))
    await craned.run(bootstrap)
    assert craned.said.stdout().decode().splitlines() == [
        "from TaskProlog",
        "option sees hello world",
        "task: hello world, , yes",
    ]
    assert craned.said.hook_runs()[-1].scripts[0].output == "epilog sees yes\n"


async def test_an_epilog_may_see_the_task_as_it_was_before_its_prolog(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo $GREETING")
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "echo export GREETING=hello"))
    for point in (STEP_TASK_EPILOG, TASK_EPILOG):
        hook = craned.hook(point, 'echo "sees ${GREETING-nothing}, task ${CRANE_TASK_PID:+has been}"')
        hook.original_environment = True
        bootstrap.hooks.append(hook)
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"hello\n"
    assert [run.scripts[0].output for run in craned.said.hook_runs()[1:]] == ["sees nothing, task has been\n"] * 2


async def test_an_epilog_may_be_heard_in_the_stderr_of_the_first_task(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo task >&2", task_ids=(4, 5))
    hook = craned.hook(TASK_EPILOG, "echo out; echo epilog >&2")
    hook.shows_stderr = True
    bootstrap.hooks.append(hook)
    bootstrap.hooks.append(craned.hook(STEP_TASK_EPILOG, "echo unheard >&2"))
    await craned.run(bootstrap)
    assert sorted(craned.said.stderr(4).split()) == [b"epilog", b"epilog", b"task"]
    assert craned.said.stderr(5) == b"task\n"
    assert craned.said.stdout(4) == craned.said.stdout(5) == b""
    kept = [run.scripts[0].output for run in craned.said.hook_runs() if run.point == TASK_EPILOG]
    assert [sorted(output.split()) for output in kept] == [["epilog", "out"]] * 2


async def test_a_flood_from_an_epilog_is_shown_in_part(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true", output_limit_bytes=4096)
    hook = craned.hook(TASK_EPILOG, "head -c 300000 /dev/zero | tr '\\0' x >&2")
    hook.shows_stderr = True
    bootstrap.hooks.append(hook)
    await craned.run(bootstrap)
    assert craned.said.stderr() == b"x" * 4096 + b"\n[... more is not shown ...]\n"
    [told] = craned.said.hook_runs()[0].scripts
    assert told.output_bytes == 300000


async def test_a_task_with_slurm_names_keeps_the_context_of_its_prolog(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo ${SLURM_SCRIPT_CONTEXT-unset} ${CRANE_SCRIPT_CONTEXT-unset}")
    bootstrap.slurm_compatible_env = True
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "true"))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, "echo $SLURM_SCRIPT_CONTEXT"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"prolog_task unset\n"
    assert craned.said.hook_runs()[-1].scripts[0].output == "epilog_task\n"


async def test_a_task_prolog_can_take_the_context_away(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo ${SLURM_SCRIPT_CONTEXT-unset}")
    bootstrap.slurm_compatible_env = True
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "echo unset SLURM_SCRIPT_CONTEXT"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"unset\n"


async def test_slurm_names_are_the_profiles_matter_not_the_users(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo ${SLURM_SCRIPT_CONTEXT-unset}")
    bootstrap.tasks[0].environment["SLURM_JOB_ID"] = "7"
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "echo print ${SLURM_SCRIPT_CONTEXT-unset}"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"unset\nunset\n"


async def test_what_a_killed_task_prolog_printed_is_not_for_the_task(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "echo print words; echo export MADE=dir; kill -9 $$"))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, "echo cleans $MADE"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b""
    assert craned.said.hook_runs()[-1].scripts[0].output == "cleans dir\n"


async def test_a_directive_that_was_cut_is_none(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo ${CUT-unset} ${FIRST-unset} ${LAST-unset}", output_limit_bytes=4096)
    hook = "echo export FIRST=1; printf 'export CUT='; head -c 9000 /dev/zero | tr '\\0' x; echo; echo export LAST=1"
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, hook))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"unset 1 1\n"
    [note] = craned.said.hook_runs()[0].notes
    assert note.startswith("hook_point_task_prolog.sh wrote 90")
    assert note.endswith("MaxOutputSize is 4096: directives in what was dropped were not obeyed")


async def test_a_changed_path_finds_the_program(craned: SupervisorPeer) -> None:
    tool = craned.home / "work" / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    bootstrap = craned.bootstrap("tool")
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, f"echo export PATH=$PATH:{tool.parent}"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"found\n"


async def test_binary_output_of_a_task_prolog_does_no_harm(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo $AFTER")
    bootstrap.hooks.append(
        craned.hook(TASK_PROLOG, "head -c 300000 /dev/urandom | tr '\\0' 1; echo; printf '\\377\\n'; echo export AFTER=fine")
    )
    end = await craned.run(bootstrap)
    assert end.tasks[0].exit.code == 0
    assert craned.said.stdout().endswith(b"fine\n")
    [told] = craned.said.hook_runs()[0].scripts
    assert told.output_bytes > 300000
    assert len(told.output.encode()) <= 4096
    assert "bytes dropped" in told.output
    assert told.output.endswith("\nexport AFTER=fine\n")


async def test_what_is_no_utf8_reaches_the_task_as_it_is_and_people_readably(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", 'printf %s "$NAME"')
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, r"printf 'export NAME=M\374ller\nprint \377\n'"))
    bootstrap.hooks.append(craned.hook(STEP_TASK_PROLOG, "true"))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, r"printf 'M\374ller'; exit 1"))
    await craned.run(bootstrap)
    assert craned.said.stdout() == b"\xff\nM\xfcller"
    outputs = [run.scripts[0].output for run in craned.said.hook_runs()]
    assert outputs == ["export NAME=M\ufffdller\nprint \ufffd\n", "", "M\ufffdller"]


async def test_a_failing_task_prolog_cancels_its_task_and_pairs_with_task_epilog(craned: SupervisorPeer) -> None:
    ran = craned.home / "work" / "ran"
    bootstrap = craned.bootstrap("touch", str(ran))
    for point in ALL:
        bootstrap.hooks.append(craned.hook(point, "echo first; echo no licence left; exit 3" if point == TASK_PROLOG else "true"))
    end = await craned.run(bootstrap)
    assert not ran.exists()
    reason = "TaskProlog hook_point_task_prolog.sh exit 3: no licence left"
    task = end.tasks[0]
    assert (task.cancelled, task.exit.code, task.reason) == (True, 1, reason)
    assert craned.said.points() == [TASK_PROLOG, TASK_EPILOG]
    assert craned.said.notices() == [f"task 0 cancelled: {reason}"]
    assert "tasks_started" not in craned.said.kinds()


@pytest.mark.parametrize(("action", "code"), [(supervisor_pb2.TASK_ACTION_FAIL, 1), (supervisor_pb2.TASK_ACTION_EXIT_AS_HOOK, 3)])
async def test_a_failing_task_prolog_fails_its_task_where_the_profile_says_so(
    craned: SupervisorPeer, action: supervisor_pb2.TaskAction.ValueType, code: int
) -> None:
    bootstrap = craned.bootstrap("true", task_prolog_failure=action)
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "exit 3"))
    end = await craned.run(bootstrap)
    reason = "TaskProlog hook_point_task_prolog.sh exit 3"
    assert (end.tasks[0].cancelled, end.tasks[0].exit.code, end.tasks[0].reason) == (False, code, reason)
    assert craned.said.notices() == [f"task 0 failed: {reason}"]


async def test_a_hook_without_scripts_fails_for_the_reason_it_was_given(craned: SupervisorPeer) -> None:
    ran = craned.home / "work" / "ran"
    bootstrap = craned.bootstrap("touch", str(ran))
    for point in (TASK_PROLOG, TASK_EPILOG):
        bootstrap.hooks.append(supervisor_pb2.TaskHook(point=point, problem="no file matches /etc/task.d/*"))
    end = await craned.run(bootstrap)
    assert not ran.exists()
    assert (end.tasks[0].cancelled, end.tasks[0].exit.code) == (True, 1)
    assert end.tasks[0].reason == "TaskProlog spawn failed: refused: no file matches /etc/task.d/*"
    assert [(run.point, run.outcome.detail) for run in craned.said.hook_runs()] == [
        (TASK_PROLOG, "no file matches /etc/task.d/*"),
        (TASK_EPILOG, "no file matches /etc/task.d/*"),
    ]


async def test_what_was_passed_over_is_told_with_the_run(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    for point in (TASK_PROLOG, TASK_EPILOG):
        hook = craned.hook(point, "true")
        hook.notes.append("passed over in /etc/task.d: README (name)")
        bootstrap.hooks.append(hook)
    await craned.run(bootstrap)
    assert [list(run.notes) for run in craned.said.hook_runs()] == [["passed over in /etc/task.d: README (name)"]] * 2


async def test_a_failing_task_prolog_leaves_the_other_task_alone(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo ran", task_ids=(0, 1))
    for task in bootstrap.tasks:
        task.environment["CRANE_PROCID"] = str(task.task_id)
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "exit $CRANE_PROCID"))
    end = await craned.run(bootstrap)
    assert [(task.task_id, task.cancelled) for task in end.tasks] == [(0, False), (1, True)]
    assert (craned.said.stdout(0), craned.said.stdout(1)) == (b"ran\n", b"")
    assert "tasks_started" in craned.said.kinds()


async def test_a_failing_step_task_prolog_runs_both_epilogs(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    for point in ALL:
        bootstrap.hooks.append(craned.hook(point, "exit 1" if point == STEP_TASK_PROLOG else "true"))
    end = await craned.run(bootstrap)
    assert end.tasks[0].reason == "--task-prolog hook_point_step_task_prolog.sh exit 1"
    assert craned.said.points() == ALL


async def test_a_task_prolog_that_exceeds_its_time_cancels_the_task(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, "sleep 1000", timeout_s=0.2))
    end = await craned.run(bootstrap)
    assert end.tasks[0].reason == "TaskProlog hook_point_task_prolog.sh timeout after 1 s"
    assert end.tasks[0].cancelled


async def test_a_hook_that_ignores_term_has_the_grace_of_hooks_and_not_of_tasks(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true", kill_grace_s=3600.0)
    deaf = "trap '' TERM; while :; do sleep 0.05; done"
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, deaf, timeout_s=0.1, grace_s=0.1))
    end = await craned.run(bootstrap)
    assert end.tasks[0].cancelled
    assert craned.said.hook_runs()[0].outcome.kind == hook_pb2.OUTCOME_KIND_TIMEOUT


async def test_a_failing_epilog_changes_nothing(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    bootstrap.hooks.append(craned.hook(STEP_TASK_EPILOG, "exit 9"))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, "true"))
    end = await craned.run(bootstrap)
    assert (end.tasks[0].exit.code, end.tasks[0].reason, end.reason) == (0, "", "")
    assert [run.outcome.code for run in craned.said.hook_runs()] == [9, 0]


async def test_a_hook_is_stopped_with_its_step_and_epilogs_still_run(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    up = craned.home / "work" / "up"
    bootstrap.hooks.append(craned.hook(TASK_PROLOG, f"touch {up}; sleep 1000", timeout_s=0.0))
    bootstrap.hooks.append(craned.hook(TASK_EPILOG, "true"))
    await craned.start(bootstrap)
    await eventually_async(up.exists)
    craned.terminate("cancelled by its owner")
    end = await craned.ended()
    assert (end.tasks[0].cancelled, end.tasks[0].exit.signal, end.tasks[0].reason) == (True, 15, "cancelled by its owner")
    assert craned.said.points() == [TASK_PROLOG, TASK_EPILOG]
    assert craned.said.hook_runs()[0].outcome.kind == hook_pb2.OUTCOME_KIND_STOPPED


async def test_an_unsafe_script_is_refused(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    hook = craned.hook(TASK_PROLOG, "true")
    make_writable(Path(hook.scripts[0]))
    bootstrap.hooks.append(hook)
    end = await craned.run(bootstrap)
    assert end.tasks[0].cancelled
    assert "writable" in end.tasks[0].reason


def make_writable(script: Path) -> None:
    script.chmod(0o777)
