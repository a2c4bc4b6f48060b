"""The version 1 cgroups of one cell: made only in those controllers that its limits need, entered before exec."""

import contextlib
import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from cranehooks.execution.containment import limits1
from cranehooks.execution.containment.hierarchies import HOOKS, root_below
from cranehooks.execution.containment.tree import make_directory, make_new, remove_tree
from cranehooks.model.limits import LimitKind, Limits, Usage, words

FREEZER = "freezer"
"""Limits nothing: it is entered by those who kill by it only."""


class Seats:
    """Where the processes of one cell belong, besides their place in another hierarchy."""

    def __init__(self, made: Mapping[str, Path], entered: Collection[Path], not_enforced: frozenset[LimitKind]) -> None:
        """Open what is to be entered. Raises OSError."""
        self.not_enforced = words(not_enforced)
        self._made = dict(made)
        self._fds: list[int] = []
        try:
            for directory in dict.fromkeys(entered):
                self._fds.append(os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    @property
    def entry_fds(self) -> tuple[int, ...]:
        """`cgroup.procs` files to enter."""
        return tuple(self._fds)

    def usage(self) -> Usage:
        return limits1.usage(self._made)

    def close(self) -> None:
        """Close the files, and remove what was made for the cell; safe to repeat."""
        self.leave()
        for directory in dict.fromkeys(self._made.values()):
            remove_tree(directory)
        self._made.clear()

    def leave(self) -> None:
        """Close the files, and let stay what was made; safe to repeat."""
        while self._fds:
            os.close(self._fds.pop())


class ControllerTrees:
    """The version 1 controllers that we may use, each with its own tree `crane/<instance>/…` below our cgroup in it."""

    def __init__(self, bases: Mapping[str, Path], root_name: str) -> None:
        self._bases = bases
        self._tops = {controller: root_below(base, root_name) for controller, base in bases.items()}

    @cached_property
    def offered(self) -> Mapping[str, frozenset[LimitKind]]:
        """Limits by controller; one that is missing is not ours to use. Found out when it is needed first."""
        found = {controller: _probe(controller, base) for controller, base in self._bases.items()}
        return {controller: kinds for controller, kinds in found.items() if kinds is not None}

    @property
    def kinds(self) -> frozenset[LimitKind]:
        """All limits that can be set."""
        return frozenset().union(*self.offered.values())

    def top(self, controller: str) -> Path:
        """Where the instance's cgroups of a controller are."""
        return self._tops[controller]

    def seats(self, parts: tuple[str, ...], limits: Limits | None, always: Collection[str] = ()) -> Seats:
        """The cgroups of a cell at a place, with its limits; it also enters those of the nearest place above it, by controller.

        Args:
            parts: place of the cell below the instance's root.
            limits: its own.
            always: controllers in which it has a cgroup of its own in any case.

        Raises:
            OSError: they cannot be made, or the kernel refuses a value; nothing is left then.
        """
        wanted = {*always, *(limits1.controllers_for(limits) if limits is not None else ())}
        if wanted:
            # Costs nothing more where a move is to be paid anyway.
            wanted.add("cpuacct")
        usable = [controller for controller in sorted(wanted) if controller in self.offered]
        not_enforced = limits.kinds if limits is not None else frozenset()
        made: dict[str, Path] = {}
        try:
            for controller in usable:
                made[controller] = self._make(controller, parts)
                if limits is not None:
                    held = self.offered[controller] - limits1.apply(controller, made[controller], limits)
                    not_enforced -= held
            above = (found for controller in self._tops if (found := self._above(controller, parts)) is not None)
            inner = set(made.values())
            return Seats(made, [*inner, *(outer for outer in above if not _has_below(outer, inner))], not_enforced)
        except OSError:
            for directory in made.values():
                with contextlib.suppress(OSError):
                    directory.rmdir()
            raise

    def remove(self, parts: tuple[str, ...]) -> None:
        """Remove a place and what is below it, in every controller; what is populated stays."""
        for top in dict.fromkeys(self._tops.values()):
            if (directory := top.joinpath(*parts)).is_dir():
                remove_tree(directory)

    def close(self) -> None:
        """Remove what is empty of the instance's trees."""
        for top in dict.fromkeys(self._tops.values()):
            for directory in (top / HOOKS, top, top.parent):
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def _make(self, controller: str, parts: tuple[str, ...]) -> Path:
        top = self._tops[controller]
        directory = top.joinpath(*parts)
        if not directory.is_dir():
            make_directory(directory)
        chain = [top.parent, top]
        for part in parts:
            chain.append(chain[-1] / part)
        for each in chain:
            limits1.prepare(controller, each)
        return directory

    def _above(self, controller: str, parts: tuple[str, ...]) -> Path | None:
        """The nearest cgroup of a controller at or above a place, below the instance's root."""
        if parts[0] == HOOKS or controller == FREEZER:
            return None
        for length in range(len(parts), 0, -1):
            directory = self._tops[controller].joinpath(*parts[:length])
            if directory.is_dir():
                return directory
        return None


def _has_below(outer: Path, inner: Collection[Path]) -> bool:
    return any(directory.is_relative_to(outer) for directory in inner)


def _probe(controller: str, base: Path) -> frozenset[LimitKind] | None:
    """What a cgroup of this controller offers, shown by making one; None when we may not."""
    try:
        # A namesake may be another container's, which has the same numbers.
        directory = make_new(base, f"crane-probe-{os.getpid()}")
    except OSError:
        return None
    try:
        return limits1.offered(controller, directory)
    finally:
        directory.rmdir()
