"""Whatever the model can say comes back from the wire unchanged, through real bytes."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from crane.hooks.v1 import hook_pb2, job_pb2
from cranehooks import wire
from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.job import (
    SOFT_LIMITS,
    ArrayBounds,
    EqualShares,
    ExitStatus,
    Inherited,
    JobKind,
    JobOnNode,
    JobSpec,
    NodeShare,
    StdioMode,
    StepSpec,
)
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, Limits, Usage
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, Leftover, ScriptRun
from cranehooks.profiles import TaskAction
from cranekit.errors import ErrorCode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
POSITIVE = st.integers(1, 2**31)
# Whole nanoseconds: the precision of the wire. The epoch's floats are coarser than that, and so exact.
MOMENT = st.integers(10**9, 4 * 10**9).flatmap(lambda whole: st.floats(0, 1, exclude_max=True).map(lambda part: whole + part))
SPAN = st.integers(0, 10**15).map(lambda nanos: nanos / 10**9)
NODES = st.from_regex(r"[a-z]{1,3}[0-9]{0,3}", fullmatch=True).map(NodeName)
NODE_TUPLES = st.lists(NODES, max_size=3, unique=True).map(tuple)
ENVIRONMENTS = st.dictionaries(TEXT, TEXT, max_size=3)
M = TypeVar("M", bound=Message)
CPUS = st.floats(0.01, 1024)

OUTCOMES = st.builds(Outcome, st.sampled_from(OutcomeKind), INT32, TEXT)
SCRIPT_RUNS = st.builds(
    ScriptRun,
    path=TEXT,
    outcome=OUTCOMES,
    started_at=MOMENT,
    duration_s=SPAN,
    sha256=TEXT,
    output=TEXT,
    output_bytes=UINT64,
    leftovers=st.lists(st.builds(Leftover, INT32, TEXT), max_size=2).map(tuple),
    kept=st.lists(st.builds(Leftover, INT32, TEXT), max_size=2).map(tuple),
)
KEYS = st.builds(
    HookKey,
    st.sampled_from(HookPoint),
    UINT64.map(JobId),
    UINT32.map(Attempt),
    st.none() | NODES,
    st.none() | st.sampled_from([StepId("batch"), StepId("0"), StepId("17")]),
    st.none() | st.integers(0, 2**31 - 1).map(TaskId),
)
HOOK_RUNS = st.builds(
    HookRun,
    KEYS,
    user=TEXT,
    started_at=MOMENT,
    duration_s=SPAN,
    outcome=OUTCOMES,
    scripts=st.lists(SCRIPT_RUNS, max_size=2).map(tuple),
    queue_wait_s=SPAN,
)
INHERITED = st.builds(
    Inherited,
    umask=st.none() | st.integers(0, 0o777),
    soft_limits=st.dictionaries(st.sampled_from(SOFT_LIMITS), UINT64, max_size=3),
)
JOB_SPECS = st.builds(
    JobSpec,
    inherited=st.none() | INHERITED,
    kind=st.sampled_from(JobKind),
    uid=UINT32,
    gid=UINT32,
    user=TEXT,
    groups=st.lists(UINT32, max_size=3).map(tuple),
    name=TEXT,
    account=TEXT,
    partition=TEXT,
    qos=TEXT,
    num_nodes=POSITIVE,
    ntasks=POSITIVE,
    ntasks_per_node=UINT32,
    cpus_per_task=CPUS,
    memory_per_node_bytes=UINT64,
    gres=TEXT,
    nodelist=NODE_TUPLES,
    exclude=NODE_TUPLES,
    time_limit_s=st.none() | SPAN,
    cwd=TEXT.map(lambda text: "/" + text),
    environment=ENVIRONMENTS,
    script=TEXT,
    script_name=TEXT,
    script_arguments=st.lists(TEXT, max_size=2).map(tuple),
    stdout_path=TEXT,
    stderr_path=TEXT,
    requeue=st.booleans(),
    submit_host=TEXT,
    comment=TEXT,
    array_job_id=st.none() | UINT64.map(JobId),
    array_task_id=st.none() | UINT32,
    memory_per_cpu_bytes=UINT64,
    gpus=TEXT,
    exclusive=st.booleans(),
    cpus_requested=st.booleans(),
    group=TEXT,
    array=st.none() | st.builds(ArrayBounds, UINT32, UINT32, UINT32, UINT32),
)
DEVICES = st.lists(st.builds(HeldDevices, TEXT, st.lists(UINT32, max_size=3).map(tuple)), max_size=2).map(tuple)
SHARES = st.builds(NodeShare, NODES, UINT32, CPUS, UINT64, TEXT, DEVICES)
USAGES = st.builds(Usage, st.none() | st.floats(0, 1e9), st.none() | UINT64, st.none() | UINT32)
DENIED = st.lists(st.builds(Device, st.sampled_from(DeviceKind), UINT32, UINT32), min_size=1, max_size=2).map(tuple)
LIMITS = st.builds(
    Limits,
    memory_bytes=st.none() | POSITIVE,
    swap_bytes=st.none() | UINT64,
    cpu_cores=st.none() | CPUS,
    pids=st.none() | POSITIVE,
    cpuset=st.none() | st.just("0-3,8"),
    devices=st.none() | st.builds(DeviceRules, DENIED),
    measures_memory=st.booleans(),
    kills_all=st.booleans(),
)
JOBS_ON_NODE = st.builds(
    JobOnNode,
    job_id=UINT64.map(JobId),
    attempt=UINT32.map(Attempt),
    spec=JOB_SPECS,
    nodes=NODE_TUPLES,
    share=SHARES,
    cluster=TEXT,
    start_time=st.just(0.0) | MOMENT,
    end_time=st.just(0.0) | MOMENT,
    restart_count=UINT32,
    layout=st.lists(st.builds(EqualShares, UINT32, UINT32, CPUS), max_size=3).map(tuple),
)
STEP_SPECS = st.builds(
    StepSpec,
    inherited=st.none() | INHERITED,
    step_id=st.sampled_from([StepId("batch"), StepId("0")]),
    argv=st.lists(TEXT, max_size=3).map(tuple),
    ntasks=UINT32,
    tasks_per_node=st.dictionaries(NODES, st.lists(UINT32, max_size=3).map(tuple), max_size=3),
    cpus_per_task=CPUS,
    environment=ENVIRONMENTS,
    cwd=TEXT,
    stdio=st.sampled_from(StdioMode),
    task_prolog=TEXT,
    task_epilog=TEXT,
    name=TEXT,
    nodelist=NODE_TUPLES,
    num_nodes=UINT32,
)


def through_bytes(message: M) -> M:
    return type(message).FromString(message.SerializeToString())


@given(OUTCOMES)
def test_outcome(value: Outcome) -> None:
    assert wire.outcome_from_wire(through_bytes(wire.outcome_to_wire(value))) == value


@given(SCRIPT_RUNS)
def test_script_run(value: ScriptRun) -> None:
    assert wire.script_run_from_wire(through_bytes(wire.script_run_to_wire(value))) == value


@given(HOOK_RUNS)
def test_hook_run(value: HookRun) -> None:
    message = through_bytes(wire.hook_run_to_wire(value))
    assert message.run_id == value.key.run_id
    assert wire.hook_run_from_wire(message) == value


@given(JOB_SPECS)
def test_job_spec(value: JobSpec) -> None:
    assert wire.job_spec_from_wire(through_bytes(wire.job_spec_to_wire(value))) == value


@given(JOBS_ON_NODE)
def test_job_on_node(value: JobOnNode) -> None:
    assert wire.job_on_node_from_wire(through_bytes(wire.job_on_node_to_wire(value))) == value


@given(STEP_SPECS)
def test_step_spec(value: StepSpec) -> None:
    assert wire.step_spec_from_wire(through_bytes(wire.step_spec_to_wire(value))) == value


@given(SHARES)
def test_node_share(value: NodeShare) -> None:
    assert wire.node_share_from_wire(through_bytes(wire.node_share_to_wire(value))) == value


@given(USAGES)
def test_resource_usage(value: Usage) -> None:
    assert wire.usage_from_wire(through_bytes(wire.usage_to_wire(value))) == value


@given(LIMITS)
def test_job_limits(value: Limits) -> None:
    assert wire.job_limits_from_wire(through_bytes(wire.job_limits_to_wire(value))) == value


@pytest.mark.parametrize(("given_cpus", "requested"), [(0.0, False), (2.0, True)])
def test_cpus_that_are_given_are_asked_for(given_cpus: float, requested: bool) -> None:
    spec = wire.job_spec_from_wire(job_pb2.JobSpec(kind=job_pb2.JOB_KIND_BATCH, cpus_per_task=given_cpus))
    assert spec.cpus_requested is requested
    assert wire.job_spec_from_wire(through_bytes(wire.job_spec_to_wire(spec))) == spec


@given(st.builds(ExitStatus, UINT32, UINT32))
def test_exit_status(value: ExitStatus) -> None:
    assert wire.exit_status_from_wire(through_bytes(wire.exit_status_to_wire(value))) == value


@given(MOMENT)
def test_a_moment_keeps_its_float(value: float) -> None:
    assert wire.seconds(wire.timestamp(value)) == value


@given(st.floats(-(10**6), 10**6))
def test_a_duration_keeps_nanoseconds_and_its_sign(value: float) -> None:
    message = wire.duration(value)
    assert message.seconds * message.nanos >= 0
    assert wire.seconds(message) == pytest.approx(value, abs=1e-9)


def test_a_fraction_that_rounds_to_a_whole_second() -> None:
    message = wire.timestamp(1 - 1e-12)
    assert (message.seconds, message.nanos) == (1, 0)


def test_every_enum_member_has_its_value() -> None:
    assert wire.hook_point_to_wire(HookPoint.STEP_TASK_EPILOG) == hook_pb2.HOOK_POINT_STEP_TASK_EPILOG
    assert {wire.hook_point_from_wire(wire.hook_point_to_wire(point)) for point in HookPoint} == set(HookPoint)
    assert {wire.job_kind_from_wire(wire.job_kind_to_wire(kind)) for kind in JobKind} == set(JobKind)
    assert {wire.stdio_mode_from_wire(wire.stdio_mode_to_wire(mode)) for mode in StdioMode} == set(StdioMode)
    assert {wire.task_action_from_wire(wire.task_action_to_wire(action)) for action in TaskAction} == set(TaskAction)


@pytest.mark.parametrize(
    "read", [wire.hook_point_from_wire, wire.job_kind_from_wire, wire.stdio_mode_from_wire, wire.task_action_from_wire]
)
@pytest.mark.parametrize("value", [0, 99])
def test_a_value_without_meaning_is_refused(read: Callable[[int], object], value: int) -> None:
    with pytest.raises(wire.WireError, match=str(value)):
        read(value)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (job_pb2.JobOnNode(job_id=42, share=job_pb2.NodeShare()), "spec"),
        (job_pb2.JobOnNode(job_id=42, spec=job_pb2.JobSpec(kind=job_pb2.JOB_KIND_RUN)), "share"),
    ],
)
def test_a_job_without_a_part_is_refused(message: job_pb2.JobOnNode, part: str) -> None:
    with pytest.raises(wire.WireError, match=f"job 42 on the wire has no {part}"):
        wire.job_on_node_from_wire(message)


def test_documented_defaults_are_filled_in() -> None:
    spec = wire.job_spec_from_wire(job_pb2.JobSpec(kind=job_pb2.JOB_KIND_BATCH, num_nodes=3, ntasks_per_node=2))
    assert (spec.ntasks, spec.cpus_per_task, spec.cwd, spec.time_limit_s) == (6, 1.0, "/", None)
    assert wire.job_spec_from_wire(job_pb2.JobSpec(kind=job_pb2.JOB_KIND_BATCH)).num_nodes == 1
    assert wire.step_spec_from_wire(job_pb2.StepSpec()).stdio is StdioMode.ATTACHED


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("cn01", ("cn01",)), ("cn[01-03,7], gpu1", ("cn01", "cn02", "cn03", "cn7", "gpu1"))],
)
def test_nodelists_are_expanded(text: str, names: tuple[str, ...]) -> None:
    message = job_pb2.JobSpec(kind=job_pb2.JOB_KIND_RUN, nodelist=text, exclude=text, ntasks_per_node=2)
    spec = wire.job_spec_from_wire(message)
    assert spec.nodelist == spec.exclude == names
    assert spec.ntasks == 2 * max(len(names), 1)
    assert wire.step_spec_from_wire(job_pb2.StepSpec(nodelist=text)).nodelist == names


def test_a_bad_nodelist_is_an_invalid_argument_that_names_its_field() -> None:
    with pytest.raises(wire.WireError, match=r"exclude: .* at column") as raised:
        wire.job_spec_from_wire(job_pb2.JobSpec(kind=job_pb2.JOB_KIND_RUN, exclude="cn[1-"))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_no_field_of_the_model_is_forgotten() -> None:
    # A field added to one side only would be lost silently: every value of the strategies above differs from the default somewhere.
    pairs: list[tuple[type[object], type[Message], set[str]]] = [
        (JobSpec, job_pb2.JobSpec, {"time_limit_s"}),
        (JobOnNode, job_pb2.JobOnNode, set()),
        (StepSpec, job_pb2.StepSpec, {"tasks_per_node"}),
        (NodeShare, job_pb2.NodeShare, set()),
    ]
    for model, message, renamed in pairs:
        fields = {field.name for field in dataclasses.fields(model)}  # type: ignore[arg-type]  # all of them are dataclasses
        assert fields - renamed <= {field.name for field in message.DESCRIPTOR.fields}
