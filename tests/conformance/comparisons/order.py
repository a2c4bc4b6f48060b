"""In which order hooks and their scripts run, where, and how often."""

from collections.abc import Mapping

from tests.conformance.comparison import AT_ALLOCATION, TWO_LINES, comparison
from tests.conformance.stage import Stage
from tests.conformance.system import NODES

NAMES = ("a-low", "Z-up", "B-up", "5-x", "20-a", "10-b", "_x", ".hidden")


@comparison("order/hooks/srun")
def order_of_hooks_of_a_step(stage: Stage) -> Mapping[str, str]:
    for name in ("task-prolog", "task-epilog"):
        stage.script(f"own-{name}", f'echo "--{name} $SLURMD_NODENAME" >> @NOTES@/trace')
    options = [f"--{name}={stage.system.hooks}/own-{name}" for name in ("task-prolog", "task-epilog")]
    stage.srun(*options, *stage.task())
    stage.idle()
    return {"one node": stage.order()}


@comparison("order/hooks/sbatch")
def order_of_hooks_of_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.submit(f'echo "script $SLURMD_NODENAME" >> {stage.notes}/trace')
    stage.settled()
    stage.idle()
    return {"one node": stage.order()}


@comparison("order/hooks/two nodes")
def order_of_hooks_on_two_nodes(stage: Stage) -> Mapping[str, str]:
    stage.srun("-N2", "-n2", *stage.task())
    stage.idle()
    names = (
        "PrologSlurmctld",
        "SrunProlog",
        "Prolog",
        "TaskProlog",
        "task",
        "TaskEpilog",
        "Epilog",
        "SrunEpilog",
        "EpilogSlurmctld",
    )
    return {
        "first": stage.points()[0],
        **{f"times/{name}": stage.count(name) for name in names},
        **{f"on {node}": stage.order(node) for node in NODES},
    }


@comparison("order/hooks/batch on two nodes")
def order_of_hooks_of_a_batch_job_on_two_nodes(stage: Stage) -> Mapping[str, str]:
    stage.submit(f'echo "script $SLURMD_NODENAME" >> {stage.notes}/trace', "-N2", "-n2")
    stage.settled()
    stage.idle()
    # Only the first node gets a step, so only there a Prolog is due; the Epilog runs on both.
    return {f"on {node}": stage.order(node) for node in NODES}


@comparison("order/hooks/allocation without a step")
def order_of_hooks_without_a_step(stage: Stage) -> Mapping[str, str]:
    result = stage.salloc("-N2", "true")
    stage.settled()
    stage.idle()
    return {
        "exit": str(result.code),
        **{f"times/{name}": stage.count(name) for name in ("PrologSlurmctld", "Prolog", "Epilog", "EpilogSlurmctld")},
    }


@comparison("order/hooks/Alloc without a step", AT_ALLOCATION)
def order_of_hooks_at_allocation(stage: Stage) -> Mapping[str, str]:
    result = stage.salloc("-N2", *stage.task())
    stage.settled()
    stage.idle()
    points = stage.points()
    return {
        "exit": str(result.code),
        "before the command": ", ".join(points[: points.index("task")]),
        **{f"times/{name}": stage.count(name) for name in ("PrologSlurmctld", "Prolog", "Epilog", "EpilogSlurmctld")},
    }


@comparison("order/hooks/Alloc, batch on two nodes", AT_ALLOCATION)
def order_of_hooks_of_a_batch_job_at_allocation(stage: Stage) -> Mapping[str, str]:
    stage.submit(f'echo "script $SLURMD_NODENAME" >> {stage.notes}/trace', "-N2", "-n2")
    stage.settled()
    stage.idle()
    return {f"on {node}": stage.order(node) for node in NODES}


@comparison("order/scripts")
def order_of_scripts(stage: Stage) -> Mapping[str, str]:
    for directory in ("prolog.d", "epilog.d"):
        for name in NAMES:
            stage.script(f"{directory}/{name}", f'echo "{directory}/{name}" >> @NOTES@/trace')
    stage.srun(*stage.task())
    stage.idle()
    found = {
        directory: [name.rpartition("/")[2] for name in stage.trace() if name.startswith(directory)]
        for directory in ("prolog.d", "epilog.d")
    }
    return {"Prolog": ", ".join(found["prolog.d"]), "Epilog": ", ".join(found["epilog.d"])}


@comparison("order/scripts/two lines", TWO_LINES)
def order_of_two_lines(stage: Stage) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    for point in ("Prolog", "Epilog"):
        stage.script(f"{point.lower()}.d/10-first", f"echo '{point} first of the glob' >> @NOTES@/lines.{point}")
        stage.script(f"{point.lower()}.d/20-second", f"echo '{point} second of the glob' >> @NOTES@/lines.{point}")
        stage.script(f"{point.lower()}-last", f"echo '{point} second line' >> @NOTES@/lines.{point}")
    stage.srun(*stage.task())
    stage.idle()
    for point in ("Prolog", "Epilog"):
        rows[point] = ", ".join(stage.note(f"lines.{point}").replace(f"{point} ", "").splitlines())
    return rows


@comparison("order/scripts/first failure")
def first_failing_script_is_the_last(stage: Stage) -> Mapping[str, str]:
    for directory in ("prolog.d", "epilog.d"):
        for name, code in (("c", 0), ("b", 4), ("a", 0)):
            stage.script(f"{directory}/{name}", f'echo "{directory}/{name}" >> @NOTES@/trace', f"exit {code}")
    stage.srun(*stage.task())
    stage.idle()
    found = {
        directory: [name.rpartition("/")[2] for name in stage.trace() if name.startswith(directory)]
        for directory in ("prolog.d", "epilog.d")
    }
    return {"Prolog": ", ".join(found["prolog.d"]), "Epilog": ", ".join(found["epilog.d"])}


@comparison("order/prolog once for several steps")
def prolog_runs_once_for_several_steps(stage: Stage) -> Mapping[str, str]:
    step = f'"{stage.system.programs["srun"]}" -n1 true'
    result = stage.salloc("-N1", "-n2", "sh", "-c", f"{step} && {step}")
    stage.settled()
    stage.idle()
    return {"exit": str(result.code), **{f"times/{name}": stage.count(name) for name in ("Prolog", "TaskProlog", "Epilog")}}
