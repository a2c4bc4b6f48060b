"""Nothing that a job or its hooks start gets away from a real node, whichever driver contains it, and the daemons go on answering."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.detect import AUTO, CGROUP1, CGROUP2, NONE
from cranehooks.model.points import HookPoint
from tests.support.drivers_exercised import exercised, needs_driver, silence
from tests.support.escapes import ESCAPES, Escape, processes_with
from tests.support.eventually import eventually
from tests.support.health import HealthWatch
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, runs_of

HOOK_ESCAPES = [escape for escape in ESCAPES if escape.limits is None and not escape.is_heavy]
"""An Epilog has no limits here, and three seconds."""
TIMED = [escape for escape in ESCAPES if escape.outcome.startswith("timeout")]


@pytest.fixture(scope="module", params=[AUTO, CGROUP2, CGROUP1, NONE])
def cluster(request: pytest.FixtureRequest) -> Iterator[ScriptedCluster]:
    """One node with room for everything at once."""
    needs_driver(request.param)
    settings = {"Containment": request.param, "JobLimits": {"MaxProcesses": 60}}
    hooks = {"EpilogTimeout": 3, "KillGrace": 0.3}
    with ScriptedCluster(1, cpus=64, points=("Epilog",), hooks=hooks, **settings) as running:
        yield running


@pytest.fixture(autouse=True)
def settled(cluster: ScriptedCluster) -> Iterator[None]:
    yield
    cluster.settle()


def holdings(cluster: ScriptedCluster) -> tuple[int, int]:
    """Descriptors and threads of the node's daemon."""
    pid = cluster.cluster.daemons["cn01"].pid
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def is_back_at(now: tuple[int, int], before: tuple[int, int]) -> bool:
    """The loop's pool of threads, of a size that the CPUs give, fills as it is used."""
    return now[0] <= before[0] and now[1] <= before[1] + (os.cpu_count() or 1) + 4


def label_of(what: str, escape: Escape) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in f"{what}-{escape.name}")


def offers_of(cluster: ScriptedCluster) -> str:
    """What the node says it cannot do."""
    return cluster.nodes()["cn01"].containment_lost


def wanted(cluster: ScriptedCluster, escape: Escape) -> bool:
    """Whether the machine survives the attempt."""
    lost = offers_of(cluster)
    return not escape.needs or (not any(kind.value in lost for kind in escape.needs) and "no limits," not in lost)


@pytest.mark.long
def test_nothing_gets_away(cluster: ScriptedCluster, request: pytest.FixtureRequest) -> None:
    driver = cluster.nodes()["cn01"].containment
    exercised(request.node, driver)
    # Everything that is made once is there after it.
    cluster.submit("warm", "true")
    cluster.ended("warm")
    with HealthWatch(cluster.cluster.daemons["cn01"].ready["address"]) as unloaded:
        cluster.submit("unloaded", "true")
        cluster.ended("unloaded")
    before = holdings(cluster)
    gate = cluster.gate("go")
    jobs: dict[str, int] = {}
    for escape in HOOK_ESCAPES:
        label = label_of("hook", escape)
        program = escape.lines if not escape.is_python else (f"exec {escape_file(cluster, escape)}",)
        cluster.plan(label, "Epilog", *program)
        jobs[label] = cluster.submit(label, gate.line)
    with HealthWatch(cluster.cluster.daemons["cn01"].ready["address"]) as watched:
        gate.await_arrivals(len(jobs))
        gate.open()
        for escape in HOOK_ESCAPES:
            job = cluster.ended(label_of("hook", escape))
            [run] = runs_of(job, HookPoint.EPILOG)
            assert run.outcome.kind.value == escape.outcome.split(" ")[0], escape.name
            # Without cgroups, one of those that end at the same moment may name what another left.
            assert not escape.leaves or run.scripts[0].leftovers or driver == NONE, escape.name
        # A failed Epilog has drained it.
        cluster.cluster.call("ResumeNodes", {"nodes": "cn01", "owner": "DRAIN_OWNER_UNSPECIFIED"})
        attempts = [escape for escape in ESCAPES if wanted(cluster, escape)]
        for escape in attempts:
            memory = ("--mem", "48M") if escape.limits is not None and escape.limits.memory_bytes else ()
            label = label_of("task", escape)
            jobs[label] = cluster.submit(label, str(escape_file(cluster, escape)), *memory)
        for escape in attempts:
            label = label_of("task", escape)
            if escape in TIMED:
                cluster.await_state(label, "Running")
                cluster.cluster.call("CancelJob", {"job_ids": [str(jobs[label])], "reason": "it has had its time"})
        for escape in attempts:
            state = cluster.ended(label_of("task", escape)).state
            assert state == ("Cancelled" if escape in TIMED else "Completed" if escape.outcome == "ok" else "Failed"), escape.name
    for label, job_id in jobs.items():
        assert processes_with({"CRANE_JOB_ID": str(job_id), "CRANE_CLUSTER_NAME": cluster.cluster._cluster_name}) == {}, label
    eventually(lambda: not cluster.cgroups_of_jobs(), deadline_s=PATIENCE_S)
    eventually(lambda: is_back_at(holdings(cluster), before), deadline_s=PATIENCE_S)
    silence(request.node, watched.slowest_s, unloaded.slowest_s)
    assert watched.slowest_s < unloaded.bound_s()


def escape_file(cluster: ScriptedCluster, escape: Escape) -> Path:
    """The script, where everybody may run it."""
    interpreter = f"#!{cluster.interpreter} -IS" if escape.is_python else "#!/bin/sh"
    return cluster.script(label_of("script", escape), *escape.lines, interpreter=interpreter)
