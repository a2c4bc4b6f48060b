"""Names of output files as anybody computes them, who knows the job and the node alone."""

import pytest

from cranehooks.model.ids import JobId, NodeName, StepId
from cranehooks.model.job import JobKind, JobSpec
from cranehooks.model.output_files import output_path

SPEC = JobSpec(
    JobKind.BATCH, uid=1, gid=1, user="ada", name="deep/learning", cwd="/work", array_job_id=JobId(40), array_task_id=7
)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("", "/work/Crane-42.out"),
        ("%x.%u.%N", "/work/deep_learning.ada.cn01"),
        ("/logs/../log/%A_%3a", "/log/40_007"),
        ("%J.%t.%%.%q", "/work/42.batch.0.%.%q"),
    ],
)
def test_of_the_batch_script(pattern: str, path: str) -> None:
    assert output_path(pattern, SPEC, JobId(42), NodeName("cn01")) == path


def test_of_a_step_elsewhere() -> None:
    path = output_path("%J.%t", SPEC, JobId(42), NodeName("cn01"), step_id=StepId("3"), first_task=8, cwd="/scratch")
    assert path == "/scratch/42.3.8"
