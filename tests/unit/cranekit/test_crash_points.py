"""Points are recorded, or end the process at the time that was asked for; without the variable they do nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cranekit.crash_points import VARIABLE

PROGRAM = """
from cranekit import crash_points
for point in ("first", "second", "first", "first"):
    crash_points.reached(point)
    print(point, flush=True)
"""


def run(plan: str | None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ} | ({VARIABLE: plan} if plan is not None else {})
    return subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)


def test_nothing_happens_unplanned() -> None:
    assert (run(None).returncode, run(None).stdout.split()) == (0, ["first", "second", "first", "first"])


def test_points_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "points"
    assert run(f"record:{file}").returncode == 0
    assert file.read_text().split() == ["first", "second", "first", "first"]


def test_the_process_ends_at_the_point_as_in_a_crash() -> None:
    result = run("kill:first#2")
    assert (result.returncode, result.stdout.split()) == (-signal.SIGKILL, ["first", "second"])
    assert run("kill:first#4").returncode == 0


@pytest.mark.parametrize("plan", ["kill:first", "kill:#1", "kill:first#x", "record:", "stop:first#1"])
def test_a_wrong_plan_is_told(plan: str) -> None:
    result = run(plan)
    assert result.returncode == 1
    assert f"{VARIABLE}={plan}: expected record:FILE or kill:NAME#COUNT" in result.stderr
