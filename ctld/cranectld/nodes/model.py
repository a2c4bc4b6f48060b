"""A node as the controller holds it: pure values and the rules that change them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache

from cranehooks.model.gres import HeldDevices, chosen_devices, device_types
from cranehooks.model.ids import AttemptKey, NodeName
from cranehooks.model.job import JobSpec, NodeShare

_types = cache(device_types)
"""Of few texts: one for each kind of node."""


class DrainOwner(Enum):
    HOOKS = "hooks"
    ADMIN = "admin"


class NodeUse(Enum):
    IDLE = "idle"
    ALLOCATED = "allocated"
    COMPLETING = "completing"


@dataclass(frozen=True, slots=True)
class DrainCause:
    owner: DrainOwner
    reason: str
    at: float
    by: str = ""
    """User name of the administrator."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the configuration says of a node."""

    name: NodeName
    cpus: float
    memory_bytes: int
    gres: str = ""
    address: str = ""
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """State of one node. `drains`, `owed` and `boot_id` survive a restart of the controller; the rest is learnt anew."""

    config: NodeConfig
    up: bool = False
    instance: str = ""
    boot_id: str = ""
    version: str = ""
    address: str = ""
    config_digest: str = ""
    containment: str = ""
    containment_lost: str = ""
    """What its containment cannot do, for people."""
    only_uid: int | None = None
    """Whose jobs alone its craned can run, because it is not root; None: anybody's, or it has not said yet."""
    last_heartbeat: float = 0.0
    """Seconds since the epoch, for people; liveness is judged by the monotonic clock elsewhere."""
    drains: tuple[DrainCause, ...] = ()
    shares: Mapping[AttemptKey, NodeShare] = field(default_factory=dict)
    """What attempts hold."""
    completing: frozenset[AttemptKey] = frozenset()
    """Those of `shares` whose Epilog is still to end."""
    owed: frozenset[AttemptKey] = frozenset()
    """Attempts that ended without this node: their Epilog is still to run here, and the node takes no work until then."""

    @property
    def name(self) -> NodeName:
        return self.config.name

    @property
    def is_drained(self) -> bool:
        return bool(self.drains)

    @property
    def drain_reason(self) -> str:
        return "; ".join(cause.reason for cause in self.drains)

    @property
    def use(self) -> NodeUse:
        if self.completing or self.owed:
            return NodeUse.COMPLETING
        return NodeUse.ALLOCATED if self.shares else NodeUse.IDLE

    def refusal_of(self, spec: JobSpec) -> str:
        """Why the node can never run that user's job, for a person; empty when it can."""
        if self.only_uid in (None, spec.uid):
            return ""
        return (
            f"node {self.name} runs jobs of uid {self.only_uid} only, because its craned is not root: "
            f"this is a job of {spec.user} (uid {spec.uid})"
        )

    @property
    def takes_work(self) -> bool:
        return self.up and not self.drains and not self.owed

    @property
    def unavailable_because(self) -> str:
        """Why it takes no work, for a person; empty when it does."""
        reasons = []
        if not self.up:
            reasons.append("down")
        if self.drains:
            reasons.append(f"drained: {self.drain_reason}")
        if self.owed:
            reasons.append(f"owes the Epilog of job {min(key.job_id for key in self.owed)}")
        return ", ".join(reasons)

    @property
    def cpus_used(self) -> float:
        return sum(share.cpus for share in self.shares.values())

    @property
    def memory_used_bytes(self) -> int:
        return sum(share.memory_bytes for share in self.shares.values())

    @property
    def cpus_free(self) -> float:
        return self.config.cpus - self.cpus_used

    @property
    def memory_free_bytes(self) -> int:
        return self.config.memory_bytes - self.memory_used_bytes

    @property
    def devices_used(self) -> tuple[HeldDevices, ...]:
        """Those that attempts hold, by name."""
        taken = self._devices_taken()
        return tuple(HeldDevices(name, tuple(sorted(indexes))) for name, indexes in taken.items())

    def free_devices(self, gres: str) -> tuple[HeldDevices, ...] | None:
        """Devices for a request among those that nobody holds; None when there are too few.

        Raises:
            ValueError: `gres` is no `name[:type][:count],…`.
        """
        return chosen_devices(_types(self.config.gres), self._devices_taken(), gres) if gres else ()

    def _devices_taken(self) -> dict[str, frozenset[int]]:
        taken: dict[str, frozenset[int]] = {}
        for share in self.shares.values():
            taken |= {held.name: taken.get(held.name, frozenset()) | set(held.indexes) for held in share.devices}
        for share in self.shares.values():
            if share.gres and not share.devices:
                # Of a job that was allocated before devices were told apart: it counts as holding the lowest.
                for held in chosen_devices(_types(self.config.gres), taken, share.gres) or ():
                    taken[held.name] = taken.get(held.name, frozenset()) | set(held.indexes)
        return taken


MAX_DRAIN_CAUSES = 16
"""The first is always kept; of the later ones the newest."""


def drained(node: Node, cause: DrainCause) -> Node:
    """The node with one more cause. The first cause stays first; a cause that is there already is not repeated."""
    if any(known.owner is cause.owner and known.reason == cause.reason for known in node.drains):
        return node
    causes = (*node.drains, cause)
    if len(causes) > MAX_DRAIN_CAUSES:
        causes = (causes[0], *causes[-(MAX_DRAIN_CAUSES - 1) :])
    return replace(node, drains=causes)


def resumed(node: Node, owner: DrainOwner | None = None) -> Node:
    """The node without its causes, or without those of one owner."""
    return replace(node, drains=tuple(cause for cause in node.drains if owner is not None and cause.owner is not owner))


def allocated(node: Node, key: AttemptKey, share: NodeShare) -> Node:
    return replace(node, shares={**node.shares, key: share})


def completing(node: Node, key: AttemptKey) -> Node:
    return replace(node, completing=node.completing | {key}) if key in node.shares else node


def freed(node: Node, key: AttemptKey) -> Node:
    """The attempt holds nothing here any more and owes nothing."""
    return replace(
        node,
        shares={held: share for held, share in node.shares.items() if held != key},
        completing=node.completing - {key},
        owed=node.owed - {key},
    )


def owing(node: Node, key: AttemptKey) -> Node:
    """The attempt went on without this node: its Epilog is to be run when the node is back."""
    return replace(freed(node, key), owed=node.owed | {key})
