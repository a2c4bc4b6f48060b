"""The local daemon, as commands use it: a refusal ends the command with the exit status that says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cranecli.front.client import FrontClient, FrontError
from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.render.records import AnswerError

_STATUSES = {
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "INVALID_ARGUMENT": ExitCode.USAGE,
}


@contextmanager
def front(path: Path | None = None) -> Iterator[FrontClient]:
    """A connection to the local daemon.

    Args:
        path: Its socket; None: as the environment says.

    Raises:
        CommandError: There is no daemon, a call was refused, or an answer is not understood.
    """
    try:
        with FrontClient.connect(None if path is None else str(path)) as client:
            yield client
    except FrontError as error:
        raise CommandError(error.message or error.code, _STATUSES.get(error.code, ExitCode.REFUSED)) from error
    except AnswerError as error:
        raise CommandError(str(error)) from error
