import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cranekit import logs
from cranekit.errors import CraneError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_one_json_object_per_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", program="craned")
    structlog.get_logger().info("hook.ended", script="a.sh")
    structlog.get_logger().debug("dropped")
    logging.getLogger("grpc").warning("of a %s", "library")
    own, foreign = map(json.loads, capsys.readouterr().err.splitlines())
    assert own.items() >= {"event": "hook.ended", "script": "a.sh", "level": "info", "program": "craned"}.items()
    assert own["timestamp"].endswith("Z")
    assert foreign.items() >= {"event": "of a library", "level": "warning", "logger": "grpc"}.items()


def test_tracebacks_are_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        dict[str, int]()["lost"]
    except KeyError:
        structlog.get_logger().exception("failed")
    assert "KeyError: 'lost'" in json.loads(capsys.readouterr().err)["exception"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", as_json=False)
    structlog.get_logger().debug("seen", node="cn01")
    assert "seen" in (line := capsys.readouterr().err)
    assert "node=cn01" in line


def test_a_level_that_is_none() -> None:
    with pytest.raises(CraneError, match="debug, info, warning, error"):
        logs.configure("loud")


def test_tracebacks_for_people_show_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(token: str) -> None:
        raise LookupError(len(token))

    logs.configure("info", as_json=False)
    try:
        fail(str(0x5EC2E7))
    except LookupError:
        structlog.get_logger().exception("failed")
    shown = capsys.readouterr().err
    assert "LookupError: 7" in shown
    assert "6210279" not in shown
