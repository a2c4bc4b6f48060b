"""What the kernel gave each hook of each point, name by name, with a user whose environment is out to harm."""

import grp
import pwd
from collections.abc import Callable, Iterator, Mapping

import pytest

from cranehooks.model.points import HookPoint
from tests.support.reconfiguration import reconfigured
from tests.support.scripted_cluster import TASK_EPILOG, TASK_PROLOG, ScriptedCluster, runs_of

HOSTILE: Mapping[str, str] = {
    "BASH_ENV": "/dev/null",
    "BASH_FUNC_exit%%": "() {  :; }",
    "CRANE_JOB_ID_": "1",
    "ENV": "/dev/null",
    "IFS": "/",
    "LD_LIBRARY_PATH": "/nowhere",
    "LD_PRELOAD": "/nowhere/evil.so",
    "PATH": "/nowhere",
    "PS4": "$(exit)",
    "PYTHONPATH": "/nowhere",
    "SHELLOPTS": "noexec",
    "SLURM_JOB_COMMENT_": "1",
    "SLURMD_NODENAME_": "1",
}
LIES: Mapping[str, str] = {
    "CRANE_JOB_ID": "666",
    "CRANE_JOB_USER": "root",
    "SLURM_JOB_UID": "0",
    "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
}
"""Names of ours that a user sets too."""
LOGIN = {"HOME", "LOGNAME", "PATH", "SHELL", "USER"}
"""What a task has of its user on its node."""

COLUMNS = {
    "CranectldProlog": "cp",
    "Prolog": "p",
    "CrunProlog": "lp",
    "TaskProlog": "tp",
    TASK_PROLOG: "tp2",
    TASK_EPILOG: "te2",
    "TaskEpilog": "te",
    "CrunEpilog": "le",
    "Epilog": "e",
    "CranectldEpilog": "ce",
}
"""The points in the order of a job's life, as the tables below name them."""
ASKED = ("-t10", "--mem=10M", "-Aphysics", "-qhigh", "--comment=a word", "--export=ALL")
DAEMON_POINTS = ("CranectldProlog", "Prolog", "Epilog", "CranectldEpilog")

CRANE_NAMES_OF_CRUN = """\
                            cp  p   lp  tp  tp2 te2 te  le  e   ce
CRANE_CLUSTER_NAME          x   x   x   x   x   x   x   x   x   x
CRANE_CPUS_ON_NODE          .   x   .   x   x   x   x   .   x   .
CRANE_CPUS_PER_TASK         x   x   x   x   x   x   x   x   x   x
CRANE_GTIDS                 .   .   .   x   x   x   x   .   .   .
CRANE_JOB_ACCOUNT           x   x   x   x   x   x   x   x   x   x
CRANE_JOB_ATTEMPT           x   x   x   x   x   x   x   x   x   x
CRANE_JOB_COMMENT           x   x   .   .   .   .   .   .   x   x
CRANE_JOB_CPUS_PER_NODE     x   x   x   x   x   x   x   x   x   x
CRANE_JOB_DERIVED_EC        .   .   .   .   .   .   .   .   x   x
CRANE_JOB_END_TIME          x   x   x   x   x   x   x   x   x   x
CRANE_JOB_EXCLUSIVE         x   x   .   .   .   .   .   .   x   x
CRANE_JOB_EXIT_CODE         .   .   .   .   .   .   .   x   x   x
CRANE_JOB_EXIT_CODE2        .   .   .   .   .   .   .   x   x   x
CRANE_JOB_GID               x   x   x   x   x   x   x   x   x   x
CRANE_JOB_GROUP             x   x   x   x   x   x   x   x   x   x
CRANE_JOB_ID                x   x   x   x   x   x   x   x   x   x
CRANE_JOB_NAME              x   x   x   x   x   x   x   x   x   x
CRANE_JOB_NODELIST          x   x   x   x   x   x   x   x   x   x
CRANE_JOB_NUM_NODES         x   x   x   x   x   x   x   x   x   x
CRANE_JOB_PARTITION         x   x   x   x   x   x   x   x   x   x
CRANE_JOB_QOS               x   x   x   x   x   x   x   x   x   x
CRANE_JOB_RESTART_COUNT     x   x   x   x   x   x   x   x   x   x
CRANE_JOB_START_TIME        x   x   x   x   x   x   x   x   x   x
CRANE_JOB_UID               x   x   x   x   x   x   x   x   x   x
CRANE_JOB_USER              x   x   x   x   x   x   x   x   x   x
CRANE_JOB_WORK_DIR          x   x   x   x   x   x   x   x   x   x
CRANE_LOCALID               .   .   .   x   x   x   x   .   .   .
CRANE_MEM_PER_CPU           .   x   .   x   x   x   x   .   x   .
CRANE_MEM_PER_NODE          .   x   .   x   x   x   x   .   x   .
CRANE_NODEID                .   x   .   x   x   x   x   .   x   .
CRANE_NODENAME              .   x   .   x   x   x   x   .   x   .
CRANE_NTASKS                x   x   x   x   x   x   x   x   x   x
CRANE_NTASKS_PER_NODE       x   x   x   x   x   x   x   x   x   x
CRANE_PROCID                .   .   .   x   x   x   x   .   .   .
CRANE_SCRIPT_CONTEXT        x   x   x   x   x   x   x   x   x   x
CRANE_STEP_ID               .   .   x   x   x   x   x   x   .   .
CRANE_STEP_NODELIST         .   .   x   x   x   x   x   x   .   .
CRANE_STEP_NUM_NODES        .   .   x   x   x   x   x   x   .   .
CRANE_STEP_NUM_TASKS        .   .   x   x   x   x   x   x   .   .
CRANE_STEP_TASKS_PER_NODE   .   .   x   x   x   x   x   x   .   .
CRANE_SUBMIT_DIR            x   x   x   x   x   x   x   x   x   x
CRANE_SUBMIT_HOST           x   x   x   x   x   x   x   x   x   x
CRANE_TASKS_PER_NODE        x   x   x   x   x   x   x   x   x   x
CRANE_TASK_PID              .   .   .   .   .   x   x   .   .   .
"""

