"""`hookctl check-scripts` and `hookctl check-config`: what is wrong, before a job finds out."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, show, show_document

DEFAULT_CONFIG = "/etc/crane/config.yaml"


def check_config(file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file.")]) -> None:
    """Check a configuration file.

    Tells all problems at once, each with file, line and column; exit status 2 if there are any.
    """
    from cranehooks.settings import load
    from cranekit import hostlist
    from cranekit.yaml_lines import SettingsError

    try:
        settings = load(file)
    except SettingsError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    for caution in settings.cautions:
        print(caution, file=sys.stderr)
    nodes = hostlist.fold([str(name) for name in settings.nodes])
    print(f"{file}: cluster {settings.cluster_name}, nodes {nodes}, profile {settings.profile_name}: no problem found")


def check_scripts(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", help=f"Configuration file (default {DEFAULT_CONFIG}).")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check this host's hook scripts.

    Tells which scripts run at each point, in which order, and what keeps one from running; exit status 1 if anything does.
    """
    from cranecli.hookctl.local_config import settings_of
    from cranecli.hookctl.scripts import point_reports

    settings = settings_of(config or Path(os.environ.get("CRANE_CONFIG_FILE") or DEFAULT_CONFIG))
    reports = point_reports(settings)
    if output is Format.JSON:
        show_document({"points": [report.document() for report in reports]})
    else:
        for report in reports:
            show(report.lines())
        if not reports:
            print("no hooks are configured")
    if any(report.has_problem for report in reports):
        raise typer.Exit(1)
