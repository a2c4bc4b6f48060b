"""The exact variables of every point."""

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.environment import (
    SCRIPT_CONTEXTS,
    TASK_PATH,
    TWIN_SCOPES,
    VARIABLES,
    controller_hook_environment,
    launch_hook_environment,
    node_hook_environment,
    task_environment,
    task_hook_environment,
    variables_of,
)
from cranehooks.model.ids import BATCH_STEP, Attempt, JobId, NodeName, StepId, StepKey, TaskId
from cranehooks.model.job import ExitStatus, JobKind, JobOnNode, JobSpec, NodeShare, StepSpec
from cranehooks.model.points import HookPoint

CN01, CN02 = NodeName("cn01"), NodeName("cn02")
SPEC = JobSpec(
    kind=JobKind.BATCH,
    uid=1000,
    gid=100,
    user="ann",
    name="train",
    account="physics",
    partition="gpu",
    qos="high",
    ntasks=4,
    ntasks_per_node=2,
    cpus_per_task=1.5,
    cwd="/home/ann",
    environment={"PATH": "/home/ann/bin", "LD_PRELOAD": "/home/ann/evil.so", "HOME": "/home/ann", "BASH_ENV": "/home/ann/x"},
    submit_host="login1",
    comment="urgent",
)
JOB = JobOnNode(
    JobId(42),
    Attempt(2),
    SPEC,
    (CN01, CN02),
    NodeShare(CN02, 2, 3.0, 6 << 30, "gpu:a100:2,nic:1"),
    "test",
    start_time=1000.25,
    end_time=4600.25,
    restart_count=1,
)
STEP = StepSpec(StepId("0"), ("hostname",), 4, {CN01: (TaskId(0), TaskId(1)), CN02: (TaskId(2), TaskId(3))})

JOB_VARIABLES = {
    "CRANE_JOB_ID": "42",
    "CRANE_JOB_ATTEMPT": "2",
    "CRANE_JOB_RESTART_COUNT": "1",
    "CRANE_JOB_NAME": "train",
    "CRANE_JOB_USER": "ann",
    "CRANE_JOB_UID": "1000",
    "CRANE_JOB_GID": "100",
    "CRANE_JOB_ACCOUNT": "physics",
    "CRANE_JOB_PARTITION": "gpu",
    "CRANE_JOB_QOS": "high",
    "CRANE_JOB_NODELIST": "cn[01-02]",
    "CRANE_JOB_NUM_NODES": "2",
    "CRANE_JOB_START_TIME": "1000",
    "CRANE_JOB_END_TIME": "4600",
    "CRANE_JOB_WORK_DIR": "/home/ann",
    "CRANE_SUBMIT_DIR": "/home/ann",
    "CRANE_SUBMIT_HOST": "login1",
    "CRANE_CLUSTER_NAME": "test",
    "CRANE_NTASKS": "4",
    "CRANE_NTASKS_PER_NODE": "2",
    "CRANE_CPUS_PER_TASK": "1.5",
}
NODE_VARIABLES = {
    "CRANE_NODENAME": "cn02",
    "CRANE_NODEID": "1",
    "CRANE_CPUS_ON_NODE": "3",
    "CRANE_MEM_PER_NODE": "6144M",
    "CRANE_MEM_PER_CPU": "2048.00",
    "CRANE_GPUS": "2",
}


def test_cranectld_prolog() -> None:
    assert controller_hook_environment(HookPoint.CRANECTLD_PROLOG, JOB) == {
        **JOB_VARIABLES,
        "CRANE_JOB_COMMENT": "urgent",
        "CRANE_SCRIPT_CONTEXT": "prolog_cranectld",
    }


def test_epilog() -> None:
    assert node_hook_environment(HookPoint.EPILOG, JOB, exit_status=ExitStatus(1)) == {
        **JOB_VARIABLES,
        **NODE_VARIABLES,
        "CRANE_JOB_COMMENT": "urgent",
        "CRANE_SCRIPT_CONTEXT": "epilog_craned",
        "CRANE_JOB_EXIT_CODE": "256",
        "CRANE_JOB_EXIT_CODE2": "1:0",
    }