SLURM_NAMES_OF_CRUN = """\
                            cp  p   lp  tp  tp2 te2 te  le  e   ce
SLURMD_NODENAME             .   x   .   x   x   x   x   .   x   .
SLURM_CLUSTER_NAME          x   x   x   x   x   x   x   x   x   x
SLURM_CPUS_ON_NODE          .   .   .   x   x   x   x   .   .   .
SLURM_CPUS_PER_TASK         .   .   .   x   x   x   x   .   .   .
SLURM_GTIDS                 .   .   .   x   x   x   x   .   .   .
SLURM_JOBID                 x   x   x   x   x   x   x   x   x   x
SLURM_JOB_ACCOUNT           x   x   x   x   x   x   x   x   x   x
SLURM_JOB_COMMENT           x   x   .   .   .   .   .   .   x   x
SLURM_JOB_CPUS_PER_NODE     x   x   x   x   x   x   x   x   x   x
SLURM_JOB_DERIVED_EC        .   .   .   .   .   .   .   .   x   x
SLURM_JOB_END_TIME          x   x   .   x   x   x   x   .   x   x
SLURM_JOB_EXCLUSIVE         x   x   .   .   .   .   .   .   x   x
SLURM_JOB_EXIT_CODE         .   .   .   .   .   .   .   x   x   x
SLURM_JOB_EXIT_CODE2        .   .   .   .   .   .   .   x   x   x
SLURM_JOB_GID               x   x   .   x   x   x   x   .   x   x
SLURM_JOB_GROUP             x   .   .   .   .   .   .   .   .   x
SLURM_JOB_ID                x   x   x   x   x   x   x   x   x   x
SLURM_JOB_NAME              x   .   x   x   x   x   x   x   .   x
SLURM_JOB_NODELIST          x   x   x   x   x   x   x   x   x   x
SLURM_JOB_NTASKS            .   x   .   .   .   .   .   .   x   .
SLURM_JOB_NUM_NODES         x   x   x   x   x   x   x   x   x   x
SLURM_JOB_OVERSUBSCRIBE     x   x   .   .   .   .   .   .   x   x
SLURM_JOB_PARTITION         x   x   x   x   x   x   x   x   x   x
SLURM_JOB_QOS               x   x   x   x   x   x   x   x   x   x
SLURM_JOB_RESTART_COUNT     x   x   .   .   .   .   .   .   x   x
SLURM_JOB_START_TIME        x   x   .   x   x   x   x   .   x   x
SLURM_JOB_UID               x   x   x   x   x   x   x   x   x   x
SLURM_JOB_USER              x   x   x   x   x   x   x   x   x   x
SLURM_JOB_WORK_DIR          x   x   .   .   .   .   .   .   x   x
SLURM_LOCALID               .   .   .   x   x   x   x   .   .   .
SLURM_MEM_PER_CPU           .   .   .   x   x   x   x   .   .   .
SLURM_MEM_PER_NODE          .   .   .   x   x   x   x   .   .   .
SLURM_NNODES                .   .   x   x   x   x   x   x   .   .
SLURM_NODEID                .   x   .   x   x   x   x   .   x   .
SLURM_NODELIST              x   x   x   x   x   x   x   x   x   x
SLURM_NPROCS                .   .   x   x   x   x   x   x   .   .
SLURM_NTASKS                .   .   x   x   x   x   x   x   .   .
SLURM_NTASKS_PER_NODE       .   .   x   x   x   x   x   x   .   .
SLURM_PROCID                .   .   .   x   x   x   x   .   .   .
SLURM_SCRIPT_CONTEXT        x   x   x   x   x   x   x   x   x   x
SLURM_STEPID                .   .   x   x   x   x   x   x   .   .
SLURM_STEP_ID               .   .   x   x   x   x   x   x   .   .
SLURM_STEP_NODELIST         .   .   .   x   x   x   x   .   .   .
SLURM_STEP_NUM_NODES        .   .   .   x   x   x   x   .   .   .
SLURM_STEP_NUM_TASKS        .   .   .   x   x   x   x   .   .   .
SLURM_STEP_TASKS_PER_NODE   .   .   .   x   x   x   x   .   .   .
SLURM_SUBMIT_DIR            .   .   x   x   x   x   x   x   .   .
SLURM_SUBMIT_HOST           .   .   x   x   x   x   x   x   .   .
SLURM_TASKS_PER_NODE        .   .   x   x   x   x   x   x   .   .
SLURM_TASK_PID              .   .   .   .   .   x   x   .   .   .
SLURM_UID                   .   x   .   .   .   .   .   .   x   .
SLURM_WORKING_DIR           x   x   .   x   x   x   x   .   x   x
"""

