"""Timeouts, cancels, and what hooks leave behind."""

import signal
from collections.abc import Mapping

from tests.conformance.comparison import IMPATIENT, comparison
from tests.conformance.comparisons.failures import FIRST, exit_row, failed_batch_job, failed_step, job_rows
from tests.conformance.stage import Stage

HANG = "exec /bin/sleep 600"
CHILDREN = (
    "/bin/sleep 600 >/dev/null 2>&1 </dev/null & echo $! > {notes}/{label}.group",
    "/usr/bin/setsid /bin/sh -c 'echo $$ > {notes}/{label}.session; exec /bin/sleep 600' >/dev/null 2>&1 </dev/null &",
    "while [ ! -s {notes}/{label}.session ]; do /bin/sleep 0.02; done",
)
"""One child in the script's process group, and one that has left for a session of its own before the script goes on."""


def gate(stage: Stage, label: str) -> tuple[str, ...]:
    """Lines that say they are reached, and wait."""
    return (
        f"echo $$ > {stage.notes}/reached",
        f"while [ ! -e {stage.notes}/gate ]; do /bin/sleep 0.05; done",
        f"echo '{label} ended' >> {stage.notes}/trace",
    )


def children(stage: Stage, label: str) -> list[str]:
    return [line.format(notes=stage.notes, label=label) for line in CHILDREN]


def left_behind(stage: Stage, label: str) -> dict[str, str]:
    """Which of the children still live; none does afterwards."""
    rows: dict[str, str] = {}
    for kind in ("group", "session"):
        alive = stage.is_alive(f"{label}.{kind}")
        rows[f"{label}/child in its {kind}"] = "lives" if alive else "is gone"
        stage.end(f"{label}.{kind}")
    return rows


