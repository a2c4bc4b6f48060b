"""`--check-config` of each program: every problem at once, each with its place, and nothing started."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """ClusterName: test
CranectldListen: 127.0.0.1:0
NoSuchKey: 1
Nodes:
  - {name: "cn[01-02]", address: "unix:/tmp/{name}.sock", cpu: many}
Partitions:
  - {name: main, nodes: "cn[01-09]"}
JobLifecycleHook:
  PrologFlags: Alloc,Nonsense
"""
GOOD = """ClusterName: test
Nodes:
  - {name: "cn[01-02]", address: "unix:/tmp/{name}.sock", cpu: 4}
JobLifecycleHook:
"""


def check(program: str, config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"{program}.main", "--check-config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("program", ["cranectld", "craned", "csupervisor"])
def test_every_problem_is_told_at_once_with_its_place(program: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)

    result = check(program, config)

    assert result.returncode == 2
    assert result.stdout == ""
    places = [line.removeprefix(f"{config}:").split(":")[0] for line in result.stderr.splitlines()]
    assert {"3", "5", "9"} <= set(places)
    assert all(line.startswith(f"{config}:") for line in result.stderr.splitlines())
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("program", "own", "foreign"),
    [
        ("cranectld", "CranectldProlog", "TaskProlog"),
        ("craned", "Prolog", "CranectldProlog"),
        ("csupervisor", "TaskEpilog", "Epilog"),
    ],
)
def test_scripts_of_own_points_are_looked_at(program: str, own: str, foreign: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{GOOD}  {foreign}: /nonexistent/hook.sh\n")
    assert check(program, config).returncode == 0

    config.write_text(f"{GOOD}  {own}: /nonexistent/hook.sh\n")
    result = check(program, config)

    assert result.returncode == 2
    assert result.stderr.startswith(f"{config}:5:")
    assert own in result.stderr


@pytest.mark.parametrize("program", ["cranectld", "craned", "csupervisor"])
def test_what_holds_otherwise_than_it_seems_is_a_warning(program: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"Profile: slurm\n{GOOD}  PrologFlags: x11\n")
    result = check(program, config)
    assert result.returncode == 0
    assert result.stderr.startswith(f"{config}:6:16: warning: X11 ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("program", ["cranectld", "craned", "csupervisor"])
def test_missing_file_is_told(program: str, tmp_path: Path) -> None:
    result = check(program, tmp_path / "none.yaml")

    assert result.returncode == 2
    assert "none.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("program", "arguments", "key"), [("cranectld", (), "CranectldUser"), ("craned", ("--node", "cn01"), "CranedUser")]
)
def test_a_daemon_of_another_user_than_the_configured_one_does_not_start(
    program: str, arguments: tuple[str, ...], key: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{key}: somebody-else\n" + GOOD.removesuffix("JobLifecycleHook:\n"))
    command = [sys.executable, "-m", f"{program}.main", "--config", str(config), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert f"{config} wants {key} somebody-else" in result.stderr
    assert list(tmp_path.iterdir()) == [config]
