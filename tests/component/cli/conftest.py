"""A daemon for each test of the front ends."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.front_daemon import Cluster, FrontDaemon


@pytest.fixture
def daemon() -> Iterator[FrontDaemon]:
    # Short: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="crane-") as directory, FrontDaemon(Path(directory) / "front.sock") as daemon:
        yield daemon


@pytest.fixture
def cluster(daemon: FrontDaemon) -> Cluster:
    return Cluster(daemon)
