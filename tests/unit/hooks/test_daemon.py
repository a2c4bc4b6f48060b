"""A daemon tells what contains its hooks, and what it cannot do about it."""

import pytest
from structlog.testing import capture_logs

from cranehooks.execution import daemon
from cranehooks.execution.spawner_messages import Ready


def test_a_driver_that_misses_nothing_is_told_plainly() -> None:
    with capture_logs() as logs:
        daemon.tell_of(Ready("hybrid", ""))
    assert [(entry["log_level"], entry["event"], entry["driver"]) for entry in logs] == [("info", "containment", "hybrid")]


def test_what_is_lost_is_a_warning_and_what_was_swept_is_named() -> None:
    with capture_logs() as logs:
        daemon.tell_of(Ready("none", "no limits", ("7 sleep 3600",)))
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["containment_degraded", "leftovers_killed"]
    assert warnings[0]["lost"] == "no limits"
    assert warnings[1]["processes"] == ["7 sleep 3600"]


def test_a_daemon_that_may_not_move_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str | None:
        raise PermissionError(13, "Permission denied", "/sys/fs/cgroup/x/cgroup.procs")

    monkeypatch.setattr(daemon, "settle", refused)
    with capture_logs() as logs:
        daemon.make_room("auto")
    assert [entry["event"] for entry in logs] == ["cgroup_not_left"]
    with capture_logs() as logs:
        daemon.make_room("none")
        daemon.make_room("cgroup1")
    assert logs == []


def test_a_daemon_that_moves_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "settle", lambda: "/sys/fs/cgroup/craned.service/crane-daemon")
    with capture_logs() as logs:
        daemon.make_room("cgroup2")
    assert logs[0]["now"] == "/sys/fs/cgroup/craned.service/crane-daemon"
