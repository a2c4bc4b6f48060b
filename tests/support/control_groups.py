"""Control groups that daemons under test leave: on purpose, for jobs outlive their craned, or because a test failed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cranehooks.execution.containment import sweeping
from cranehooks.execution.containment.hierarchies import Hierarchies


@contextmanager
def removed_control_groups(instance: str) -> Iterator[Path | None]:
    """Yields the version 2 directory of an instance, None without; what lives there at the end, or in version 1, is killed and removed."""
    here = Hierarchies.of_this_process()
    try:
        yield None if here.unified is None else here.unified / "crane" / instance
    finally:
        sweeping.sweep(here.places(instance))
        for base in here.bases():
            with suppress(OSError):
                (base / "crane").rmdir()
