"""Which hooks may leave processes behind (`KeepProcesses`), as it stands in the configuration file."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from cranehooks.model.points import CONTRACTS, HookPoint, RunsAs
from cranehooks.settings.document import OLDER_HOOK_KEYS
from cranehooks.settings.values import beside, config_dir_of, parse_names, parse_patterns, shown

KEEPING_POINTS = tuple(point for point, contract in CONTRACTS.items() if contract.runs_as is not RunsAs.JOB_USER)
"""What the hooks of other points leave behind ends with the task, or with crun."""

Kept = dict[HookPoint, tuple[str, ...]]
"""Patterns of the scripts of each point; none: all of its scripts."""


def parse_kept(value: object) -> Kept:
    """`true` for all points, names of points, or a mapping of points to patterns or `true`.

    Raises:
        ValueError: It is something else, or names a point whose hooks cannot keep anything.
    """
    if isinstance(value, bool):
        return dict.fromkeys(KEEPING_POINTS, ()) if value else {}
    if not isinstance(value, Mapping):
        return {_point(name): () for name in parse_names(value)}
    kept: Kept = {}
    for name, scripts in value.items():
        point = name if isinstance(name, HookPoint) else _point(str(name))
        if scripts is True or scripts == ():
            kept[point] = ()
        elif scripts is not False:
            kept[point] = _patterns(point, scripts)
    return kept


def _point(written: str) -> HookPoint:
    by_name = {point.value: point for point in KEEPING_POINTS}
    name = OLDER_HOOK_KEYS.get(written, written)
    if name not in by_name:
        is_point = any(name == point.value for point in HookPoint)
        why = ": what task and crun hooks leave behind ends with them" if is_point else ""
        msg = f"expected true, or some of {', '.join(by_name)}, not {shown(written)}{why}"
        raise ValueError(msg)
    return by_name[name]


def _patterns(point: HookPoint, scripts: object) -> tuple[str, ...]:
    patterns = parse_patterns(scripts)
    if not patterns:
        msg = f"{point.value}: expected paths or globs of its scripts, or true for all of them"
        raise ValueError(msg)
    return patterns


def _all_beside(kept: Kept, info: ValidationInfo) -> Kept:
    directory = config_dir_of(info)
    return {point: tuple(beside(directory, pattern) for pattern in patterns) for point, patterns in kept.items()}


def _plain(kept: Kept) -> dict[str, list[str]]:
    """In a fixed order, so that equal settings have equal digests."""
    return {point.value: list(kept[point]) for point in sorted(kept, key=lambda point: point.value)}


_PATTERNS = {"type": ["boolean", "string", "array"]}
KeepProcesses = Annotated[
    Kept,
    BeforeValidator(parse_kept),
    AfterValidator(_all_beside),
    PlainSerializer(_plain),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "string", "array"]},
                {
                    "type": "object",
                    "properties": {point.value: _PATTERNS for point in KEEPING_POINTS},
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
