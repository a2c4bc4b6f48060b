"""YAML files with the line and column of everything in them, so that what is wrong can be shown where it is."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

MAX_FILE_BYTES: Final = 4 << 20
MAX_NODES: Final = 200_000
"""Of values after aliases are followed: a few aliases of aliases would otherwise fill the memory."""
MAX_DEPTH: Final = 64

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of the file; keys that are no text as `str` shows them."""
Position = tuple[int, int]
"""Line and column, both from 1."""

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a place of a file."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class SettingsError(Exception):
    """A file cannot be used as settings. Its text has one line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as plain data, and where each part of it stands."""

    file: str
    data: Any  # dict, list, str, int, float, bool, date, datetime, bytes, set or None, nested as the file says
    positions: Mapping[KeyPath, Position]
    """Where each value begins, by its path; the top's is the empty path's."""
    key_positions: Mapping[KeyPath, Position]
    """Where the key of each mapping entry begins, by the path of its value."""

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A problem of the value (or its key) at a path; of the nearest enclosing one where there is none."""
        if at_key and path in self.key_positions:
            line, column = self.key_positions[path]
        else:
            while path and path not in self.positions:
                path = path[:-1]
            line, column = self.positions.get(path, (1, 1))
        return Problem(self.file, line, column, message)


def load(path: Path | str) -> Loaded:
    """Reads a file of one YAML document; an empty one holds None.

    Raises:
        SettingsError: it cannot be read, is too large, or is no YAML; a key stands twice in one mapping.
    """
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError([Problem(file, 1, 1, f"cannot be read: {error.strerror or error}")]) from error
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError([Problem(file, 1, 1, f"larger than {MAX_FILE_BYTES >> 20} MiB, the most a settings file may have")])
    return parse(content, file)


def parse(content: bytes | str, file: str) -> Loaded:
    """As `load`, of what is already read. `file` is the name that problems show."""
    try:
        loader = yaml.SafeLoader(content)
    except yaml.YAMLError as error:
        raise SettingsError([_syntax_problem(file, error)]) from error
    try:
        root = loader.get_single_node()
        if root is None:
            return Loaded(file, None, {(): (1, 1)}, {})
        reading = _Reading(file)
        reading.visit(root, (), 0)
        if reading.problems:
            raise SettingsError(sorted(reading.problems, key=lambda problem: (problem.line, problem.column)))
        return Loaded(file, loader.construct_document(root), reading.positions, reading.key_positions)
    except yaml.YAMLError as error:
        raise SettingsError([_syntax_problem(file, error)]) from error
    except RecursionError as error:
        raise SettingsError([Problem(file, 1, 1, f"nested deeper than {MAX_DEPTH} levels")]) from error
    except ValueError as error:
        # As of a date that is none: the loader says what, not where.
        raise SettingsError([Problem(file, 1, 1, f"holds a value that cannot be read: {error}")]) from error
    finally:
        loader.dispose()


def _syntax_problem(file: str, error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        parts = (error.context, error.problem) if error.context and error.problem else (error.problem or error.context,)
        return Problem(file, line, column, f"no valid YAML: {', '.join(part for part in parts if part)}")
    if isinstance(error, yaml.reader.ReaderError):
        return Problem(file, 1, 1, f"no valid YAML: {error.reason} at position {error.position}")
    return Problem(file, 1, 1, f"no valid YAML: {error}")


class _Reading:
    """A walk over the parsed nodes, as often over each as aliases name it."""

    def __init__(self, file: str) -> None:
        self.positions: dict[KeyPath, Position] = {}
        self.key_positions: dict[KeyPath, Position] = {}
        self.problems: set[Problem] = set()
        self._file = file
        self._count = 0

    def visit(self, node: yaml.Node, path: KeyPath, depth: int) -> None:
        """Notes where the node and all below it stand.

        Raises:
            SettingsError: there is too much below it, or an alias names what encloses it.
        """
        self._count += 1
        if self._count > MAX_NODES:
            raise SettingsError([self._problem(node, f"more than {MAX_NODES} values, aliases counted as what they name")])
        if depth > MAX_DEPTH:
            raise SettingsError([self._problem(node, f"nested deeper than {MAX_DEPTH} levels")])
        self.positions[path] = _start(node)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index), depth + 1)
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path, depth)

    def _visit_mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> None:
        first_lines: dict[Hashable, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                self._visit_merged(value, path, depth)
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                continue
            if not isinstance(key, yaml.ScalarNode):
                self.problems.add(self._problem(key, "a key must be a plain value"))
                continue
            # Two spellings of one value (0x10 and 16) are two keys here; as text they are one where a person looks.
            identity = (key.tag, key.value)
            if identity in first_lines:
                self.problems.add(self._problem(key, f"{key.value} stands twice: first on line {first_lines[identity]}"))
            first_lines.setdefault(identity, key.start_mark.line + 1)
            below = (*path, key.value)
            self.key_positions[below] = _start(key)
            self.visit(value, below, depth + 1)

    def _visit_merged(self, value: yaml.Node, path: KeyPath, depth: int) -> None:
        """What `<<` takes in from elsewhere; what the mapping itself says is noted over it."""
        if isinstance(value, yaml.SequenceNode):
            for source in reversed(value.value):
                self.visit(source, path, depth + 1)
        else:
            self.visit(value, path, depth + 1)

    def _problem(self, node: yaml.Node, message: str) -> Problem:
        line, column = _start(node)
        return Problem(self._file, line, column, message)


def _start(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1