@comparison("timeout/Prolog", IMPATIENT)
def prolog_hangs(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", *children(stage, "Prolog"), HANG)
    rows = failed_step(stage, "-w", FIRST)
    return {**rows, **left_behind(stage, "Prolog")}


@comparison("timeout/Prolog of a batch job", IMPATIENT)
def prolog_of_a_batch_job_hangs(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", HANG)
    return failed_batch_job(stage, "-w", FIRST)


@comparison("timeout/Prolog that answers TERM with success", IMPATIENT)
def prolog_traps_term(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "trap 'exit 0' TERM", "while :; do /bin/sleep 0.001; done")
    return failed_step(stage, "-w", FIRST)


@comparison("timeout/Prolog whose child keeps its output", IMPATIENT)
def child_of_the_prolog_keeps_its_output(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", f"/bin/sleep 600 & echo $! > {stage.notes}/Prolog.child", "exit 0")
    rows = failed_step(stage, "-w", FIRST)
    stage.end("Prolog.child")
    return rows


@comparison("timeout/each script has the whole time", IMPATIENT)
def each_script_has_the_whole_time(stage: Stage) -> Mapping[str, str]:
    for name in ("a", "b"):
        stage.script(f"prolog.d/{name}", "/bin/sleep 1.3", "exit 0")
    return failed_step(stage, "-w", FIRST)


@comparison("timeout/PrologSlurmctld", IMPATIENT)
def controller_prolog_hangs(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", *children(stage, "PrologSlurmctld"), HANG)
    rows = failed_step(stage)
    return {**rows, **left_behind(stage, "PrologSlurmctld")}


@comparison("timeout/Epilog", IMPATIENT)
def epilog_hangs(stage: Stage) -> Mapping[str, str]:
    stage.hook("Epilog", *children(stage, "Epilog"), HANG)
    rows = failed_step(stage, "-w", FIRST)
    rows["drained"] = stage.await_drained()
    return {**rows, **left_behind(stage, "Epilog")}


@comparison("timeout/EpilogSlurmctld", IMPATIENT)
def controller_epilog_hangs(stage: Stage) -> Mapping[str, str]:
    stage.hook("EpilogSlurmctld", HANG)
    return failed_step(stage, "-w", FIRST)


@comparison("leftovers of hooks that succeed")
def hooks_leave_children(stage: Stage) -> Mapping[str, str]:
    labels = ("PrologSlurmctld", "Prolog", "Epilog", "EpilogSlurmctld")
    for label in labels:
        stage.hook(label, *children(stage, label), "exit 0")
    rows = failed_step(stage, "-w", FIRST)
    for label in labels:
        rows |= left_behind(stage, label)
    return rows


@comparison("leftovers of task hooks")
def task_hooks_leave_children(stage: Stage) -> Mapping[str, str]:
    labels = ("TaskProlog", "TaskEpilog")
    for label in labels:
        stage.hook(label, *children(stage, label), "exit 0")
    rows = failed_step(stage, "-w", FIRST)
    for label in labels:
        rows |= left_behind(stage, label)
    return rows


@comparison("cancel/srun during Prolog")
def step_is_cancelled_during_its_prolog(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", *gate(stage, "Prolog"))
    process = stage.start("srun", "-w", FIRST, *stage.task())
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    stage.open_gate("gate")
    result = stage.finish(process)
    job = stage.settled()
    stage.idle()
    rows = {**exit_row(result), **job_rows(job), "drained": stage.drained(), "tasks that ran": stage.count("task")}
    return {**rows, "Epilogs": stage.count("Epilog"), "the Prolog ran to its end": str("Prolog ended" in stage.trace())}


@comparison("cancel/sbatch during Prolog")
def batch_job_is_cancelled_during_its_prolog(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", *gate(stage, "Prolog"))
    stage.submit("true", "-w", FIRST)
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    stage.open_gate("gate")
    job = stage.settled()
    stage.idle()
    rows = {
        **job_rows(job),
        "drained": stage.drained(),
        "TaskPrologs": stage.count("TaskProlog"),
        "Epilogs": stage.count("Epilog"),
    }
    return {**rows, "the Prolog ran to its end": str("Prolog ended" in stage.trace())}


@comparison("cancel/sbatch during a Prolog that then fails")
def cancelled_job_stays_cancelled(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", *gate(stage, "Prolog"), "exit 1")
    stage.submit("true", "-w", FIRST)
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    stage.open_gate("gate")
    job = stage.settled()
    stage.idle()
    return {**job_rows(job), "drained": stage.drained(), "Epilogs": stage.count("Epilog")}


@comparison("cancel/sbatch during PrologSlurmctld")
def batch_job_is_cancelled_during_the_controller_prolog(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", f"echo $$ > {stage.notes}/reached", HANG)
    stage.submit("true", "-w", FIRST)
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    job = stage.settled()
    stage.idle()
    return {**job_rows(job), "drained": stage.drained(), "Prologs": stage.count("Prolog"), "Epilogs": stage.count("Epilog")}


@comparison("cancel/srun while its task runs")
def step_is_cancelled(stage: Stage) -> Mapping[str, str]:
    process = stage.start("srun", "-w", FIRST, *stage.task(f"echo $$ > {stage.notes}/reached; {HANG}"))
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    result = stage.finish(process)
    job = stage.settled()
    stage.idle()
    return {
        **exit_row(result), **job_rows(job), "drained": stage.drained(),
        "TaskEpilogs": stage.count("TaskEpilog"), "Epilogs": stage.count("Epilog"),
    }  # fmt: skip


@comparison("cancel/sbatch while its script runs")
def batch_job_is_cancelled(stage: Stage) -> Mapping[str, str]:
    stage.submit(f"echo $$ > {stage.notes}/reached; {HANG}", "-w", FIRST)
    stage.await_note("reached")
    stage.system.cancel(stage.job().job_id)
    job = stage.settled()
    stage.idle()
    return {**job_rows(job), "TaskEpilogs": stage.count("TaskEpilog"), "Epilogs": stage.count("Epilog")}


@comparison("cancel/Ctrl-C twice while the task runs")
def step_is_interrupted(stage: Stage) -> Mapping[str, str]:
    process = stage.start("srun", "-w", FIRST, *stage.task(f"echo $$ > {stage.notes}/reached; {HANG}"))
    stage.await_note("reached")
    process.send_signal(signal.SIGINT)
    # Both say that they heard the first; the second counts within a second.
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    result = stage.finish(process)
    job = stage.settled()
    stage.idle()
    return {**exit_row(result), "job state": job.state, "Epilogs": stage.count("Epilog"), "drained": stage.drained()}


@comparison("cancel/Ctrl-C during SrunProlog")
def step_is_interrupted_during_its_launch_prolog(stage: Stage) -> Mapping[str, str]:
    stage.hook("SrunProlog", f"echo $$ > {stage.notes}/reached", "/bin/sleep 3")
    process = stage.start("srun", "-w", FIRST, *stage.task())
    stage.await_note("reached")
    process.send_signal(signal.SIGINT)
    result = stage.finish(process)
    stage.settled()
    stage.idle()
    return {"srun succeeded": str(result.code == 0), "tasks that ran": stage.count("task"), "drained": stage.drained()}
