"""Closed standard streams: their numbers are taken, and what is written goes nowhere."""

import subprocess
import sys

import pytest

PROGRAM = """
from cranecli.front.descriptors import hold_standard_descriptors
import os, sys
hold_standard_descriptors()
hold_standard_descriptors()
sys.stdout.write("out")
sys.stdout.flush()
sys.stderr.write("err")
held = [os.path.sameopenfile(number, os.open(os.devnull, os.O_RDWR)) if closed else True for number, closed in enumerate(CLOSED)]
sys.exit(7 if all(held) and os.open(os.devnull, os.O_RDONLY) > 2 and all(map(os.get_inheritable, range(3))) else 1)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_what_is_closed_is_held(closed: tuple[int, ...]) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    program = f"CLOSED = {[number in closed for number in range(3)]}\n{PROGRAM}"
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    assert result.stdout == ("" if 1 in closed else "out")
    assert result.stderr == ("" if 2 in closed else "err")
