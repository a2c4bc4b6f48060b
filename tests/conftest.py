"""What holds for every test: nothing is left behind, and property tests judge answers, never speed."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.drivers_exercised import summary
from tests.support.leaks import no_leaks

# Two busy cores make any deadline a coin toss. In CI the examples are the same in every run.
hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("default"), derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


# Whoever starts the tests in the background of a shell has interrupts ignored, and the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells which containment drivers the tests ran with: the machine decides that, and a reader of the output cannot see it."""
    for line in summary(terminalreporter.getreports("passed")):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves child processes, threads or open descriptors, unless it is marked ``may_leak(reason)``."""
    if request.node.get_closest_marker("may_leak"):
        yield
    else:
        yield from no_leaks()