def test_task() -> None:
    assert task_environment(JOB, STEP, TaskId(3), login={"HOME": "/other", "USER": "ann"}) == {
        **SPEC.environment,
        "USER": "ann",
        **JOB_VARIABLES,
        **NODE_VARIABLES,
        "CRANE_CPUS_PER_TASK": "1",
        "CRANE_STEP_ID": "0",
        "CRANE_STEP_NODELIST": "cn[01-02]",
        "CRANE_STEP_NUM_TASKS": "4",
        "CRANE_STEP_NUM_NODES": "2",
        "CRANE_STEP_TASKS_PER_NODE": "2(x2)",
        "CRANE_PROCID": "3",
        "CRANE_LOCALID": "1",
        "CRANE_GTIDS": "2,3",
    }


def test_crun_epilog() -> None:
    key = StepKey(JobId(42), Attempt(2), StepId("7"))
    assert launch_hook_environment(
        HookPoint.CRUN_EPILOG, {"HOME": "/h"}, key, (CN01, CN02), step_nodes=(CN02,), ntasks=2, exit_status=ExitStatus(signal=9)
    ) == {
        "HOME": "/h",
        "CRANE_JOB_ID": "42",
        "CRANE_JOB_ATTEMPT": "2",
        "CRANE_JOB_NODELIST": "cn[01-02]",
        "CRANE_JOB_NUM_NODES": "2",
        "CRANE_STEP_ID": "7",
        "CRANE_STEP_NODELIST": "cn02",
        "CRANE_STEP_NUM_TASKS": "2",
        "CRANE_SCRIPT_CONTEXT": "epilog_crun",
        "CRANE_JOB_EXIT_CODE": "9",
        "CRANE_JOB_EXIT_CODE2": "0:9",
    }


@pytest.mark.parametrize("point", [HookPoint.CRANECTLD_PROLOG, HookPoint.CRANECTLD_EPILOG, HookPoint.PROLOG, HookPoint.EPILOG])
@pytest.mark.parametrize("slurm", [False, True])
def test_nothing_of_the_user_reaches_a_hook_of_another_user(point: HookPoint, slurm: bool) -> None:
    build = controller_hook_environment if "CRANECTLD" in point.name else node_hook_environment
    environment = build(point, JOB, slurm=slurm)
    assert not {"PATH", "HOME", "USER", "LD_PRELOAD", "BASH_ENV"} & environment.keys()
    assert all(name.startswith(("CRANE_", "SLURM_", "SLURMD_")) for name in environment)
    assert any(name.startswith("SLURM_") for name in environment) is slurm
    # The same whatever the user's environment holds.
    assert build(point, replace(JOB, spec=replace(SPEC, environment={})), slurm=slurm) == environment


SLURM_OF_EVERY_HOOK = {
    "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_RESTART_COUNT", "SLURM_JOB_USER", "SLURM_JOB_UID", "SLURM_JOB_GID", "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_PARTITION", "SLURM_JOB_QOS", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_JOB_START_TIME",
    "SLURM_JOB_END_TIME", "SLURM_JOB_WORK_DIR", "SLURM_WORKING_DIR", "SLURM_CLUSTER_NAME", "SLURM_JOB_COMMENT", "SLURM_SCRIPT_CONTEXT",
}  # fmt: skip


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("SLURM")}


def test_slurm_twins_of_a_node_hook() -> None:
    environment = slurm_variables(node_hook_environment(HookPoint.EPILOG, JOB, exit_status=ExitStatus(0, 9), slurm=True))
    assert set(environment) == SLURM_OF_EVERY_HOOK | {
        "SLURM_UID", "SLURMD_NODENAME", "SLURM_NODEID", "SLURM_JOB_NTASKS", "SLURM_JOB_EXIT_CODE", "SLURM_JOB_EXIT_CODE2",
    }  # fmt: skip
    expected = {
        "SLURM_JOBID": "42",
        "SLURM_UID": "1000",
        "SLURM_NODELIST": "cn[01-02]",
        "SLURMD_NODENAME": "cn02",
        "SLURM_SCRIPT_CONTEXT": "epilog_slurmd",
        "SLURM_JOB_EXIT_CODE": "9",
        "SLURM_JOB_EXIT_CODE2": "0:9",
    }
    assert expected.items() <= environment.items()


