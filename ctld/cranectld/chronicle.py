"""Tells what happened: to the history, the decision log, the store and the metrics, in one place, in the order it happened."""

import structlog

from cranectld.decisions import DecisionLog
from cranectld.history import History
from cranectld.jobs.events import Decide, DecisionKind
from cranectld.jobs.model import Job
from cranectld.metrics import ControllerMetrics
from cranectld.nodes.model import Node
from cranectld.ports import Clock
from cranectld.store import Store
from cranehooks.model.ids import AttemptKey, NodeName
from cranehooks.model.run import HookRun

_log = structlog.get_logger()


class Chronicle:
    """Everything told here is queued for the store before anybody is woken."""

    def __init__(self, store: Store, clock: Clock, metrics: ControllerMetrics) -> None:
        self.history = History()
        self.decisions = DecisionLog()
        self._store = store
        self._clock = clock
        self._metrics = metrics

    def record(self, kind: str, text: str, key: AttemptKey | None = None, node: NodeName | None = None) -> None:
        """One event of a job, of a node, or of both."""
        self._store.add_event(self.history.add(self._clock.now(), kind, text, key, node))

    def record_run(self, run: HookRun) -> bool:
        """A hook run, once per run id. False for a repeat, or where there was no script to run."""
        if run.outcome.ok and not run.scripts:
            return False
        if not self.history.is_new_run(run.key.run_id):
            return False
        key = AttemptKey(run.key.job_id, run.key.attempt)
        text = f"{run.key.point.value} {run.outcome}"
        self._store.add_event(self.history.add(self._clock.now(), "hook", text, key, run.key.node, run))
        if not run.outcome.ok:
            script = run.failed_script
            _log.warning("hook.failed", run=run.key.run_id, outcome=str(run.outcome), script=script.path if script else None)
        return True

    def decided(self, job: Job, effect: Decide, node: Node | None) -> None:
        """A decision about a job, for its scheduler."""
        decision = self.decisions.add(self._clock.now(), effect.kind, job, node, effect.reason, effect.step_id or "")
        self._store.add_decision(decision)
        self._metrics.decided(effect.kind)
        _log.info(
            "decision", decision=effect.kind.value, job=job.job_id, attempt=job.attempt, reason=effect.reason, node=effect.node
        )

    def node_changed(self, node: Node, why: str) -> None:
        """A node's state as schedulers see it."""
        self._store.add_decision(self.decisions.add(self._clock.now(), DecisionKind.NODE, None, node, why, ""))
        self._metrics.decided(DecisionKind.NODE)
