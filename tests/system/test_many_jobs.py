"""Many jobs at once: every hook runs exactly as often as promised, and the node is never given away twice."""

from collections import Counter

import pytest

from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster

JOBS = 30


def test_every_job_of_many_has_each_hook_once(stage: ScriptedCluster) -> None:
    result = stage.run("cbatch", f"--array=1-{JOBS}", "-o", "/dev/null", "--wrap", f"{stage.tracer} task", label="many")
    assert result.returncode == 0, result.stderr
    eventually(lambda: all(job["state"] == "completed" for job in stage.hookctl_json("jobs")["jobs"]), deadline_s=PATIENCE_S)
    seen = Counter((call.point, call.environment["CRANE_JOB_ID"]) for call in stage.calls("many"))
    assert set(seen.values()) == {1}
    assert len(seen) == JOBS * 7
    for node in ("cn01", "cn02"):
        busy, most = 0, 0
        for call in stage.calls("many", "Prolog", "Epilog"):
            if call.node == node:
                busy += 1 if call.point == "Prolog" else -1
                most = max(most, busy)
        assert 1 <= most <= 4, "four CPUs, each job has one"


def test_whole_nodes_are_given_to_one_job_at_a_time(stage: ScriptedCluster) -> None:
    result = stage.run("cbatch", "--array=1-6", "-N2", "-n2", "-c4", "-o", "/dev/null", "--wrap", "crun true", label="whole")
    assert result.returncode == 0, result.stderr
    eventually(lambda: all(job.state == "Completed" for job in stage.jobs("whole")), deadline_s=PATIENCE_S)
    for node in ("cn01", "cn02"):
        order = [
            (call.point, call.environment["CRANE_JOB_ID"])
            for call in stage.calls("whole", "Prolog", "Epilog")
            if call.node == node
        ]
        assert len(order) == 12
        pairs = list(zip(order[::2], order[1::2], strict=True))
        assert all(first == ("Prolog", job) and second == ("Epilog", job) for first, second in pairs for job in [first[1]])


@pytest.mark.long
def test_thirty_two_nodes_run_one_job() -> None:
    with ScriptedCluster(nodes=32, cpus=1) as stage:
        result = stage.run("crun", "-N32", "sh", "-c", "echo $CRANE_NODENAME", label="wide")
        assert result.returncode == 0, result.stderr
        nodes = [f"cn{number:02d}" for number in range(1, 33)]
        assert sorted(result.stdout.split()) == nodes
        stage.ended("wide")
        for point in ("Prolog", "TaskProlog", "TaskEpilog", "Epilog"):
            assert sorted(call.node for call in stage.calls("wide", point)) == nodes
        stage.settle()
