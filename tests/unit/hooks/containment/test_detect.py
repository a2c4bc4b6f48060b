"""The driver is the best that is shown to work, or the one asked for, and says what is lost."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import CGROUP1, CGROUP2, HYBRID, NONE, ContainmentUnavailableError, detect
from cranehooks.execution.containment.hierarchies import Hierarchies
from cranehooks.execution.containment.tree import remove_tree
from cranehooks.testing.faulty_scripts import HookScripts


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


ORDINARY_UID = 65534
RUNS_A_HOOK = """
import sys
from cranehooks.execution.containment.detect import detect
from cranehooks.execution.engine import Engine
from cranehooks.testing.specs import prolog_spec

containment, _ = detect("auto", "c.n.i")
engine, ended = Engine(containment, reaps_orphans=True), []
engine.start(prolog_spec(sys.argv[1], trusted_owner=False), ended.append)
while not ended:
    engine.poll(None)
engine.close()
containment.close()
print(containment.driver, ended[0].outcome, len(ended[0].scripts[0].leftovers), ended[0].output)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root hands out a subtree")
def test_an_ordinary_user_contains_in_a_subtree_of_its_own(tmp_path: Path) -> None:
    own, python = Hierarchies.of_this_process().unified, Path("/usr/bin/python3")
    if own is None or not os.access(own, os.W_OK) or not python.exists():
        pytest.skip("no version 2 hierarchy of ours, or no interpreter for everybody")
    delegated = own / f"crane-delegated-{os.getpid()}"
    delegated.mkdir()
    # A directory that its user may enter, unlike pytest's.
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        try:
            for path in (delegated, *(delegated / name for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"))):
                os.chown(path, ORDINARY_UID, ORDINARY_UID)
            Path(scratch).chmod(0o755)
            script = HookScripts(Path(scratch)).write("leaves", "cat /proc/self/cgroup", "sleep 3600 &")
            # It enters the subtree as a session manager has a user's processes do.
            program = f"open({str(delegated / 'cgroup.procs')!r}, 'w').write('0')\nimport os\nos.setgroups([])\n"
            program += f"os.setgid({ORDINARY_UID})\nos.setuid({ORDINARY_UID})\n{RUNS_A_HOOK}"
            packages = ":".join(str(Path(__file__).parents[4] / component) for component in ("hooks", "kit"))
            result = subprocess.run(
                [str(python), "-c", program, script],
                env={"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            remove_tree(delegated)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("cgroup2 ok 1 ")
    assert f"{delegated.name}/crane/c.n.i/hooks/" in result.stdout
    assert not delegated.exists()
