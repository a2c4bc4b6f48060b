"""What holds hooks and jobs together on a real node: told to people and Prometheus, and not held up by what cannot be killed."""

from collections.abc import Iterator

import pytest

from cranehooks.execution.containment.detect import DRIVERS
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.frozen import can_freeze, frozen
from tests.support.metrics import scrape
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[ScriptedCluster]:
    hooks = {"UnkillableAfter": 1, "KillGrace": 0.2, "PrologTimeout": 2}
    with ScriptedCluster(2, hooks=hooks, points=("Prolog", "Epilog")) as running:
        yield running


@pytest.fixture(autouse=True)
def settled(cluster: ScriptedCluster) -> Iterator[None]:
    yield
    cluster.settle()


def test_the_driver_of_a_node_is_told(cluster: ScriptedCluster) -> None:
    shown = cluster.hookctl_json("node", "cn01")
    node = shown["node"]
    assert node["containment"] in DRIVERS
    assert f"hooks contained by {node['containment']}" in cluster.hookctl("node", "cn01").stdout
    for daemon in ("cn01", "cranectld"):
        told = scrape(cluster.cluster.daemons[daemon].ready["metrics"])
        assert {name for name in told if name.startswith("crane_containment_info")} == {
            f'crane_containment_info{{driver="{node["containment"]}"}}'
        }


@pytest.mark.skipif(not can_freeze(), reason="only a version 1 freezer makes a process that cannot be killed")
def test_what_cannot_be_killed_drains_its_node_and_holds_up_nothing(cluster: ScriptedCluster) -> None:
    gate = cluster.gate("stuck")
    cluster.plan("stuck", "Prolog", gate.line, node="cn01")
    cluster.submit("stuck", "true", "-w", "cn01")
    [pid] = gate.await_arrivals()
    with frozen(pid):
        node = eventually(lambda: next((node for node in [cluster.nodes()["cn01"]] if node.drains), None), deadline_s=PATIENCE_S)
        assert node is not None
        assert "unkillable" in node.drains[0].reason
        # The drained node has the attempt's Epilog behind it, and the other one works.
        eventually(lambda: cluster.nodes()["cn01"].use == "idle", deadline_s=PATIENCE_S)
        cluster.submit("other", "true")
        assert cluster.ended("other").state == "Completed"
        [run] = [run for run in runs_of(cluster.job("stuck"), HookPoint.PROLOG) if run.key.node == "cn01"]
        assert run.outcome.kind is OutcomeKind.UNKILLABLE
        assert f"alive 1 s after KILL: {pid} " in run.outcome.detail
        cluster.cancel_all()
