"""Profiles, for people and for programs."""

from collections.abc import Iterator
from typing import Any

from cranecli.render.style import Style
from cranecli.render.table import Cell, Column, table
from cranecli.render.words import wrapped
from cranehooks.profile_cells import CELLS, FIXED, heading_of
from cranehooks.profiles import DEFAULT_PROFILE, FLAG_EFFECTS, IMPLIED_FLAGS, OVERRIDES, PROFILES, Profile


def profiles_table(style: Style, width: int | None = None) -> list[str]:
    """One line per profile."""
    rows: list[list[Cell | str]] = [[heading_of(profile), profile.source, profile.summary] for profile in PROFILES.values()]
    return table([Column("PROFILE"), Column("SOURCE"), Column("SUMMARY")], rows, style, width)


def profile_lines(profile: Profile, style: Style, width: int | None = None) -> Iterator[str]:
    """The whole column of the table, and where the profile departs from its model."""
    yield from wrapped(f"{heading_of(profile)}: {profile.summary} Source: {profile.source}.", "", "  ")
    yield ""
    rows: list[list[Cell | str]] = [[cell.label, cell.text(profile), cell.setting, cell.sources[profile.name]] for cell in CELLS]
    yield from table([Column("WHAT"), Column("CELL"), Column("OVERRIDDEN BY"), Column("SOURCE OF THE CELL")], rows, style, width)
    yield ""
    yield from wrapped(f"In every profile: {FIXED}", "")
    for flag in sorted(profile.flags):
        implied = ", ".join(sorted(IMPLIED_FLAGS.get(flag, ())))
        yield from wrapped(f"{flag}{f' (implies {implied})' if implied else ''}: {FLAG_EFFECTS[flag]}.", "- ", "  ")
    for note in profile.notes:
        yield from wrapped(note, "- ", "  ")


def profile_document(profile: Profile) -> dict[str, Any]:  # the values of a JSON object are of any JSON type
    """The profile with its cells by field."""
    return {
        "name": profile.name,
        "default": profile.name == DEFAULT_PROFILE,
        "summary": profile.summary,
        "source": profile.source,
        "cells": {
            cell.field: {
                "label": cell.label,
                "value": cell.text(profile),
                "setting": cell.setting,
                "words": list(OVERRIDES[cell.setting].words),
                "source": cell.sources[profile.name],
            }
            for cell in CELLS
        },
        "flags": {
            flag.value: {"effect": FLAG_EFFECTS[flag], "implies": sorted(IMPLIED_FLAGS.get(flag, ()))}
            for flag in sorted(profile.flags)
        },
        "notes": list(profile.notes),
    }
