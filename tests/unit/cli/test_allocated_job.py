"""What crun and calloc make of the controller's answers about a job and its step."""

from google.protobuf.json_format import MessageToDict

from crane.hooks.v1 import job_pb2 as pb
from cranecli.allocated_job import NOWHERE, job_of, step_of
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId
from cranehooks.model.job import ArrayBounds, EqualShares, JobKind, JobOnNode, JobSpec, StepSpec
from cranehooks.wire import duration, job_spec_to_wire, step_spec_to_wire, timestamp

CN01, CN02, CN03 = NodeName("cn01"), NodeName("cn02"), NodeName("cn03")
SPEC = JobSpec(
    kind=JobKind.BATCH,
    uid=1000,
    gid=100,
    user="ann",
    group="users",
    name="train",
    account="physics",
    partition="gpu",
    qos="high",
    num_nodes=3,
    ntasks=5,
    ntasks_per_node=2,
    cpus_per_task=1.5,
    time_limit_s=90.5,
    cwd="/home/ann",
    submit_host="login1",
    comment="two words",
    array_job_id=JobId(40),
    array_task_id=0,
    array=ArrayBounds(3, 0, 6, 3),
)


def test_a_job() -> None:
    status = pb.JobStatus(
        job_id=42,
        attempt=2,
        spec=job_spec_to_wire(SPEC),
        nodes=[CN01, CN02, CN03],
        shares=[
            pb.NodeShare(node=CN01, ntasks=2, cpus=3.0),
            pb.NodeShare(node=CN02, ntasks=2, cpus=3.0),
            pb.NodeShare(node=CN03, ntasks=1, cpus=1.5),
        ],
        started_at=timestamp(1000.123456789),
    )
    job = job_of(MessageToDict(status, preserving_proto_field_name=True), "test")
    assert job == JobOnNode(
        JobId(42),
        Attempt(2),
        SPEC,
        (CN01, CN02, CN03),
        NOWHERE,
        "test",
        start_time=job.start_time,
        end_time=job.start_time + 90.5,
        restart_count=1,
        layout=(EqualShares(2, 2, 3.0), EqualShares(1, 1, 1.5)),
    )
    assert int(job.start_time) == 1000


def test_a_job_of_which_little_is_known() -> None:
    spec = JobSpec(JobKind.RUN, uid=0, gid=0, user="")
    assert job_of({"job_id": "7"}, "") == JobOnNode(JobId(7), Attempt(1), _at(spec, ""), (), NOWHERE, "")
    limited = {"job_id": 7, "spec": MessageToDict(pb.JobSpec(time_limit=duration(60)), preserving_proto_field_name=True)}
    assert job_of(limited, "").end_time == 0.0


def test_a_step() -> None:
    step = StepSpec(StepId("3"), ("a", "b"), 3, {CN01: (0, 1), CN02: (2,)}, cpus_per_task=2.0)
    document = MessageToDict(step_spec_to_wire(step), preserving_proto_field_name=True)
    assert step_of(document) == step


def _at(spec: JobSpec, cwd: str) -> JobSpec:
    return JobSpec(spec.kind, spec.uid, spec.gid, spec.user, cwd=cwd)