CRANE_NAMES_OF_CBATCH = """\
                            cp  p   tp  te  e   ce
CRANE_ARRAY_JOB_ID          x   x   x   x   x   x
CRANE_ARRAY_TASK_COUNT      x   x   x   x   x   x
CRANE_ARRAY_TASK_ID         x   x   x   x   x   x
CRANE_ARRAY_TASK_MAX        x   x   x   x   x   x
CRANE_ARRAY_TASK_MIN        x   x   x   x   x   x
CRANE_ARRAY_TASK_STEP       x   x   x   x   x   x
CRANE_CLUSTER_NAME          x   x   x   x   x   x
CRANE_CPUS_ON_NODE          .   x   x   x   x   .
CRANE_CPUS_PER_TASK         x   x   x   x   x   x
CRANE_GTIDS                 .   .   x   x   .   .
CRANE_JOB_ACCOUNT           x   x   x   x   x   x
CRANE_JOB_ATTEMPT           x   x   x   x   x   x
CRANE_JOB_COMMENT           x   x   .   .   x   x
CRANE_JOB_CPUS_PER_NODE     x   x   x   x   x   x
CRANE_JOB_DERIVED_EC        .   .   .   .   x   x
CRANE_JOB_END_TIME          x   x   x   x   x   x
CRANE_JOB_EXCLUSIVE         x   x   .   .   x   x
CRANE_JOB_EXIT_CODE         .   .   .   .   x   x
CRANE_JOB_EXIT_CODE2        .   .   .   .   x   x
CRANE_JOB_GID               x   x   x   x   x   x
CRANE_JOB_GROUP             x   x   x   x   x   x
CRANE_JOB_ID                x   x   x   x   x   x
CRANE_JOB_NAME              x   x   x   x   x   x
CRANE_JOB_NODELIST          x   x   x   x   x   x
CRANE_JOB_NUM_NODES         x   x   x   x   x   x
CRANE_JOB_PARTITION         x   x   x   x   x   x
CRANE_JOB_QOS               x   x   x   x   x   x
CRANE_JOB_RESTART_COUNT     x   x   x   x   x   x
CRANE_JOB_START_TIME        x   x   x   x   x   x
CRANE_JOB_STDERR            x   x   .   .   x   x
CRANE_JOB_STDIN             x   x   .   .   x   x
CRANE_JOB_STDOUT            x   x   .   .   x   x
CRANE_JOB_UID               x   x   x   x   x   x
CRANE_JOB_USER              x   x   x   x   x   x
CRANE_JOB_WORK_DIR          x   x   x   x   x   x
CRANE_LOCALID               .   .   x   x   .   .
CRANE_MEM_PER_CPU           .   x   x   x   x   .
CRANE_MEM_PER_NODE          .   x   x   x   x   .
CRANE_NODEID                .   x   x   x   x   .
CRANE_NODENAME              .   x   x   x   x   .
CRANE_NTASKS                x   x   x   x   x   x
CRANE_PROCID                .   .   x   x   .   .
CRANE_SCRIPT_CONTEXT        x   x   x   x   x   x
CRANE_STEP_ID               .   .   x   x   .   .
CRANE_STEP_NODELIST         .   .   x   x   .   .
CRANE_STEP_NUM_NODES        .   .   x   x   .   .
CRANE_STEP_NUM_TASKS        .   .   x   x   .   .
CRANE_STEP_TASKS_PER_NODE   .   .   x   x   .   .
CRANE_SUBMIT_DIR            x   x   x   x   x   x
CRANE_SUBMIT_HOST           x   x   x   x   x   x
CRANE_TASKS_PER_NODE        x   x   x   x   x   x
CRANE_TASK_PID              .   .   .   x   .   .
"""

