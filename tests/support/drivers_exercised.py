"""Which containment drivers a session's tests have run with."""

from collections.abc import Iterable

import pytest

from cranehooks.execution.containment.detect import DRIVERS

_PROPERTY = "containment driver"


def exercised(test: pytest.Item, driver: str) -> None:
    """Notes that a test runs with this driver; it is told if the test passes, in whichever process it runs."""
    test.user_properties.append((_PROPERTY, driver))


def drivers_in(reports: Iterable[pytest.TestReport]) -> list[str]:
    """The drivers of these tests, in their order."""
    seen = {value for report in reports for name, value in report.user_properties if name == _PROPERTY}
    return [driver for driver in DRIVERS if driver in seen]
