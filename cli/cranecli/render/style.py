"""Colour where a terminal shows it, and nothing where a program or a file reads."""

import os
from dataclasses import dataclass
from enum import Enum
from typing import TextIO


class Tone(Enum):
    """What a piece of text says; the value is its ANSI rendition."""

    PLAIN = ""
    STRONG = "1"
    DIM = "2"
    GOOD = "32"
    BAD = "1;31"
    WARNING = "33"


@dataclass(frozen=True, slots=True)
class Style:
    """Paints text, or leaves it alone."""

    coloured: bool = False

    def paint(self, text: str, tone: Tone) -> str:
        if not self.coloured or tone is Tone.PLAIN or not text:
            return text
        return f"\x1b[{tone.value}m{text}\x1b[0m"


PLAIN = Style()


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal, or COLUMNS; None where lines may have any length (a pipe, a file)."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None


def style_of(stream: TextIO) -> Style:
    """Colours on a terminal that has them, unless NO_COLOR (https://no-color.org) is set."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(coloured=wanted and stream.isatty())
