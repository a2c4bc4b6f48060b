"""The SLURM_* variables of every hook, name by name."""

from collections.abc import Mapping

from tests.conformance.comparison import comparison
from tests.conformance.stage import Stage
from tests.conformance.system import NODES

DAEMON_HOOKS = ("PrologSlurmctld", "Prolog", "Epilog", "EpilogSlurmctld")
USER_HOOKS = ("SrunProlog", "TaskProlog", "TaskEpilog", "SrunEpilog")
ON_NODES = frozenset({"Prolog", "TaskProlog", "TaskEpilog", "Epilog"})


def record(stage: Stage, hooks: tuple[str, ...]) -> None:
    for label in hooks:
        stage.hook(label, records_environment=True)


def seen(stage: Stage, hooks: tuple[str, ...], node: str = NODES[0]) -> dict[str, str]:
    """Rows `hook/variable`; values that differ between any two jobs replaced."""
    job_id = str(stage.job().job_id)
    # Only ids: a count may have the same value.
    rows: dict[str, str] = {}
    for label in hooks:
        for name, value in sorted(stage.environment(label, node if label in ON_NODES else "").items()):
            rows[f"{label}/{name}"] = normalised(name, value, job_id, str(stage.notes))
    return rows


def normalised(name: str, value: str, job_id: str, notes: str) -> str:
    if name.endswith(("_JOB_ID", "_JOBID")) and value == job_id:
        return "<job>"
    if name.endswith("_TIME") and value.isdigit():
        return "<time>"
    if name.endswith(("_PID", "_PORT", "_HOST", "_ADDR", "_IPADDR")) and value:
        return f"<{name.rpartition('_')[2].lower()}>"
    return value.replace(notes, "<notes>")


@comparison("environment/srun")
def variables_of_a_step(stage: Stage) -> Mapping[str, str]:
    record(stage, (*DAEMON_HOOKS, *USER_HOOKS))
    stage.srun("-w", NODES[0], *stage.task())
    stage.idle()
    return seen(stage, (*DAEMON_HOOKS, *USER_HOOKS))


@comparison("environment/srun on two nodes")
def variables_of_a_step_on_two_nodes(stage: Stage) -> Mapping[str, str]:
    record(stage, DAEMON_HOOKS)
    stage.srun("-N2", "-n3", *stage.task())
    stage.idle()
    return seen(stage, DAEMON_HOOKS, NODES[1])


@comparison("environment/sbatch")
def variables_of_a_batch_job(stage: Stage) -> Mapping[str, str]:
    record(stage, (*DAEMON_HOOKS, "TaskProlog", "TaskEpilog"))
    stage.submit("exit 3", "-w", NODES[0], "--comment=two words")
    stage.settled()
    stage.idle()
    return seen(stage, (*DAEMON_HOOKS, "TaskProlog", "TaskEpilog"))


@comparison("environment/killed job")
def variables_of_a_killed_job(stage: Stage) -> Mapping[str, str]:
    record(stage, ("Epilog", "EpilogSlurmctld"))
    stage.submit("kill -9 $$", "-w", NODES[0])
    stage.settled()
    stage.idle()
    rows = seen(stage, ("Epilog", "EpilogSlurmctld"))
    return {name: value for name, value in rows.items() if "EXIT_CODE" in name or name.endswith("_EC")}


@comparison("environment/array")
def variables_of_an_array_job(stage: Stage) -> Mapping[str, str]:
    record(stage, ("PrologSlurmctld", "Prolog", "TaskProlog"))
    stage.submit("true", "-w", NODES[0], "--array=7")
    stage.settled()
    stage.idle()
    rows = seen(stage, ("PrologSlurmctld", "Prolog", "TaskProlog"))
    return {name: value for name, value in rows.items() if "ARRAY" in name}


@comparison("environment/array bounds")
def bounds_of_arrays(stage: Stage) -> Mapping[str, str]:
    record(stage, ("PrologSlurmctld",))
    rows: dict[str, str] = {}
    for array in ("3-9:3", "1,2,7", "9,6,3", "0-2"):
        stage.submit("true", "-w", NODES[0], f"--array={array}", "--wait")
        stage.idle()
        variables = stage.environment("PrologSlurmctld", "")
        bounds = (f"SLURM_ARRAY_TASK_{name}" for name in ("COUNT", "MIN", "MAX", "STEP"))
        rows[array] = " ".join(variables.get(name, "-") for name in bounds)
        stage.again()
    return rows


@comparison("environment/output files")
def variables_of_output_files(stage: Stage) -> Mapping[str, str]:
    record(stage, ("PrologSlurmctld", "Epilog"))
    stage.submit("true", "-w", NODES[0], "-o", f"{stage.notes}/%u.%x.out", "-e", "errors.%N.%a")
    stage.settled()
    stage.idle()
    rows = seen(stage, ("PrologSlurmctld", "Epilog"))
    return {name: value for name, value in rows.items() if "_STD" in name}


@comparison("environment/steps of an allocation")
def variables_of_steps_of_an_allocation(stage: Stage) -> Mapping[str, str]:
    record(stage, ("SrunProlog", "TaskProlog", "Epilog", "EpilogSlurmctld"))
    srun = f'"{stage.system.programs["srun"]}" -N1 -n1 -w {NODES[0]}'
    stage.salloc("-N2", "-n3", "sh", "-c", f"{srun} sh -c 'exit 2'; {srun} true")
    stage.idle()
    rows = seen(stage, ("SrunProlog", "TaskProlog", "Epilog", "EpilogSlurmctld"))
    names = ("NODE", "TASK", "PROC", "_EC", "EXIT_CODE", "STEP_ID")
    return {row: value for row, value in rows.items() if any(name in row.rpartition("/")[2] for name in names)}


@comparison("environment/salloc")
def variables_of_the_command_of_an_allocation(stage: Stage) -> Mapping[str, str]:
    result = stage.salloc("-N2", "-n3", "/usr/bin/env")
    stage.idle()
    job_id = str(stage.job().job_id)
    variables = stage.system.variables_of(dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line))
    return {name: normalised(name, value, job_id, str(stage.notes)) for name, value in sorted(variables.items())}


@comparison("environment/requeued job")
def variables_of_a_requeued_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("Prolog", "exit 1", records_environment=True)
    record(stage, ("Epilog", "EpilogSlurmctld"))
    stage.submit("true", "-w", NODES[0])
    stage.settled()
    stage.idle()
    names = ("SLURM_JOB_RESTART_COUNT", "SLURM_JOB_EXIT_CODE", "SLURM_JOB_EXIT_CODE2", "SLURM_JOB_DERIVED_EC")
    rows = seen(stage, ("Prolog", "Epilog", "EpilogSlurmctld"))
    return {name: value for name, value in rows.items() if name.rpartition("/")[2] in names}


@comparison("environment/nothing else")
def nothing_but_the_variables_of_the_hook(stage: Stage) -> Mapping[str, str]:
    for label in DAEMON_HOOKS:
        note = f"{stage.notes}/others.{label}"
        stage.hook(
            label,
            f"/usr/bin/tr '\\0' '\\n' < /proc/$$/environ | /bin/sed 's/=.*//' | /bin/grep -v -e '^SLURM' -e '^CRANE' > {note}",
        )
    stage.srun("-w", NODES[0], *stage.task(), env={"SECRET_OF_USER": "leaked"})
    stage.idle()
    return {label: " ".join(sorted(stage.note(f"others.{label}").split())) or "nothing" for label in DAEMON_HOOKS}
