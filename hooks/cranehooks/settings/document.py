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
OLDER_HOOK_KEYS: Mapping[str, str] = {"PrologCranectld": "CranectldProlog", "EpilogCranectld": "CranectldEpilog"}

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
    data = _canonical(loaded.data, (), OLDER_TOP_KEYS, names, findings)
    section = data.get(HOOK_SECTION)
    if isinstance(section, Mapping):
        data[HOOK_SECTION] = _canonical(section, (HOOK_SECTION,), OLDER_HOOK_KEYS, names, findings)
    canonical = Loaded(
        loaded.file,
        data,
        {_renamed(written, names): position for written, position in loaded.positions.items()},
        {_renamed(written, names): position for written, position in loaded.key_positions.items()},
    )
    return ConfigDocument(str(path.absolute().parent), data, canonical, tuple(findings))


def _canonical(
    mapping: Mapping[object, object],
    prefix: KeyPath,
    older: Mapping[str, str],
    names: dict[KeyPath, KeyPath],
    findings: list[Finding],
) -> dict[str, object]:
    """The mapping with canonical keys; `names` learns which path as written became which. Keys that are no text become text."""
    result: dict[str, object] = {}
    for written, value in mapping.items():
        key = older.get(str(written), str(written))
        if key != written:
            names[*prefix, str(written)] = (*prefix, key)
        if key in older.values() and key != written and key in mapping:
            findings.append(
                Finding((*prefix, key), f"{written} and {key} are two spellings of one key: keep one of them", at_key=True)
            )
            continue
        result[key] = value
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
