"""Control groups that daemons under test leave: on purpose, for jobs outlive their craned, or because a test failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cranehooks.execution.containment.cgroup2 import CgroupContainment, own_directory


@contextmanager
def removed_control_groups(instance: str) -> Iterator[Path | None]:
    """Yields the directory of an instance, None without control groups; what lives there at the end is killed and removed."""
    own = own_directory()
    tree = None if own is None else own / "crane" / instance
    try:
        yield tree
    finally:
        if own is not None and tree is not None and tree.exists():
            containment = CgroupContainment(own, instance)
            containment.sweep()
            containment.close()
