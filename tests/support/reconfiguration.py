"""Other settings for a running cluster, and the former ones afterwards: what a test of one setting needs no cluster of its own for."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from cranehooks.settings import load
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster


@contextmanager
def reconfigured(stage: ScriptedCluster, hooks: Mapping[str, object] | None = None, **settings: object) -> Iterator[None]:
    """Every daemon takes over changed settings, for the jobs that come meanwhile.

    Args:
        stage: The cluster; its jobs may go on with what they started with.
        hooks: Keys of JobLifecycleHook; None as a value removes one.
        **settings: Keys at the top of the file; likewise.
    """
    file = stage.cluster.config_file
    original = file.read_text()
    document = yaml.safe_load(original)
    section = _changed(document["JobLifecycleHook"], hooks or {})
    try:
        _take_over(stage, yaml.safe_dump(_changed({**document, "JobLifecycleHook": section}, settings), sort_keys=False))
        yield
    finally:
        stage.settle()
        _take_over(stage, original)


def _changed(mapping: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in {**mapping, **changes}.items() if value is not None}


def _take_over(stage: ScriptedCluster, text: str) -> None:
    """Returns when every daemon has said that it has read the file."""
    file = stage.cluster.config_file
    file.write_text(text)
    digest = load(file).digest
    said = {daemon.log: len(daemon.log.read_text()) for daemon in stage.cluster.daemons.values()}
    for name in stage.cluster.daemons:
        stage.cluster.signal(name, signal.SIGHUP)
    for log, length in said.items():
        eventually(partial(_has_read, log, length, digest), deadline_s=PATIENCE_S)


def _has_read(log: Path, length: int, digest: str) -> bool:
    """Whether what the log says beyond `length` names the settings."""
    news = log.read_text()[length:]
    assert "refused" not in news, news
    return digest in news
