"""Aligned columns without lines: readable, greppable, and safe to cut."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cranecli.render.style import Style, Tone
from cranecli.render.words import printable

_LEAST_LAST_COLUMN = 30


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a row."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and on which side its fields align."""

    heading: str
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], style: Style, width: int | None = None) -> list[str]:
    """The heading and the rows, two spaces between columns, nothing behind the last.

    Args:
        columns: Their headings.
        rows: As many fields each as there are columns.
        style: How to paint.
        width: Where a long last field goes on in the next line, below itself; None: nowhere, so that each row stays one line.
    """
    cells = [[_cell(field) for field in row] for row in rows]
    widths = [max([len(column.heading), *(len(row[index].text) for row in cells)]) for index, column in enumerate(columns)]
    heading = [Cell(column.heading, Tone.STRONG) for column in columns]
    room = None if width is None else max(width - sum(widths[:-1]) - 2 * (len(columns) - 1), _LEAST_LAST_COLUMN)
    return [_line(columns, part, widths, style) for row in [heading, *cells] for part in _wrapped(row, room)]


def _wrapped(row: Sequence[Cell], room: int | None) -> Iterator[Sequence[Cell]]:
    last = row[-1]
    if room is None or len(last.text) <= room:
        yield row
        return
    first, *rest = textwrap.wrap(last.text, room, break_on_hyphens=False)
    yield [*row[:-1], Cell(first, last.tone)]
    for text in rest:
        yield [*(Cell("") for _ in row[:-1]), Cell(text, last.tone)]


def _cell(field: Cell | str) -> Cell:
    cell = field if isinstance(field, Cell) else Cell(field)
    return Cell(printable(cell.text) or "-", cell.tone)


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    parts: list[str] = []
    for index, (column, cell, width) in enumerate(zip(columns, row, widths, strict=True)):
        padding = " " * (width - len(cell.text))
        text = style.paint(cell.text, cell.tone)
        if column.right:
            parts.append(padding + text)
        elif index == len(columns) - 1:
            parts.append(text)
        else:
            parts.append(text + padding)
    return "  ".join(parts)
