"""What a local cluster takes from a site's configuration, and what it replaces."""

import os
import socket
from pathlib import Path

import pytest
import yaml

from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.hookctl.local import run_inside
from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import (
    CONTROLLER,
    ReservedPorts,
    check_hooks,
    default_config,
    effective,
    own_cluster_name,
    site_config,
    write,
)
from cranecli.hookctl.local_daemons import StartError
from cranecli.hookctl.main import run
from cranehooks.model.ids import NodeName
from cranehooks.settings import load

SITE = """
ClusterName: site
ControlMachine: head
CranectldListen: 127.0.0.1:10011
Nodes:
  - {name: "cn[01-04]", address: "unix:/run/crane/{name}/craned.sock", cpu: 8, memory: 2G, gres: "gpu:2"}
Partitions:
  - {name: small, nodes: "cn[01-02]", default: true, max_time: "1:00:00"}
  - {name: large, nodes: "cn[03-04]"}
CranedUser: somebody
Administrators: [root, alice]
MaxRequeueCount: 3
JobLogHook:
  Prolog: "prolog.d/*.sh, last.sh"
  PrologCranectld: /opt/ctld.sh
  PrologTimeout: 9
"""


def addresses(names: list[str]) -> dict[str, str]:
    return {name: f"127.0.0.1:{20000 + index}" for index, name in enumerate([CONTROLLER, *names])}


def test_default_configuration_is_valid(tmp_path: Path) -> None:
    config = default_config(3)
    document = effective(config, tmp_path, "local-1", addresses([node.name for node in config.nodes]))
    write(document, tmp_path / "config.yaml")
    settings = load(tmp_path / "config.yaml")
    assert list(settings.nodes) == ["cn01", "cn02", "cn03"]
    assert settings.cluster_name == "local-1"
    assert settings.control_address == "127.0.0.1:20000"
    assert settings.default_partition == "local"
    assert settings.allow_root_jobs is (os.geteuid() == 0)
    assert settings.state_dir == f"{tmp_path}/state"


def test_site_keeps_what_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    config = site_config(path, None)
    document = effective(config, tmp_path / "run", "site-local-1", addresses([node.name for node in config.nodes]))
    assert (document["ClusterName"], document["MaxRequeueCount"]) == ("site-local-1", 3)
    assert "CranedUser" not in document
    assert set(document["Administrators"]) >= {"root", "alice"}
    assert "JobLogHook" not in document
    assert document["JobLifecycleHook"] == {
        "PrologTimeout": 9,
        "CranectldProlog": ["/opt/ctld.sh"],
        "Prolog": [f"{tmp_path}/prolog.d/*.sh", f"{tmp_path}/last.sh"],
    }
    (tmp_path / "run").mkdir()
    write(document, tmp_path / "run" / "config.yaml")
    settings = load(tmp_path / "run" / "config.yaml")
    assert [(node.cpus, node.memory_bytes, node.gres) for node in settings.nodes.values()] == [(8, 2 << 30, "gpu:2")] * 4
    assert settings.partitions["small"].max_time_s == 3600
    assert settings.default_partition == "small"


def test_first_nodes_of_a_site_and_what_is_left_of_its_partitions(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    config = site_config(path, 1)
    assert [node.name for node in config.nodes] == ["cn01"]
    assert [(partition.name, partition.nodes) for partition in config.partitions] == [("small", ("cn01",))]


def test_too_many_nodes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text('ClusterName: big\nNodes:\n  - {name: "n[001-100]", address: "unix:/run/{name}.sock"}\n')
    with pytest.raises(CommandError, match="has 100 nodes"):
        site_config(path, None)
    assert len(site_config(path, 32).nodes) == 32


def test_problems_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("ClusterName: 'no good'\nNope: 1\n")
    with pytest.raises(CommandError) as caught:
        site_config(path, None)
    assert caught.value.status is ExitCode.USAGE
    assert f"{path}:1:" in str(caught.value)
    assert f"{path}:2:" in str(caught.value)


def test_name_of_another_daemon_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text('ClusterName: c\nNodes:\n  - {name: login, address: "127.0.0.1:1"}\n')
    with pytest.raises(CommandError, match="cannot be called login"):
        site_config(path, None)


def test_written_file_is_yaml_and_readable_by_all(tmp_path: Path) -> None:
    write({"A": ["x"], "B": True}, tmp_path / "c.yaml")
    assert yaml.safe_load((tmp_path / "c.yaml").read_text()) == {"A": ["x"], "B": True}
    assert (tmp_path / "c.yaml").stat().st_mode & 0o777 == 0o644


def test_reserved_port_can_be_listened_on_by_who_shares_it_and_by_nobody_else() -> None:
    ports = ReservedPorts()
    try:
        host, port = ports.take().rsplit(":", 1)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind((host, int(port)))
        with socket.socket() as daemon:
            daemon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            daemon.bind((host, int(port)))
            daemon.listen()
            with socket.create_connection((host, int(port)), timeout=5), daemon.accept()[0]:
                pass
    finally:
        ports.close()


def test_cluster_is_never_called_as_the_site(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    config = site_config(path, None)
    assert own_cluster_name(config).startswith("site-local-")
    assert own_cluster_name(config) != own_cluster_name(config)
    assert own_cluster_name(default_config(1)).startswith("local-")


def test_scripts_that_cannot_run_are_told_with_their_place_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    line = SITE.splitlines().index("  PrologCranectld: /opt/ctld.sh") + 1
    with pytest.raises(CommandError) as caught:
        check_hooks(path)
    assert caught.value.status is ExitCode.USAGE
    assert str(caught.value).splitlines() == [
        f"{path} cannot be used:",
        f"{path}:{line - 1}:11: Prolog: {tmp_path}/last.sh does not exist",
        f"{path}:{line}:20: CranectldProlog: /opt/ctld.sh does not exist",
    ]
    assert run(["local", "--config", str(path), "--", "true"]) == 2
    assert "/opt/ctld.sh does not exist" in capsys.readouterr().err


def test_a_state_directory_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mine")
    with pytest.raises(StartError, match="holds files that are not a local cluster's"):
        LocalCluster(1, state_dir=tmp_path).start()
    with pytest.raises(StartError, match="is not a directory"):
        LocalCluster(1, state_dir=config).start()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert config.read_text() == "mine"


@pytest.mark.parametrize(("command", "status"), [("/nonexistent/program", 127), ("/tmp", 126)])
def test_a_command_that_cannot_run_ends_as_in_a_shell(
    command: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalCluster, "env", {})
    assert run_inside(LocalCluster(1), [command]) == status
    assert capsys.readouterr().err.startswith(f"hookctl: error: cannot run {command}: ")


def test_device_files_of_the_site_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        "ClusterName: site\nNodes: [{name: cn01, address: '127.0.0.1:1', gres: [{name: gpu, type: a, files: ['/dev/x[0-1]']}, {name: nic}]}]\n"
    )
    document = effective(site_config(path, None), tmp_path, "local-1", addresses(["cn01"]))
    write(document, tmp_path / "config.yaml")

    assert load(tmp_path / "config.yaml").nodes[NodeName("cn01")].devices == load(path).nodes[NodeName("cn01")].devices