SLURM_NAMES_OF_CBATCH = """\
                            cp  p   tp  te  e   ce
SLURMD_NODENAME             .   x   x   x   x   .
SLURM_ARRAY_JOB_ID          x   x   x   x   x   x
SLURM_ARRAY_TASK_COUNT      x   .   x   x   .   x
SLURM_ARRAY_TASK_ID         x   x   x   x   x   x
SLURM_ARRAY_TASK_MAX        x   .   x   x   .   x
SLURM_ARRAY_TASK_MIN        x   .   x   x   .   x
SLURM_ARRAY_TASK_STEP       x   .   x   x   .   x
SLURM_CLUSTER_NAME          x   x   x   x   x   x
SLURM_CPUS_ON_NODE          .   .   x   x   .   .
SLURM_CPUS_PER_TASK         .   .   x   x   .   .
SLURM_GTIDS                 .   .   x   x   .   .
SLURM_JOBID                 x   x   x   x   x   x
SLURM_JOB_ACCOUNT           x   x   x   x   x   x
SLURM_JOB_COMMENT           x   x   .   .   x   x
SLURM_JOB_CPUS_PER_NODE     x   x   x   x   x   x
SLURM_JOB_DERIVED_EC        .   .   .   .   x   x
SLURM_JOB_END_TIME          x   x   x   x   x   x
SLURM_JOB_EXCLUSIVE         x   x   .   .   x   x
SLURM_JOB_EXIT_CODE         .   .   .   .   x   x
SLURM_JOB_EXIT_CODE2        .   .   .   .   x   x
SLURM_JOB_GID               x   x   x   x   x   x
SLURM_JOB_GROUP             x   .   .   .   .   x
SLURM_JOB_ID                x   x   x   x   x   x
SLURM_JOB_NAME              x   .   x   x   .   x
SLURM_JOB_NODELIST          x   x   x   x   x   x
SLURM_JOB_NTASKS            .   x   .   .   x   .
SLURM_JOB_NUM_NODES         x   x   x   x   x   x
SLURM_JOB_OVERSUBSCRIBE     x   x   .   .   x   x
SLURM_JOB_PARTITION         x   x   x   x   x   x
SLURM_JOB_QOS               x   x   x   x   x   x
SLURM_JOB_RESTART_COUNT     x   x   .   .   x   x
SLURM_JOB_START_TIME        x   x   x   x   x   x
SLURM_JOB_STDERR            x   x   .   .   x   x
SLURM_JOB_STDIN             x   x   .   .   x   x
SLURM_JOB_STDOUT            x   x   .   .   x   x
SLURM_JOB_UID               x   x   x   x   x   x
SLURM_JOB_USER              x   x   x   x   x   x
SLURM_JOB_WORK_DIR          x   x   .   .   x   x
SLURM_LOCALID               .   .   x   x   .   .
SLURM_MEM_PER_CPU           .   .   x   x   .   .
SLURM_MEM_PER_NODE          .   .   x   x   .   .
SLURM_NNODES                .   .   x   x   .   .
SLURM_NODEID                .   x   x   x   x   .
SLURM_NODELIST              x   x   x   x   x   x
SLURM_NPROCS                .   .   x   x   .   .
SLURM_NTASKS                .   .   x   x   .   .
SLURM_PROCID                .   .   x   x   .   .
SLURM_SCRIPT_CONTEXT        x   x   x   x   x   x
SLURM_SUBMIT_DIR            .   .   x   x   .   .
SLURM_SUBMIT_HOST           .   .   x   x   .   .
SLURM_TASKS_PER_NODE        .   .   x   x   .   .
SLURM_TASK_PID              .   .   .   x   .   .
SLURM_UID                   .   x   .   .   x   .
SLURM_WORKING_DIR           x   x   x   x   x   x
"""


