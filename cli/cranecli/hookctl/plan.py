"""`hookctl plan`: which scripts a job would meet, and what the failure of each would do; nothing is run."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cranecli.hookctl.checks import DEFAULT_CONFIG
from cranecli.hookctl.page import Format, FormatOption, note, show, show_document


def plan(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", help=f"Configuration file (default {DEFAULT_CONFIG}).")
    ] = None,
    job: Annotated[
        str,
        typer.Option(
            "-j",
            "--job",
            metavar="JSON",
            help="The job: an object with kind (batch, allocation, run), requeue, user, nodes, prolog, epilog, task_prolog, task_epilog"
            " (paths, or none), what `hookctl job ID -o json` prints, or @FILE, its path, or - for stdin"
            " with either. Default: a batch job.",
        ),
    ] = "{}",
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what hooks a job would run: scripts in their order, as whom, where, with which timeout.

    Looks at this host's files as they are now and runs nothing; tells what a failure of each hook would do to such a job.
    """
    from cranecli.hookctl.local_config import settings_of
    from cranecli.hookctl.planning import job_of, plan_of
    from cranecli.render.plans import plan_document, plan_lines
    from cranecli.render.style import style_of, width_of

    planned, ignored = job_of(job)
    if ignored:
        note(f"hookctl: of the job, these mean nothing here: {', '.join(ignored)}")
    found = plan_of(settings_of(config or Path(os.environ.get("CRANE_CONFIG_FILE") or DEFAULT_CONFIG)), planned)
    if output is Format.JSON:
        show_document(plan_document(found))
    else:
        show(plan_lines(found, style_of(sys.stdout), width_of(sys.stdout)))
