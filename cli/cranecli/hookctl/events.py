"""`hookctl events`."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, note, show_record

if TYPE_CHECKING:
    from cranecli.front.client import Body, FrontClient

_RETRY_FIRST_S = 0.25
_RETRY_LONGEST_S = 5.0


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

    With --follow it goes on where it was when the controller or the daemon of this host is restarted.

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
        for item in _followed(controller, body) if follow else controller.stream("WatchEvents", body):
            record = event_record(item["event"])
            if output is Format.JSON:
                show_record(event_document(record))
            else:
                print(event_line(record, style), flush=follow)


def _followed(controller: "FrontClient", body: "Body") -> "Iterator[Body]":
    """The items of WatchEvents without end, each once: whoever goes away meanwhile is waited for."""
    from cranecli.front.client import FrontError, FrontUnavailableError
    from cranecli.front.job_watch import PASSING_CODES

    # Nobody to follow from the start is an error.
    controller.call("GetCluster")
    pause_s = _RETRY_FIRST_S
    is_lost = False
    while True:
        try:
            if controller.is_broken:
                controller.reconnect()
            for item in controller.stream("WatchEvents", body):
                is_lost, pause_s = False, _RETRY_FIRST_S
                body["after_cursor"] = item["event"]["cursor"]
                yield item
            loss: FrontError = FrontUnavailableError("the controller has ended its report")
        except FrontError as error:
            if error.code not in PASSING_CODES:
                raise
            loss = error
        if not is_lost and sys.stderr.isatty():
            note(f"hookctl: {loss.message}: trying again, from cursor {body['after_cursor']}")
        is_lost = True
        time.sleep(pause_s)
        pause_s = min(_RETRY_LONGEST_S, pause_s * 2)
