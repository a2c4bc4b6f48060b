"""What follows from a job as the controller holds it."""

from dataclasses import replace

from cranectld.jobs.model import Step, StepState
from cranehooks.model.ids import BATCH_STEP, NodeName, StepId
from cranehooks.model.job import EqualShares, ExitStatus, StepSpec
from tests.unit.cranectld.builders import CN1, CN2, job, shares


def ended(step_id: str, exit_status: ExitStatus, state: StepState = StepState.ENDED) -> Step:
    return Step(StepSpec(StepId(step_id), (), 1), (), state, exit=exit_status)


def test_the_derived_exit_is_the_highest_of_the_numbered_steps() -> None:
    steps = [
        ended(BATCH_STEP, ExitStatus(99)),
        ended("0", ExitStatus(2)),
        ended("1", ExitStatus(1)),
        ended("2", ExitStatus(signal=9)),
        ended("3", ExitStatus(7), StepState.RUNNING),
    ]
    assert replace(job(), steps={step.step_id: step for step in steps}).derived_exit == ExitStatus(2)
    assert job().derived_exit == ExitStatus()


def test_the_layout_of_an_allocation() -> None:
    first, second = shares(CN1, CN2)
    third = replace(second, node=NodeName("cn03"), ntasks=9)
    held = replace(job(), shares=(first, second, third))
    assert held.layout == (EqualShares(2, 1, 1.0), EqualShares(1, 9, 1.0))
