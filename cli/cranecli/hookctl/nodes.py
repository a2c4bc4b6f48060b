"""`hookctl nodes`, `node`, `drain` and `resume`."""

import sys
from enum import Enum
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, note, show, show_document

NodesArgument = Annotated[str, typer.Argument(metavar="NODES", help="Hostlist, such as cn01 or cn[01-04,07].")]


class Owner(Enum):
    """Whose drains."""

    HOOKS = "hooks"
    ADMIN = "admin"


def nodes(
    hostlist: Annotated[
        str, typer.Argument(metavar="[NODES]", help="Hostlist; all nodes when left out.", show_default=False)
    ] = "",
    output: FormatOption = Format.TABLE,
) -> None:
    """List nodes; alike ones share a line."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.hostlists import checked
    from cranecli.render.documents import node_document
    from cranecli.render.records import node_record, objects
    from cranecli.render.style import style_of, width_of
    from cranecli.render.tables import nodes_table

    request = {"nodes": checked(hostlist)}
    with front() as controller:
        answer = controller.call("ListNodes", request)
        records = [node_record(node) for node in objects(answer, "nodes")]
    if output is Format.JSON:
        show_document({"nodes": [node_document(record) for record in records]})
    else:
        show(nodes_table(records, style_of(sys.stdout), width_of(sys.stdout)))


def node(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Node name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one node, its drains and failed hooks."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import node_name
    from cranecli.render.details import node_details
    from cranecli.render.documents import event_document, node_document, run_document
    from cranecli.render.records import event_record, hook_run, node_record, objects
    from cranecli.render.style import style_of

    request = {"name": node_name(name)}
    with front() as controller:
        answer = controller.call("GetNode", request)
        record = node_record(answer["node"])
        failed = [hook_run(run) for run in objects(answer, "failed_runs")]
        events = [event_record(event) for event in objects(answer, "events")]
    if output is Format.JSON:
        show_document({
            "node": node_document(record),
            "failed_runs": [run_document(run) for run in failed],
            "events": [event_document(event) for event in events],
        })  # fmt: skip
    else:
        show(node_details(record, failed, events, style_of(sys.stdout)))


def drain(
    hostlist: NodesArgument,
    reason: Annotated[str, typer.Option("-r", "--reason", help="Why; shown to everybody who asks.")],
) -> None:
    """Take nodes out of service; running jobs go on."""
    from cranecli.hookctl.failure import CommandError, ExitCode
    from cranecli.hookctl.front import front
    from cranecli.hookctl.hostlists import checked, folded

    if not reason.strip():
        message = "--reason must say why"
        raise CommandError(message, ExitCode.USAGE)
    request = {"nodes": checked(hostlist), "reason": reason}
    with front() as controller:
        answer = controller.call("DrainNodes", request)
    note(f"drained {folded(answer)}")


def resume(
    hostlist: NodesArgument,
    owner: Annotated[
        Owner | None, typer.Option("--owner", help="Clear only the causes of this owner; all when left out.")
    ] = None,
) -> None:
    """Put drained nodes back into service."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.hostlists import checked, folded

    wire_owner = "DRAIN_OWNER_UNSPECIFIED" if owner is None else f"DRAIN_OWNER_{owner.name}"
    request = {"nodes": checked(hostlist), "owner": wire_owner}
    with front() as controller:
        answer = controller.call("ResumeNodes", request)
    note(f"resumed {folded(answer)}" if answer.get("nodes") else "nothing to resume")
