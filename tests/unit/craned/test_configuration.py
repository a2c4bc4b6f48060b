import os
from pathlib import Path

import pytest

from craned.configuration import Configuration, checked, own_user
from craned.main import main
from cranehooks.model.ids import NodeName
from cranekit.errors import CraneError
from cranekit.yaml_lines import SettingsError

NODE = NodeName("cn01")


def write(directory: Path, *lines: str) -> Path:
    path = directory / "config.yaml"
    path.write_text("\n".join(("ClusterName: test", "Nodes: [{name: cn01, address: '127.0.0.1:7001'}]", *lines)) + "\n")
    return path


def test_scripts_that_run_on_a_node_are_looked_at_and_others_are_not(tmp_path: Path) -> None:
    lines = (
        "JobLifecycleHook:",
        "  Prolog: /nonexistent/p.sh",
        "  TaskEpilog: /nonexistent/t.sh",
        "  CrunProlog: /nonexistent/c.sh",
    )
    path = write(tmp_path, *lines)
    with pytest.raises(SettingsError) as refused:
        checked(path)
    assert [problem.line for problem in refused.value.problems] == [4, 5]
    assert checked(path, is_login=True).cluster_name == "test"


def test_a_node_must_be_in_the_file_and_its_user_the_right_one(tmp_path: Path) -> None:
    settings = checked(write(tmp_path))
    with pytest.raises(CraneError, match="no node cn02"):
        Configuration(Path("f"), settings, NodeName("cn02"))
    other = checked(write(tmp_path, "CranedUser: somebody-else"))
    with pytest.raises(CraneError, match=f"runs as {own_user()}"):
        Configuration(Path("f"), other, NODE)
    assert Configuration(Path("f"), settings, NODE).node.address == "127.0.0.1:7001"


async def test_a_reload_takes_over_what_is_right_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path)
    configuration = Configuration(path, checked(path), NODE)
    calls: list[str] = []
    configuration.when_changed(lambda: calls.append("changed"))
    await configuration.reload()
    assert calls == []
    write(tmp_path, "KillGrace: 7")
    await configuration.reload()
    assert configuration.settings.kill_grace == 7
    write(tmp_path, "KillGrace: never")
    await configuration.reload()
    assert configuration.settings.kill_grace == 7
    assert calls == ["changed"]


def test_check_config_names_every_problem_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "Nonsense: 1", "KillGrace: never")
    assert main(["--check-config", str(path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0].rpartition("config.yaml")[2].split(":")[1] for line in errors] == ["3", "4"]
    assert main(["--check-config", str(write(tmp_path))]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: ok")


def test_wrong_calls_start_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(path)])
    assert ended.value.code == 2
    assert main(["--config", str(path), "--node", "cn99"]) == 2
    assert "no node cn99" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "missing.yaml"), "--node", "cn01"]) == 2
    assert os.listdir(tmp_path) == ["config.yaml"]
