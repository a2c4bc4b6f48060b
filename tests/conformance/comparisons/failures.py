"""What a failing hook does to the step, the job, and the node."""

from collections.abc import Mapping

from tests.conformance.comparison import AT_ALLOCATION, IMPATIENT, ONE_PATH, comparison
from tests.conformance.stage import Stage
from tests.conformance.system import NODES, Finished, JobFacts

FIRST, SECOND = NODES
ON_SECOND = f'[ "$SLURMD_NODENAME" != {SECOND} ]'


def job_rows(job: JobFacts, prefix: str = "") -> dict[str, str]:
    return {
        f"{prefix}job state": job.state,
        f"{prefix}held": "held" if job.held else "not held",
        f"{prefix}restarts": str(job.restarts),
        f"{prefix}job exit code": job.exit,
    }


def exit_row(result: Finished) -> dict[str, str]:
    return {"exit code of srun": str(result.code)}


def fails_at_first(stage: Stage) -> tuple[str, ...]:
    """Lines that fail in the first attempt only, and note what the script is told of it."""
    return (
        f'echo "$SLURM_JOB_RESTART_COUNT" > {stage.notes}/restarts',
        f"[ -e {stage.notes}/failed ] && exit 0",
        f"echo yes > {stage.notes}/failed; exit 1",
    )


def failed_step(stage: Stage, *arguments: str) -> dict[str, str]:
    """A step of a job of its own, up to the end of its Epilogs."""
    result = stage.srun(*arguments, *stage.task())
    job = stage.settled()
    stage.idle()
    return {
        **exit_row(result),
        **job_rows(job),
        "drained": stage.drained(),
        "tasks that ran": stage.count("task"),
        "Epilogs": stage.count("Epilog"),
        "controller epilogs": stage.count("EpilogSlurmctld"),
    }


def failed_batch_job(stage: Stage, *options: str) -> dict[str, str]:
    """A batch job up to where it rests, its Epilogs done."""
    stage.submit(f'echo "task $SLURMD_NODENAME" >> {stage.notes}/trace', *options)
    job = stage.settled()
    stage.idle()
    return {
        **job_rows(job),
        "drained": stage.drained(),
        "tasks that ran": stage.count("task"),
        "Epilogs": stage.count("Epilog"),
        "controller epilogs": stage.count("EpilogSlurmctld"),
    }


@comparison("exit codes")
def exit_codes_of_front_ends(stage: Stage) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    for name, command in (("ok", "exit 0"), ("exit 3", "exit 3"), ("killed", "kill -9 $$")):
        rows[f"srun/{name}"] = str(stage.srun("sh", "-c", command).code)
        rows[f"srun/{name}/job"] = f"{stage.settled().state} {stage.job().exit}"
        rows[f"sbatch --wait/{name}"] = str(stage.submit(command, "--wait").code)
        rows[f"sbatch --wait/{name}/job"] = f"{stage.settled().state} {stage.job().exit}"
        rows[f"salloc/{name}"] = str(stage.salloc("sh", "-c", command).code)
        rows[f"salloc/{name}/job"] = f"{stage.settled().state}"
    rows["srun/highest of two tasks"] = str(stage.srun("-n2", "sh", "-c", "exit $((SLURM_PROCID + 4))").code)
    rows["sbatch"] = str(stage.submit("exit 3").code)
    return rows


