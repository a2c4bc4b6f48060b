"""A containment that nothing can kill, for what happens then."""

from collections.abc import Sequence

from cranehooks.model.limits import Limits, Offers, Usage, words
from cranehooks.model.run import Leftover


class StubbornCell:
    """Never empty, whatever is done to it."""

    cgroup: str | None = None
    cgroup_fd: int | None = None
    entry_fds: tuple[int, ...] = ()
    wants_subreaper = False

    def __init__(self, name: str, members: tuple[Leftover, ...], limits: Limits | None = None) -> None:
        self.name = name
        self.limits = limits
        self.not_enforced = words(limits.kinds) if limits else ()
        self.signals: list[int] = []
        self.kills = 0
        self.is_removed = False
        self._members = members

    def started(self, pid: int) -> None:
        """Not its concern."""

    def leader_exited(self) -> None:
        """Not its concern."""

    def signal_all(self, number: int) -> None:
        self.signals.append(number)

    def members(self) -> list[Leftover]:
        return list(self._members)

    def is_empty(self) -> bool:
        return not self._members

    def kill(self) -> None:
        self.kills += 1

    def usage(self) -> Usage:
        return Usage()

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return ()

    def keep(self) -> None:
        """Nobody comes back for it."""

    def remove(self) -> None:
        self.is_removed = True


class StubbornContainment:
    """Hands out cells in which `members` live for ever; without members, cells that are always empty."""

    driver = "stubborn"
    offers = Offers(what_is_lost="everything")

    def __init__(self, *members: Leftover) -> None:
        self.members = members
        self.cells: list[StubbornCell] = []

    def create(self, name: str, *, limits: Limits | None = None) -> StubbornCell:
        self.cells.append(StubbornCell(name, self.members, limits))
        return self.cells[-1]

    def create_at(self, *parts: str, limits: Limits | None = None) -> StubbornCell:
        return self.create("/".join(parts), limits=limits)

    def create_inside(self, cgroup: str, name: str, *, limits: Limits | None = None) -> StubbornCell:
        return self.create(f"{cgroup}/{name}", limits=limits)

    def sweep(self, *parts: str) -> list[Leftover]:
        del parts
        return []

    def end_kept(self, name: str) -> list[Leftover]:
        del name
        return []

    def kept(self) -> list[Leftover]:
        return []

    def close(self) -> None:
        """Nothing to give back."""
