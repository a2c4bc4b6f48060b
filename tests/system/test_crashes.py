"""A daemon is killed at every point where something leaves it or becomes durable, in the middle of jobs: the promises hold.

The points are not listed here: a run without a crash records those that are reached, so none can be forgotten. A commit tries some of them,
chosen by its name; the long suite tries all.
"""

import logging
import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cranecli.front.client import FrontError
from cranecli.hookctl.failure import CommandError
from cranecli.render.records import JobRecord
from cranekit.crash_points import VARIABLE
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, ScriptedCluster, texts_of

CHOSEN_PER_COMMIT = 5
_log = logging.getLogger(__name__)
LABELS = ("wide", "steps", "retry")
MOST_REQUEUES = 5


@dataclass(frozen=True, slots=True)
class CrashPlan:
    daemon: str
    point: str
    count: int

    def __str__(self) -> str:
        return f"{self.daemon} at {self.point} #{self.count}"


@pytest.fixture(scope="module")
def stage() -> Iterator[ScriptedCluster]:
    with ScriptedCluster(HeartbeatInterval=0.5, NodeDownTimeout=30.0, LauncherGrace=20.0) as cluster:
        yield cluster


def commit_name() -> str:
    """Of what is tested; where that is unknown, always the same."""
    result = subprocess.run(
        ["/usr/bin/git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "none"


@pytest.mark.timeout(300)
def test_promises_hold_at_points_chosen_by_the_commit(stage: ScriptedCluster) -> None:
    name = commit_name()
    plans = [plan for daemon in ("cranectld", "cn01") for plan in recorded(stage, daemon)]
    chosen = random.Random(name).sample(plans, CHOSEN_PER_COMMIT)
    crash_at(stage, chosen)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("daemon", ["cranectld", "cn01"])
def test_promises_hold_at_every_point(stage: ScriptedCluster, daemon: str) -> None:
    crash_at(stage, recorded(stage, daemon))


def recorded(stage: ScriptedCluster, daemon: str) -> list[CrashPlan]:
    """What one run of the workload reaches in a daemon and its helpers: each point, at its first and its last time."""
    file = stage.directory / f"points-{daemon}"
    restart_armed(stage, daemon, f"record:{file}")
    label = f"record-{daemon}"
    begin(stage, label)
    finish(stage, daemon, label)
    stage.cluster.kill(daemon)
    stage.cluster.restart(daemon)
    stage.cluster.wait_until_up()
    tidy(stage)
    counts = Counter(file.read_text().splitlines())
    assert len(counts) > 30, counts
    return [CrashPlan(daemon, point, count) for point, total in sorted(counts.items()) for count in sorted({1, total})]


def crash_at(stage: ScriptedCluster, plans: Sequence[CrashPlan]) -> None:
    """Tries one after the other; tells of all that broke a promise."""
    broken: list[str] = []
    for number, plan in enumerate(plans):
        # `--log-cli-level info` shows how far it is, and what broke, as it goes.
        _log.info("%d of %d: %s", number + 1, len(plans), plan)
        told = len(broken)
        label = f"crash-{plan.daemon}-{number}"
        restart_armed(stage, plan.daemon, f"kill:{plan.point}#{plan.count}")
        try:
            begin(stage, label)
            finish(stage, plan.daemon, label)
        except AssertionError as error:
            broken.append(f"{plan}: {error}")
        else:
            broken += [f"{plan}: {problem}" for problem in broken_promises(stage, label)]
        for problem in broken[told:]:
            _log.error("%s", problem)
        if is_alive(stage, plan.daemon):
            # The point was not reached this time, or one of its helpers died.
            stage.cluster.kill(plan.daemon)
        stage.cluster.restart(plan.daemon)
        stage.cluster.wait_until_up()
        tidy(stage)
    assert not broken, "\n".join(broken)


def restart_armed(stage: ScriptedCluster, daemon: str, plan: str) -> None:
    if is_alive(stage, daemon):
        stage.cluster.kill(daemon)
    stage.cluster.restart(daemon, env={VARIABLE: plan}, wait=False)


def is_alive(stage: ScriptedCluster, daemon: str) -> bool:
    ward = stage.cluster._ward
    assert ward is not None
    return ward.status_of(daemon) is None


# ---- the workload: a job on both nodes, one with steps, one whose Prolog fails on cn01


def begin(stage: ScriptedCluster, label: str) -> None:
    stage.plan(f"{label}-retry", "Prolog", "exit 3", node="cn01")
    traced = str(stage.tracer)
    for name, command, options in (
        ("wide", f"{traced} task", ["-N", "2"]),
        ("steps", f"crun -N2 {traced} task", ["-N", "2"]),
        ("retry", f"{traced} task", ["-N", "1"]),
    ):
        submit(stage, f"{label}-{name}", command, options)


def submit(stage: ScriptedCluster, label: str, command: str, options: Sequence[str]) -> None:
    """Until it is accepted: what cbatch was told is accepted is there, and only once."""

    def accepted() -> bool:
        result = stage.run("cbatch", "-o", f"{label}.out", *options, "--wrap", command, label=label)
        if result.returncode == 0:
            return True
        return bool(jobs_of(stage, label))

    eventually(accepted, deadline_s=PATIENCE_S)


def revive(stage: ScriptedCluster) -> None:
    """Starts again what has been killed, without a plan."""
    for name in stage.cluster.daemons:
        if not is_alive(stage, name):
            stage.cluster.restart(name)


def jobs_of(stage: ScriptedCluster, label: str) -> list[JobRecord]:
    """Asked again where the question was the point of the crash."""
    while True:
        revive(stage)
        try:
            return stage.jobs(label)
        except (CommandError, FrontError):
            eventually(lambda: not all(is_alive(stage, name) for name in stage.cluster.daemons) or is_answered(stage))


def is_answered(stage: ScriptedCluster) -> bool:
    try:
        stage.nodes()
    except (CommandError, FrontError):
        return False
    return True


def drained(stage: ScriptedCluster) -> list[str]:
    return [node.name for node in stage.nodes().values() if node.drains]


def finish(stage: ScriptedCluster, daemon: str, label: str) -> None:
    """Until all jobs have ended and released their nodes."""

    def is_over() -> bool:
        jobs = [job for name in LABELS for job in jobs_of(stage, f"{label}-{name}")]
        if any(job.state == "Pending" and "drained" in job.reason for job in jobs):
            # The failing Prolog, or a lost Epilog, came first: an administrator looks after the node.
            result = stage.hookctl("resume", "cn[01-02]")
            # The controller may have gone meanwhile; anything else is a mistake of this test.
            assert result.returncode == 0 or not is_answered(stage) or not drained(stage), result.stderr
        return all(job.has_ended and not job.busy_nodes for job in jobs)

    try:
        eventually(is_over, deadline_s=2 * PATIENCE_S)
    except AssertionError:
        jobs = {name: [(job.state, job.busy_nodes, job.reason) for job in jobs_of(stage, f"{label}-{name}")] for name in LABELS}
        raise AssertionError(f"{jobs} after the crash of {daemon}") from None


# ---- the promises


def broken_promises(stage: ScriptedCluster, label: str) -> list[str]:
    problems: list[str] = []
    for name in LABELS:
        jobs = jobs_of(stage, f"{label}-{name}")
        if len(jobs) != 1:
            problems.append(f"{name}: {len(jobs)} jobs")
            continue
        problems += (f"{name}: {problem}" for problem in broken_by(stage, jobs[0], f"{label}-{name}"))
    return problems


def broken_by(stage: ScriptedCluster, job: JobRecord, label: str) -> Iterator[str]:
    calls = stage.calls(label)
    counts = Counter((call.point, call.attempt, call.node) for call in calls if call.point != "task")
    per_node = {
        key: count for key, count in counts.items() if key[0] in {"Prolog", "Epilog", "CranectldProlog", "CranectldEpilog"}
    }
    yield from (f"{point} ran {count} times in attempt {attempt} on {node or 'the controller'}"
                for (point, attempt, node), count in per_node.items() if count > 1)  # fmt: skip
    prologs = {(call.attempt, call.node) for call in calls if call.point == "Prolog"}
    tasks = Counter((call.attempt, call.node) for call in calls if call.point == "TaskProlog")
    yield from (
        f"a task in attempt {attempt} on {node} without its Prolog" for attempt, node in tasks if (attempt, node) not in prologs
    )
    failed = {(call.attempt, "cn01") for call in calls if label.endswith("-retry")}
    yield from (
        f"a task in attempt {attempt} on {node} whose Prolog failed" for attempt, node in tasks if (attempt, node) in failed
    )
    if job.attempt > MOST_REQUEUES:
        yield f"{job.attempt} attempts"
    history = texts_of(job)
    for attempt, node in prologs:
        # Each has its Epilog; one that was cut off is lost, told, and has drained its node.
        if not counts["Epilog", attempt, node] and "lost" not in history:
            yield f"no Epilog of attempt {attempt} on {node}, and nothing tells why:\n{history}"


def tidy(stage: ScriptedCluster) -> None:
    stage.cancel_all()
    eventually(lambda: not any(node.job_ids or node.owed_epilogs for node in stage.nodes().values()), deadline_s=PATIENCE_S)
    stage.note_idle_processes()
    stage.settle()
