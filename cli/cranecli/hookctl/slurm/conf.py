"""Reads slurm.conf as Slurm does: comments, continued lines, several pairs in a line, keys in any case, included files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAIR = re.compile(r"\s*([A-Za-z0-9_.]+)\s*([-+*/]?=)\s*(\"[^\"]*\"|[^\s\"]*)(?=\s|$)")
_INCLUDE = re.compile(r"\s*include\s+(\S+)\s*$", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")
_MOST_INCLUDES = 64


class SlurmConfError(Exception):
    """A file of the configuration cannot be read."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One `Key=value`."""

    key: str
    """As written."""
    operator: str
    """`=`, or one that changes an earlier value (`+=`)."""
    value: str

    @property
    def name(self) -> str:
        return self.key.lower()

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: its pairs, or what is none."""

    file: str
    number: int
    """Of its first physical line."""
    pairs: tuple[Pair, ...]
    rest: str = ""
    """What could not be read as a pair."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"

    def get(self, name: str) -> str | None:
        """The last value of a key (in lower case)."""
        return next((pair.value for pair in reversed(self.pairs) if pair.name == name), None)


def read(path: Path) -> list[Line]:
    """Every line of the file and of those it includes, in the order they count.

    Raises:
        SlurmConfError: One of them cannot be read, or they include one another without end.
    """
    lines: list[Line] = []
    _read_into(lines, path, path.absolute().parent, 0)
    return lines


def _read_into(lines: list[Line], path: Path, directory: Path, depth: int) -> None:
    if depth > _MOST_INCLUDES:
        message = f"{path}: more than {_MOST_INCLUDES} files include one another"
        raise SlurmConfError(message)
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise SlurmConfError(message) from error
    for number, logical in _logical_lines(text):
        found = _INCLUDE.fullmatch(logical)
        if found is not None:
            # Relative names start at the directory of the first file, wherever the line stands.
            name = _named(found.group(1).strip('"'), lines, f"{path}:{number}")
            _read_into(lines, directory / name, directory, depth + 1)
        else:
            lines.append(_line(str(path), number, logical))


def _named(include: str, lines: list[Line], place: str) -> str:
    """The name of an included file: `%c` stands for the cluster's, which must have been given before."""
    if "%c" not in include:
        return include
    cluster = next((name for line in reversed(lines) if (name := line.get("clustername")) is not None), None)
    if cluster is None:
        message = f"{place}: %c in {include} is the cluster's name, and no ClusterName has been given before"
        raise SlurmConfError(message)
    return include.replace("%c", cluster)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number of their first part; blank ones are left out."""
    parts: list[str] = []
    first = 1
    for number, physical in enumerate(text.split("\n"), start=1):
        content = _without_comment(physical.rstrip("\r"))
        if not parts:
            first = number
        trimmed = content.rstrip()
        backslashes = len(trimmed) - len(trimmed.rstrip("\\"))
        if backslashes % 2:
            parts.append(trimmed[:-1])
            continue
        logical = "".join([*parts, content])
        parts.clear()
        if logical.strip():
            yield first, _ESCAPED.sub(r"\1", logical)
    if "".join(parts).strip():
        yield first, "".join(parts)


def _without_comment(line: str) -> str:
    escaped = False
    for index, character in enumerate(line):
        if character == "#" and not escaped:
            return line[:index]
        escaped = character == "\\" and not escaped
    return line


def _line(file: str, number: int, logical: str) -> Line:
    pairs: list[Pair] = []
    position = 0
    while logical[position:].strip():
        found = _PAIR.match(logical, position)
        if found is None:
            return Line(file, number, tuple(pairs), logical[position:].strip())
        key, operator, value = found.groups()
        pairs.append(Pair(key, operator, value.strip('"')))
        position = found.end()
    return Line(file, number, tuple(pairs))
