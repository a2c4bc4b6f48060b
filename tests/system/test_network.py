"""Every pair of programs over a bad network, under a running workload: nothing is lost, nothing runs twice, and all is well in the end."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pytest

from cranehooks.model.points import HookPoint
from tests.support.eventually import eventually
from tests.support.proxied_cluster import ProxiedCluster
from tests.support.scripted_cluster import ScriptedCluster, runs_of
from tests.support.tcp_proxy import FAIR, Network, Proxy, Weather

pytestmark = pytest.mark.may_leak("the proxies' connections come and go with a cluster that several tests share")

PATIENCE_S = 60.0
LINES = 2_000
BATCH_JOBS = 4
NODES = ("cn01", "cn02")
TO_CONTROLLER = tuple(f"{node}>cranectld" for node in NODES)
TO_NODES = tuple(f">{node}" for node in NODES)
FROM_FRONT_ENDS = ("login>cranectld",)
LINKS = {
    "nodes to controller": TO_CONTROLLER,
    "controller and launchers to nodes": TO_NODES,
    "front ends to controller": FROM_FRONT_ENDS,
    "everywhere": (*TO_CONTROLLER, *TO_NODES, *FROM_FRONT_ENDS),
}


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Connections are found dead within some three seconds, and nodes are Down long after that."""
    with ScriptedCluster(make_cluster=ProxiedCluster, HeartbeatInterval=0.8, NodeDownTimeout=30.0, LauncherGrace=30.0) as cluster:
        yield cluster


@pytest.fixture
def stage(shared_cluster: ScriptedCluster) -> Iterator[ScriptedCluster]:
    """As everywhere; whatever the test did to the network is over."""
    yield shared_cluster
    clear(shared_cluster)
    shared_cluster.settle()


@pytest.fixture
def impatient() -> Iterator[ScriptedCluster]:
    """Nodes that are silent are Down soon."""
    with ScriptedCluster(make_cluster=ProxiedCluster, HeartbeatInterval=0.8, NodeDownTimeout=5.0, LauncherGrace=30.0) as cluster:
        yield cluster
        clear(cluster)
        cluster.settle()


def network_of(stage: ScriptedCluster) -> Network:
    assert isinstance(stage.cluster, ProxiedCluster)
    return stage.cluster.network


def clear(stage: ScriptedCluster) -> None:
    for link in network_of(stage).links.values():
        link.cut(FAIR)
    stage.cluster.wait_until_up()


class Workload:
    """Batch jobs on all nodes, and on each a crun that prints before, during and after the storm."""

    def __init__(self, stage: ScriptedCluster, name: str) -> None:
        self._stage = stage
        self._stack = ExitStack()
        self.batch = [f"{name}-batch-{number}" for number in range(BATCH_JOBS)]
        self.crun = {f"{name}-crun-{node}": node for node in NODES}
        self._gate = stage.gate(name)

    def __enter__(self) -> Self:
        stage = self._stage
        lines = f'i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo "$i of a long output"; done'
        trickle = f'while [ ! -e {self._gate.path} ]; do n=$((n+1)); echo "$n in the storm"; sleep 0.02; done'
        command = f"{lines}; echo $$ >> {self._gate.path}.reached; n=0; {trickle}; {lines}; exit 3"
        self._processes = {
            label: self._stack.enter_context(stage.start("crun", "-w", node, "sh", "-c", command, label=label))
            for label, node in self.crun.items()
        }
        self._gate.await_arrivals(len(NODES))
        for label in self.batch:
            stage.submit(label, "sleep 0.3; echo done")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def finish(self) -> None:
        """Lets it come to its end, and looks at everything that was promised."""
        self._gate.open()
        for label, process in self._processes.items():
            output, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 3, f"{label}: {process.returncode} {errors!r}"
            self._check_output(label, output.decode().splitlines())
        for label in (*self.batch, *self.crun):
            self._check(label)

    @staticmethod
    def _check_output(label: str, found: list[str]) -> None:
        long = [f"{number} of a long output" for number in range(1, LINES + 1)]
        in_storm = [f"{number} in the storm" for number in range(1, len(found) - 2 * LINES + 1)]
        whole = [*long, *in_storm, *long]
        wrong = next((index for index, (one, other) in enumerate(zip(found, whole, strict=False)) if one != other), len(whole))
        assert found == whole, f"{label}: line {wrong}: {found[wrong : wrong + 3]} in place of {whole[wrong : wrong + 3]}"

    def _check(self, label: str) -> None:
        stage = self._stage
        job = stage.ended(label)
        expected = "Failed" if label in self.crun else "Completed"
        assert (job.state, job.attempt) == (expected, 1), f"{label}: {job}"
        for point in ("CranectldProlog", "Prolog", "TaskProlog", "TaskEpilog", "Epilog", "CranectldEpilog"):
            assert len(stage.calls(label, point)) == 1, f"{label}: {point}"
        for told in (HookPoint.PROLOG, HookPoint.TASK_PROLOG, HookPoint.EPILOG):
            assert len(runs_of(job, told)) == 1, f"{label}: {told} was told otherwise than once"
        if label in self.batch:
            assert stage.output(label) == "done\n"


