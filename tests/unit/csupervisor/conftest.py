"""A bootstrap to vary."""

import os

import pytest

from crane.hooks.v1 import job_pb2
from crane.hooks.v1 import supervisor_pb2 as pb


@pytest.fixture
def message() -> pb.SupervisorBootstrap:
    return pb.SupervisorBootstrap(
        job_id=42,
        attempt=1,
        step_id="0",
        node="cn01",
        nonce="secret",
        craned_socket="/run/crane/private/supervisors.sock",
        job=job_pb2.JobSpec(
            kind=job_pb2.JOB_KIND_RUN, uid=os.geteuid(), gid=os.getegid(), user="ada", name="deep/learning", cwd="/scratch"
        ),
        step=job_pb2.StepSpec(step_id="0", argv=["true"]),
        tasks=[pb.TaskBootstrap(task_id=3, environment={"A": "task"})],
        environment={"A": "common", "B": "common"},
        kill_grace_s=1.0,
        launcher_grace_s=1.0,
        unkillable_after_s=1.0,
    )
