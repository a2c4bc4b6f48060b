"""Why a command could not do what was asked, and the exit status that says so."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What hookctl's exit status means."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 5


class CommandError(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, status: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(message)
        self.status = status