@dataclass(frozen=True, slots=True)
class Storm:
    """How it begins on a link, and how one knows that it was felt there."""

    begin: Callable[[Proxy], None]
    seen: Callable[[Proxy], int]
    times: int

    def rage(self, links: list[Proxy]) -> None:
        """Until it was felt on every link; then the weather is fair."""
        enough = {link: self.seen(link) + self.times for link in links}
        for link in links:
            self.begin(link)
        eventually(lambda: all(self.seen(link) >= times for link, times in enough.items()), deadline_s=PATIENCE_S)
        for link in links:
            link.change(FAIR)


def accepted(link: Proxy) -> int:
    return link.accepted


STORMS = {
    "cut": Storm(lambda link: link.cut(), accepted, 1),
    "refused": Storm(lambda link: link.cut(Weather(refuses=True)), accepted, 4),
    "swallowed": Storm(lambda link: link.change(Weather(swallows=True)), lambda link: link.swallowed, 3),
    "half open": Storm(lambda link: link.half_open(), accepted, 1),
    "reordered": Storm(lambda link: link.reorder(1.0), lambda link: link.brought_late, 1),
}
CLIMATES = {"slow": Weather(delay_s=0.02, bytes_per_s=200_000), "late": Weather(delay_s=0.15)}
"""As bad as lines may be for good: an answer comes well within the 1.6 s after which these clusters give a connection up."""


def weather_the_storm(stage: ScriptedCluster, storm: str, where: str) -> None:
    with Workload(stage, f"{storm}-{where}".replace(" ", "-")) as workload:
        STORMS[storm].rage([network_of(stage).links[name] for name in LINKS[where]])
        workload.finish()
    assert not any(node.drains or not node.up for node in stage.nodes().values())


def live_in(stage: ScriptedCluster, climate: str, where: str) -> None:
    for name in LINKS[where]:
        network_of(stage).links[name].change(CLIMATES[climate])
    with Workload(stage, f"{climate}-{where}".replace(" ", "-")) as workload:
        workload.finish()
    assert not any(node.drains or not node.up for node in stage.nodes().values())


@pytest.mark.parametrize("storm", ["cut", "swallowed", "half open"])
def test_storm_everywhere_is_a_pause_and_no_more(stage: ScriptedCluster, storm: str) -> None:
    weather_the_storm(stage, storm, "everywhere")


@pytest.mark.long
@pytest.mark.parametrize("where", LINKS)
@pytest.mark.parametrize("storm", STORMS)
def test_any_storm_anywhere_is_a_pause_and_no_more(stage: ScriptedCluster, storm: str, where: str) -> None:
    weather_the_storm(stage, storm, where)


