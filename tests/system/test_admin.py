"""What administrators do and see: drain and resume, cancel and release, the breaker, tables, documents and events, reloads and metrics."""

import json
import re
import signal
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster

JOB_KEYS = {
    "job_id", "attempt", "state", "reason", "kind", "name", "user", "account", "partition", "num_nodes", "ntasks", "requeue",
    "time_limit_s", "array_job_id", "array_task_id", "nodes", "busy_nodes", "exit", "requeue_count", "submitted_at", "started_at",
    "ended_at", "not_before", "steps", "shares", "usage",
}  # fmt: skip
RUN_KEYS = {
    "run_id", "point", "job_id", "attempt", "step_id", "task_id", "node", "place", "user", "started_at", "duration_s",
    "queue_wait_s", "outcome", "scripts", "notes",
}  # fmt: skip
NODE_KEYS = {
    "name", "up", "use", "drained", "drain_causes", "cpus", "cpus_used", "memory_bytes", "memory_used_bytes", "gres", "partitions",
    "job_ids", "owed_epilogs", "last_heartbeat", "address", "version", "config_digest", "config_differs", "boot_id", "containment", "containment_lost", "gres_used", "only_uid",
}  # fmt: skip


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Four nodes, of which one script may drain two."""
    with ScriptedCluster(nodes=4, MaxDrainsPerScript=2) as cluster:
        yield cluster


@pytest.fixture
def stage(shared_cluster: ScriptedCluster) -> Iterator[ScriptedCluster]:
    """As everywhere, with closed breakers."""
    yield shared_cluster
    shared_cluster.settle()
    assert shared_cluster.hookctl("breaker", "reset").returncode == 0


def drained(stage: ScriptedCluster) -> list[str]:
    return [node.name for node in stage.nodes().values() if node.drains]


# ---- nodes


def test_drain_and_resume_take_hostlists(stage: ScriptedCluster) -> None:
    result = stage.hookctl("drain", "cn[01-02,04]", "--reason", "new disks")
    assert (result.returncode, result.stderr) == (0, "drained cn[01-02,04]\n")
    assert drained(stage) == ["cn01", "cn02", "cn04"]
    table = stage.hookctl("nodes").stdout
    assert "cn[01-02,04]" in table
    assert "new disks" in table
    stage.submit("dodges", "true")
    assert stage.ended("dodges").nodes == ("cn03",)
    result = stage.hookctl("resume", "cn[01-04]")
    assert (result.returncode, result.stderr) == (0, "resumed cn[01-02,04]\n")
    assert drained(stage) == []


def test_draining_kills_no_running_job(stage: ScriptedCluster) -> None:
    gate = stage.gate("kept")
    stage.submit("kept", gate.line)
    gate.await_arrivals()
    assert stage.hookctl("drain", "cn01", "--reason", "later").returncode == 0
    assert stage.job("kept").state == "Running"
    gate.open()
    assert stage.ended("kept").state == "Completed"
    assert drained(stage) == ["cn01"]


def test_resume_clears_the_causes_of_one_owner(stage: ScriptedCluster) -> None:
    assert stage.hookctl("drain", "cn01", "--reason", "by hand").returncode == 0
    assert stage.hookctl("resume", "cn01", "--owner", "hooks").returncode == 0
    assert [cause.reason for cause in stage.nodes()["cn01"].drains] == ["by hand"]
    assert stage.hookctl("resume", "cn01", "--owner", "admin").returncode == 0
    assert drained(stage) == []


@pytest.mark.parametrize("hostlist", ["cn[01-", "cn99", "cn[01-02],cn77"])
def test_bad_hostlist_drains_nothing(stage: ScriptedCluster, hostlist: str) -> None:
    result = stage.hookctl("drain", hostlist, "--reason", "why")
    assert result.returncode in {2, 5}
    assert "Traceback" not in result.stderr
    assert drained(stage) == []


# ---- the drain budget


def test_breaker_trips_beyond_the_budget_and_holds_the_job(stage: ScriptedCluster) -> None:
    stage.plan("bad-prolog", "Prolog", 'test "$(cat /proc/sys/kernel/ostype)" = Plan9')
    job_id = stage.submit("bad-prolog", "true")
    job = stage.await_state("bad-prolog", "Held")
    assert drained(stage) == ["cn01", "cn02"]
    assert "breaker" in job.reason or "budget" in job.reason
    (breaker,) = stage.hookctl_json("breaker", "list")["breakers"]
    assert breaker["tripped"] is True
    assert (breaker["drained_nodes"], breaker["budget"], breaker["nodes"]) == (2, 2, ["cn01", "cn02"])
    assert breaker["script"].endswith("/Prolog")
    assert breaker["held_jobs"] == [job_id]
    # Others that would use the script wait as well.
    stage.submit("innocent", "true", "-w", "cn04")
    assert stage.await_state("innocent", "Held").reason
    assert stage.hookctl("breaker", "reset", breaker["sha256"][:8]).returncode == 0
    for label in ("bad-prolog", "innocent"):
        stage.plan(label, "Prolog", "exit 0")
        assert stage.hookctl("release", str(stage.job(label).job_id)).returncode == 0
        assert stage.ended(label).state == "Completed"


# ---- jobs


def test_job_document_has_its_stable_names(stage: ScriptedCluster) -> None:
    assert stage.run("crun", "-n2", "true", label="document").returncode == 0
    job = stage.ended("document")
    document = stage.hookctl_json("job", str(job.job_id))["job"]
    assert set(document) == JOB_KEYS | {"history", "runs"}
    assert document["state"] == "completed"
    assert all(set(run) == RUN_KEYS for run in document["runs"])
    assert set(document["history"][0]) == {"time", "kind", "attempt", "text", "node"}
    (listed,) = [entry for entry in stage.hookctl_json("jobs")["jobs"] if entry["job_id"] == job.job_id]
    assert set(listed) == JOB_KEYS
    nodes = stage.hookctl_json("nodes")["nodes"]
    assert [node["name"] for node in nodes] == ["cn01", "cn02", "cn03", "cn04"]
    assert all(set(node) == NODE_KEYS for node in nodes)


def test_table_of_a_job_tells_every_hook_in_one_page(stage: ScriptedCluster) -> None:
    assert stage.run("crun", "true", label="page").returncode == 0
    job = stage.ended("page")
    page = stage.hookctl("job", str(job.job_id)).stdout
    for point in (
        "CranectldProlog",
        "Prolog",
        "CrunProlog",
        "TaskProlog",
        "TaskEpilog",
        "CrunEpilog",
        "Epilog",
        "CranectldEpilog",
    ):
        assert re.search(rf"{point} .*\bok\b", page), point
    assert "\x1b" not in page


def test_explain_tells_why_a_job_waits(stage: ScriptedCluster) -> None:
    stage.submit("fills", "sleep 3600", "-N4", "-n4", "-c4")
    stage.await_state("fills", "Running")
    job_id = stage.submit("waits", "true")
    text = stage.hookctl("explain", "job", str(job_id)).stdout
    assert str(job_id) in text
    assert "pending" in text.lower() or "waits" in text.lower()


def test_explain_tells_of_a_failed_hook(stage: ScriptedCluster) -> None:
    stage.plan("why", "Prolog", "echo step one; echo no GPU found >&2; exit 3", node="cn01")
    job_id = stage.submit("why", "true")
    stage.ended("why")
    for text in (stage.hookctl("explain", "job", str(job_id)).stdout, stage.hookctl("explain", "node", "cn01").stdout):
        assert "exit 3" in text
        assert "no GPU found" in text
        assert "cn01" in text


def test_jobs_can_be_cancelled_in_ranges(stage: ScriptedCluster) -> None:
    ids = [stage.submit(f"range-{number}", "sleep 3600") for number in range(3)]
    assert stage.hookctl("cancel", f"{ids[0]}-{ids[2]}", "--reason", "clean up").returncode == 0
    assert [stage.ended(f"range-{number}").state for number in range(3)] == ["Cancelled"] * 3
    again = stage.hookctl("cancel", str(ids[0]))
    assert again.returncode == 0
    assert "already ended" in again.stderr


# ---- events


def test_events_are_followed_as_they_happen(stage: ScriptedCluster) -> None:
    with stage.start("hookctl", "events", "--follow", "-o", "json", as_admin=True) as follower:
        stage.submit("followed", "true")
        job = stage.ended("followed")
        assert follower.stdout is not None
        kinds = []
        cursors = []
        for line in follower.stdout:
            event = json.loads(line)
            cursors.append(event["cursor"])
            if event["job_id"] == job.job_id:
                kinds.append(event["kind"])
                if event["kind"] == "state" and event["text"].startswith("completed"):
                    break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(30) in {0, 130}
    assert cursors == sorted(set(cursors))
    assert kinds[0] == "submitted"
    assert kinds.index("submitted") < kinds.index("allocated") < kinds.index("hook")
    later = stage.hookctl("events", "-o", "json", "--after", str(cursors[-2])).stdout.splitlines()
    assert json.loads(later[0])["cursor"] == cursors[-1]
    of_job = stage.hookctl("events", "-o", "json", "--job", str(job.job_id)).stdout.splitlines()
    assert {json.loads(line)["job_id"] for line in of_job} == {job.job_id}


# ---- reload and metrics


def test_reload_applies_to_later_jobs_and_a_bad_one_changes_nothing(stage: ScriptedCluster) -> None:
    config = stage.cluster.config_file
    original = config.read_text()
    extra = stage.hooks / "late-prolog"
    extra.write_text((stage.hooks / "Prolog").read_text())
    extra.chmod(0o755)
    log = stage.cluster.daemons["cranectld"].log

    def reload(text: str, answer: str) -> None:
        before = len(log.read_text())
        config.write_text(text)
        for name in stage.cluster.daemons:
            stage.cluster.signal(name, signal.SIGHUP)
        eventually(lambda: answer in log.read_text()[before:], deadline_s=PATIENCE_S)

    gate = stage.gate("keeps-hooks")
    stage.submit("keeps-hooks", gate.line)
    gate.await_arrivals()
    try:
        reload(original + "NoSuchKey: 1\n", "NoSuchKey")
        stage.submit("after-bad", "true")
        assert stage.ended("after-bad").state == "Completed"
        reload(original.replace("  Prolog: ", f"  Prolog: {extra},"), "config.reloaded")
        stage.submit("after-good", "true")
        assert stage.ended("after-good").state == "Completed"
        assert [call.point for call in stage.calls("after-good", "Prolog", "late-prolog")] == ["late-prolog", "Prolog"]
        gate.open()
        stage.ended("keeps-hooks")
        assert len(stage.calls("keeps-hooks", "late-prolog")) == 0
    finally:
        gate.open()
        reload(original, "config.reloaded")


def test_metrics_count_runs_and_name_no_job(stage: ScriptedCluster) -> None:
    stage.plan("counted", "Prolog", "exit 3", node="cn01")
    stage.submit("counted", "true")
    stage.ended("counted")
    text = ""
    for name in ("cranectld", "cn01", "cn02"):
        with urllib.request.urlopen(f"http://{stage.cluster.daemons[name].ready['metrics']}/metrics", timeout=10) as answer:
            text += answer.read().decode()
    assert re.search(r'crane_hook_runs_total\{.*outcome="exit".*point="Prolog".*script="Prolog".*\} [1-9]', text)
    assert re.search(r"crane_hook_run_duration_seconds_bucket\{", text)
    assert re.search(r'crane_drains_total\{cause=".*"\} [1-9]', text)
    assert re.search(r'crane_jobs\{state="completed"\} [1-9]', text)
    assert re.search(r"crane_decisions_total\{decision=", text)
    assert "crane_build_info{" in text
    assert "grpc_server_" in text
    assert "counted" not in text
    assert not re.search(r"job_?id=|user=", text)
