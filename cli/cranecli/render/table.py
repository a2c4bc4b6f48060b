"""Aligned columns without lines: readable, greppable, and safe to cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from cranecli.render.style import Style, Tone
from cranecli.render.words import printable


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


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], style: Style) -> list[str]:
    """The heading and the rows, two spaces between columns, nothing behind the last."""
    cells = [[_cell(field) for field in row] for row in rows]
    widths = [max([len(column.heading), *(len(row[index].text) for row in cells)]) for index, column in enumerate(columns)]
    heading = [Cell(column.heading, Tone.STRONG) for column in columns]
    return [_line(columns, row, widths, style) for row in [heading, *cells]]


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