@pytest.fixture(scope="module", params=["crane-requeue", "slurm"])
def trial(request: pytest.FixtureRequest) -> Iterator[ScriptedCluster]:
    with ScriptedCluster(Profile=request.param) as stage:
        yield stage


def is_slurm(stage: ScriptedCluster) -> bool:
    return "Profile: slurm" in stage.cluster.config_file.read_text()


def play_crun(stage: ScriptedCluster, label: str) -> None:
    """A step with hooks at all ten points, whose user asks for all that a variable tells."""
    own = ["--task-prolog", stage.hook(TASK_PROLOG), "--task-epilog", stage.hook(TASK_EPILOG)]
    asked = ["-N1", "-n1", "--ntasks-per-node=1", *ASKED]
    result = stage.run("crun", *own, *asked, str(stage.tracer), "task", label=label, env=HOSTILE)
    assert result.returncode == 0, result.stderr
    assert stage.ended(label).state == "Completed"


def play_cbatch(stage: ScriptedCluster, label: str) -> None:
    """The same for an element of an array."""
    asked = ["--array=3", "-o", f"{label}.out", "-e", f"{label}.err", *ASKED]
    result = stage.run("cbatch", *asked, "--wrap", "exit 0", label=label, env={**HOSTILE, **LIES})
    assert result.returncode == 0, result.stderr
    assert stage.ended(label).state == "Completed"


def environments(stage: ScriptedCluster, label: str) -> dict[str, Mapping[str, str]]:
    """Of each point's one hook, as /proc/self/environ has it."""
    calls = [call for call in stage.calls(label) if call.point in COLUMNS]
    seen = {call.point: call.environment for call in calls}
    assert len(seen) == len(calls)
    return seen


def table(stage: ScriptedCluster, label: str, prefix: str) -> str:
    """A row for each name with that prefix, a column for each point; what a user has set is left out where hooks run as the user."""
    seen = environments(stage, label)
    of_user = {*stage.env, *HOSTILE, *LOGIN, "TRIAL", "SECRET_OF_USER"}
    points = [point for point in COLUMNS if point in seen]
    own = {point: set(seen[point]) - (set() if point in DAEMON_POINTS else of_user) for point in points}
    names = sorted(set().union(*own.values()))
    assert [name for name in names if not name.startswith(("CRANE_", "SLURM"))] == []
    rows = [_row("", [COLUMNS[point] for point in points])]
    rows += [_row(name, ["x" if name in own[point] else "." for point in points]) for name in names if name.startswith(prefix)]
    return "".join(rows)


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<28}{''.join(f'{cell:<4}' for cell in cells)}".rstrip() + "\n"


def expected(text: str, stage: ScriptedCluster) -> str:
    """On a host where the user's group has no name, there is no variable for it."""
    try:
        grp.getgrgid(pwd.getpwuid(stage.uid).pw_gid)
    except KeyError:
        return "".join(line for line in text.splitlines(keepends=True) if "_JOB_GROUP" not in line)
    return text


@pytest.mark.parametrize(
    ("play", "crane_names", "slurm_names"),
    [(play_crun, CRANE_NAMES_OF_CRUN, SLURM_NAMES_OF_CRUN), (play_cbatch, CRANE_NAMES_OF_CBATCH, SLURM_NAMES_OF_CBATCH)],
)
def test_every_hook_has_these_names_and_no_other(
    trial: ScriptedCluster, play: Callable[[ScriptedCluster, str], None], crane_names: str, slurm_names: str
) -> None:
    label = play.__name__
    play(trial, label)
    assert table(trial, label, "CRANE_") == expected(crane_names, trial)
    if is_slurm(trial):
        assert table(trial, label, "SLURM") == expected(slurm_names, trial)
    else:
        assert not [name for name in names_of(trial, label) if name.startswith("SLURM") and name not in {*HOSTILE, *LIES}]


def names_of(stage: ScriptedCluster, label: str) -> set[str]:
    return {name for environment in environments(stage, label).values() for name in environment}


