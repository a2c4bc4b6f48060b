"""`hookctl jobs`, `job`, `cancel` and `release`."""

import sys
import time
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, note, show, show_document

JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids; ranges such as 40-45 too.")]


def jobs(
    state: Annotated[
        str,
        typer.Option(
            "-t", "--state", help="Only these states, comma separated: pending, running, held, completed, …, or active."
        ),
    ] = "",
    user: Annotated[str, typer.Option("-u", "--user", help="Only this user's jobs.")] = "",
    output: FormatOption = Format.TABLE,
) -> None:
    """List jobs, newest last."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_states
    from cranecli.render.documents import job_document
    from cranecli.render.records import job_record, objects
    from cranecli.render.style import style_of, width_of
    from cranecli.render.tables import jobs_table

    request = {"states": job_states(state), "user": user}
    with front() as controller:
        answer = controller.call("ListJobs", request)
        records = [job_record(job) for job in objects(answer, "jobs")]
    if output is Format.JSON:
        show_document({"jobs": [job_document(record) for record in records]})
    else:
        show(jobs_table(records, time.time(), style_of(sys.stdout), width_of(sys.stdout)))


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Job id.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one job with the timeline of its hooks."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_number
    from cranecli.render.details import job_details
    from cranecli.render.documents import job_document
    from cranecli.render.records import job_record
    from cranecli.render.style import style_of

    request = {"job_id": job_number(job_id)}
    with front() as controller:
        record = job_record(controller.call("GetJob", request)["job"])
    if output is Format.JSON:
        show_document({"job": job_document(record, complete=True)})
    else:
        show(job_details(record, style_of(sys.stdout)))


def cancel(
    job_ids: JobIds,
    reason: Annotated[str, typer.Option("-r", "--reason", help="Why; kept in the job's history.")] = "",
) -> None:
    """Cancel jobs, in whatever state they are."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_numbers

    request = {"job_ids": job_numbers(job_ids), "reason": reason}
    with front() as controller:
        answer = controller.call("CancelJob", request)
    ended = [str(number) for number in answer.get("already_ended") or ()]
    if ended:
        note(f"hookctl: already ended: {', '.join(ended)}")


def release(job_ids: JobIds) -> None:
    """Let held jobs run again."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_numbers

    request = {"job_ids": job_numbers(job_ids)}
    with front() as controller:
        controller.call("ReleaseHold", request)
