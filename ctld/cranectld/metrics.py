"""The controller's Prometheus metrics. Labels are bounded: no job, user or free text."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cranectld.jobs.events import DecisionKind
from cranectld.jobs.model import Job, JobState
from cranectld.nodes.model import DrainOwner
from cranectld.store import Store
from cranehooks.run_metrics import HookRunMetrics


class ControllerMetrics:
    """What the controller counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = HookRunMetrics(registry)
        self._jobs = Gauge("crane_jobs", "Jobs by state; ended ones since the start.", ["state"], registry=registry)
        self._decisions = Counter("crane_decisions", "Decisions about jobs.", ["decision"], registry=registry)
        self._drains = Counter("crane_drains", "Nodes drained, by who did it.", ["cause"], registry=registry)
        self._trips = Counter("crane_breaker_trips", "Scripts whose drain budget was used up.", registry=registry)
        self._cpu = Counter("crane_jobs_cpu_seconds", "CPU time that jobs used, told when they leave a node.", registry=registry)
        kills = "Processes of jobs that the kernel killed for want of memory, told when they leave a node."
        self._oom_kills = Counter("crane_jobs_oom_kills", kills, registry=registry)
        self._registry = registry
        for state in JobState:
            self._jobs.labels(state.value)
        for kind in DecisionKind:
            self._decisions.labels(kind.value)
        for owner in DrainOwner:
            self._drains.labels(owner.value)

    def job_changed(self, old: Job | None, new: Job) -> None:
        known = old.usage if old is not None and old.attempt == new.attempt else {}
        for node, usage in new.usage.items():
            # A job that comes back from the store has been counted.
            if old is not None and node not in known:
                self._cpu.inc(usage.cpu_s or 0.0)
                self._oom_kills.inc(usage.oom_kills or 0)
        if old is not None and old.state is new.state:
            return
        if old is not None:
            self._jobs.labels(old.state.value).dec()
        self._jobs.labels(new.state.value).inc()

    def decided(self, kind: DecisionKind) -> None:
        self._decisions.labels(kind.value).inc()

    def drained(self, owner: DrainOwner) -> None:
        self._drains.labels(owner.value).inc()

    def breaker_tripped(self) -> None:
        self._trips.inc()

    def watch_store(self, store: Store) -> None:
        """Exports whether the store can be written, and what waits for it."""
        writable = Gauge(
            "crane_store_writable", "1 while the controller's store can be written, else 0.", registry=self._registry
        )
        writable.set_function(lambda: 0 if store.failure else 1)
        backlog = Gauge("crane_store_backlog", "Changes that are not on disk yet.", registry=self._registry)
        backlog.set_function(lambda: store.backlog)

    def watch_nodes(self, states: Callable[[], Mapping[str, int]]) -> None:
        """Exports how many nodes are in each state, asked at each scrape."""
        self._registry.register(_NodeStates(states))


class _NodeStates(Collector):
    def __init__(self, states: Callable[[], Mapping[str, int]]) -> None:
        self._states = states

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("crane_nodes", "Nodes by state.", labels=["state"])
        for state, count in self._states().items():
            family.add_metric([state], count)
        yield family
