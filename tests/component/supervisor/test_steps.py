"""Steps that run to their end, and those that cannot start."""

import os
import resource
from pathlib import Path

import pytest

from crane.hooks.v1 import hook_pb2, job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks.execution.containment.detect import AUTO, DRIVERS
from tests.support.drivers_exercised import needs_driver
from tests.support.eventually import eventually_async
from tests.support.supervisor_peer import SupervisorPeer


def exits(end: pb.SupervisorStepEnded) -> list[tuple[int, int, int]]:
    return [(task.task_id, task.exit.code, task.exit.signal) for task in end.tasks]


@pytest.mark.parametrize("containment", [AUTO, *DRIVERS])
async def test_a_step_runs_as_its_user_in_its_directory(craned: SupervisorPeer, containment: str) -> None:
    needs_driver(containment)
    program = "id -u; pwd; umask; env | sort; echo problem >&2"
    end = await craned.run(craned.bootstrap("sh", "-c", program, containment=containment))
    assert exits(end) == [(0, 0, 0)]
    assert (end.reason, end.tasks[0].reason, list(end.unkillable)) == ("", "", [])
    uid, cwd, umask, *environment = craned.said.stdout().decode().splitlines()
    assert uid == str(craned.bootstrap().job.uid)
    assert cwd == str(craned.home / "work")
    assert umask == "0022"
    assert environment == ["CRANE_JOB_ID=42", "PATH=/usr/local/bin:/usr/bin:/bin", f"PWD={cwd}"]
    assert craned.said.stderr() == b"problem\n"
    assert craned.said.kinds() == ["hello", "tasks_started", "step_ended"]
    assert not craned.said.messages[0].hello.started


async def test_two_tasks_have_their_own_environment_and_exit(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("sh", "-c", "echo $CRANE_PROCID of $COMMON; exit $CRANE_PROCID", task_ids=(3, 5))
    bootstrap.environment["COMMON"] = "all"
    for task in bootstrap.tasks:
        task.environment["CRANE_PROCID"] = str(task.task_id)
    end = await craned.run(bootstrap)
    assert exits(end) == [(3, 3, 0), (5, 5, 0)]
    assert (craned.said.stdout(3), craned.said.stdout(5)) == (b"3 of all\n", b"5 of all\n")


async def test_a_task_killed_by_a_signal_says_so(craned: SupervisorPeer) -> None:
    end = await craned.run(craned.bootstrap("sh", "-c", "kill -SEGV $$"))
    assert exits(end) == [(0, 0, 11)]


async def test_nothing_a_task_left_lives_on(craned: SupervisorPeer) -> None:
    program = "setsid sleep 1000 & sleep 1001 & echo $$"
    end = await craned.run(craned.bootstrap("sh", "-c", program))
    assert exits(end) == [(0, 0, 0)]
    session = int(craned.said.stdout())
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _session(pid) == session]


def _session(pid: str) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("no-such-program", 127, "crane: no-such-program: command not found\n"),
        ("./absent", 127, "crane: ./absent: No such file or directory\n"),
        ("./plain", 126, "crane: ./plain: Permission denied\n"),
        ("/", 126, "crane: /: Is a directory\n"),
        ("plain", 126, "crane: plain: Permission denied\n"),
        ("./bare", 126, "crane: ./bare: it has no #! line and is no program\n"),
        ("./lost", 127, "crane: ./lost: its interpreter does not exist\n"),
    ],
)
async def test_what_cannot_be_run_ends_as_in_a_shell(craned: SupervisorPeer, program: str, code: int, message: str) -> None:
    work = craned.home / "work"
    (work / "plain").write_text("no mode")
    for name, text in (("bare", "echo hi\n"), ("lost", "#!/no/such/shell\n")):
        (work / name).write_text(text)
        (work / name).chmod(0o755)
    bootstrap = craned.bootstrap(program)
    bootstrap.tasks[0].environment["PATH"] += f":{work}"
    end = await craned.run(bootstrap)
    assert exits(end) == [(0, code, 0)]
    assert craned.said.stderr().decode() == message
    assert end.tasks[0].reason == message.removeprefix("crane: ").strip()
    assert not end.tasks[0].cancelled


async def test_a_program_is_looked_up_in_the_tasks_own_path(craned: SupervisorPeer) -> None:
    work = craned.home / "work"
    (work / "tool").write_text("#!/bin/sh\necho $0\n")
    (work / "tool").chmod(0o755)
    bootstrap = craned.bootstrap("tool")
    bootstrap.tasks[0].environment["PATH"] = f"/nonexistent:{work}:/bin"
    await craned.run(bootstrap)
    assert craned.said.stdout().decode().strip() == str(work / "tool")