def test_slurm_twins_of_a_controller_hook() -> None:
    environment = slurm_variables(controller_hook_environment(HookPoint.CRANECTLD_PROLOG, JOB, slurm=True))
    assert set(environment) == SLURM_OF_EVERY_HOOK | {"SLURM_JOB_NAME"}
    assert environment["SLURM_SCRIPT_CONTEXT"] == "prolog_slurmctld"


def test_slurm_twins_of_a_task() -> None:
    environment = task_environment(JOB, STEP, TaskId(3), slurm=True)
    assert not {"SLURM_JOB_WORK_DIR", "SLURM_JOB_RESTART_COUNT", "SLURM_UID"} & environment.keys()
    expected = {
        "SLURM_MEM_PER_NODE": "6144",
        "SLURM_NTASKS": "4",
        "SLURM_STEP_NODELIST": "cn[01-02]",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_TASKS_PER_NODE": "2(x2)",
    }
    assert expected.items() <= environment.items()


@pytest.mark.parametrize(
    ("counts", "text"), [([1], "1"), ([2, 2], "2(x2)"), ([4, 4, 8], "4(x2),8"), ([1, 2, 1], "1,2,1"), ([3, 1, 1, 1], "3,1(x3)")]
)
def test_counts_per_node_are_folded(counts: list[int], text: str) -> None:
    tasks = {NodeName(f"n{number}"): tuple(TaskId(task) for task in range(count)) for number, count in enumerate(counts)}
    environment = task_environment(JOB, replace(STEP, tasks_per_node=tasks), TaskId(0))
    assert environment["CRANE_STEP_TASKS_PER_NODE"] == text
    assert environment["CRANE_STEP_NUM_NODES"] == str(len(counts))


def test_slurm_knows_no_step_of_the_batch_script() -> None:
    environment = task_environment(JOB, StepSpec(BATCH_STEP, (), 1, {CN02: (TaskId(0),)}), TaskId(0), slurm=True)
    assert not [name for name in environment if name.startswith("SLURM_STEP")]
    assert environment["CRANE_STEP_NODELIST"] == "cn02"


def test_twins_are_restricted_where_their_variables_are() -> None:
    scopes = {twin: variable.scopes for variable in VARIABLES for twin in variable.twins}
    for name, restricted in TWIN_SCOPES.items():
        assert restricted < scopes[name], name


def test_restarts_count_on_after_a_release() -> None:
    released = replace(JOB, attempt=Attempt(3), restart_count=0)
    assert node_hook_environment(HookPoint.PROLOG, released)["CRANE_JOB_RESTART_COUNT"] == "2"


def test_tasks_learn_from_a_slurm_name_that_they_run_again() -> None:
    assert task_environment(JOB, STEP, TaskId(0), slurm=True)["SLURM_RESTART_COUNT"] == "1"
    first = replace(JOB, attempt=Attempt(1), restart_count=0)
    assert "SLURM_RESTART_COUNT" not in task_environment(first, STEP, TaskId(0), slurm=True)
    assert node_hook_environment(HookPoint.PROLOG, first, slurm=True)["SLURM_JOB_RESTART_COUNT"] == "0"


def test_what_is_not_known_is_not_set() -> None:
    bare = JobOnNode(JobId(1), Attempt(1), JobSpec(JobKind.RUN, 1, 1, "u"), (CN01,), NodeShare(CN01, 1, 1.0, 0), "")
    environment = node_hook_environment(HookPoint.EPILOG, bare)
    absent = {
        "CRANE_JOB_NAME",
        "CRANE_GPUS",
        "CRANE_MEM_PER_NODE",
        "CRANE_MEM_PER_CPU",
        "CRANE_JOB_END_TIME",
        "CRANE_ARRAY_JOB_ID",
    }
    assert not (absent | {"CRANE_JOB_EXIT_CODE", "CRANE_NTASKS_PER_NODE", "CRANE_CLUSTER_NAME"}) & environment.keys()
    assert "" not in environment.values()


