"""What a TaskProlog prints to act on its task: `export NAME=value`, `unset NAME`, `print text`.

A directive is a line that starts, at its very beginning, with one of the three words in lower case and one space. Every other line is
ignored, so that traces (`set -x`) and messages do no harm. Any bytes are accepted; parsing never fails. The grammar is Slurm's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_VARIABLE_BYTES = 128 * 1024 - 1
"""Longest `NAME=value` with its end byte, as in Slurm: one byte less than the longest that the kernel gives to a program."""

_BLANKS = b" \t\r\v\f"


@dataclass(frozen=True, slots=True)
class Export:
    """Sets a variable; the value is verbatim: quotes, blanks and `$` are ordinary characters."""

    name: str
    """Whatever stands before the first `=`: a shell's exported functions have odd names (`BASH_FUNC_module%%`)."""
    value: str
    """Bytes that are no UTF-8 are kept as surrogate escapes, as in os.environ; so in a name."""


@dataclass(frozen=True, slots=True)
class Unset:
    """Removes a variable; no effect when there is none."""

    name: str


@dataclass(frozen=True, slots=True)
class Print:
    """Writes a line to the task's standard output."""

    text: bytes
    """With its newline; never blank."""


Directive = Export | Unset | Print


def parse(output: bytes) -> list[Directive]:
    """The directives of a script's output, in order. The last line needs no newline; a NUL byte ends the output."""
    text = output.partition(b"\0")[0]
    return [directive for line in text.split(b"\n") if (directive := _directive(line)) is not None]


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
            name = rest.strip(_BLANKS)
            return Unset(_text(name)) if name else None
        case b"print":
            text = rest.lstrip(_BLANKS)
            return Print(text + b"\n") if text else None
        case _:
            return None


def _export(rest: bytes) -> Export | None:
    name, equals, value = rest.partition(b"=")
    name = name.rstrip(_BLANKS)
    fits = len(name) + len(value) + 2 <= MAX_VARIABLE_BYTES
    return Export(_text(name), _text(value)) if name and equals and fits else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
