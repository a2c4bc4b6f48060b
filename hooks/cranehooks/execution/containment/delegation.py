"""Makes room for limits in a delegated cgroup: what passes controllers on may hold no processes, so a daemon moves into a leaf."""

import os
from pathlib import Path

from cranehooks.execution.containment import limits2
from cranehooks.execution.containment.hierarchies import DAEMON_LEAF, Hierarchies
from cranehooks.execution.containment.tree import make_directory


def settle(hierarchies: Hierarchies | None = None) -> str | None:
    """Move this process into a leaf below its cgroup, where nothing but that lets controllers be passed on.

    To be called before the process starts others, which are then born in the leaf. Safe to repeat, and by a successor that
    finds older processes of the same daemon there.

    Args:
        hierarchies: where we stand; looked up when not given.

    Returns:
        The directory of the leaf if the process is there now; None where no move is needed.

    Raises:
        OSError: we may not; limits do not hold then, and `Containment.offers` says so.
    """
    base = (hierarchies or Hierarchies.of_this_process()).unified
    if base is None or not _needs_room(base):
        return None
    leaf = base / DAEMON_LEAF
    make_directory(leaf)
    (leaf / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    return str(leaf)


def _needs_room(base: Path) -> bool:
    # The root of the hierarchy has no such file, and may hold processes beside its children.
    if not (base / "cgroup.events").exists():
        return False
    if not limits2.available(base) - limits2.passed_on(base):
        return False
    return os.getpid() in map(int, (base / "cgroup.procs").read_text(encoding="ascii").split())
