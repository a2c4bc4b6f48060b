"""`hookctl jobs`, `job`, `cancel` and `release`."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, note, show, show_document

if TYPE_CHECKING:
    from cranecli.front.client import Body, FrontClient

MOST_LISTED = 1000
"""What the controller gives in one answer."""
LISTED_FOR_PEOPLE = 50
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids; ranges such as 40-45 too.")]


def jobs(
    state: Annotated[
        str,
        typer.Option(
            "-t", "--state", help="Only these states, comma separated: pending, running, held, completed, …; active; ended."
        ),
    ] = "",
    user: Annotated[str, typer.Option("-u", "--user", help="Only this user's jobs.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--limit",
            metavar="N",
            min=1,
            max=MOST_LISTED,
            help=f"At most N jobs, the newest (default {LISTED_FOR_PEOPLE}; {MOST_LISTED} with -o json).",
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List jobs, newest last; those that have not ended come before all others if there are too many."""
    from cranecli.hookctl.front import front
    from cranecli.hookctl.ids import job_states
    from cranecli.render.documents import job_document
    from cranecli.render.records import job_record
    from cranecli.render.style import style_of, width_of
    from cranecli.render.tables import jobs_table

    most = limit or (MOST_LISTED if output is Format.JSON else LISTED_FOR_PEOPLE)
    states = job_states(state)
    with front() as controller:
        found, is_cut = _listed(controller, states, user, most)
        records = [job_record(job) for job in found]
    if output is Format.JSON:
        show_document({"jobs": [job_document(record) for record in records]})
    else:
        show(jobs_table(records, time.time(), style_of(sys.stdout), width_of(sys.stdout)))
    if is_cut:
        note(f"hookctl: only the newest {most} jobs are listed; --state, --user and --limit (at most {MOST_LISTED}) show others")


def _listed(controller: "FrontClient", states: list[str], user: str, most: int) -> "tuple[list[Body], bool]":
    """At most `most` jobs, those that have not ended before those that have; whether some were left out."""
    from cranecli.hookctl.ids import job_states
    from cranecli.render.records import objects

    def ask(some_states: list[str], limit: int) -> "list[Body]":
        answer = controller.call("ListJobs", {"states": some_states, "user": user, "limit": min(limit, MOST_LISTED)})
        return [dict(job) for job in objects(answer, "jobs")]

    if states:
        # The limit counts before the states do.
        found = ask(states, MOST_LISTED)
        return found[-most:], len(found) > most or len(found) == MOST_LISTED
    active = ask(job_states("active"), MOST_LISTED)
    ended = ask(job_states("ended"), most + 1)
    # A job that ended between the questions is in both answers: as it is now.
    seen = {job["job_id"] for job in ended}
    active = [job for job in active if job["job_id"] not in seen][-most:]
    room = most - len(active)
    chosen = sorted([*active, *ended[len(ended) - min(room, len(ended)) :]], key=lambda job: int(job["job_id"]))
    return chosen, len(ended) > room or len(active) == MOST_LISTED


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
