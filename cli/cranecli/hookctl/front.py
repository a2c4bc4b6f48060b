"""The local daemon, as commands use it: a refusal ends the command with the exit status that says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cranecli.front.client import FrontClient, FrontError, FrontStream
from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.hookctl.page import note
from cranecli.render.records import AnswerError

if TYPE_CHECKING:
    from cranecli.front.client import Body

_STATUSES = {
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "INVALID_ARGUMENT": ExitCode.USAGE,
}
ANSWER_TIMEOUT_S = 30.0
SILENT_FOR_S = 1.0
"""An answer that takes longer is worth a word."""


class TellingClient(FrontClient):
    """Says what it waits for."""

    def call(self, method: str, body: "Body | None" = None, timeout_s: float | None = ANSWER_TIMEOUT_S) -> "Body":
        """Makes one call, with less patience than its base: a person waits."""
        return super().call(method, body, timeout_s)

    def answer(self, stream: FrontStream, timeout_s: float | None = ANSWER_TIMEOUT_S) -> "Body | None":
        """Waits for the next item of a stream, as its base does."""
        if timeout_s is None or timeout_s <= SILENT_FOR_S:
            return super().answer(stream, timeout_s)
        answer = super().answer(stream, SILENT_FOR_S)
        if answer is not None:
            return answer
        note(f"hookctl: waiting for the controller's answer, for at most {timeout_s - SILENT_FOR_S:.0f} s")
        return super().answer(stream, timeout_s - SILENT_FOR_S)


@contextmanager
def front(path: Path | None = None) -> Iterator[FrontClient]:
    """A connection to the local daemon.

    Args:
        path: Its socket; None: as the environment says.

    Raises:
        CommandError: There is no daemon, a call was refused, or an answer is not understood.
    """
    try:
        with TellingClient.connect(None if path is None else str(path)) as client:
            yield client
    except FrontError as error:
        raise CommandError(error.message or error.code, _STATUSES.get(error.code, ExitCode.REFUSED)) from error
    except AnswerError as error:
        raise CommandError(str(error)) from error
