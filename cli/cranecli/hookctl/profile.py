"""`hookctl profile`: whose behaviour the hooks have, cell by cell."""

import sys
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, show, show_document


def profile(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Of a profile; without one, all are listed.")] = "",
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a profile means: every cell, the setting that overrides it, and its source."""
    from cranecli.hookctl.failure import CommandError, ExitCode
    from cranecli.render.profiles import profile_document, profile_lines, profiles_table
    from cranecli.render.style import style_of, width_of
    from cranehooks.profiles import PROFILES

    style, width = style_of(sys.stdout), width_of(sys.stdout)
    if not name:
        if output is Format.JSON:
            show_document({"profiles": [profile_document(found) for found in PROFILES.values()]})
        else:
            show(profiles_table(style, width))
        return
    found = PROFILES.get(name.lower())
    if found is None:
        message = f"there is no profile {name}: the profiles are {', '.join(PROFILES)}"
        raise CommandError(message, ExitCode.NOT_FOUND)
    if output is Format.JSON:
        show_document({"profile": profile_document(found)})
    else:
        show(profile_lines(found, style, width))
