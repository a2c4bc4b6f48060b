"""The directories in which supervisors keep their steps' files: who left one behind, and cannot remove it any more, is dead."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from cranehooks.model.ids import AttemptKey

_NAME: Final = re.compile(r"job_\d+\.\d+")

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.steps.files")


class StepFiles:
    """One directory per attempt, `job_42.1`. Everything here blocks on the disk; a directory that stays is told in the log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def remove(self, key: AttemptKey) -> None:
        """Of an attempt whose processes are gone. Safe to repeat, and where there is none."""
        self._remove(self._directory / _name(key))

    def keep_only(self, keys: Collection[AttemptKey]) -> None:
        """At the start: removes what belongs to no attempt among `keys`."""
        kept = set(map(_name, keys))
        try:
            found = list(self._directory.iterdir())
        except OSError as error:
            log.warning("step_files_unread", directory=str(self._directory), error=error.strerror)
            return
        for path in found:
            if _NAME.fullmatch(path.name) and path.name not in kept:
                log.info("stale_step_files_removed", directory=str(path))
                self._remove(path)

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            # Its supervisor has removed it, perhaps just now.
            return
        except OSError as error:
            log.warning("step_files_left", directory=str(path), error=error.strerror)


def _name(key: AttemptKey) -> str:
    return f"job_{key}"
