"""What a failure at each before-point does to job, node and front end, in every profile, on real nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from cranehooks.profiles import PROFILES
from tests.support.reconfiguration import reconfigured
from tests.support.scripted_cluster import ScriptedCluster

TABLE = """\
what fails, and of which job                  | crane-requeue                     | crane-fail                      | slurm                           | sunk
Prolog: batch                                 | Completed 0:0 on cn02, attempt 2  | Failed 1:0 on cn01, attempt 1   | Held 0:0 on -, attempt 1        | =
Prolog: batch, HoldOnPrologFail: false        | Completed 0:0 on cn02, attempt 2  | Failed 1:0 on cn01, attempt 1   | Completed 0:0 on cn02, attempt 2 | =
Prolog: batch, HoldOnPrologFail: true         | Held 0:0 on -, attempt 1          | Failed 1:0 on cn01, attempt 1   | Held 0:0 on -, attempt 1        | =
Prolog: --no-requeue                          | Cancelled 0:0 on cn01, attempt 1  | Failed 1:0 on cn01, attempt 1   | Cancelled 0:0 on cn01, attempt 1 | =
Prolog: --no-requeue, ForceRequeueOnFail      | Completed 0:0 on cn02, attempt 2  | Failed 1:0 on cn01, attempt 1   | Held 0:0 on -, attempt 1        | =
Prolog: crun                                  | Cancelled 0:0 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Cancelled 0:0 on cn01, attempt 1; crun 1 | =
Prolog: crun, ForceRequeueOnFail              | Cancelled 0:0 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Cancelled 0:0 on cn01, attempt 1; crun 1 | =
Prolog: step in calloc                        | Cancelled 0:0 on cn01, attempt 1; calloc 1 | Failed 1:0 on cn01, attempt 1; calloc 1 | Cancelled 0:0 on cn01, attempt 1; calloc 1 | =
Prolog: batch, Alloc                          | Completed 0:0 on cn02, attempt 2  | Failed 1:0 on cn01, attempt 1   | Held 0:0 on -, attempt 1        | =
Prolog: calloc, Alloc                         | Cancelled 0:0 on cn01, attempt 1; calloc 1 | Failed 1:0 on cn01, attempt 1; calloc 1 | Cancelled 0:0 on cn01, attempt 1; calloc 1 | =
Prolog times out: batch                       | Completed 0:0 on cn02, attempt 2  | Failed 1:0 on cn01, attempt 1   | Held 0:0 on -, attempt 1        | =
Prolog times out: crun                        | Cancelled 0:0 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Cancelled 0:0 on cn01, attempt 1; crun 1 | =
CranectldProlog: batch                        | Completed 0:0 on cn01, attempt 2  | Failed 1:0 on cn01, attempt 1   | Completed 0:0 on cn01, attempt 2 | =
CranectldProlog: --no-requeue                 | Cancelled 0:0 on cn01, attempt 1  | Failed 1:0 on cn01, attempt 1   | Cancelled 0:0 on cn01, attempt 1 | =
CranectldProlog: crun                         | Cancelled 0:0 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Cancelled 0:0 on cn01, attempt 1; crun 1 | =
CranectldProlog: calloc                       | Cancelled 0:0 on cn01, attempt 1; calloc 1 | Failed 1:0 on cn01, attempt 1; calloc 1 | Cancelled 0:0 on cn01, attempt 1; calloc 1 | =
TaskProlog: batch                             | Cancelled 1:0 on cn01, attempt 1  | Failed 1:0 on cn01, attempt 1   | Failed 8:0 on cn01, attempt 1   | =
TaskProlog: crun                              | Cancelled 1:0 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Failed 8:0 on cn01, attempt 1; crun 8 | =
CrunProlog: crun                              | Cancelled 0:15 on cn01, attempt 1; crun 1 | Failed 1:0 on cn01, attempt 1; crun 1 | Cancelled 0:15 on cn01, attempt 1; crun 1 | =
CrunProlog: step in calloc                    | Completed 0:0 on cn01, attempt 1; calloc 0 | = | = | =
"""
"""`=`: as the profile to the left. Nodes are drained for a failing Prolog, and for nothing else here."""


@dataclass(frozen=True)
class Row:
    """How a failure is brought about."""

    point: str
    front_end: str = "cbatch"
    options: tuple[str, ...] = ()
    hooks: Mapping[str, object] = field(default_factory=dict)
    ends: str = "exit 8"
    """How the hook fails."""


FORCED = {"AllowedPrologFlags": "Alloc,ForceRequeueOnFail", "PrologFlags": "ForceRequeueOnFail"}
AT_ALLOCATION = {"AllowedPrologFlags": "Alloc", "PrologFlags": "Alloc"}
ROWS = {
    "Prolog: batch": Row("Prolog"),
    "Prolog: batch, HoldOnPrologFail: false": Row("Prolog", hooks={"HoldOnPrologFail": False}),
    "Prolog: batch, HoldOnPrologFail: true": Row("Prolog", hooks={"HoldOnPrologFail": True}),
    "Prolog: --no-requeue": Row("Prolog", options=("--no-requeue",)),
    "Prolog: --no-requeue, ForceRequeueOnFail": Row("Prolog", options=("--no-requeue",), hooks=FORCED),
    "Prolog: crun": Row("Prolog", "crun"),
    "Prolog: crun, ForceRequeueOnFail": Row("Prolog", "crun", hooks=FORCED),
    "Prolog: step in calloc": Row("Prolog", "calloc"),
    "Prolog: batch, Alloc": Row("Prolog", hooks=AT_ALLOCATION),
    "Prolog: calloc, Alloc": Row("Prolog", "calloc", hooks=AT_ALLOCATION),
    "Prolog times out: batch": Row("Prolog", hooks={"PrologTimeout": 3}, ends="timeout after 3 s"),
    "Prolog times out: crun": Row("Prolog", "crun", hooks={"PrologTimeout": 3}, ends="timeout after 3 s"),
    "CranectldProlog: batch": Row("CranectldProlog"),
    "CranectldProlog: --no-requeue": Row("CranectldProlog", options=("--no-requeue",)),
    "CranectldProlog: crun": Row("CranectldProlog", "crun"),
    "CranectldProlog: calloc": Row("CranectldProlog", "calloc"),
    "TaskProlog: batch": Row("TaskProlog"),
    "TaskProlog: crun": Row("TaskProlog", "crun"),
    "CrunProlog: crun": Row("CrunProlog", "crun"),
    "CrunProlog: step in calloc": Row("CrunProlog", "calloc"),
}
FAILS = {"exit 8": "exit 8", "timeout after 3 s": "sleep 3600"}


def plan(stage: ScriptedCluster, label: str, row: Row) -> None:
    fails = FAILS[row.ends]
    match row.point:
        case "Prolog":
            stage.plan(label, row.point, fails, node="cn01")
        case "CranectldProlog":
            # It fails once: the next attempt may show that there is one.
            stage.plan(label, row.point, f'[ "$CRANE_JOB_ATTEMPT" = 2 ] || {fails}')
        case _:
            stage.plan(label, row.point, fails)


def happened(stage: ScriptedCluster, label: str, row: Row) -> str:
    """The end of the job as the table writes it."""
    plan(stage, label, row)
    told = ""
    if row.front_end == "cbatch":
        stage.submit(label, f"{stage.tracer} task", *row.options)
    else:
        command = ["crun", str(stage.tracer), "task"]
        argv = command if row.front_end == "crun" else ["calloc", "sh", "-c", " ".join(command) + "; sleep 0.1; exit 0"]
        result = stage.run(*argv, label=label)
        told = f"; {row.front_end} {result.returncode}"
        assert row.ends in result.stderr
        assert row.point.lower() in result.stderr.lower()
    job = stage.await_state(label, "Completed", "Failed", "Cancelled", "Held")
    drained = [node.name for node in stage.nodes().values() if node.drains]
    assert drained == (["cn01"] if row.point == "Prolog" else [])
    # The task ran once where the job completed by itself, and never otherwise.
    ran = 1 if job.state == "Completed" and row.point != "CrunProlog" else 0
    assert len(stage.calls(label, "task")) == ran
    # Every attempt is cleaned up after, on its node and on the controller.
    for point in ("Epilog", "CranectldEpilog"):
        assert [call.attempt for call in stage.calls(label, point)] == list(range(1, job.attempt + 1))
    where = ",".join(job.nodes) or "-"
    return f"{job.state} {job.exit.code}:{job.exit.signal} on {where}, attempt {job.attempt}{told}"


def golden(profile: str) -> Mapping[str, str]:
    heading, *lines = ([cell.strip() for cell in line.split("|")] for line in TABLE.splitlines())
    found = {}
    for what, *cells in lines:
        at = heading.index(profile) - 1
        while cells[at] == "=":
            at -= 1
        found[what] = cells[at]
    return found


def test_every_row_is_played() -> None:
    assert ROWS.keys() == golden("slurm").keys()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("what", ROWS)
def test_a_failure_means_what_the_profile_says(stage: ScriptedCluster, what: str, profile: str) -> None:
    row = ROWS[what]
    with reconfigured(stage, row.hooks, Profile=profile):
        assert (
            happened(stage, f"{profile} {what}".replace(":", "").replace(",", "").replace(" ", "_"), row) == golden(profile)[what]
        )
