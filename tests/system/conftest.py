"""Clusters for the system tests: one per module where tests leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.support.scripted_cluster import ScriptedCluster


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Two nodes with the default profile and a tracing script at every point."""
    with ScriptedCluster() as cluster:
        yield cluster


@pytest.fixture
def stage(shared_cluster: ScriptedCluster) -> Iterator[ScriptedCluster]:
    """The module's cluster, idle, all nodes in service; checked for leftovers after the test."""
    yield shared_cluster
    shared_cluster.settle()
