"""Limits of hook runs (HookLimits): what exceeds them fails, says so, and harms nobody else."""

import sys
from collections.abc import Iterator

import pytest

from cranehooks.model.points import HookPoint
from tests.support.scripted_cluster import ScriptedCluster, runs_of

LIMITS = {"default": {"CpuWeight": 50, "Pids": 40}, "Prolog": {"Memory": "64M"}, "CranectldEpilog": {"Memory": "48M", "Pids": 20}}


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    with ScriptedCluster(nodes=1, hooks={"HookLimits": LIMITS}) as cluster:
        cluster.plan("probe", "Prolog", "true")
        cluster.submit("probe", "true")
        (prolog,) = runs_of(cluster.ended("probe"), HookPoint.PROLOG)
        if prolog.notes:
            pytest.skip(f"{prolog.notes[0]} (driver {cluster.nodes()['cn01'].containment})")
        yield cluster


def test_a_prolog_that_exceeds_its_memory_is_killed_and_named_in_the_drain(stage: ScriptedCluster) -> None:
    stage.plan("hog", "Prolog", f"exec {sys.executable} -c 'held = bytearray(512 << 20)'")
    job_id = stage.submit("hog", "true", "--no-requeue")
    job = stage.ended("hog")
    (run,) = runs_of(job, HookPoint.PROLOG)
    cause = "out of memory: the kernel killed 1 of its processes beyond its 64 MiB"
    assert (run.outcome.code, run.outcome.detail) == (9, cause)
    (drain,) = stage.nodes()["cn01"].drains
    assert cause in drain.reason
    assert cause in stage.hookctl("job", str(job_id)).stdout


def test_a_hook_that_exceeds_its_processes_fails_and_the_daemon_goes_on(stage: ScriptedCluster) -> None:
    forks = "import os, signal\nfor _ in range(100):\n    if not os.fork(): signal.pause()"
    for point, limit in (("Epilog", 40), ("CranectldEpilog", 20)):
        label = f"bomb-{point}"
        program = stage.script(f"{label}.py", forks, interpreter="")
        stage.plan(label, point, f"exec {sys.executable} {program}")
        stage.submit(label, "true")
        job = stage.ended(label)
        assert job.state == "Completed", "an after-hook changes no result"
        (run,) = runs_of(job, HookPoint(point))
        assert run.outcome.detail.startswith(f"out of processes: its limit of {limit} refused ")
        assert len(run.scripts[0].leftovers) == limit - 1
        stage.settle()


def test_the_share_of_the_cpus_is_set(stage: ScriptedCluster) -> None:
    # Of whichever version the controller is.
    look = (
        "while IFS=: read -r n c p; do case $c in *cpu,*|cpu|'') "
        "for f in /sys/fs/cgroup/cpu$p/cpu.shares /sys/fs/cgroup/$c$p/cpu.shares /sys/fs/cgroup$p/cpu.weight; do "
        "[ -e $f ] && echo $f $(cat $f); done;; esac; done < /proc/self/cgroup; true"
    )
    stage.plan("weight", "Epilog", look)
    stage.submit("weight", "true")
    (run,) = runs_of(stage.ended("weight"), HookPoint.EPILOG)
    assert run.outcome.ok
    values = {line.split()[-1] for line in run.output.splitlines() if "hooks" in line}
    assert values in ({"50"}, {"512"}), run.output
