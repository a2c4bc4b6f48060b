"""What a TaskProlog prints to act on its task: `export NAME=value`, `unset NAME`, `print text`.

A directive is a line that starts, at its very beginning, with one of the three words in lower case and one space. Every other line is
ignored, so that traces (`set -x`) and messages do no harm. Any bytes are accepted; parsing never fails.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_VARIABLE_BYTES = 128 * 1024
"""Longest `NAME=value` with its end byte: the kernel refuses to start a program with a longer one."""

_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_BLANKS = b" \t"


@dataclass(frozen=True, slots=True)
class Export:
    """Sets a variable; the value is verbatim: quotes, blanks and `$` are ordinary characters."""

    name: str
    value: str
    """Bytes that are no UTF-8 are kept as surrogate escapes, as in os.environ."""


@dataclass(frozen=True, slots=True)
class Unset:
    """Removes a variable; no effect when there is none."""

    name: str


@dataclass(frozen=True, slots=True)
class Print:
    """Writes a line to the task's standard output."""

    text: bytes
    """With its newline."""


Directive = Export | Unset | Print


def parse(output: bytes) -> list[Directive]:
    """The directives of a script's output, in order. The last line needs no newline."""
    return [directive for line in output.split(b"\n") if (directive := _directive(line)) is not None]


def apply(environment: Mapping[str, str], directives: Iterable[Directive]) -> tuple[dict[str, str], bytes]:
    """The environment after all directives, and what they print."""
    result = dict(environment)
    printed: list[bytes] = []
    for directive in directives:
        match directive:
            case Export(name, value):
                result[name] = value
            case Unset(name):
                result.pop(name, None)
            case Print(text):
                printed.append(text)
    return result, b"".join(printed)


def _directive(line: bytes) -> Directive | None:
    word, space, rest = line.partition(b" ")
    if not space:
        return None
    match word:
        case b"export":
            return _export(rest.lstrip(_BLANKS))
        case b"unset":
            name = rest.strip(_BLANKS + b"\r")
            return Unset(name.decode()) if _NAME.fullmatch(name) else None
        case b"print":
            return Print(rest.lstrip(_BLANKS) + b"\n")
        case _:
            return None


def _export(rest: bytes) -> Export | None:
    name, equals, value = rest.partition(b"=")
    name = name.rstrip(_BLANKS)
    fits = len(name) + len(value) + 2 <= MAX_VARIABLE_BYTES
    # No environment can hold a NUL byte.
    if not equals or not fits or not _NAME.fullmatch(name) or b"\0" in value:
        return None
    return Export(name.decode(), value.decode("utf-8", "surrogateescape"))
