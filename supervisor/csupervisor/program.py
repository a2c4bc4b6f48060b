"""Finds the program of a task as a shell would, with the task's own PATH and the user's rights."""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cranehooks.execution.child import Stage
from cranehooks.execution.process import SpawnError
from cranehooks.model.job import ExitStatus

NOT_FOUND: Final = ExitStatus(code=127)
NOT_EXECUTABLE: Final = ExitStatus(code=126)


class UnrunnableError(Exception):
    """There is nothing to start: the exit status and the words a shell has for it."""

    def __init__(self, status: ExitStatus, message: str) -> None:
        super().__init__(message)
        self.exit = status


def find_program(name: str, environment: Mapping[str, str], cwd: str) -> str:
    """The absolute path of what `name` stands for. To be called with the user's identity.

    Args:
        name: the first word of the command; searched for in PATH when it has no slash.
        environment: of the task, whose PATH counts.
        cwd: where relative names and entries of PATH start.

    Raises:
        UnrunnableError: nothing of that name can be run.
    """
    if "/" in name:
        path = Path(cwd, name)
        problem = _problem(path)
        if problem is not None:
            raise UnrunnableError(NOT_FOUND if problem in _ABSENT else NOT_EXECUTABLE, f"{name}: {os.strerror(problem)}")
        return str(path)
    denied = False
    # An empty entry is the working directory; without PATH the system's default counts.
    for entry in environment.get("PATH", os.defpath).split(":") if name else ():
        candidate = Path(cwd, entry, name)
        problem = _problem(candidate)
        if problem is None:
            return str(candidate)
        denied |= problem not in _ABSENT
    if denied:
        raise UnrunnableError(NOT_EXECUTABLE, f"{name}: {os.strerror(errno.EACCES)}")
    raise UnrunnableError(NOT_FOUND, f"{name}: command not found")


_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


def _problem(path: Path) -> int | None:
    """The errno for which it cannot be run, or None."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.errno
    except ValueError:  # an embedded zero byte
        return errno.ENOENT
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return None


def unrunnable(error: SpawnError, name: str) -> UnrunnableError:
    """What a spawn that failed means for the task: 127 where something is missing, 126 where it may not run."""
    if error.stage is not Stage.EXEC:
        return UnrunnableError(NOT_EXECUTABLE, f"{name}: {error.stage.value}: {os.strerror(error.errno)}")
    match error.errno:
        case errno.ENOENT:
            # The file was there: what the kernel missed is the interpreter of its first line.
            return UnrunnableError(NOT_FOUND, f"{name}: its interpreter does not exist")
        case errno.ENOEXEC:
            return UnrunnableError(NOT_EXECUTABLE, f"{name}: it has no #! line and is no program")
        case number:
            return UnrunnableError(NOT_EXECUTABLE, f"{name}: {os.strerror(number)}")
