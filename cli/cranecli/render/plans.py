"""Plans of hooks, for people and for programs."""

from collections.abc import Iterator
from typing import Any

from cranecli.hookctl.planning import JobPlan, PlannedJob, PlannedPoint
from cranecli.render.style import Style, Tone
from cranecli.render.table import Cell, Column, table
from cranecli.render.words import wrapped
from cranehooks.model.job import JobKind
from cranehooks.model.limits import Limits
from cranehooks.model.points import CONTRACTS, HookPoint
from cranehooks.policy import Verdict
from cranehooks.profiles import JobAction, StepAction, TaskAction

_JOB = {
    JobAction.REQUEUE: "job requeued",
    JobAction.REQUEUE_HELD: "job requeued, held",
    JobAction.CANCEL: "job cancelled",
    JobAction.FAIL: "job failed",
}
_STEP = {StepAction.CANCEL: "step cancelled, not sent", StepAction.FAIL: "crun fails, step not sent"}
_TASK = {
    TaskAction.CANCEL: "task cancelled",
    TaskAction.FAIL: "task failed",
    TaskAction.EXIT_AS_HOOK: "task ends with the hook's exit code",
}


def plan_lines(plan: JobPlan, style: Style, width: int | None = None) -> Iterator[str]:
    """What runs where, then the scripts of each point, then what else to know."""
    overridden = f", with {', '.join(f'{key}: {text}' for key, text in plan.overrides.items())}" if plan.overrides else ""
    yield from wrapped(
        f"Hooks of {_job_words(plan.job)}, profile {plan.profile}{overridden}; as the files of this host are now.", ""
    )
    yield ""
    if not plan.points:
        yield "no hooks are configured"
        return
    columns = [Column("POINT"), Column("WHERE"), Column("AS"), Column("TIMEOUT"), Column("A FAILURE")]
    rows: list[list[Cell | str]] = [
        [point.report.point.value, point.where, point.runs_as, _timeout(point), failure_words(point.report.point, point.verdict)]
        for point in plan.points
    ]
    yield from table(columns, rows, style, width)
    yield ""
    yield from table(
        [Column("POINT"), Column("#", right=True), Column("SCRIPT"), Column("STATE")], _script_rows(plan), style, width
    )
    notes = [f"{point.report.point.value}: {point.report.note}" for point in plan.points if point.report.note]
    notes += [f"{point.report.point.value}: goes on after a failing script" for point in plan.points if point.goes_on]
    notes += [f"{point.report.point.value}: at most {point.limits} (HookLimits)" for point in plan.points if point.limits]
    if notes or plan.notes:
        yield ""
    for note in [*notes, *plan.notes]:
        yield from wrapped(note, "- ", "  ")


def plan_document(plan: JobPlan) -> dict[str, Any]:  # the values of a JSON object are of any JSON type
    """The same with stable names."""
    return {
        "job": {
            "kind": plan.job.kind.value,
            "requeue": plan.job.requeue,
            "user": plan.job.user or None,
            "nodes": list(plan.job.nodes),
        },
        "profile": plan.profile,
        "overrides": dict(plan.overrides),
        "flags": list(plan.flags),
        "points": [
            {
                **point.report.document(),
                "moment": CONTRACTS[point.report.point].moment,
                "where": point.where,
                "runs_as": point.runs_as,
                "timeout_s": point.timeout_s,
                "timeout_covers": point.covers.name.lower(),
                "continue_on_failure": point.goes_on,
                "limits": _limits(point.limits) if point.limits else None,
                "on_failure": {
                    "drain": point.verdict.drain,
                    "job": point.verdict.job.value,
                    "step": point.verdict.step.value,
                    "task": point.verdict.task.value,
                },
            }
            for point in plan.points
        ],
        "notes": list(plan.notes),
    }


def _limits(limits: Limits) -> dict[str, float | None]:
    return {
        "memory_bytes": limits.memory_bytes,
        "swap_bytes": limits.swap_bytes,
        "cpus": limits.cpu_cores,
        "cpu_weight": limits.cpu_weight,
        "pids": limits.pids,
        "io_weight": limits.io_weight,
    }


def failure_words(point: HookPoint, verdict: Verdict) -> str:
    """What a failing script does: `node drained, job requeued`; `logged` where it does nothing."""
    drained = "all nodes of the job drained" if point is HookPoint.CRANECTLD_EPILOG else "node drained"
    is_over = point is HookPoint.CRUN_EPILOG and verdict.step is StepAction.FAIL
    parts = [
        drained if verdict.drain else "",
        _JOB.get(verdict.job, ""),
        "crun exits with 1" if is_over else _STEP.get(verdict.step, ""),
        _TASK.get(verdict.task, ""),
    ]
    return ", ".join(part for part in parts if part) or "logged"


_KINDS = {JobKind.BATCH: "a batch job", JobKind.ALLOCATION: "an allocation", JobKind.RUN: "a crun job"}


def _job_words(job: PlannedJob) -> str:
    requeue = "" if job.kind.is_interactive else " that may be requeued" if job.requeue else " with --no-requeue"
    return f"{_KINDS[job.kind]}{f' of {job.user}' if job.user else ''}{requeue}"


def _timeout(point: PlannedPoint) -> str:
    return "none" if point.timeout_s is None else f"{point.timeout_s:g} s for {point.covers.value}"


def _script_rows(plan: JobPlan) -> list[list[Cell | str]]:
    rows: list[list[Cell | str]] = []
    for point in plan.points:
        name = point.report.point.value
        if point.report.problem:
            rows.append([name, "", "", Cell(f"FAILS: {point.report.problem}", Tone.BAD)])
        elif not point.report.scripts:
            rows.append([name, "", "", "no hook"])
        for number, script in enumerate(point.report.scripts, start=1):
            state = Cell(f"PROBLEM: {script.problem}", Tone.BAD) if script.problem else Cell("ok", Tone.GOOD)
            rows.append([name, str(number), script.path, state])
    return rows
