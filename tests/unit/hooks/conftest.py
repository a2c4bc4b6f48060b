"""Containment drivers that work here, and hook runs to try them with."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.cells import Containment
from cranehooks.execution.containment.detect import DRIVERS, ContainmentUnavailableError, detect
from cranehooks.execution.process import reap_orphans
from cranehooks.testing.faulty_scripts import HookScripts
from tests.support.control_groups import removed_control_groups
from tests.support.drivers_exercised import exercised
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def orphans_reaped() -> Iterator[None]:
    """The driver without cgroups makes the test process a subreaper for good: what is orphaned later comes to it."""
    yield
    eventually(_is_without_children)


def _is_without_children() -> bool:
    reap_orphans()
    return not list(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def files(tmp_path: Path) -> HookScripts:
    return HookScripts(tmp_path / "hooks.d")


@pytest.fixture(params=DRIVERS)
def containment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Containment]:
    """Each driver in turn; cgroups are skipped where they are not ours to make."""
    name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
    with removed_control_groups(name):
        try:
            driver, _ = detect(request.param, name)
        except ContainmentUnavailableError as error:
            pytest.skip(str(error))
        exercised(request.node, driver.driver)
        yield driver
        driver.close()
