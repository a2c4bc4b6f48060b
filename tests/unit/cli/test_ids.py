"""Ids and states as they are typed."""

import pytest

from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.hookctl.ids import job_number, job_numbers, job_states, node_name


def test_job_numbers_understand_ranges_and_commas() -> None:
    assert job_numbers(["3", "5-7,9"]) == ["3", "5", "6", "7", "9"]
    assert job_number("42") == "42"


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "", "7-5", "1-999999999", "1,,2", "4-"])
def test_slips_are_usage_errors(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        job_numbers([text])
    assert caught.value.status is ExitCode.USAGE


def test_states_are_words() -> None:
    assert job_states("running,Timed-Out") == ["JOB_STATE_RUNNING", "JOB_STATE_TIMED_OUT"]
    assert job_states("TimedOut") == ["JOB_STATE_TIMED_OUT"]
    assert "JOB_STATE_HELD" in job_states("active")
    assert job_states("") == []
    with pytest.raises(CommandError, match="unknown state 'sleeping'"):
        job_states("sleeping")


def test_node_names_are_checked() -> None:
    assert node_name("cn01") == "cn01"
    with pytest.raises(CommandError):
        node_name("cn[01-02]")
