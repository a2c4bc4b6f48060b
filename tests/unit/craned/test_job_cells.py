"""The cell that each job has on a node."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from crane.hooks.v1 import supervisor_pb2 as pb
from craned.job.cells import JobCells
from craned.job.limits import LimitSettings
from craned.steps.driver import StepRefusedError
from cranehooks.model.limits import LimitKind, Limits, Offers, Usage
from cranehooks.testing.containment import StubbornCell, StubbornContainment
from tests.unit.craned.test_attempt import STEP_0
from tests.unit.craned.test_bootstrap import OWN_JOB, Forks, starter_of
from tests.unit.craned.test_node_hooks import settings_of

JOB = replace(OWN_JOB, share=replace(OWN_JOB.share, memory_bytes=64 << 20))
LIMITS = Limits(memory_bytes=64 << 20, swap_bytes=0, kills_all=False)


class MeasuredCell(StubbornCell):
    told = Usage()

    def usage(self) -> Usage:
        return self.told


class MeasuredContainment(StubbornContainment):
    """Remembers what is asked of it, and cells that tell what they are told to."""

    def __init__(self, usage: Usage = Usage(), *, error: int = 0) -> None:  # noqa: B008 - a frozen value
        super().__init__()
        self.usage = usage
        self.error = error

    def create(self, name: str, *, limits: Limits | None = None) -> MeasuredCell:
        if self.error:
            raise OSError(self.error, "no")
        cell = MeasuredCell(name, (), limits)
        cell.told = self.usage
        self.cells.append(cell)
        return cell


def test_a_job_has_one_cell_with_its_limits_until_it_is_given_up() -> None:
    containment = MeasuredContainment()
    cells = JobCells(containment, LimitSettings)

    assert cells.hold(JOB) == LIMITS
    assert cells.hold(JOB) == LIMITS
    [cell] = containment.cells
    assert (cell.name, cell.limits) == (f"job_{JOB.job_id}", LIMITS)

    cells.give_up(JOB)
    cells.give_up(JOB)
    assert cell.is_removed


def test_a_job_without_limits_has_a_cell_without() -> None:
    containment = MeasuredContainment()
    JobCells(containment, LimitSettings).hold(OWN_JOB)
    assert containment.cells[0].limits is None


@pytest.mark.parametrize(
    ("told", "usage"),
    [(Usage(1.0, 5, 0), Usage(1.0, 5, 0)), (Usage(0.0, None, 1), Usage(0.0, None, 1)), (Usage(0.0, 0, 0), None), (Usage(), None)],
)
def test_after_a_restart_the_cell_is_taken_over_for_what_it_tells(told: Usage, usage: Usage | None) -> None:
    cells = JobCells(MeasuredContainment(told), LimitSettings)
    assert cells.usage(JOB) == usage


def test_the_cell_of_a_step_whose_supervisor_is_gone_tells_too() -> None:
    containment = MeasuredContainment(Usage(2.0, 7, 1))
    cells = JobCells(containment, LimitSettings)

    assert cells.step_usage(JOB, STEP_0) == Usage(2.0, 7, 1)
    [cell] = containment.cells
    assert cell.name == f"job_{JOB.job_id}/step_{STEP_0.step_id}"
    assert cell.limits == Limits(measures_memory=True)


def test_without_control_groups_nothing_is_told() -> None:
    cells = JobCells(None, LimitSettings)
    assert cells.hold(JOB) == LIMITS
    assert cells.usage(JOB) is None
    assert cells.step_usage(JOB, STEP_0) is None
    assert not cells.constrains_devices


def test_a_cell_that_cannot_be_made_costs_the_usage_only() -> None:
    cells = JobCells(MeasuredContainment(error=errno.ENOSPC), LimitSettings)
    assert cells.usage(JOB) is None
    assert cells.step_usage(JOB, STEP_0) is None


async def test_a_step_whose_limits_cannot_be_set_is_refused(tmp_path: Path) -> None:
    forks = Forks()
    starter = starter_of(tmp_path, forks, JobCells(MeasuredContainment(error=errno.EINVAL), LimitSettings))
    with pytest.raises(StepRefusedError, match=f"the limits of job {JOB.job_id} cannot be set on cn01: no"):
        await starter.start(JOB, settings_of(tmp_path), STEP_0)
    assert forks.asked == []


async def test_a_supervisor_is_told_the_limits(tmp_path: Path) -> None:
    forks = Forks()
    await starter_of(tmp_path, forks).start(JOB, settings_of(tmp_path), STEP_0)
    assert forks.asked[0].limits == pb.JobLimits(memory_bytes=64 << 20, swap_bytes=0, kills_largest=True)


def test_what_does_not_hold_here_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    containment = MeasuredContainment()
    containment.offers = Offers(frozenset({LimitKind.MEMORY, LimitKind.CPU}))
    JobCells(containment, LimitSettings).warn_of_gaps()
    told = capsys.readouterr()
    assert "job_limits_not_enforced" in told.out + told.err
    assert "swap" in told.out + told.err
