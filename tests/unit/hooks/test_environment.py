"""The exact variables of every point."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.environment import (
    SCRIPT_CONTEXTS,
    TASK_PATH,
    TWIN_SCOPES,
    VARIABLES,
    allocation_environment,
    controller_hook_environment,
    launch_hook_environment,
    node_hook_environment,
    task_environment,
    task_hook_environment,
    variables_of,
)
from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import BATCH_STEP, Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.job import (
    ArrayBounds,
    EqualShares,
    ExitStatus,
    JobEnd,
    JobKind,
    JobOnNode,
    JobSpec,
    NodeShare,
    StepSpec,
    equal_shares,
)
from cranehooks.model.points import HookPoint
from cranekit.hostlist import expand

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
    group="users",
    stdout_path="out-%j-%N",
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
    layout=(EqualShares(1, 2, 4.0), EqualShares(1, 2, 3.0)),
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
    "CRANE_JOB_GROUP": "users",
    "CRANE_JOB_ACCOUNT": "physics",
    "CRANE_JOB_PARTITION": "gpu",
    "CRANE_JOB_QOS": "high",
    "CRANE_JOB_NODELIST": "cn[01-02]",
    "CRANE_JOB_NUM_NODES": "2",
    "CRANE_JOB_CPUS_PER_NODE": "4,3",
    "CRANE_TASKS_PER_NODE": "2(x2)",
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
HOOK_VARIABLES = {
    "CRANE_JOB_EXCLUSIVE": "NO",
    "CRANE_JOB_COMMENT": "urgent",
    "CRANE_JOB_STDIN": "/dev/null",
    "CRANE_JOB_STDOUT": "/home/ann/out-42-cn01",
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
        **HOOK_VARIABLES,
        "CRANE_SCRIPT_CONTEXT": "prolog_cranectld",
    }


def test_epilog() -> None:
    assert node_hook_environment(HookPoint.EPILOG, JOB, end=JobEnd(ExitStatus(1), ExitStatus(3))) == {
        **JOB_VARIABLES,
        **NODE_VARIABLES,
        **HOOK_VARIABLES,
        "CRANE_SCRIPT_CONTEXT": "epilog_craned",
        "CRANE_JOB_DERIVED_EC": "768",
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
    step = StepSpec(StepId("7"), ("hostname",), 2, {CN02: (TaskId(0), TaskId(1))})
    outer = {"HOME": "/h", "CRANE_JOB_ID": "1", "SLURM_JOB_GID": "100", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}
    environment = launch_hook_environment(HookPoint.CRUN_EPILOG, outer, JOB, step, exit_status=ExitStatus(signal=9), slurm=True)
    assert {name: value for name, value in environment.items() if not name.startswith("SLURM_")} == {
        "HOME": "/h",
        **JOB_VARIABLES,
        "CRANE_CPUS_PER_TASK": "1",
        "CRANE_STEP_ID": "7",
        "CRANE_STEP_NODELIST": "cn02",
        "CRANE_STEP_NUM_TASKS": "2",
        "CRANE_STEP_NUM_NODES": "1",
        "CRANE_STEP_TASKS_PER_NODE": "2",
        "CRANE_SCRIPT_CONTEXT": "epilog_crun",
        "CRANE_JOB_EXIT_CODE": "9",
        "CRANE_JOB_EXIT_CODE2": "0:9",
    }
    # What the surrounding job told and this table does not, stays, as in Slurm.
    assert slurm_variables(environment) == {
        "SLURM_CLUSTER_NAME": "test",
        "SLURM_JOBID": "42",
        "SLURM_JOB_ACCOUNT": "physics",
        "SLURM_JOB_CPUS_PER_NODE": "4,3",
        "SLURM_JOB_EXIT_CODE": "9",
        "SLURM_JOB_EXIT_CODE2": "0:9",
        "SLURM_JOB_GID": "100",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_NODELIST": "cn[01-02]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_QOS": "high",
        "SLURM_JOB_UID": "1000",
        "SLURM_JOB_USER": "ann",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "cn[01-02]",
        "SLURM_NPROCS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": "0",
        "SLURM_SCRIPT_CONTEXT": "epilog_srun",
        "SLURM_STEPID": "7",
        "SLURM_STEP_ID": "7",
        "SLURM_SUBMIT_DIR": "/home/ann",
        "SLURM_SUBMIT_HOST": "login1",
        "SLURM_TASKS_PER_NODE": "2",
    }


def test_the_command_of_an_allocation() -> None:
    environment = allocation_environment(JOB, slurm=True)
    assert {name: value for name, value in environment.items() if name.startswith("CRANE_")} == JOB_VARIABLES
    expected = {
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "cn[01-02]",
        "SLURM_JOB_CPUS_PER_NODE": "4,3",
        "SLURM_TASKS_PER_NODE": "2(x2)",
        "SLURM_NTASKS": "4",
    }
    assert expected.items() <= environment.items()
    assert not [name for name in environment if "STEP" in name or "CONTEXT" in name]


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
    "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_STDIN", "SLURM_JOB_STDOUT", "SLURM_JOB_EXCLUSIVE", "SLURM_JOB_OVERSUBSCRIBE",
}  # fmt: skip


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("SLURM")}


def test_slurm_twins_of_a_node_hook() -> None:
    environment = slurm_variables(node_hook_environment(HookPoint.EPILOG, JOB, end=JobEnd(ExitStatus(0, 9)), slurm=True))
    assert set(environment) == SLURM_OF_EVERY_HOOK | {
        "SLURM_UID", "SLURMD_NODENAME", "SLURM_NODEID", "SLURM_JOB_NTASKS", "SLURM_JOB_EXIT_CODE", "SLURM_JOB_EXIT_CODE2",
        "SLURM_JOB_DERIVED_EC",
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
    assert set(environment) == SLURM_OF_EVERY_HOOK | {"SLURM_JOB_NAME", "SLURM_JOB_GROUP"}
    assert environment["SLURM_SCRIPT_CONTEXT"] == "prolog_slurmctld"
    assert environment["SLURM_JOB_GROUP"] == "users"


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


GPU_JOB = replace(JOB, share=replace(JOB.share, gres="gpu:a100:2", devices=(HeldDevices("gpu", (1, 3)),)))
VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")


@pytest.mark.parametrize("point", [HookPoint.PROLOG, HookPoint.EPILOG])
def test_node_hooks_are_told_which_gpus_of_the_node_the_job_holds(point: HookPoint) -> None:
    environment = node_hook_environment(point, GPU_JOB, slurm=True)
    names = ("CRANE_JOB_GPUS", "SLURM_JOB_GPUS", *VISIBLE)
    assert {environment[name] for name in names} == {"1,3"}
    assert environment["CRANE_GPUS"] == "2"
    assert "SLURM_STEP_GPUS" not in environment
    assert not {"CRANE_JOB_GPUS", *VISIBLE} & controller_hook_environment(HookPoint.CRANECTLD_PROLOG, GPU_JOB).keys()


@pytest.mark.parametrize(("constrains", "seen"), [(False, "1,3"), (True, "0,1")])
def test_tasks_count_the_gpus_that_they_can_open(constrains: bool, seen: str) -> None:
    step = replace(STEP, environment={"CUDA_VISIBLE_DEVICES": "7"})
    environment = task_environment(GPU_JOB, step, TaskId(0), slurm=True, constrains_devices=constrains)
    assert {environment[name] for name in VISIBLE} == {seen}
    assert {environment[name] for name in ("CRANE_JOB_GPUS", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")} == {"1,3"}


def test_what_a_user_says_of_devices_stays_where_the_job_holds_none() -> None:
    step = replace(STEP, environment={"CUDA_VISIBLE_DEVICES": "7"})
    environment = task_environment(JOB, step, TaskId(0), slurm=True)
    assert environment["CUDA_VISIBLE_DEVICES"] == "7"
    assert not {"CRANE_JOB_GPUS", "ZE_AFFINITY_MASK"} & environment.keys()


def test_array_elements() -> None:
    spec = replace(SPEC, array_job_id=JobId(40), array_task_id=0, array=ArrayBounds.of([0, 3, 6]))
    job = replace(JOB, spec=spec)
    told = {"JOB_ID": "40", "TASK_ID": "0", "TASK_COUNT": "3", "TASK_MIN": "0", "TASK_MAX": "6", "TASK_STEP": "3"}
    environment = controller_hook_environment(HookPoint.CRANECTLD_PROLOG, job, slurm=True)
    assert {name: environment[f"CRANE_ARRAY_{name}"] for name in told} == told
    assert {name: environment[f"SLURM_ARRAY_{name}"] for name in told} == told
    # As Slurm: its node hooks know nothing of the array; which element it is is told all the same.
    environment = node_hook_environment(HookPoint.PROLOG, job, slurm=True)
    assert {name for name in environment if name.startswith("SLURM_ARRAY_")} == {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"}


@pytest.mark.parametrize(
    ("indexes", "bounds"),
    [
        ((7,), (1, 7, 7, 1)),
        ((9, 3, 6), (3, 3, 9, 3)),
        ((1, 2, 7), (3, 1, 7, 1)),
        ((0, 1, 2), (3, 0, 2, 1)),
        ((4, 4), (1, 4, 4, 1)),
    ],
)
def test_the_bounds_of_an_array(indexes: tuple[int, ...], bounds: tuple[int, ...]) -> None:
    assert ArrayBounds.of(indexes) == ArrayBounds(*bounds)


def test_output_files_are_those_of_a_batch_job() -> None:
    job = replace(JOB, spec=replace(SPEC, stderr_path="/logs/%x.err"))
    environment = node_hook_environment(HookPoint.PROLOG, job, slurm=True)
    assert environment["SLURM_JOB_STDERR"] == environment["CRANE_JOB_STDERR"] == "/logs/train.err"
    environment = node_hook_environment(HookPoint.PROLOG, replace(JOB, spec=replace(SPEC, kind=JobKind.RUN)), slurm=True)
    assert not [name for name in environment if "_STD" in name]


@pytest.mark.parametrize(("exclusive", "words"), [(True, ["NODE", "NODE", "NO"]), (False, ["NO", "NO", "OK"])])
def test_whether_others_may_be_on_the_nodes(exclusive: bool, words: list[str]) -> None:
    environment = node_hook_environment(HookPoint.PROLOG, replace(JOB, spec=replace(SPEC, exclusive=exclusive)), slurm=True)
    names = ("CRANE_JOB_EXCLUSIVE", "SLURM_JOB_EXCLUSIVE", "SLURM_JOB_OVERSUBSCRIBE")
    assert [environment[name] for name in names] == words


def test_slurm_names_have_whole_cpus() -> None:
    job = replace(
        JOB, share=replace(JOB.share, cpus=0.5), layout=(EqualShares(2, 1, 0.5), EqualShares(1, 1, 1.0), EqualShares(1, 3, 1.01))
    )
    environment = task_environment(job, replace(STEP, cpus_per_task=0.5), TaskId(0), slurm=True)
    names = ("CPUS_ON_NODE", "CPUS_PER_TASK", "JOB_CPUS_PER_NODE")
    assert [environment[f"CRANE_{name}"] for name in names] == ["0.5", "0.5", "0.5(x2),1,1.01"]
    assert [environment[f"SLURM_{name}"] for name in names] == ["1", "1", "1(x3),2"]


def test_slurm_counts_the_tasks_of_the_step_in_a_step_and_of_the_job_elsewhere() -> None:
    step = StepSpec(StepId("0"), ("a",), 3, {CN01: (TaskId(0), TaskId(1)), CN02: (TaskId(2),)})
    batch = StepSpec(BATCH_STEP, (), 1, {CN01: (TaskId(0),)})
    names = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_TASKS_PER_NODE", "CRANE_NTASKS", "CRANE_TASKS_PER_NODE")
    environment = task_environment(JOB, step, TaskId(0), slurm=True)
    assert [environment[name] for name in names] == ["3", "3", "2,1", "4", "2(x2)"]
    environment = task_environment(JOB, batch, TaskId(0), slurm=True)
    assert [environment[name] for name in names] == ["4", "4", "2(x2)", "4", "2(x2)"]


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
    assert task_hook_environment(point, task, task_pid=77, slurm=True) == {
        **task,
        "CRANE_SCRIPT_CONTEXT": word,
        "SLURM_SCRIPT_CONTEXT": word,
        "CRANE_TASK_PID": "77",
        "SLURM_TASK_PID": "77",
    }
    assert task_hook_environment(point, {"SLURM_JOB_ID": "7"}) == {"SLURM_JOB_ID": "7", "CRANE_SCRIPT_CONTEXT": word}


TEXT = st.text(max_size=30)
COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def unfolded(text: str) -> list[int]:
    """As scripts read it: `4(x2),8`."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part)
        assert match, text
        assert match[2] is None or int(match[2]) > 1
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


