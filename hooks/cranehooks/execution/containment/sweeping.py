"""Kills and removes what a dead instance left, in every hierarchy and whatever driver it had; but for what hooks have kept."""

import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cranehooks.execution.containment.cells import file_name
from cranehooks.execution.containment.hierarchies import HOOKS, Hierarchies
from cranehooks.execution.containment.tree import kill_each, kill_frozen, kill_unified, members, pids, remove_tree
from cranehooks.model.run import Leftover

_KEPT = "kept"
"""Name of the empty cgroup that marks a cell whose processes stay."""
_JOB = "job_"
_GIVE_UP_AFTER_S = 5.0
_AGAIN_AFTER_S = 0.2


class Instance:
    """The cgroups of one instance, in every hierarchy there is."""

    def __init__(self, hierarchies: Hierarchies, root_name: str) -> None:
        self._hierarchies = hierarchies
        self._root_name = root_name

    def sweep(self, *parts: str) -> list[Leftover]:
        """See `Containment.sweep`."""
        places = self._places(*parts)
        if parts != (HOOKS,):
            return sweep(places)
        kept = set(self._kept_names())
        cells = [cell for place in places for cell in _cells(place) if cell.name not in kept]
        killed = sweep(cells)
        for place in places:
            # Something is kept there, or it was never made.
            with suppress(OSError):
                place.rmdir()
        return killed

    def end_kept(self, name: str) -> list[Leftover]:
        """See `Containment.end_kept`."""
        cells = [cell for cell in self._kept_names() if cell.split("~")[0] == file_name(name)]
        return sweep(place / cell for cell in cells for place in self._places(HOOKS))

    def jobs(self) -> list[str]:
        """Names of the places of jobs."""
        names = [cell.name for place in self._places() for cell in _cells(place) if cell.name.startswith(_JOB)]
        return list(dict.fromkeys(names))

    def kept(self) -> list[Leftover]:
        """See `Containment.kept`."""
        living: list[Leftover] = []
        for cell in self._kept_names():
            places = [place / cell for place in self._places(HOOKS)]
            found = {member.pid: member for place in places for member in members(place)}
            if not found:
                # They have ended by themselves, and nobody else removes it.
                sweep(places)
            living += found.values()
        return living

    def _places(self, *parts: str) -> tuple[Path, ...]:
        return self._hierarchies.places(self._root_name, *(file_name(part) for part in parts))

    def _kept_names(self) -> list[str]:
        marked = [cell.name for place in self._places(HOOKS) for cell in _cells(place) if (cell / _KEPT).is_dir()]
        return list(dict.fromkeys(marked))


def mark_kept(cell: Path) -> None:
    """Have what lives in a hook's cgroup spared by sweeps, until `Instance.end_kept`. Raises OSError."""
    # The mark is a cgroup, too: it lasts as long as the processes can, and not beyond a reboot.
    (cell / _KEPT).mkdir()


def _cells(place: Path) -> list[Path]:
    """The cgroups right below a place."""
    try:
        return [path for path in place.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def sweep(places: Iterable[Path]) -> list[Leftover]:
    """Kill what lives in these cgroups and below, remove them, and name what was killed. Waits up to five seconds.

    A process that is in several hierarchies is named once. What survives keeps its cgroup.
    """
    tops = [place for place in places if place.is_dir()]
    killed: dict[int, Leftover] = {}
    give_up_at = time.monotonic() + _GIVE_UP_AFTER_S
    while found := {member.pid: member for top in tops for member in members(top)}:
        killed = found | killed
        for top in tops:
            _kill(top)
        _wait_for(found, min(_AGAIN_AFTER_S, give_up_at - time.monotonic()))
        if time.monotonic() >= give_up_at:
            break
    for top in tops:
        remove_tree(top)
    return list(killed.values())


def _kill(top: Path) -> None:
    if (top / "cgroup.kill").exists():
        kill_unified(top)
    elif (top / "freezer.state").exists():
        kill_frozen(top)
    else:
        kill_each(lambda: pids(top))


def _wait_for(found: Iterable[int], timeout_s: float) -> None:
    """Wait until all of these have ended, or the time is over."""
    give_up_at = time.monotonic() + timeout_s
    for pid in found:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                poller = select.poll()
                poller.register(handle, select.POLLIN)
                poller.poll(max(0.0, give_up_at - time.monotonic()) * 1000)
            finally:
                os.close(handle)
