"""All nodes of the cluster: what they hold, who drained them, which Epilogs they owe, and what one script may drain."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import structlog

from cranectld.chronicle import Chronicle
from cranectld.metrics import ControllerMetrics
from cranectld.nodes import model
from cranectld.nodes.breaker import Breaker, DrainBudget
from cranectld.nodes.model import DrainCause, DrainOwner, Node
from cranectld.ports import Clock
from cranectld.store import NodeRecord, OwedEpilog, Restored, Store
from cranehooks.model.ids import AttemptKey, NodeName
from cranehooks.model.job import NodeShare
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.run import HookRun
from cranehooks.policy import drain_reason

_log = structlog.get_logger()


class Fleet:
    """Holds the nodes; every change goes through here, is kept, and is told.

    A node that has left the configuration is no longer here; what an old attempt still says of it changes nothing.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        budget: DrainBudget,
        *,
        store: Store,
        chronicle: Chronicle,
        clock: Clock,
        metrics: ControllerMetrics,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when something changed that may let a job start."""
        self._nodes = {node.name: node for node in nodes}
        self._owed: dict[tuple[NodeName, AttemptKey], OwedEpilog] = {}
        self.budget = budget
        self._store = store
        self._chronicle = chronicle
        self._clock = clock
        self._metrics = metrics
        self._wake = wake

    @property
    def nodes(self) -> Mapping[NodeName, Node]:
        """By name, in the order of the configuration."""
        return MappingProxyType(self._nodes)

    def __getitem__(self, name: NodeName) -> Node:
        return self._nodes[name]

    def __contains__(self, name: NodeName) -> bool:
        return name in self._nodes

    def restore(self, restored: Restored) -> None:
        """Takes over drains, owed Epilogs and breakers from the store."""
        for record in restored.nodes:
            if record.name in self._nodes:
                self._nodes[record.name] = replace(self._nodes[record.name], boot_id=record.boot_id, drains=record.drains)
        for owed in restored.owed:
            self._owed[owed.node, owed.key] = owed
            if owed.node in self._nodes:
                self._nodes[owed.node] = model.owing(self._nodes[owed.node], owed.key)
        self.budget.breakers |= {breaker.digest: breaker for breaker in restored.breakers}

    # What attempts hold

    def allocate(self, key: AttemptKey, shares: Iterable[NodeShare]) -> None:
        for share in shares:
            self._put(model.allocated(self._nodes[share.node], key, share))

    def complete(self, key: AttemptKey, names: Iterable[NodeName]) -> None:
        """The attempt's after-hooks run there now."""
        for name in names:
            if name in self._nodes:
                self._put(model.completing(self._nodes[name], key))

    def free(self, name: NodeName, key: AttemptKey) -> None:
        if name in self._nodes:
            self._put(model.freed(self._nodes[name], key))
        self._wake()

    # Presence

    def put(self, node: Node, why: str) -> None:
        """A node came, went, or said something new of itself."""
        self._put(node)
        self._chronicle.node_changed(node, why)
        self._wake()

    def heard(self, name: NodeName) -> None:
        """A heartbeat: nothing but its time is new."""
        self._nodes[name] = replace(self._nodes[name], last_heartbeat=self._clock.now())

    # Drains

    def drain(self, name: NodeName, cause: DrainCause) -> None:
        """Takes a node out of service. A cause it has already is not repeated."""
        node = self._nodes.get(name)
        changed = model.drained(node, cause) if node is not None else None
        if changed is None or changed is node:
            return
        self._put(changed)
        self._metrics.drained(cause.owner)
        self._chronicle.node_changed(changed, cause.reason)
        _log.warning("node.drained", node=name, owner=cause.owner.value, reason=cause.reason)

    def drain_for_hook(self, name: NodeName, reason: str) -> None:
        self.drain(name, DrainCause(DrainOwner.HOOKS, reason, self._clock.now()))

    def resume(self, name: NodeName, owner: DrainOwner | None) -> bool:
        """Clears its drains (of one owner). False when there was nothing to clear."""
        node = self._nodes[name]
        changed = model.resumed(node, owner)
        if changed.drains == node.drains:
            return False
        self.put(changed, "resumed")
        return True

    def charge(self, run: HookRun, node: NodeName) -> str:
        """Charges the drain of a node to the script whose failure asks for it. Returns the script's name when its budget is used up."""
        script = run.failed_script
        path = script.path if script is not None else run.key.point.value
        digest = script.sha256 if script is not None and script.sha256 else f"path:{path}"
        charge = self.budget.charge(digest, path, node, self._clock.now())
        self._store.put_breaker(charge.breaker)
        if charge.trips:
            self._metrics.breaker_tripped()
            text = f"{path} drained {len(charge.breaker.nodes)} nodes: nothing more is drained for it until hookctl breaker reset"
            self._chronicle.record("breaker", text, AttemptKey(run.key.job_id, run.key.attempt))
            _log.error("breaker.tripped", script=path, digest=digest, nodes=charge.breaker.nodes)
        return "" if charge.drains else path.rsplit("/", 1)[-1]

    def reset_breakers(self, prefix: str, by: str) -> list[Breaker]:
        """Closes the breakers whose digest starts with `prefix`."""
        chosen = self.budget.reset(prefix, self._clock.now())
        for breaker in chosen:
            self._store.put_breaker(self.budget.breakers[breaker.digest])
            self._chronicle.record("breaker", f"{breaker.script} reset by {by}")
        self._wake()
        return chosen

    # Owed Epilogs

    def owed_by(self, name: NodeName) -> Iterator[OwedEpilog]:
        return (owed for (node, _), owed in self._owed.items() if node == name)

    def owes(self, name: NodeName, key: AttemptKey) -> bool:
        return (name, key) in self._owed

    def owe(self, owed: OwedEpilog) -> None:
        """The node went Down with this Epilog undone: it takes no work until it has run it."""
        self._owed[owed.node, owed.key] = owed
        self._store.put_owed(owed)
        if owed.node in self._nodes:
            self._put(model.owing(self._nodes[owed.node], owed.key))

    def settle(self, name: NodeName, key: AttemptKey, epilog: HookRun | None) -> None:
        """The node has run an Epilog it owed; one that failed drains it, like any other."""
        if epilog is not None and not epilog.outcome.ok and epilog.outcome.kind is not OutcomeKind.STOPPED:
            reason = drain_reason(epilog)
            self.drain_for_hook(name, reason)
            self._chronicle.record("drained", reason, key, name)
        del self._owed[name, key]
        self._store.drop_owed(name, key)
        self.put(model.freed(self._nodes[name], key), f"ran the Epilog of job {key.job_id} that it owed")
        self._chronicle.record("node", f"{name} ran the Epilog it owed", key, name)

    def _put(self, node: Node) -> None:
        old = self._nodes[node.name]
        self._nodes[node.name] = node
        if (old.drains, old.boot_id) != (node.drains, node.boot_id):
            self._store.put_node(NodeRecord(node.name, node.boot_id, node.drains))
