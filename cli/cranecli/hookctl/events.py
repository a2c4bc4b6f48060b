"""`hookctl events`."""

import sys
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, show_record


def events(
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events happen, until interrupted.")] = False,
    job: Annotated[str, typer.Option("--job", metavar="ID", help="Only of this job.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Only of this node.")] = "",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only of this kind: drained, requeued, hook, …; may be repeated.")
    ] = None,
    after: Annotated[
        int, typer.Option("--after", metavar="CURSOR", min=0, help="Only after this cursor, which json output shows.")
    ] = 0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Print events, oldest first, one line each.

    With -o json one document per line, each with the cursor that --after takes.
    """
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_number, node_name
    from cranecli.render.documents import event_document
    from cranecli.render.records import event_record
    from cranecli.render.style import style_of
    from cranecli.render.tables import event_line

    body = {
        "after_cursor": str(after), "follow": follow, "job_id": job_number(job) if job else "0",
        "node": node_name(node) if node else "", "kinds": kind or [],
    }  # fmt: skip
    style = style_of(sys.stdout)
    with front() as controller:
        for item in controller.stream("WatchEvents", body):
            record = event_record(item["event"])
            if output is Format.JSON:
                show_record(event_document(record))
            else:
                print(event_line(record, style), flush=follow)
