"""`hookctl local` as people and tests use it: real processes from nothing to nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_daemons import StartError
from tests.support.eventually import eventually

HOOKCTL = str(Path(sys.executable).with_name("hookctl"))


def processes_of(state_dir: Path) -> list[str]:
    """Command lines that name the state directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(state_dir) in command:
                found.append(command)
    return found


def run_hookctl(*arguments: str, timeout_s: float = 100, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HOOKCTL, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False, env=env)


def test_nodes_are_up_and_nothing_is_left() -> None:
    with LocalCluster(nodes=2) as cluster:
        state_dir = cluster.state_dir
        nodes = cluster.call("ListNodes")["nodes"]
        assert [(node["name"], node["up"]) for node in nodes] == [("cn01", True), ("cn02", True)]
        control = json.loads((state_dir / "cluster.json").read_text())
        assert set(control["daemons"]) == {"cranectld", "login", "cn01", "cn02"}
        assert all(Path(f"/proc/{daemon['pid']}").exists() for daemon in control["daemons"].values())
    assert not state_dir.exists()
    assert processes_of(state_dir) == []


def test_command_runs_inside_and_its_status_is_ours() -> None:
    result = run_hookctl(
        "local", "--nodes", "1", "--", "sh", "-c", 'hookctl nodes -o json; echo "dir $CRANE_LOCAL_STATE_DIR" >&2; exit 7'
    )
    assert result.returncode == 7, result.stderr
    assert [node["name"] for node in json.loads(result.stdout)["nodes"]] == ["cn01"]
    state_dir = Path(next(line for line in result.stderr.splitlines() if line.startswith("dir ")).removeprefix("dir "))
    assert not state_dir.exists()
    assert processes_of(state_dir) == []


def test_bad_configuration_is_told_with_its_place_and_nothing_is_started(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("ClusterName: c\nNodes:\n  - {name: 'cn[01', address: '127.0.0.1:1'}\nNoSuchKey: 1\n")
    result = run_hookctl("local", "--config", str(config), "--", "true")
    assert result.returncode == 2
    assert "hookctl: error:" in result.stderr
    assert f"{config}:4:" in result.stderr
    assert f"{config}:3:" in result.stderr
    assert "Traceback" not in result.stderr


def test_site_configuration_keeps_its_nodes_and_hooks(tmp_path: Path) -> None:
    hook = tmp_path / "prolog.sh"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    config = tmp_path / "config.yaml"
    config.write_text(
        "ClusterName: site\nNodes:\n  - {name: 'gpu[1-2]', address: 'unix:/run/crane/{name}.sock', cpu: 8, memory: 2G}\n"
        "  - {name: big, address: '127.0.0.1:10010', cpu: 64}\nPartitions:\n  - {name: gpu, nodes: 'gpu[1-2]', default: true}\n"
        "  - {name: big, nodes: big}\nJobLogHook:\n  Prolog: prolog.sh\n"
    )
    with LocalCluster(config=config) as cluster:
        nodes = cluster.call("ListNodes")["nodes"]
        assert [(node["name"], node["cpus"], node["partitions"]) for node in nodes] == [
            ("gpu1", 8.0, ["gpu"]), ("gpu2", 8.0, ["gpu"]), ("big", 64.0, ["big"]),
        ]  # fmt: skip
        assert str(hook) in cluster.config_file.read_text()


def test_daemons_can_be_killed_and_restarted() -> None:
    with LocalCluster(nodes=1, unix=True) as cluster:
        first = cluster.daemons["cn01"].pid
        assert cluster.kill("cn01") == signal.SIGKILL
        cluster.restart("cn01")
        assert cluster.daemons["cn01"].pid != first
        cluster.wait_until_up()
        cluster.kill("cranectld")
        cluster.restart("cranectld")
        cluster.wait_until_up()


def test_daemon_that_cannot_start_is_told_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from cranecli.hookctl import local_daemons

    real = local_daemons.program_path
    monkeypatch.setattr(local_daemons, "program_path", lambda name: "/bin/false" if name == "cranectld" else real(name))
    cluster = LocalCluster(nodes=1)
    with pytest.raises(StartError, match="cranectld ended early with status 1"):
        cluster.start()
    assert not cluster.state_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_command_it_runs_until_interrupted(number: int) -> None:
    state_dir = Path(f"/tmp/crane-test-{os.getpid()}-{number}")
    process = subprocess.Popen(
        [HOOKCTL, "local", "-N", "1", "--state-dir", str(state_dir)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        eventually(lambda: (state_dir / "cluster.json").exists() or process.poll() is not None, deadline_s=60)
        assert process.stdout is not None
        text = ""
        # Read to the table's last row: the signal may reach hookctl between two lines of it.
        while text.count("/metrics") < 2:
            line = process.stdout.readline()
            assert line, text
            text += line
        assert f"export CRANE_FRONT_SOCKET={state_dir}/run/login/front.sock" in text
        process.send_signal(number)
        text += process.stdout.read()
        assert process.wait(timeout=60) == 0, text
    finally:
        process.kill()
        process.communicate()
    assert not state_dir.exists()
    assert processes_of(state_dir) == []


def test_existing_state_directory_stays() -> None:
    state_dir = Path(f"/tmp/crane-kept-{os.getpid()}")
    state_dir.mkdir()
    try:
        second = LocalCluster(nodes=1, state_dir=state_dir)
        with (
            LocalCluster(nodes=1, state_dir=state_dir),
            pytest.raises(StartError, match="belongs to a local cluster that is running"),
        ):
            second.start()
        assert (state_dir / "logs" / "cranectld.log").exists()
    finally:
        subprocess.run(["/bin/rm", "-rf", str(state_dir)], check=True)


def test_unreachable_daemon_is_exit_3() -> None:
    result = run_hookctl("jobs", env={**os.environ, "CRANE_FRONT_SOCKET": "/nonexistent/front.sock"})
    assert result.returncode == 3
    assert result.stderr.startswith("hookctl: error: no daemon on this host")