async def test_a_missing_working_directory_fails_the_step_with_a_reason(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true", task_ids=(0, 1))
    bootstrap.step.cwd = str(craned.home / "gone")
    end = await craned.run(bootstrap)
    assert end.reason == f"cannot enter working directory {craned.home}/gone on cn01: No such file or directory"
    assert [(task.cancelled, task.exit.code, task.reason) for task in end.tasks] == [(True, 1, end.reason)] * 2
    assert "tasks_started" not in craned.said.kinds()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may enter what is its own")
async def test_a_directory_the_user_may_not_enter_is_refused(craned: SupervisorPeer) -> None:
    (craned.home / "secret").mkdir(mode=0o700)
    bootstrap = craned.bootstrap("true")
    bootstrap.step.cwd = str(craned.home / "secret")
    end = await craned.run(bootstrap)
    assert end.reason == f"cannot enter working directory {craned.home}/secret on cn01: Permission denied"


async def test_a_missing_home_fails_the_step_with_a_reason(craned: SupervisorPeer) -> None:
    bootstrap = craned.bootstrap("true")
    bootstrap.hooks.append(craned.hook(hook_pb2.HOOK_POINT_TASK_PROLOG, "true"))
    bootstrap.home = "/home/that/never/was"
    end = await craned.run(bootstrap)
    assert end.reason == "cannot enter home directory /home/that/never/was on cn01: No such file or directory"
    assert craned.said.hook_runs() == []
    assert "tasks_started" not in craned.said.kinds()


_STATUS = "grep -hE '^(Uid|Gid|Groups|Cap|NoNewPrivs|SigBlk|SigIgn|Umask)' /proc/self/status; cat /proc/self/oom_score_adj; ulimit -S -c; ulimit -H -n"


def told(text: str) -> tuple[dict[str, str], list[str]]:
    """The lines of a status file by name, and what else there is."""
    pairs = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: " ".join(value.split()) for name, value in pairs.items()}, [
        line for line in text.splitlines() if ":" not in line
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("allows_setuid", [False, True])
async def test_tasks_and_their_hooks_have_the_users_identity_and_no_capability(
    craned: SupervisorPeer, allows_setuid: bool
) -> None:
    bootstrap = craned.bootstrap("sh", "-c", _STATUS)
    bootstrap.job.groups[:] = [4, 7]
    bootstrap.umask = 0o027
    bootstrap.soft_limits.update({"CORE": 0, "NOFILE": 1 << 40})
    bootstrap.allow_setuid_programs = allows_setuid
    for point in (hook_pb2.HOOK_POINT_TASK_PROLOG, hook_pb2.HOOK_POINT_TASK_EPILOG):
        bootstrap.hooks.append(craned.hook(point, _STATUS))
    await craned.run(bootstrap)
    own_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for text in (craned.said.stdout().decode(), *(run.scripts[0].output for run in craned.said.hook_runs())):
        status, rest = told(text)
        is_task = text == craned.said.stdout().decode()
        bounding = status.pop("CapBnd")
        assert (int(bounding, 16) == 0) is not allows_setuid
        uid = bootstrap.job.uid
        assert status == {
            "Uid": " ".join([str(uid)] * 4), "Gid": " ".join([str(bootstrap.job.gid)] * 4), "Groups": "4 7",
            "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapAmb": "0" * 16, "NoNewPrivs": "0",
            "SigBlk": "0" * 16, "SigIgn": "0" * 16, "Umask": "0027" if is_task else "0022",
        }  # fmt: skip
        assert rest[0] == "0"
        assert (rest[1] == "0") is is_task or resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        assert rest[2] == ("unlimited" if own_hard == resource.RLIM_INFINITY else str(own_hard)), "hard limits are the daemon's"


async def test_tasks_wait_for_their_launcher(craned: SupervisorPeer) -> None:
    marker = craned.home / "work" / "ran"
    await craned.start(craned.bootstrap("touch", str(marker)), attach=False)
    craned.terminate("cancelled by its owner")
    end = await craned.ended()
    assert not marker.exists()
    assert end.reason == "cancelled by its owner"
    assert [(task.cancelled, task.exit.signal) for task in end.tasks] == [(True, 15)]


# ---- batch


def batch(craned: SupervisorPeer, script: str, *arguments: str) -> pb.SupervisorBootstrap:
    bootstrap = craned.bootstrap(step_id="batch", cgroup_root="job_42/step_batch", batch_script=script)
    bootstrap.step.step_id = "batch"
    bootstrap.step.stdio = job_pb2.STDIO_MODE_FILES
    bootstrap.job.kind = job_pb2.JOB_KIND_BATCH
    bootstrap.job.script_name = "train.sh"
    bootstrap.job.script_arguments.extend(arguments)
    return bootstrap


async def run_unattended(craned: SupervisorPeer, bootstrap: pb.SupervisorBootstrap) -> pb.SupervisorStepEnded:
    await craned.start(bootstrap, attach=False)
    return await craned.ended()


async def test_a_batch_script_writes_to_the_jobs_file(craned: SupervisorPeer) -> None:
    output = craned.home / "work" / "a_b-42.out"
    output.write_text("from before")
    output.chmod(0o666)
    bootstrap = batch(craned, '#!/bin/sh\necho "$0" "$@"\ncat\necho oops >&2\nexit 3\n', "one", "two words")
    bootstrap.job.stdout_path = "%x-%j.out"
    end = await run_unattended(craned, bootstrap)
    assert exits(end) == [(0, 3, 0)]
    script = craned.home / "state" / "job_42.1" / "script"
    assert output.read_text() == f"{script} one two words\noops\n"
    assert output.stat().st_uid in (bootstrap.job.uid, os.geteuid())
    assert not script.parent.exists()
    assert not craned.said.output


async def test_errors_of_a_batch_job_may_go_to_a_file_of_their_own(craned: SupervisorPeer) -> None:
    bootstrap = batch(craned, "#!/bin/sh\necho out\necho err >&2\n")
    bootstrap.job.stdout_path = "%u.%N.%%.%4j"
    bootstrap.job.stderr_path = str(craned.home / "work" / "err")
    await run_unattended(craned, bootstrap)
    assert (craned.home / "work" / "somebody.cn01.%.0042").read_text() == "out\n"
    assert (craned.home / "work" / "err").read_text() == "err\n"
    assert (craned.home / "work" / "err").stat().st_uid == bootstrap.job.uid


@pytest.mark.parametrize(("script", "code"), [("echo hi\n", 126), ("", 126), ("#!/no/such/interpreter\n", 127)])
async def test_a_script_without_an_interpreter_fails_clearly(craned: SupervisorPeer, script: str, code: int) -> None:
    end = await run_unattended(craned, batch(craned, script))
    assert exits(end) == [(0, code, 0)]
    assert end.tasks[0].reason.startswith("train.sh: it")
    assert (craned.home / "work" / "Crane-42.out").read_text() == f"crane: {end.tasks[0].reason}\n"


async def test_an_output_file_that_cannot_be_opened_fails_the_step(craned: SupervisorPeer) -> None:
    bootstrap = batch(craned, "#!/bin/sh\n")
    bootstrap.job.stdout_path = "no/such/directory/out"
    end = await run_unattended(craned, bootstrap)
    path = craned.home / "work" / "no" / "such" / "directory" / "out"
    assert end.reason == f"cannot open output file {path}: No such file or directory"


async def test_a_batch_step_that_is_terminated_says_so_in_its_file(craned: SupervisorPeer) -> None:
    await craned.start(batch(craned, "#!/bin/sh\necho up\nexec sleep 1000\n"), attach=False)
    output = craned.home / "work" / "Crane-42.out"
    await eventually_async(lambda: output.exists() and output.read_text() == "up\n")
    craned.terminate("time limit of 60 s")
    end = await craned.ended()
    assert exits(end) == [(0, 0, 15)]
    assert output.read_text() == "up\ncrane: step batch on cn01 is ended: time limit of 60 s\n"
    assert end.tasks[0].reason == end.reason == "time limit of 60 s"


async def test_what_a_task_prolog_prints_comes_first_in_the_jobs_file(craned: SupervisorPeer) -> None:
    bootstrap = batch(craned, "#!/bin/sh\necho from the script, $EXTRA\n")
    bootstrap.hooks.append(craned.hook(hook_pb2.HOOK_POINT_TASK_PROLOG, "echo print from TaskProlog; echo export EXTRA=more"))
    await run_unattended(craned, bootstrap)
    assert (craned.home / "work" / "Crane-42.out").read_text() == "from TaskProlog\nfrom the script, more\n"


async def test_a_batch_job_is_told_why_its_task_was_cancelled(craned: SupervisorPeer) -> None:
    bootstrap = batch(craned, "#!/bin/sh\necho never\n")
    bootstrap.hooks.append(craned.hook(hook_pb2.HOOK_POINT_TASK_PROLOG, "echo no disk; exit 1"))
    end = await run_unattended(craned, bootstrap)
    text = (craned.home / "work" / "Crane-42.out").read_text()
    assert text == f"crane: task 0 cancelled: {end.tasks[0].reason}\n"
    assert end.tasks[0].reason.endswith("exit 1: no disk")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
async def test_output_files_are_opened_with_the_users_rights(craned: SupervisorPeer) -> None:
    (craned.home / "secret").mkdir(mode=0o700)
    bootstrap = batch(craned, "#!/bin/sh\n")
    bootstrap.job.stdout_path = str(craned.home / "secret" / "out")
    end = await run_unattended(craned, bootstrap)
    assert end.reason == f"cannot open output file {craned.home}/secret/out: Permission denied"
