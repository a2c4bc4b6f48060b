"""The demo's scripts do what they say, and its configuration passes the checks of a real one."""

import subprocess
from pathlib import Path

import pytest

from cranecli.hookctl.demo.story import SCRIPTS, demo_config, install_hooks
from cranecli.hookctl.local_config import CONTROLLER, effective, write
from cranecli.hookctl.scripts import point_reports
from cranehooks import directives
from cranehooks.model.points import HookPoint
from cranehooks.settings import load


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    return install_hooks(tmp_path)


def run_hook(script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """With exactly this environment, no PATH, as the engine runs hooks."""
    return subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=False, timeout=20, cwd="/")


def test_configuration_is_valid_and_covers_every_point(hooks: Path, tmp_path: Path) -> None:
    config = demo_config(hooks)
    addresses = {name: f"127.0.0.1:{20000 + index}" for index, name in enumerate([CONTROLLER, "cn01", "cn02"])}
    write(effective(config, tmp_path, "demo", addresses), tmp_path / "config.yaml")
    settings = load(tmp_path / "config.yaml")
    reports = point_reports(settings)
    assert {report.point for report in reports} == {point for point in HookPoint if not point.value.startswith("--")}
    assert (hooks / "own_task_prolog.sh").exists()
    assert (hooks / "own_task_epilog.sh").exists()


def test_scripts_are_executable_and_have_an_interpreter() -> None:
    scripts = sorted(SCRIPTS.rglob("*.sh"))
    assert len(scripts) == 10
    for script in scripts:
        assert script.read_text().startswith("#!/bin/"), script
        assert script.stat().st_mode & 0o111, script


def test_node_health_prolog_logs_and_refuses_a_broken_node(hooks: Path, tmp_path: Path) -> None:
    prolog = hooks / "prolog.d" / "50-node-health.sh"
    job = {"CRANE_JOB_ID": "7", "CRANE_JOB_NODELIST": "cn01", "CRANE_NODENAME": "cn01"}
    assert run_hook(prolog, **job).returncode == 0
    assert "job 7 on cn01: prolog ends" in (tmp_path / "prolog.log").read_text()
    (tmp_path / "broken-cn01").write_text("no scratch\n")
    refused = run_hook(prolog, **job)
    assert (refused.returncode, refused.stdout) == (1, "node cn01 is unhealthy: no scratch\n")
    assert run_hook(prolog, **job | {"CRANE_NODENAME": "cn02"}).returncode == 0


def test_task_prolog_speaks_in_directives(hooks: Path) -> None:
    output = run_hook(hooks / "task_prolog.sh", CRANE_PROCID="0", CRANE_NODENAME="cn01").stdout
    environment, printed = directives.apply({"MANPATH": "/x"}, directives.parse(output.encode()))
    assert environment == {"GREETING": "HelloFromTaskProlog"}
    assert printed == b"TaskProlog prepared task 0 on cn01\n"


@pytest.mark.parametrize(
    "name", ["controller_prolog", "controller_epilog", "epilog", "task_epilog", "own_task_epilog", "crun_prolog", "crun_epilog"]
)
def test_other_hooks_succeed_with_nothing_in_the_environment(hooks: Path, name: str) -> None:
    assert run_hook(hooks / f"{name}.sh").returncode == 0