def test_everything_runs_over_late_lines(stage: ScriptedCluster) -> None:
    live_in(stage, "late", "nodes to controller")


@pytest.mark.long
@pytest.mark.parametrize("where", LINKS)
@pytest.mark.parametrize("climate", CLIMATES)
def test_everything_runs_over_bad_lines(stage: ScriptedCluster, climate: str, where: str) -> None:
    live_in(stage, climate, where)


# ---- longer than NodeDownTimeout


@pytest.mark.parametrize("weather", [Weather(refuses=True), pytest.param(Weather(swallows=True), marks=pytest.mark.long)])
def test_node_that_was_cut_off_owes_its_epilog_and_pays_it_once(impatient: ScriptedCluster, weather: Weather) -> None:
    stage, network = impatient, network_of(impatient)
    gate = stage.gate("cut-off")
    first_attempt = '[ "$CRANE_JOB_ATTEMPT" != 1 ]'
    stage.submit("cut-off", f"{first_attempt} || {{ {gate.line}; exit 9; }}; exit 5", "-w", "cn01", "-c1")
    gate.await_arrivals()
    interactive = stage.gate("crun-cut-off")
    with stage.start("crun", "-w", "cn01", "sh", "-c", interactive.line, label="crun-cut-off") as crun:
        interactive.await_arrivals()
        for name in ("cn01>cranectld", ">cn01"):
            network.links[name].cut(weather)
        eventually(lambda: not stage.nodes()["cn01"].up, deadline_s=PATIENCE_S)
        assert crun.wait(PATIENCE_S) != 0
    assert stage.await_state("crun-cut-off", "Cancelled", "NodeFail").attempt == 1
    lost = stage.await_state("cut-off", "Pending")
    assert set(stage.nodes()["cn01"].owed_epilogs) == {lost.job_id, stage.job("crun-cut-off").job_id}
    # It ends there with nobody to tell; the answer of the old attempt comes when it means nothing any more.
    gate.open()
    held_up = stage.gate("owed")
    stage.plan("cut-off", "Epilog", '[ "$CRANE_JOB_ATTEMPT" != 1 ] || {', held_up.line, "}", node="cn01")
    for name in ("cn01>cranectld", ">cn01"):
        network.links[name].change(FAIR)
    stage.cluster.wait_until_up()
    held_up.await_arrivals()
    assert stage.job("cut-off").state == "Pending", "the node takes no work before it has paid"
    held_up.open()
    job = stage.ended("cut-off")
    assert (job.state, job.attempt, job.exit.code, job.nodes) == ("Failed", 2, 5, ("cn01",))
    for label, attempts in (("cut-off", [1, 2]), ("crun-cut-off", [1])):
        for point in ("Prolog", "Epilog", "CranectldEpilog"):
            assert sorted(call.attempt for call in stage.calls(label, point)) == attempts, f"{label}: {point}"
    assert stage.nodes()["cn01"].owed_epilogs == ()
    assert not stage.nodes()["cn01"].drains


def test_controller_that_was_stopped_for_long_does_not_take_its_nodes_for_lost(impatient: ScriptedCluster) -> None:
    stage = impatient
    gate = stage.gate("stopped")
    stage.submit("stopped", f"{gate.line}; exit 4", "-w", "cn01")
    gate.await_arrivals()
    begun = time.monotonic()
    stage.cluster.signal("cranectld", signal.SIGSTOP)
    eventually(lambda: time.monotonic() > begun + 8, deadline_s=15)
    stage.cluster.signal("cranectld", signal.SIGCONT)
    stage.cluster.wait_until_up()
    gate.open()
    job = stage.ended("stopped")
    assert (job.state, job.attempt, job.exit.code) == ("Failed", 1, 4)
    assert "is down" not in stage.hookctl("events").stdout
