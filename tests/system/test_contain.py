"""Prolog inside the job's cgroup (Contain), and both node hooks run by the job's extern step (RunInJob), as administrators and users see them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cranehooks.execution.containment.hierarchies import of_instances
from cranehooks.model.limits import LimitKind
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from tests.support.offered import needs
from tests.support.scripted_cluster import ScriptedCluster, runs_of, texts_of

PROFILES = ("crane-requeue", "slurm", "crane-fail")
PLACE = "cat /proc/self/cgroup"


@contextmanager
def contained(flag: str, profile: str = "crane-requeue", **hooks: object) -> Iterator[ScriptedCluster]:
    section = {"PrologFlags": flag, **hooks}
    with ScriptedCluster(points=("Prolog", "Epilog", "TaskProlog"), hooks=section, Profile=profile) as cluster:
        yield cluster
        cluster.settle()


def has_cgroups(stage: ScriptedCluster) -> bool:
    return bool(list(of_instances(f"{stage.cluster._cluster_name}.*")))


def place_of(stage: ScriptedCluster, label: str, point: HookPoint) -> list[str]:
    """Where a hook said it was, one line per hierarchy, by node."""
    return [run.scripts[0].output for run in runs_of(stage.job(label), point)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("flag", "inside"), [("contain", {HookPoint.PROLOG}), ("RunInJob", {HookPoint.PROLOG, HookPoint.EPILOG})]
)
def test_where_the_hooks_run(flag: str, inside: set[HookPoint], profile: str) -> None:
    with contained(flag, profile) as stage:
        stage.plan("placed", "Prolog", PLACE)
        stage.plan("placed", "Epilog", PLACE)
        job_id = stage.submit("placed", "true", "-N2", "-n2")
        job = stage.ended("placed")
        assert job.state == "Completed", texts_of(job)
        extern = next(step for step in job.steps if step.step_id == "extern")
        assert (extern.state.lower(), set(extern.nodes)) == ("ended", {"cn01", "cn02"})
        for point in (HookPoint.PROLOG, HookPoint.EPILOG):
            runs = runs_of(job, point)
            assert sorted(run.key.node or "" for run in runs) == ["cn01", "cn02"]
            assert {(run.user, run.outcome.kind) for run in runs} == {(runs[0].user, OutcomeKind.OK)}
            if has_cgroups(stage):
                expected = point in inside
                assert [f"/job_{job_id}/step_extern/" in place for place in place_of(stage, "placed", point)] == [expected] * 2


@needs(LimitKind.MEMORY)
@pytest.mark.parametrize("flag", ["Contain", "RunInJob"])
def test_a_prolog_within_the_job_that_takes_too_much_memory_says_so(flag: str) -> None:
    with contained(flag) as stage:
        stage.plan("greedy", "Prolog", f"{stage.interpreter} -c 'b = bytearray(256 << 20)'")
        stage.submit("greedy", "true", "--mem=64M", "--no-requeue")
        job = stage.ended("greedy")
        assert "out of memory" in job.reason
        assert any("out of memory" in run.outcome.detail for run in runs_of(job, HookPoint.PROLOG))
        assert not any(step.reason.startswith("killed") for step in job.steps), "no task has run"
