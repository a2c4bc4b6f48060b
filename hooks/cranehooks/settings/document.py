"""A configuration file as read: its data under the canonical spellings, and where in the file each value stands."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cranehooks.model.points import HookPoint
from cranehooks.settings.values import beside, parse_patterns
from cranekit import yaml_lines
from cranekit.yaml_lines import KeyPath, Loaded, Problem

HOOK_SECTION = "JobLifecycleHook"
OLDER_TOP_KEYS: Mapping[str, str] = {"JobLogHook": HOOK_SECTION}
OLDER_HOOK_KEYS: Mapping[str, str] = {
    "PrologCranectld": "CranectldProlog",
    "PrologCtld": "CranectldProlog",
    "CraneCtldProlog": "CranectldProlog",
    "PrologCraneCtld": "CranectldProlog",
    "EpilogCranectld": "CranectldEpilog",
    "EpilogCtld": "CranectldEpilog",
    "CraneCtldEpilog": "CranectldEpilog",
    "EpilogCraneCtld": "CranectldEpilog",
}
"""Other spellings of keys that guides and sites use, each with the one it stands for."""

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the value at a path, before its place in the file is looked up."""

    path: KeyPath
    message: str
    at_key: bool = False
    """Whether the key itself is wrong, and not its value."""


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """One file."""

    directory: str
    """Absolute directory of the file."""
    data: Mapping[str, object]
    """Top level, older spellings replaced by the canonical ones."""
    loaded: Loaded
    """The same under the canonical spellings, for places in the file."""
    findings: tuple[Finding, ...]
    """What is wrong with the spellings: a key given twice."""

    def problem(self, finding: Finding) -> Problem:
        """The finding with its line and column; of the nearest enclosing value where the value itself is missing."""
        return self.loaded.problem(finding.path, finding.message, at_key=finding.at_key)

    def problems(self, findings: Iterable[Finding]) -> list[Problem]:
        """All findings in the order of the file, each once."""
        return sorted(set(map(self.problem, findings)), key=lambda problem: (problem.line, problem.column, problem.message))

    def check_scripts(self, points: Iterable[HookPoint], check: Callable[[str], str | None]) -> list[Problem]:
        """What `check` says of each literal path of the points' hooks. Globs are left out: they may match nothing yet."""
        section = self.data.get(HOOK_SECTION)
        if not isinstance(section, Mapping):
            return []
        findings = [
            Finding(path, f"{point.value}: {complaint}")
            for point in points
            if point.value in section
            for path, pattern in _entries((HOOK_SECTION, point.value), section[point.value])
            if not _GLOB_CHARACTERS & set(pattern) and (complaint := check(beside(self.directory, pattern))) is not None
        ]
        return self.problems(findings)


def read(path: Path) -> ConfigDocument:
    """Reads and parses the file.

    Raises:
        SettingsError: It cannot be read, is no YAML, or is no mapping.
    """
    loaded = yaml_lines.load(path)
    if not isinstance(loaded.data, Mapping):
        raise yaml_lines.SettingsError([loaded.problem((), "expected a mapping of keys, as in `ClusterName: my-cluster`")])
    names: dict[KeyPath, KeyPath] = {}
    findings: list[Finding] = []
    data = _canonical(loaded, loaded.data, (), OLDER_TOP_KEYS, names, findings)
    section = data.get(HOOK_SECTION)
    if isinstance(section, Mapping):
        written = next((name for name in (HOOK_SECTION, *OLDER_TOP_KEYS) if loaded.data.get(name) is section), HOOK_SECTION)
        data[HOOK_SECTION] = _canonical(loaded, section, (written,), OLDER_HOOK_KEYS, names, findings)
    canonical = Loaded(
        loaded.file,
        data,
        {_renamed(written, names): position for written, position in loaded.positions.items()},
        {_renamed(written, names): position for written, position in loaded.key_positions.items()},
    )
    return ConfigDocument(str(path.absolute().parent), data, canonical, tuple(findings))


def _canonical(
    loaded: Loaded,
    mapping: Mapping[object, object],
    prefix: KeyPath,
    older: Mapping[str, str],
    names: dict[KeyPath, KeyPath],
    findings: list[Finding],
) -> dict[str, object]:
    """The mapping with canonical keys, the first where several spellings of one are given. Keys that are no text become text.

    Args:
        loaded: The file.
        mapping: A part of it.
        prefix: Where that part stands, as written.
        older: The canonical spelling of the others.
        names: Learns which path as written became which.
        findings: Learn of keys given twice.
    """
    result: dict[str, object] = {}
    spelled: dict[str, str] = {}
    canonical_prefix = _renamed(prefix, names)
    for written, value in ((str(name), value) for name, value in mapping.items()):
        key = older.get(written, written)
        if key in spelled:
            first = loaded.problem((*prefix, spelled[key]), "", at_key=True)
            place = f"{spelled[key]} (line {first.line}, column {first.column})"
            message = f"{written} and {place} are two spellings of one key: keep one of them"
            findings.append(Finding((*canonical_prefix, written), message, at_key=True))
            continue
        spelled[key] = written
        result[key] = value
        if key != written:
            names[*canonical_prefix, written] = (*canonical_prefix, key)
    return result


def _renamed(written: KeyPath, names: Mapping[KeyPath, KeyPath]) -> KeyPath:
    """A path as written, under the canonical spellings."""
    path: KeyPath = ()
    for part in written:
        path = names.get((*path, part), (*path, part))
    return path


def _entries(path: KeyPath, value: object) -> list[tuple[KeyPath, str]]:
    """Every pattern of a hook's value with the path of the text it stands in."""
    if isinstance(value, list):
        return [((*path, index), pattern) for index, item in enumerate(value) for pattern in parse_patterns(item)]
    return [(path, pattern) for pattern in parse_patterns(value)]
