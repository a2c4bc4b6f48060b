"""What a command prints: lines for people, one JSON document for programs."""

import json
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any

import typer

from cranecli.front.descriptors import has_every_letter


class Format(Enum):
    """Who reads the output."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("-o", "--output", help="table for people, json for programs.")]


def show(lines: Iterable[str]) -> None:
    """Prints lines."""
    for line in lines:
        print(line)


def show_document(document: dict[str, Any]) -> None:  # the values of a JSON object are of any JSON type
    """Prints one JSON document, indented."""
    print(json.dumps(document, indent=2, ensure_ascii=not has_every_letter(sys.stdout)))


def show_record(document: dict[str, Any]) -> None:  # as above
    """Prints one JSON document in one line, at once: for streams of them."""
    print(json.dumps(document, ensure_ascii=not has_every_letter(sys.stdout)), flush=True)


def note(text: str) -> None:
    """A line beside the output, for a person: on stderr."""
    print(text, file=sys.stderr, flush=True)
