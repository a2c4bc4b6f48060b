import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

from craned.hooks.processes import JobProcesses
from cranehooks.model.ids import JobId
from cranehooks.model.run import Leftover
from tests.unit.craned.test_attempt import NODE, STEP_0
from tests.unit.craned.test_recovery import JOB

OWN = replace(JOB, job_id=JobId(1_000_000 + os.getpid()))


@dataclass
class FakeSweeper:
    """A driver that finds the same processes for some rounds."""

    rounds: int
    places: list[tuple[str, ...]] = field(default_factory=list)

    def sweep(self, *parts: str) -> list[Leftover]:
        self.places.append(parts)
        self.rounds -= 1
        return [Leftover(7, "dd")] if self.rounds >= 0 else []


def marked(step_id: str, **other: str) -> subprocess.Popen[bytes]:
    environment = {
        "CRANE_CLUSTER_NAME": OWN.cluster,
        "CRANE_NODENAME": NODE,
        "CRANE_JOB_ID": str(OWN.job_id),
        "CRANE_JOB_ATTEMPT": "1",
        "CRANE_STEP_ID": step_id,
        **other,
    }
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment, start_new_session=True)


async def test_without_control_groups_processes_are_known_by_the_jobs_variables() -> None:
    processes = JobProcesses(NODE, None)
    step, other_step, other_node = marked("0"), marked("1"), marked("0", CRANE_NODENAME="cn02")
    try:
        await processes.kill_step(OWN, STEP_0)
        assert step.wait(10) == -9
        assert other_step.poll() is None
        assert await processes.kill_job(OWN) == ()
        assert other_step.wait(10) == -9
        assert other_node.poll() is None
    finally:
        for process in (step, other_step, other_node):
            process.kill()
            process.wait()


@pytest.mark.parametrize(("rounds", "survivors"), [(0, ()), (1, ()), (2, ("7 dd",))])
async def test_with_control_groups_what_is_found_twice_is_unkillable(rounds: int, survivors: tuple[str, ...]) -> None:
    sweeper = FakeSweeper(rounds)
    assert await JobProcesses(NODE, sweeper).kill_job(OWN) == survivors
    assert sweeper.places[0] == (f"job_{OWN.job_id}",)