@given(COUNTS, COUNTS)
def test_folded_counts_are_the_counts_again(cpus: list[int], tasks: list[int]) -> None:
    held = [
        NodeShare(NodeName(f"n{number}"), count, cpu, 0) for number, (cpu, count) in enumerate(zip(cpus, tasks, strict=False))
    ]
    job = replace(JOB, nodes=tuple(share.node for share in held), layout=equal_shares(held))
    environment = controller_hook_environment(HookPoint.CRANECTLD_PROLOG, job, slurm=True)
    assert unfolded(environment["SLURM_JOB_CPUS_PER_NODE"]) == [share.cpus for share in held]
    assert unfolded(environment["CRANE_TASKS_PER_NODE"]) == [share.ntasks for share in held]
    for text in (environment["SLURM_JOB_CPUS_PER_NODE"], environment["CRANE_TASKS_PER_NODE"]):
        plain = [part.partition("(")[0] for part in text.split(",")]
        assert all(before != after for before, after in pairwise(plain))


@given(st.lists(st.from_regex(r"[a-z]{1,3}-?[0-9]{1,3}(-ib)?", fullmatch=True), min_size=1, max_size=30, unique=True))
def test_the_list_of_nodes_is_all_of_them(names: list[str]) -> None:
    job = replace(JOB, nodes=tuple(map(NodeName, names)))
    environment = controller_hook_environment(HookPoint.CRANECTLD_PROLOG, job, slurm=True)
    # In their order, which the counts per node follow.
    assert expand(environment["SLURM_JOB_NODELIST"]) == names
    assert environment["SLURM_JOB_NUM_NODES"] == str(len(names))


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
