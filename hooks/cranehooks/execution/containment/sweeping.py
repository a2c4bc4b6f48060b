"""Kills and removes what a dead instance left, in every hierarchy and whatever driver it had."""

import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

from cranehooks.execution.containment.tree import kill_frozen, kill_unified, members, pids, remove_tree, signal_members
from cranehooks.model.run import Leftover

_GIVE_UP_AFTER_S = 5.0
_AGAIN_AFTER_S = 0.2


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
        signal_members(lambda: pids(top), SIGKILL)


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