@comparison("Prolog fails/srun")
def prolog_fails_in_a_step(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 7")
    return failed_step(stage, "-w", FIRST)


@comparison("Prolog fails/killed by a signal")
def prolog_is_killed(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "kill -9 $$")
    return failed_step(stage, "-w", FIRST)


@comparison("Prolog fails/sbatch")
def prolog_fails_in_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", *fails_at_first(stage))
    rows = failed_batch_job(stage, "-w", FIRST)
    reason = stage.system.nodes()[FIRST].drain_reason
    rows["drain reason"] = reason.replace(f"job {stage.job().job_id},", "job <job>,")
    stage.system.resume_nodes()
    stage.system.release(stage.job().job_id)
    rows["released/job state"] = stage.settled_again().state
    rows["released/restarts"] = str(stage.job().restarts)
    rows["released/SLURM_JOB_RESTART_COUNT"] = stage.note("restarts").strip()
    return rows


@comparison("Prolog fails/sbatch --no-requeue")
def prolog_fails_in_a_job_that_must_not_be_requeued(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 1")
    return failed_batch_job(stage, "-w", FIRST, "--no-requeue")


@comparison("Prolog fails/second of two nodes, srun")
def prolog_fails_on_one_node_of_a_step(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", ON_SECOND)
    rows = failed_step(stage, "-N2", "-n2")
    # Whether the task of the other node had begun by then is chance.
    del rows["tasks that ran"]
    return rows


@comparison("Prolog fails/step of an allocation")
def prolog_fails_in_an_allocation(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 1")
    step = f'"{stage.system.programs["srun"]}" true; echo "step $?"'
    result = stage.salloc("-w", FIRST, "sh", "-c", step)
    stage.settled()
    stage.idle()
    # How the allocation itself ends is a race between the step's end and the controller's word.
    return {"of the step": result.stdout.strip(), "drained": stage.drained(), "Epilogs": stage.count("Epilog")}


@comparison("Prolog fails/without hold", IMPATIENT)
def prolog_fails_without_hold(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", f'[ "$SLURMD_NODENAME" = {SECOND} ]')
    rows = failed_batch_job(stage)
    rows["again/job state"] = stage.settled_again().state
    stage.idle()
    rows["again/restarts"] = str(stage.job().restarts)
    rows["again/Prologs"] = " ".join(line.split()[1] for line in stage.trace() if line.startswith("Prolog "))
    return rows


@comparison("Prolog fails/Alloc, srun", AT_ALLOCATION)
def prolog_fails_at_allocation_of_a_step(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 1")
    return failed_step(stage, "-w", FIRST)


@comparison("Prolog fails/Alloc, sbatch on two nodes", AT_ALLOCATION)
def prolog_fails_on_one_node_of_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", ON_SECOND)
    rows = failed_batch_job(stage, "-N2", "-n2")
    # The script may start as soon as its own node is ready.
    del rows["tasks that ran"]
    return rows


@comparison("Prolog fails/Alloc, salloc", AT_ALLOCATION)
def prolog_fails_at_allocation(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 1")
    result = stage.salloc("-w", FIRST, *stage.task())
    job = stage.settled()
    stage.idle()
    return {
        "exit code of salloc": str(result.code),
        "job state": job.state,
        "the command ran": stage.count("task"),
        "drained": stage.drained(),
        "Epilogs": stage.count("Epilog"),
    }


@comparison("PrologSlurmctld fails/srun")
def controller_prolog_fails_in_a_step(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", "exit 1")
    return failed_step(stage)


@comparison("PrologSlurmctld fails/sbatch")
def controller_prolog_fails_in_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", *fails_at_first(stage))
    rows = failed_batch_job(stage)
    rows["again/job state"] = stage.settled_again().state
    rows["again/restarts"] = str(stage.job().restarts)
    rows["again/SLURM_JOB_RESTART_COUNT"] = stage.note("restarts").strip()
    return rows


@comparison("PrologSlurmctld fails/sbatch --no-requeue")
def controller_prolog_fails_in_a_job_that_must_not_be_requeued(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", "exit 1")
    return failed_batch_job(stage, "--no-requeue")


@comparison("PrologSlurmctld fails/killed by a signal")
def controller_prolog_is_killed(stage: Stage) -> Mapping[str, str]:
    stage.hook("PrologSlurmctld", "kill -9 $$")
    return failed_step(stage)


@comparison("EpilogSlurmctld fails/srun")
def controller_epilog_fails(stage: Stage) -> Mapping[str, str]:
    stage.hook("EpilogSlurmctld", "exit 1")
    return failed_step(stage)


@comparison("Epilog fails/srun")
def epilog_fails_after_a_step(stage: Stage) -> Mapping[str, str]:
    stage.hook("Epilog", ON_SECOND)
    rows = failed_step(stage, "-N2", "-n2")
    rows["drain reason"] = stage.system.nodes()[SECOND].drain_reason.replace(f"job {stage.job().job_id},", "job <job>,")
    return rows


@comparison("Epilog fails/sbatch")
def epilog_fails_after_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("Epilog", "exit 1")
    return failed_batch_job(stage, "-w", FIRST)


@comparison("SrunProlog fails")
def launch_prolog_fails(stage: Stage) -> Mapping[str, str]:
    stage.hook("SrunProlog", "exit 5")
    return failed_step(stage)


@comparison("SrunEpilog fails")
def launch_epilog_fails(stage: Stage) -> Mapping[str, str]:
    stage.hook("SrunEpilog", "exit 5")
    return failed_step(stage)


@comparison("srun --prolog none")
def launch_hooks_can_be_disabled(stage: Stage) -> Mapping[str, str]:
    stage.srun("--prolog=none", "--epilog=none", "true")
    stage.idle()
    return {"SrunPrologs": stage.count("SrunProlog"), "SrunEpilogs": stage.count("SrunEpilog")}


@comparison("srun --prolog")
def launch_hooks_can_be_replaced(stage: Stage) -> Mapping[str, str]:
    stage.script("own-prolog", 'echo "own $#: $1 $2" > @NOTES@/own')
    stage.srun(f"--prolog={stage.system.hooks}/own-prolog", "echo", "argument")
    stage.idle()
    return {"SrunPrologs": stage.count("SrunProlog"), "own": stage.note("own").strip()}


@comparison("bad script/missing", ONE_PATH)
def script_is_missing(stage: Stage) -> Mapping[str, str]:
    stage.remove("prolog.d/50-main")
    return failed_step(stage, "-w", FIRST)


@comparison("bad script/not executable")
def script_is_not_executable(stage: Stage) -> Mapping[str, str]:
    stage.script("prolog.d/10-last", "exit 0", mode=0o644)
    rows = failed_step(stage, "-w", FIRST)
    return {**rows, "Prologs": stage.count("Prolog")}


@comparison("bad script/no shebang")
def script_has_no_shebang(stage: Stage) -> Mapping[str, str]:
    stage.script("prolog.d/10-last", "exit 0", interpreter="")
    return failed_step(stage, "-w", FIRST)


@comparison("bad script/no such interpreter")
def script_has_a_bad_shebang(stage: Stage) -> Mapping[str, str]:
    stage.script("prolog.d/10-last", "exit 0", interpreter="#!/no/such/interpreter")
    return failed_step(stage, "-w", FIRST)


@comparison("bad script/empty directory")
def glob_matches_nothing(stage: Stage) -> Mapping[str, str]:
    stage.remove("prolog.d/50-main")
    return failed_step(stage, "-w", FIRST)


@comparison("bad script/empty directory of an Epilog")
def glob_of_the_epilog_matches_nothing(stage: Stage) -> Mapping[str, str]:
    stage.remove("epilog.d/50-main")
    return failed_step(stage, "-w", FIRST)


@comparison("bad script/directory")
def directory_among_the_scripts(stage: Stage) -> Mapping[str, str]:
    (stage.system.hooks / "prolog.d" / "60-directory").mkdir()
    try:
        return failed_step(stage, "-w", FIRST)
    finally:
        (stage.system.hooks / "prolog.d" / "60-directory").rmdir()


@comparison("bad script/missing, batch job", ONE_PATH)
def script_of_a_batch_job_is_missing(stage: Stage) -> Mapping[str, str]:
    stage.remove("prolog.d/50-main")
    return failed_batch_job(stage, "-w", FIRST)


@comparison("bad script/missing Epilog", ONE_PATH)
def epilog_is_missing(stage: Stage) -> Mapping[str, str]:
    stage.remove("epilog.d/50-main")
    return failed_step(stage, "-w", FIRST)