def test_array_elements() -> None:
    job = replace(JOB, spec=replace(SPEC, array_job_id=JobId(40), array_task_id=0))
    environment = controller_hook_environment(HookPoint.CRANECTLD_PROLOG, job, slurm=True)
    names = ("CRANE_ARRAY_JOB_ID", "CRANE_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_ID")
    assert [environment[name] for name in names] == ["40", "0", "0"]


def test_the_batch_step() -> None:
    batch = StepSpec(BATCH_STEP, (), 1, {CN02: (TaskId(0),)})
    environment = task_environment(JOB, batch, TaskId(0), slurm=True)
    assert environment["CRANE_STEP_ID"] == "batch"
    assert "SLURM_STEP_ID" not in environment
    assert environment["LD_PRELOAD"] == "/home/ann/evil.so"


def test_a_step_brings_its_own_environment() -> None:
    environment = task_environment(JOB, replace(STEP, environment={"A": "1"}), TaskId(2))
    assert environment["A"] == "1"
    assert "LD_PRELOAD" not in environment
    assert environment["PATH"] == TASK_PATH


def test_variables_of_an_outer_job_do_not_leak() -> None:
    outer = {"CRANE_ARRAY_TASK_ID": "9", "CRANE_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "9", "A": "1"}
    step = replace(STEP, environment=outer)
    assert "SLURM_ARRAY_TASK_ID" not in task_environment(JOB, step, TaskId(2), slurm=True)
    environment = task_environment(JOB, step, TaskId(2))
    assert "CRANE_ARRAY_TASK_ID" not in environment
    assert environment["CRANE_JOB_ID"] == "42"
    assert environment["SLURM_ARRAY_TASK_ID"] == "9"


@pytest.mark.parametrize(
    "point", [HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_PROLOG, HookPoint.STEP_TASK_EPILOG, HookPoint.TASK_EPILOG]
)
def test_task_hooks_see_the_task_environment(point: HookPoint) -> None:
    task = {"HOME": "/h", "A": "exported", "SLURM_JOB_ID": "42"}
    word = "prolog_task" if "PROLOG" in point.name else "epilog_task"
    assert task_hook_environment(point, task, task_pid=77) == {
        **task,
        "CRANE_SCRIPT_CONTEXT": word,
        "SLURM_SCRIPT_CONTEXT": word,
        "CRANE_TASK_PID": "77",
        "SLURM_TASK_PID": "77",
    }
    assert task_hook_environment(point, {}) == {"CRANE_SCRIPT_CONTEXT": word}


TEXT = st.text(max_size=30)


@given(TEXT, TEXT, TEXT)
def test_words_of_users_are_one_line(name: str, comment: str, account: str) -> None:
    job = replace(JOB, spec=replace(SPEC, name=name, comment=comment, account=account))
    for value in node_hook_environment(HookPoint.PROLOG, job, slurm=True).values():
        assert not re.search(r"[\x00-\x1f\x7f]", value)


@given(st.dictionaries(TEXT, TEXT))
def test_a_task_environment_is_one_that_the_kernel_takes(environment: dict[str, str]) -> None:
    built = task_environment(replace(JOB, spec=replace(SPEC, environment=environment)), STEP, TaskId(2))
    assert all(name and "=" not in name and "\0" not in name and "\0" not in value for name, value in built.items())


def test_the_table_is_consistent() -> None:
    names = [name for variable in VARIABLES for name in (variable.name, *variable.twins)]
    assert len(names) == len(set(names))
    assert SCRIPT_CONTEXTS.keys() == set(HookPoint)
    assert all(variables_of(point) for point in HookPoint)
