"""A containment that nothing can kill, for what happens then."""

from collections.abc import Sequence

from cranehooks.model.run import Leftover


class StubbornCell:
    """Never empty, whatever is done to it."""

    cgroup_fd: int | None = None
    wants_subreaper = False

    def __init__(self, name: str, members: tuple[Leftover, ...]) -> None:
        self.name = name
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

    def wake_fds(self) -> Sequence[tuple[int, int]]:
        return ()

    def remove(self) -> None:
        self.is_removed = True


class StubbornContainment:
    """Hands out cells in which `members` live for ever; without members, cells that are always empty."""

    driver = "stubborn"

    def __init__(self, *members: Leftover) -> None:
        self.members = members
        self.cells: list[StubbornCell] = []

    def create(self, name: str) -> StubbornCell:
        self.cells.append(StubbornCell(name, self.members))
        return self.cells[-1]

    def create_at(self, *parts: str) -> StubbornCell:
        return self.create("/".join(parts))

    def create_inside(self, cgroup: str, name: str) -> StubbornCell:
        return self.create(f"{cgroup}/{name}")

    def sweep(self, *parts: str) -> list[Leftover]:
        del parts
        return []

    def close(self) -> None:
        """Nothing to give back."""
