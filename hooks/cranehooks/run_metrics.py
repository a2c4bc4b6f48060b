"""Prometheus metrics of hook runs, the same in every daemon that runs hooks. Labels are bounded: script by file name, at most so many."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun

MAX_SCRIPTS = 200
"""Distinct script names as label values; beyond it they count as `other`."""

DURATION_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class HookRunMetrics:
    """Counts hook runs by point, script and outcome, and measures how long they took and waited."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter("crane_hook_runs", "Scripts run, by outcome.", ["point", "script", "outcome"], registry=registry)
        self._duration = Histogram(
            "crane_hook_run_duration_seconds",
            "How long a script ran.",
            ["point", "script"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._wait = Histogram(
            "crane_hook_queue_wait_seconds",
            "How long a hook waited for its turn.",
            ["point"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._running = Gauge("crane_hooks_running", "Hook runs under way.", ["point"], registry=registry)
        self._leftovers = Counter(
            "crane_hook_leftovers_killed", "Processes that scripts left behind and that were killed.", ["point", "script"],
            registry=registry,
        )  # fmt: skip
        self._kept = Counter(
            "crane_hook_leftovers_kept", "Processes that scripts left behind and that live on (KeepProcesses).", ["point", "script"],
            registry=registry,
        )  # fmt: skip
        self._containment = Gauge(
            "crane_containment_info", "Always 1; the label says what holds the processes of hooks.", ["driver"], registry=registry
        )
        self._scripts: set[str] = set()

    def contained_by(self, driver: str) -> None:
        """Says which containment driver hooks have from now on."""
        self._containment.clear()
        self._containment.labels(driver).set(1)

    def started(self, point: HookPoint) -> None:
        self._running.labels(point.value).inc()

    def ended(self, run: HookRun) -> None:
        """A run that was announced with `started` is over."""
        self._running.labels(run.key.point.value).dec()
        self.observe(run)

    def observe(self, run: HookRun) -> None:
        """Counts a run that another process made."""
        point = run.key.point.value
        self._wait.labels(point).observe(run.queue_wait_s)
        for script in run.scripts:
            name = self._label(script.name)
            self._runs.labels(point, name, script.outcome.kind.value).inc()
            self._duration.labels(point, name).observe(script.duration_s)
            if script.leftovers:
                self._leftovers.labels(point, name).inc(len(script.leftovers))
            if script.kept:
                self._kept.labels(point, name).inc(len(script.kept))
        if not run.scripts and not run.outcome.ok:
            self._runs.labels(point, "none", run.outcome.kind.value).inc()

    def _label(self, name: str) -> str:
        if name in self._scripts:
            return name
        if len(self._scripts) >= MAX_SCRIPTS:
            return "other"
        self._scripts.add(name)
        return name
