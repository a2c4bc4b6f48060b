"""Which containment drivers a session's tests have run with, and how long anybody has kept them waiting meanwhile."""

import os
from collections.abc import Iterable, Iterator

import pytest

from cranehooks.execution.containment.detect import DRIVERS, ContainmentUnavailableError, detect

_DRIVER = "containment driver"
_SILENCE = "silence"


def needs_driver(driver: str) -> None:
    """Skips a test whose driver does not work on this machine."""
    try:
        detect(driver, f"test.{os.getpid()}")[0].close()
    except ContainmentUnavailableError as error:
        pytest.skip(str(error))


def exercised(test: pytest.Item, driver: str) -> None:
    """Notes that a test runs with this driver; it is told if the test passes, in whichever process it runs."""
    test.user_properties.append((_DRIVER, driver))


def silence(test: pytest.Item, slowest_s: float, unloaded_s: float) -> None:
    """Notes the slowest answer while something tried to get away, and while nothing did."""
    test.user_properties.append((_SILENCE, (slowest_s, unloaded_s)))


def summary(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Lines for the end of a session."""
    properties = [named for report in reports for named in report.user_properties]
    seen = {value for name, value in properties if name == _DRIVER}
    if seen:
        yield f"containment drivers exercised: {', '.join(driver for driver in DRIVERS if driver in seen)}"
    silences = [value for name, value in properties if name == _SILENCE]
    if silences:
        slowest, unloaded = (max(column) * 1000 for column in zip(*silences, strict=True))
        yield f"slowest answer during {len(silences)} escapes: {slowest:.0f} ms; without any: {unloaded:.0f} ms"
