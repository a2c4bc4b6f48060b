"""From a file to settings, or to the list of everything that is wrong with it."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cranehooks.settings import document
from cranehooks.settings.cluster import ClusterSettings
from cranehooks.settings.consistency import findings_of
from cranehooks.settings.devices import GresSection
from cranehooks.settings.document import HOOK_SECTION, OLDER_HOOK_KEYS, OLDER_TOP_KEYS, Finding
from cranehooks.settings.hook_limits import HookLimitsSection, PointLimitsSection
from cranehooks.settings.limits import JobLimitsSection
from cranehooks.settings.schema import HookSection, MetricsSection, NodeGroup, PartitionSection, SchedulerSection
from cranehooks.settings.section import Section
from cranehooks.settings.values import CONFIG_DIR_CONTEXT, shown
from cranekit.yaml_lines import KeyPath, SettingsError

_SECTIONS: Mapping[str, type[Section]] = {
    "Nodes": NodeGroup,
    "Partitions": PartitionSection,
    "Scheduler": SchedulerSection,
    "MetricsListen": MetricsSection,
    "JobLimits": JobLimitsSection,
    HOOK_SECTION: HookSection,
}
_OLDER_KEYS: Mapping[type[Section], Mapping[str, str]] = {ClusterSettings: OLDER_TOP_KEYS, HookSection: OLDER_HOOK_KEYS}

_HOOK_LIMITS = "HookLimits"

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def load(path: Path | str) -> ClusterSettings:
    """The settings of the file at `path`.

    Raises:
        SettingsError: Everything that is wrong with it, each problem with file, line and column, in the order of the file.
    """
    source = document.read(Path(path))
    findings = [*source.findings, *findings_of(source.data)]
    settings: ClusterSettings | None = None
    try:
        settings = ClusterSettings.model_validate(source.data, context={CONFIG_DIR_CONTEXT: source.directory})
    except ValidationError as error:
        findings.extend(map(_finding, error.errors(include_url=False)))
    if settings is None or findings:
        raise SettingsError(source.problems(findings))
    return settings.with_document(source)


def _finding(error: ErrorDetails) -> Finding:
    path: KeyPath = tuple(error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return Finding(path, _unknown_key(path), at_key=True)
        case "missing":
            return Finding(path[:-1], f"{path[-1]} is missing")
        case "value_error":
            return Finding(path, f"{_label(path)}: {error['ctx']['error']}")
        case _:
            return Finding(path, f"{_label(path)}: {_complaint(error)}")


def _complaint(error: Mapping[str, Any] | ErrorDetails) -> str:
    """A schema error in the words of the file's author."""
    kind, value = error["type"], error["input"]
    got = "nothing" if value is None else shown(value)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {error['ctx'][bound]:g}, not {got}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, not {got}"
    if kind == "string_pattern_mismatch":
        return f"{got} does not match {error['ctx']['pattern']}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {got}"


def _label(path: Sequence[str | int]) -> str:
    """The key that a person looks for: the last one that is no index."""
    return next((part for part in reversed(path) if isinstance(part, str)), "the file")


def _unknown_key(path: KeyPath) -> str:
    if len(path) > 2 and path[1] == _HOOK_LIMITS:
        return _unknown_limit(path)
    section = _SECTIONS.get(str(path[0]), ClusterSettings) if len(path) > 1 else ClusterSettings
    if len(path) > 3 and path[0] == "Nodes" and path[2] == "gres":
        section = GresSection
    wrong = str(path[-1])
    if section is not ClusterSettings and wrong in _keys_of(ClusterSettings):
        return f"unknown key {wrong}: its place is at the top of the file"
    for name, other in _SECTIONS.items():
        if other is not section and wrong in _keys_of(other):
            return f"unknown key {wrong}: its place is in section {name}"
    by_lower = {key.lower(): key for key in [*_keys_of(section), *_OLDER_KEYS.get(section, {})]}
    near = difflib.get_close_matches(wrong.lower(), by_lower, n=1, cutoff=0.6)
    return f"unknown key {wrong}: did you mean {by_lower[near[0]]}?" if near else f"unknown key {wrong}"


def _unknown_limit(path: KeyPath) -> str:
    """A key within HookLimits, which are by point."""
    wrong = str(path[-1])
    if len(path) == 3:
        points = [key for key in _keys_of(HookLimitsSection) if key.lower() != "default"]
        return f"unknown point {wrong}: the limits are of Default, {', '.join(points)}"
    return f"unknown limit {wrong}: the limits are {', '.join(_keys_of(PointLimitsSection))}"


def _keys_of(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
