"""What a front end says on its terminal while something takes time: one line that changes; elsewhere one line, once."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

PATIENCE_S = 1.0
"""What takes less is not worth a line."""
_ERASE = "\r\x1b[K"


class StatusLine:
    """`show` as often as there is news; `clear` before anything else is written to the terminal."""

    def __init__(self, program: str, stream: TextIO | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._program = program
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._since = time.monotonic()
        self._patience_s = patience_s
        self._text = ""
        self._shown = ""
        self.was_shown = False
        """Anything has been written."""

    def show(self, text: str) -> None:
        """Notes what is going on; `refresh` brings it to the terminal once it has taken long enough."""
        self._text = text
        self.refresh()

    def due_s(self) -> float | None:
        """Seconds until `refresh` has something to write; None: nothing to wait for."""
        if not self._text or self._text == self._shown or (self._shown and not self._is_terminal):
            return None
        return max(0.0, self._since + self._patience_s - time.monotonic())

    def refresh(self) -> None:
        if self.due_s() != 0.0:
            return
        line = f"{self._program}: {_printable(self._text)}"
        if self._is_terminal:
            self._write(_ERASE + line[: _width() - 1])
        else:
            self._write(line + "\n")
        self._shown = self._text
        self.was_shown = True

    def clear(self) -> None:
        """Takes the line away; a later `show` brings one back at once."""
        self._text = ""
        if self._shown and self._is_terminal:
            self._write(_ERASE)
            self._shown = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._write(f"{self._program}: {_printable(text)}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Nobody sees this terminal any more (it was closed); the work goes on.
            return


def _printable(text: str) -> str:
    """What came over the wire must not steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _width() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
