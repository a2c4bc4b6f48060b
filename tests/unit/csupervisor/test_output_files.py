"""Patterns in the names of output files."""

import pytest

from crane.hooks.v1 import supervisor_pb2 as pb
from csupervisor.bootstrap import bootstrap_from_wire
from csupervisor.output_files import output_path


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("", "/scratch/Crane-42.out"),
        ("%j.%u.%N", "/scratch/42.ada.cn01"),
        ("/logs/%x.log", "/logs/deep_learning.log"),
        ("%A_%a", "/scratch/40_7"),
        ("%5j-%3a-%t", "/scratch/00042-007-3"),
        ("100%%.%q.%", "/scratch/100%.%q.%"),
        ("%J", "/scratch/42.0"),
        ("../up/./%j", "/up/42"),
        ("%9999999j", "/scratch/0000000042"),
    ],
)
def test_patterns(message: pb.SupervisorBootstrap, pattern: str, path: str) -> None:
    message.job.array_job_id = 40
    message.job.array_task_id = 7
    assert output_path(pattern, bootstrap_from_wire(message)) == path


def test_a_job_that_is_no_array_is_its_own(message: pb.SupervisorBootstrap) -> None:
    assert output_path("%A_%a", bootstrap_from_wire(message)) == "/scratch/42_0"
