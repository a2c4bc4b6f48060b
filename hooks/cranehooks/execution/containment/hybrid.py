"""Containment on hosts that have both versions: kill and wait by version 2, limits by version 1 controllers.

Processes are born in their version 2 cgroup. They move only into those version 1 controllers in which their cell, or
one above it, has a limit; a cell without limits costs no directory and no move.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from cranehooks.execution.containment.cgroup2 import CgroupCell, CgroupContainment
from cranehooks.execution.containment.hierarchies import HOOKS, Hierarchies
from cranehooks.execution.containment.seats import ControllerTrees, Seats
from cranehooks.model.limits import LimitKind, Limits, Offers, Usage, words


class HybridCell(CgroupCell):
    """One version 2 cgroup, and the version 1 cgroups that limit it."""

    def __init__(self, directory: Path, seats: Seats, trees: ControllerTrees, parts: tuple[str, ...]) -> None:
        super().__init__(directory, seats.not_enforced)
        self._seats = seats
        self._trees = trees
        self._parts = parts

    @property
    def entry_fds(self) -> Sequence[int]:  # type: ignore[override]  # the plain one has none, ever
        return self._seats.entry_fds

    def usage(self) -> Usage:
        limited = self._seats.usage()
        # Version 2 counts it even where it controls nothing.
        return Usage(super().usage().cpu_s, limited.memory_peak_bytes, limited.oom_kills, limited.forks_refused)

    def keep(self) -> None:
        super().keep()
        self._seats.leave()

    def remove(self) -> None:
        if self._fd < 0:
            return
        super().remove()
        self._seats.close()
        if self._parts and self._parts[0] != HOOKS:
            # Cells below it may have had limits where it has none.
            self._trees.remove(self._parts)


class HybridContainment(CgroupContainment):
    """Cells below `<own cgroup>/crane/<root_name>` in version 2, and of the same names in version 1 where needed."""

    driver = "hybrid"

    def __init__(self, base: Path, root_name: str, hierarchies: Hierarchies, trees: ControllerTrees) -> None:
        """Make the root of version 2. Raises OSError."""
        self._trees = trees
        super().__init__(base, root_name, hierarchies)

    def close(self) -> None:
        super().close()
        self._trees.close()

    def _cell(self, directory: Path, limits: Limits | None, *, passes_on: bool = True) -> HybridCell:
        del passes_on
        parts = directory.relative_to(self.root).parts if directory.is_relative_to(self.root) else ()
        seats = self._trees.seats(parts, limits) if parts else Seats({}, (), limits.kinds if limits else frozenset())
        try:
            return HybridCell(directory, seats, self._trees, parts)
        except OSError:
            seats.close()
            raise

    @cached_property
    def offers(self) -> Offers:
        enforced = self._trees.kinds
        lost = words(frozenset(LimitKind) - enforced)
        return Offers(enforced, f"no limits of {', '.join(lost)}" if lost else "")
