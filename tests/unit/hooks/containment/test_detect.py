"""The driver is the best that is shown to work, or the one asked for, and says what is lost."""

from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import CGROUP1, CGROUP2, HYBRID, NONE, ContainmentUnavailableError, detect
from cranehooks.execution.containment.hierarchies import Hierarchies


def test_a_directory_that_is_no_cgroup_falls_back_and_says_so(tmp_path: Path) -> None:
    nowhere = Hierarchies(tmp_path)
    driver, lost = detect(hierarchies=nowhere)
    assert driver.driver == NONE
    assert str(tmp_path) in lost
    assert "no limits" in lost
    for forced in (CGROUP2, HYBRID, CGROUP1):
        with pytest.raises(ContainmentUnavailableError, match=r"cannot use cgroups below|no version 1|is not mounted"):
            detect(forced, hierarchies=nowhere)


def test_an_unknown_driver_is_an_error() -> None:
    with pytest.raises(ContainmentUnavailableError, match="'cgroup3', expected auto, cgroup2, hybrid, cgroup1 or none"):
        detect("cgroup3")


def test_without_any_hierarchy_every_driver_says_what_is_missing() -> None:
    _, lost = detect(hierarchies=Hierarchies())
    assert "hybrid: no version 2 cgroup hierarchy is mounted" in lost
    assert "cgroup1: the version 1 freezer" in lost
    assert "no protection against a fork bomb" in lost


def test_what_works_is_chosen_without_being_asked_for(tmp_path: Path) -> None:
    here = Hierarchies.of_this_process()
    for expected in (HYBRID, CGROUP2, CGROUP1):
        name = f"test.{tmp_path.parent.name}.{tmp_path.name}"
        try:
            forced, _ = detect(expected, name)
        except ContainmentUnavailableError:
            continue
        forced.close()
        found, _ = detect(None, name, here)
        found.close()
        assert found.driver == expected
        return
    pytest.skip("no driver with cgroups works here")
