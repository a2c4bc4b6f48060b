from pathlib import Path

import pytest

from craned.places import boot_id, cgroup_instance, prepare
from cranekit.errors import CraneError


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


def test_who_may_enter(tmp_path: Path) -> None:
    places = prepare(tmp_path / "run", tmp_path / "state")
    assert modes(places.run_dir, places.supervisors_socket.parent, places.steps_dir) == [0o755, 0o700, 0o711]
    assert modes(places.state_dir) in ([0o700], [0o711])
    assert prepare(tmp_path / "run", tmp_path / "state") == places


def test_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CraneError, match="cannot make"):
        prepare(tmp_path / "file" / "run", tmp_path / "state")


def test_the_boot_id_can_be_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRANE_BOOT_ID", raising=False)
    assert len(boot_id()) == 36
    monkeypatch.setenv("CRANE_BOOT_ID", "second")
    assert boot_id() == "second"


def test_an_instance_is_the_same_after_a_restart_and_another_one_elsewhere(tmp_path: Path) -> None:
    assert cgroup_instance("c", "cn01", tmp_path) == cgroup_instance("c", "cn01", tmp_path)
    assert cgroup_instance("c", "cn01", tmp_path) != cgroup_instance("c", "cn01", tmp_path / "other")
