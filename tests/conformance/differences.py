"""The differences that are documented: one section of the page for each reason, with a table of the rows it accounts for.

A section's heading gives the anchor. Its table has three columns: the row's name, what Slurm answers, and what we answer, each in
backticks, with `*` for anything. Only a difference with exactly these answers is the documented one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.comparison import Row

PAGE = Path(__file__).parents[2] / "docs" / "slurm-differences.md"
_HEADING = re.compile(r"^## (.+)$")
_TABLE_ROW = re.compile(r"^\| `(.*?)` \| `(.*?)` \| `(.*?)` \|$")
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


class PageError(Exception):
    """The page of differences cannot be read."""


@dataclass(slots=True)
class Difference:
    """One row of a section's table."""

    anchor: str
    row: str
    slurm: str
    here: str
    was_seen: bool = field(default=False, compare=False)

    def accounts_for(self, row: Row) -> bool:
        return _matches(row.name, self.row) and _matches(row.slurm, self.slurm) and _matches(row.here, self.here)


def read(text: str) -> list[Difference]:
    """All of a page.

    Raises:
        PageError: A line of a table is not as it should be, or is in no section.
    """
    anchor = ""
    differences: list[Difference] = []
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _HEADING.match(line):
            anchor = anchor_of(heading.group(1))
        elif line.startswith("| `"):
            found = _TABLE_ROW.match(line)
            if found is None or not anchor:
                message = f"line {number} is no row of a section: {line}"
                raise PageError(message)
            row, slurm, here = (cell.replace("\\|", "|") for cell in found.groups())
            differences.append(Difference(anchor, row, slurm, here))
    return differences


def anchor_of(heading: str) -> str:
    """As the usual renderers of Markdown make it."""
    return _NOT_IN_ANCHORS.sub("", heading.strip().lower()).replace(" ", "-")


def reason_for(row: Row, differences: Sequence[Difference]) -> str | None:
    """The anchor of the section that accounts for a row that differs; None: there is none."""
    for difference in differences:
        if difference.accounts_for(row):
            difference.was_seen = True
            return difference.anchor
    return None


def _matches(value: str, pattern: str) -> bool:
    # Brackets are ordinary characters here: hostlists have them.
    return fnmatchcase(value, pattern.replace("[", "[[]"))
