"""The drain budget: how many nodes one script may take out of service before the script itself is suspect. Pure."""

from dataclasses import dataclass, field, replace

from cranehooks.model.ids import NodeName


@dataclass(frozen=True, slots=True)
class Breaker:
    """Drains charged to one script version. Tripped, it stays so until an administrator resets it."""

    digest: str
    """sha256 of the script, or `path:…` where it could not be read."""
    script: str
    charges: tuple[tuple[float, NodeName], ...] = ()
    """When and for which node, oldest first, within the window."""
    tripped_at: float = 0.0
    reset_at: float = 0.0

    @property
    def tripped(self) -> bool:
        return self.tripped_at > 0

    @property
    def nodes(self) -> tuple[NodeName, ...]:
        return tuple(dict.fromkeys(node for _, node in self.charges))


@dataclass(frozen=True, slots=True)
class Charge:
    """Answer to a charge."""

    breaker: Breaker
    drains: bool
    """Whether the node may be drained for it."""
    trips: bool
    """Whether this charge tripped the breaker."""


@dataclass(slots=True)
class DrainBudget:
    """All breakers of a cluster.

    Time is given with each call (seconds since the epoch, so that it survives a restart of the controller).
    """

    budget: int
    window_s: float
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def charge(self, digest: str, script: str, node: NodeName, at: float) -> Charge:
        """One node is about to be drained for this script. A node that is charged already within the window costs nothing."""
        breaker = self.breakers.get(digest, Breaker(digest, script))
        charges = tuple(entry for entry in breaker.charges if entry[0] > at - self.window_s)
        breaker = replace(breaker, charges=charges, script=script)
        if breaker.tripped:
            self.breakers[digest] = breaker
            return Charge(breaker, drains=False, trips=False)
        if node not in breaker.nodes:
            if len(breaker.nodes) >= self.budget:
                breaker = replace(breaker, tripped_at=at)
                self.breakers[digest] = breaker
                return Charge(breaker, drains=False, trips=True)
            breaker = replace(breaker, charges=(*charges, (at, node)))
        self.breakers[digest] = breaker
        return Charge(breaker, drains=True, trips=False)

    def tripped(self) -> list[Breaker]:
        return [breaker for breaker in self.breakers.values() if breaker.tripped]

    def reset(self, prefix: str, at: float) -> list[Breaker]:
        """Closes the breakers whose digest starts with `prefix` (all for an empty one); their charges are forgotten."""
        chosen = [breaker for digest, breaker in self.breakers.items() if digest.startswith(prefix)]
        for breaker in chosen:
            self.breakers[breaker.digest] = Breaker(breaker.digest, breaker.script, reset_at=at)
        return chosen
