"""Hooks of several scripts: their order, what a failing one means for those after it, their output, the variables of Slurm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from tests.support.scripted_cluster import ScriptedCluster, runs_of

PROLOGS = ("01-first", "10-second", "Zulu", "alpha", "zebra")
REVERSED = ["zebra", "alpha", "Zulu", "10-second", "01-first"]
EPILOGS = ["e3", "e2", "e1"]
LIMIT_BYTES = 64 << 10


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Lists at four points, of which one runs all its scripts; Slurm's names are given as well."""
    lists = {"Prolog": PROLOGS, "Epilog": EPILOGS, "TaskProlog": ["t2", "t1"], "CranectldEpilog": ["c3", "c2", "c1"]}
    hooks = {"ContinueOnFailure": ["CranectldEpilog"], "MaxOutputSize": LIMIT_BYTES}
    with ScriptedCluster(points=["CranectldProlog"], lists=lists, hooks=hooks, EnableSlurmCompatibleEnv=True) as cluster:
        yield cluster


def test_scripts_run_in_reverse_byte_order(stage: ScriptedCluster) -> None:
    stage.submit("order", "true")
    job = stage.ended("order")
    assert [call.point for call in stage.calls("order", *PROLOGS)] == REVERSED
    (run,) = runs_of(job, HookPoint.PROLOG)
    assert [script.name for script in run.scripts] == REVERSED


def test_before_hook_stops_at_its_first_failure_and_names_it(stage: ScriptedCluster) -> None:
    stage.plan("stops", "Zulu", "exit 3")
    stage.submit("stops", "true", "-w", "cn01", "--no-requeue")
    assert stage.ended("stops").state == "Cancelled"
    assert [call.point for call in stage.calls("stops", *PROLOGS)] == ["zebra", "alpha", "Zulu"]
    assert stage.nodes()["cn01"].drains[0].reason.startswith("prolog Zulu exit 3")


def test_after_hook_stops_at_its_first_failure(stage: ScriptedCluster) -> None:
    stage.plan("after", "e2", "exit 3")
    stage.submit("after", "true")
    assert stage.ended("after").state == "Completed"
    assert [call.point for call in stage.calls("after", *EPILOGS)] == ["e3", "e2"]


def test_after_hook_that_is_to_continue_runs_all_its_scripts(stage: ScriptedCluster) -> None:
    stage.plan("goes-on", "c3", "exit 3")
    stage.submit("goes-on", "true")
    job = stage.ended("goes-on")
    assert [call.point for call in stage.calls("goes-on", "c1", "c2", "c3")] == ["c3", "c2", "c1"]
    (run,) = runs_of(job, HookPoint.CRANECTLD_EPILOG)
    assert str(run.outcome) == "exit 3"


def test_scripts_that_appear_between_jobs_are_found(stage: ScriptedCluster) -> None:
    stage.submit("without", "true")
    stage.ended("without")
    late = Path(stage.hook("Prolog.d/late"))
    late.write_text(Path(stage.hook("Prolog.d/zebra")).read_text())
    late.chmod(0o755)
    try:
        stage.submit("with", "true")
        stage.ended("with")
    finally:
        late.unlink()
    assert stage.calls("without", "late") == []
    assert len(stage.calls("with", "late")) == 1


def test_exports_of_all_task_prologs_reach_the_task(stage: ScriptedCluster) -> None:
    stage.plan("exports", "t2", "echo export A=from-t2", "echo export B=from-t2")
    stage.plan("exports", "t1", "echo export A=from-t1")
    assert stage.run("crun", "sh", "-c", "echo $A $B", label="exports").stdout == "from-t1 from-t2\n"


def test_flood_of_a_hook_is_kept_in_its_limit_and_counted(stage: ScriptedCluster) -> None:
    stage.plan("flood", "zebra", "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last")
    job_id = stage.submit("flood", "true")
    assert stage.ended("flood").state == "Completed"
    runs = stage.hookctl_json("job", str(job_id))["job"]["runs"]
    script = next(run for run in runs if run["point"] == "Prolog")["scripts"][0]
    assert script["output_bytes"] == 5_000_006
    assert len(script["output"]) < LIMIT_BYTES + 100
    assert script["output"].endswith("\nlast\n")


def test_slurm_variables_have_the_same_values(stage: ScriptedCluster) -> None:
    assert stage.run("crun", "-n2", str(stage.tracer), "task", label="twins").returncode == 0
    job = stage.ended("twins")
    for call in stage.calls("twins"):
        assert call.environment["SLURM_JOB_ID"] == call.environment["CRANE_JOB_ID"] == str(job.job_id), call.point
    contexts = {call.point: call.environment.get("SLURM_SCRIPT_CONTEXT") for call in stage.calls("twins")}
    assert (contexts["CranectldProlog"], contexts["zebra"], contexts["e1"]) == (
        "prolog_slurmctld",
        "prolog_slurmd",
        "epilog_slurmd",
    )
    assert sorted(call.environment["SLURM_PROCID"] for call in stage.calls("twins", "task")) == ["0", "1"]