def test_the_users_environment_reaches_hooks_of_the_user_and_no_other(trial: ScriptedCluster) -> None:
    play_crun(trial, "hostile")
    for point, environment in environments(trial, "hostile").items():
        there = {**HOSTILE, "SECRET_OF_USER": "leaked"}.items() & environment.items()
        if point in DAEMON_POINTS:
            assert there == set()
            assert not LOGIN & environment.keys()
        else:
            assert there == {**HOSTILE, "SECRET_OF_USER": "leaked"}.items(), point


def test_a_user_who_sets_our_names_fools_no_hook(trial: ScriptedCluster) -> None:
    play_cbatch(trial, "liar")
    job = trial.ended("liar")
    for point, environment in environments(trial, "liar").items():
        assert environment["CRANE_JOB_ID"] == str(job.job_id), point
        assert environment["CRANE_JOB_USER"] == job.user
        assert environment["CRANE_SCRIPT_CONTEXT"].startswith(("prolog_", "epilog_"))
        if is_slurm(trial):
            assert environment["SLURM_JOB_UID"] == str(trial.uid), point
            assert environment["SLURM_SCRIPT_CONTEXT"] != LIES["SLURM_SCRIPT_CONTEXT"] or point == "Prolog"
        elif point in DAEMON_POINTS:
            assert "SLURM_JOB_UID" not in environment


def test_bash_makes_up_a_path_that_nobody_gave_it(trial: ScriptedCluster) -> None:
    script = trial.hooks / "look"
    script.write_text("#!/bin/bash\n/usr/bin/tr '\\0' '\\n' < /proc/$$/environ\necho made up: $PATH\n")
    script.chmod(0o755)
    with reconfigured(trial, {"Epilog": str(script)}):
        play_crun(trial, "bash")
        (run,) = runs_of(trial.ended("bash"), HookPoint.EPILOG)
    *given, made_up = run.scripts[0].output.splitlines()
    assert all(line.startswith(("CRANE_", "SLURM")) for line in given), given
    assert len(given) > 30
    assert made_up.startswith("made up: /")


def test_the_highest_end_of_the_steps_is_told(trial: ScriptedCluster) -> None:
    steps = "crun sh -c 'exit 2'; crun sh -c 'exit 4'; crun true; exit 1"
    assert trial.run("calloc", "sh", "-c", steps, label="steps").returncode == 1
    trial.ended("steps")
    for call in trial.calls("steps", "Epilog", "CranectldEpilog"):
        told = [call.environment[f"CRANE_JOB_{name}"] for name in ("DERIVED_EC", "EXIT_CODE", "EXIT_CODE2")]
        assert told == ["1024", "256", "1:0"], call.point


def test_crun_in_an_allocation_tells_its_hooks_of_the_job_and_the_step(trial: ScriptedCluster) -> None:
    command = "env | grep -c '^CRANE_JOB_CPUS_PER_NODE=2,1$'; crun -N1 -n1 -w cn02 true"
    result = trial.run("calloc", "-N2", "-n3", "sh", "-c", command, label="inner")
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr
    trial.ended("inner")
    (prolog,) = trial.calls("inner", "CrunProlog")
    told = {
        "JOB_NODELIST": "cn[01-02]", "JOB_CPUS_PER_NODE": "2,1", "TASKS_PER_NODE": "2,1", "NTASKS": "3",
        "STEP_NODELIST": "cn02", "STEP_NUM_TASKS": "1", "STEP_TASKS_PER_NODE": "1", "STEP_NUM_NODES": "1",
    }  # fmt: skip
    assert {name: prolog.environment[f"CRANE_{name}"] for name in told} == told
    if is_slurm(trial):
        told = {"JOB_NODELIST": "cn[01-02]", "TASKS_PER_NODE": "1", "NTASKS": "1", "NPROCS": "1", "NNODES": "2", "STEP_ID": "0"}
        assert {name: prolog.environment[f"SLURM_{name}"] for name in told} == told


def test_counts_follow_the_list_of_nodes(trial: ScriptedCluster) -> None:
    trial.submit("turned", "true", "-N2", "-n3", "-w", "cn02,cn01")
    trial.ended("turned")
    (call,) = trial.calls("turned", "CranectldEpilog")
    assert [call.environment[f"CRANE_JOB_{name}"] for name in ("NODELIST", "CPUS_PER_NODE")] == ["cn[02,01]", "2,1"]
    by_node = {call.node: call.environment["CRANE_CPUS_ON_NODE"] for call in trial.calls("turned", "Epilog")}
    assert by_node == {"cn02": "2", "cn01": "1"}
