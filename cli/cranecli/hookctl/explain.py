"""`hookctl explain job` and `hookctl explain node`."""

import sys
import time
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, show, show_document

app = typer.Typer(help="Tell what happened, why, and what to do.", no_args_is_help=True, rich_markup_mode=None)


@app.command("job")
def explain_job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Job id.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Why a job waits, failed, or was moved."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_number
    from cranecli.render import explanation
    from cranecli.render.documents import breaker_document, job_document, node_document
    from cranecli.render.records import breaker_record, job_record, node_record, objects
    from cranecli.render.style import style_of
    from cranekit import hostlist

    request = {"job_id": job_number(job_id)}
    with front() as controller:
        record = job_record(controller.call("GetJob", request)["job"])
        concerned = sorted(
            {*record.nodes, *(run.key.node for run in record.runs if run.key.node), *(e.node for e in record.history if e.node)}
        )
        # The launch node of a crun is in the runs, too, and need not be a node of the cluster: ask for all, keep those concerned.
        everything = [node_record(node) for node in objects(controller.call("ListNodes", {}), "nodes")] if concerned else []
        nodes = [node for node in everything if node.name in concerned]
        breakers = [breaker_record(item) for item in objects(controller.call("ListBreakers", {}), "breakers")]
    charged = [breaker for breaker in breakers if record.job_id in breaker.held_jobs]
    if output is Format.JSON:
        show_document({
            "job": job_document(record, complete=True),
            "nodes": [node_document(node) for node in nodes],
            "breakers": [breaker_document(breaker) for breaker in charged],
        })  # fmt: skip
    else:
        show(explanation.explain_job(record, nodes, charged, style_of(sys.stdout), time.time()))
        note_nodes = hostlist.fold([node.name for node in nodes if not node.up])
        if note_nodes:
            show([f"  - {note_nodes} does not answer at the moment: hookctl explain node NAME"])


@app.command("node")
def explain_node(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Node name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Why a node takes no work."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import node_name
    from cranecli.render import explanation
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
        show(explanation.explain_node(record, failed, events, style_of(sys.stdout)))
