import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from craned.attempts.events import ProcessesGone
from craned.hooks.processes import EndedKept, JobProcesses, sweep_unknown_jobs
from craned.job.cells import JobCells
from craned.job.limits import LimitSettings
from cranehooks.model.ids import JobId
from cranehooks.model.run import Leftover
from tests.unit.craned.test_attempt import NODE, STEP_0
from tests.unit.craned.test_recovery import JOB

OWN = replace(JOB, job_id=JobId(1_000_000 + os.getpid()))
CELLS = JobCells(None, LimitSettings)


@dataclass
class FakeSweeper:
    """A driver that finds the same processes for some rounds."""

    rounds: int
    places: list[tuple[str, ...]] = field(default_factory=list)

    def end_kept(self, name: str) -> list[Leftover]:
        return self.sweep(name)

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
    processes = JobProcesses(NODE, None, CELLS)
    step, other_step, other_node = marked("0"), marked("1"), marked("0", CRANE_NODENAME="cn02")
    try:
        assert await processes.kill_step(OWN, STEP_0) is None
        assert step.wait(10) == -9
        assert other_step.poll() is None
        assert await processes.kill_job(OWN) == ProcessesGone()
        assert other_step.wait(10) == -9
        assert other_node.poll() is None
    finally:
        for process in (step, other_step, other_node):
            process.kill()
            process.wait()


async def test_without_control_groups_what_prolog_kept_lives_until_it_is_ended() -> None:
    processes = JobProcesses(NODE, None, CELLS)
    kept, kept_by_epilog = (marked("", CRANE_SCRIPT_CONTEXT=context) for context in ("prolog_craned", "epilog_craned"))
    try:
        assert await processes.kill_job(OWN) == ProcessesGone()
        assert kept_by_epilog.wait(10) == -9, "nothing of an Epilog is there before it runs"
        assert kept.poll() is None
        ended = await processes.end_kept(OWN)
        assert [text.split()[0] for text in ended.killed] == [str(kept.pid)]
        assert ended.survivors == ()
        assert kept.wait(10) == -9
        assert await processes.end_kept(OWN) == EndedKept()
    finally:
        for process in (kept, kept_by_epilog):
            process.kill()
            process.wait()


async def test_with_control_groups_what_prolog_kept_is_known_by_its_run() -> None:
    sweeper = FakeSweeper(1)
    assert await JobProcesses(NODE, sweeper, CELLS).end_kept(OWN) == EndedKept(("7 dd",))
    assert sweeper.places == [(f"{OWN.job_id}.1/prolog@{NODE}",)] * 2
    assert await JobProcesses(NODE, FakeSweeper(2), CELLS).end_kept(OWN) == EndedKept(("7 dd",), ("7 dd",))


@pytest.mark.parametrize(("rounds", "survivors"), [(0, ()), (1, ()), (2, ("7 dd",))])
async def test_with_control_groups_what_is_found_twice_is_unkillable(rounds: int, survivors: tuple[str, ...]) -> None:
    sweeper = FakeSweeper(rounds)
    processes = JobProcesses(NODE, sweeper, CELLS)
    assert await processes.kill_job(OWN) == ProcessesGone(survivors)
    assert sweeper.places[0] == (f"job_{OWN.job_id}",)


class FakePlaces:
    def __init__(self, *jobs: str) -> None:
        self.left = list(jobs)
        self.swept: list[str] = []

    def jobs(self) -> list[str]:
        return self.left

    def sweep(self, *parts: str) -> list[Leftover]:
        self.swept += parts
        return [Leftover(7, "sleep 3600")]


def test_what_is_left_of_forgotten_jobs_is_swept_and_named() -> None:
    places = FakePlaces("job_7", "job_42", "job_8")
    with capture_logs() as logs:
        sweep_unknown_jobs(places, [JobId(42)])
    assert places.swept == ["job_7", "job_8"]
    assert [(entry["place"], entry["processes"]) for entry in logs] == [
        ("job_7", ["7 sleep 3600"]),
        ("job_8", ["7 sleep 3600"]),
    ]
