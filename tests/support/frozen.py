"""A process that no signal ends, not even KILL: one in a frozen version 1 cgroup. What a broken device makes, this makes on purpose."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cranehooks.execution.containment.hierarchies import Hierarchies
from tests.support.eventually import eventually


def can_freeze() -> bool:
    """Whether this machine lets us."""
    base = Hierarchies.of_this_process().controllers.get("freezer")
    return base is not None and os.access(base, os.W_OK)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """While open, the process neither runs nor dies."""
    base = Hierarchies.of_this_process().controllers["freezer"]
    directory = base / f"crane-frozen-{pid}"
    directory.mkdir()
    try:
        (directory / "cgroup.procs").write_text(str(pid))
        (directory / "freezer.state").write_text("FROZEN")
        eventually(lambda: (directory / "freezer.state").read_text().strip() == "FROZEN")
        yield
    finally:
        (directory / "freezer.state").write_text("THAWED")
        for each in (directory / "cgroup.procs").read_text().split():
            (base / "cgroup.procs").write_text(each)
        eventually(lambda: not _is_busy(directory))


def _is_busy(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return True
    return False
