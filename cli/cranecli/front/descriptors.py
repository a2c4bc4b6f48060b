"""The three standard streams, as usable as a caller left them: closed ones are held, and no text is too strange for them."""

from __future__ import annotations

import os
import sys

from cranecli import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def hold_standard_descriptors() -> None:
    """Puts /dev/null in the place of what is closed: there is nothing to read, and nobody sees what is written. Safe to repeat.

    No socket or file that is opened later gets the number of a standard descriptor then. A letter that the terminal's encoding lacks
    is written as its number.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        # Programs that are started from here get it as well.
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    # Python has None for a stream that was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if not has_every_letter(sys.stdout):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # Python's own streams can


def has_every_letter(stream: TextIO) -> bool:
    """Whether a text stream takes all of Unicode, or lacks some (a terminal of another time)."""
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def print_text(program: str, text: str) -> int:
    """Writes what was asked for to stdout, and gives the exit status: 1 with a complaint when it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        give_up_stdout()
        sys.stderr.write(f"{program}: error: cannot write to stdout: {error.strerror}\n")
        return exits.FAILED
    return exits.OK


def give_up_stdout() -> None:
    """After a failed write: what is still buffered goes nowhere, and the end of the program does not complain of it."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)
