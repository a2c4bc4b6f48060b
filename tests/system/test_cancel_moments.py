"""A cancel at every moment of a job's life, in every profile: one table, played on one cluster for each profile."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cranecli.render.records import JobRecord
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.profiles import PROFILES, CancelDuringProlog, PrologFlag
from tests.support.eventually import eventually
from tests.support.scripted_cluster import PATIENCE_S, TASK_EPILOG, TASK_PROLOG, Call, Gate, ScriptedCluster, runs_of, texts_of

FIRST, SECOND = "cn01", "cn02"
CLOSED = "cn03"
"""Drained by its administrator: what wants it waits."""
BATCH, CRUN, CALLOC = "cbatch", "crun", "calloc"
CANCEL, INTERRUPT, TWICE, LIMIT = "cancel", "Ctrl-C", "Ctrl-C twice", "time limit"
ALL = tuple(PROFILES)
SOME = ("crane-requeue", "slurm", "sunk")
"""Profiles that have Alloc, and that bring a job back."""
LIMIT_TEXT = "0:0:15"
"""Long enough to come to a gate, however many do so at once."""
PATIENT: dict[str, Any] = {"RequeueDelay": 600, "MaxRequeueDelay": 600, "LauncherGrace": 100}
"""Who comes back waits for longer than the test lasts, and very many at once take their time."""


@dataclass(frozen=True)
class Moment:
    """Where a job stands when its cancel comes, and what becomes of it."""

    at: str
    """The hook, or the task, that stands at its gate; empty: nothing runs then."""
    kind: str
    by: str = CANCEL
    state: str = "Running"
    """Of the job, then."""
    end: str = "Cancelled"
    node: str = ""
    """Where it stands; on other nodes the hook passes. Empty: on each where it runs."""
    gates: int = 1
    """How many stand there."""
    passes: bool = False
    """It ends by itself also after a cancel: the gate is opened after it."""
    alloc: bool | None = False
    """Whether it is of clusters with Alloc; None: of those and of the others."""
    profiles: tuple[str, ...] = ALL
    fails: str = ""
    """A hook that fails on every node before."""
    fails_late: bool = False
    """It fails after the cancel, or because of it."""
    nodes: int = 2
    lasts: bool = False
    """Its task does not end by itself."""
    exit_code: int = 130
    """Of an interrupted crun."""
    within: bool = False
    """The crun is one in a calloc."""
    ran: tuple[str, ...] = ()
    """What has been called in the end on some node, besides the hooks of controller and node."""

    @property
    def label(self) -> str:
        late = "that fails" if self.fails_late else ""
        words = (self.by, self.kind, "in calloc" if self.within else "", self.at or self.state, self.node, self.fails, late)
        return "-".join(word.replace(" ", "_") for word in words if word)


def _task_hooks(by: str, kind: str) -> Iterator[Moment]:
    """While a step runs: it is ended, its after-hooks run to their end, and its job is cancelled."""
    end = "TimedOut" if by == LIMIT else "Cancelled"
    gates = 1 if kind == BATCH else 2
    before, own_before, own_after, after = "TaskProlog", TASK_PROLOG, TASK_EPILOG, "TaskEpilog"
    yield Moment(before, kind, by, end=end, gates=gates, ran=(before, after))
    yield Moment("task", kind, by, end=end, gates=gates, ran=(before, "task", after))
    yield Moment(after, kind, by, end=end, gates=gates, passes=True, ran=(before, "task", after))
    if kind == CRUN:
        yield Moment(own_before, kind, by, end=end, gates=gates, ran=(before, own_before, own_after, after))
        yield Moment(own_after, kind, by, end=end, gates=gates, passes=True, ran=(before, own_before, "task", own_after, after))


MOMENTS: tuple[Moment, ...] = (
    # Nothing has been started: nothing is cleaned.
    Moment("", BATCH, state="Pending", nodes=0),
    Moment("", CRUN, state="Pending", nodes=0),
    Moment("", CRUN, INTERRUPT, state="Pending", nodes=0),
    Moment("", CALLOC, state="Pending", nodes=0),
    # On the controller.
    Moment("CranectldProlog", BATCH, state="Configuring"),
    Moment("CranectldProlog", CRUN, state="Configuring"),
    Moment("CranectldProlog", CRUN, INTERRUPT, state="Configuring"),
    Moment("CranectldProlog", CALLOC, state="Configuring"),
    Moment("CranectldProlog", CALLOC, INTERRUPT, state="Configuring"),
    # Prolog at the first step on a node, …
    Moment("Prolog", BATCH, node=FIRST),
    Moment("Prolog", BATCH, LIMIT, end="TimedOut", node=FIRST),
    Moment("Prolog", CRUN, node=FIRST),
    Moment("Prolog", CRUN, node=SECOND),
    Moment("Prolog", CRUN, TWICE, node=SECOND),
    Moment("Prolog", CRUN, LIMIT, end="TimedOut", node=SECOND),
    Moment("Prolog", CRUN, node=FIRST, within=True),
    Moment("Prolog", BATCH, node=FIRST, fails_late=True),
    # … and at allocation.
    Moment("Prolog", BATCH, state="Configuring", node=FIRST, alloc=True),
    Moment("Prolog", BATCH, state="Configuring", node=SECOND, alloc=True, profiles=("crane-requeue",)),
    # Without DeferBatch, Slurm's batch script waits for the Prolog of its own node alone.
    Moment("Prolog", BATCH, node=SECOND, alloc=True, profiles=("slurm", "sunk"), lasts=True, ran=("task",)),
    Moment("Prolog", CRUN, state="Configuring", node=SECOND, alloc=True),
    Moment("Prolog", CRUN, INTERRUPT, state="Configuring", node=FIRST, alloc=True),
    Moment("Prolog", CALLOC, state="Configuring", node=FIRST, alloc=True),
    # Between Prolog and the first step; on the launch node.
    Moment("command", CALLOC, ran=("command",), alloc=None),
    Moment("command", CALLOC, LIMIT, end="TimedOut", ran=("command",)),
    Moment("CrunProlog", CRUN, ran=("CrunProlog",), alloc=None),
    Moment("CrunProlog", CRUN, INTERRUPT, ran=("CrunProlog",), alloc=None),
    Moment("CrunProlog", CRUN, LIMIT, end="TimedOut", ran=("CrunProlog",)),
    Moment("CrunProlog", CRUN, within=True, ran=("CrunProlog",)),
    # In the step.
    *_task_hooks(CANCEL, BATCH),
    *_task_hooks(CANCEL, CRUN),
    *_task_hooks(TWICE, CRUN),
    *_task_hooks(LIMIT, CRUN),
    # The task has ended, and with it the job: it keeps its result.
    Moment("CrunEpilog", CRUN, state="Completed", end="Completed", passes=True, ran=("task", "CrunEpilog")),
    Moment("CrunEpilog", CRUN, INTERRUPT, state="Completed", end="Completed", ran=("task", "CrunEpilog"), exit_code=0),
    Moment("Epilog", BATCH, state="Completing", end="Completed", gates=2, passes=True, ran=("task",)),
    Moment("Epilog", CRUN, state="Completing", end="Completed", gates=2, passes=True, ran=("task",)),
    Moment("CranectldEpilog", BATCH, state="Completing", end="Completed", passes=True, ran=("task",)),
    # A before-hook has failed: it would come back.
    Moment(
        "CranectldEpilog", BATCH, state="Completing", fails="CranectldProlog", passes=True, profiles=SOME
    ),
    Moment("", BATCH, state="Pending", fails="CranectldProlog", profiles=SOME),
    Moment("", BATCH, state="Pending", fails="Prolog", profiles=("crane-requeue",), alloc=None),
    Moment("", BATCH, state="Held", fails="Prolog", profiles=("slurm", "sunk"), alloc=None),
    # What has failed for good stays so.
    Moment("CranectldEpilog", BATCH, state="Completing", end="Failed", fails="CranectldProlog", passes=True, profiles=("crane-fail",)),
)  # fmt: skip


@dataclass
class Act:
    """One moment on the stage."""

    moment: Moment
    stage: ScriptedCluster
    gate: Gate = field(init=False)
    front_end: subprocess.Popen[bytes] | None = None
    pids: list[int] = field(default_factory=list)
    job_id: int = 0

    def __post_init__(self) -> None:
        self.gate = self.stage.gate(self.label, 0.3)

    @property
    def label(self) -> str:
        return self.moment.label

    def begin(self, exits: contextlib.ExitStack) -> None:
        """Plans what its hooks do, and starts its front end."""
        stage, moment, line = self.stage, self.moment, self.gate.line
        if moment.fails:
            stage.plan(self.label, moment.fails, "echo it is broken; exit 1")
        if moment.at and moment.at not in ("task", "command"):
            late = ("trap 'exit 3' TERM", line, "exit 3") if moment.fails_late else (line,)
            stage.plan(self.label, moment.at, *late, node=moment.node)
        command = ["sh", "-c", line if moment.at == "task" else "exec sleep 3579" if moment.lasts else "true"]
        options = ["-N2", "-t", LIMIT_TEXT] if moment.by == LIMIT else ["-N2"]
        if moment.state == "Pending" and not moment.fails:
            options = ["-N1", "-w", CLOSED]
        traced = [str(stage.tracer), "task", *command]
        own_hooks = [] if moment.at in ("CrunProlog", "CrunEpilog") else ["--prolog", "none", "--epilog", "none"]
        if moment.at in (TASK_PROLOG, TASK_EPILOG):
            own_hooks += ["--task-prolog", stage.hook(TASK_PROLOG), "--task-epilog", stage.hook(TASK_EPILOG)]
        match moment.kind:
            case "cbatch":
                script = stage.script(f"{self.label}.sh", f"exec {stage.tracer} task sh -c '{command[-1]}'")
                words = ["cbatch", "-o", f"{self.label}.out", *options, str(script)]
            case "calloc":
                stage.script(f"{self.label}.sh", f"touch {self.label}.command", line)
                words = ["calloc", *options, f"./{self.label}.sh" if moment.at == "command" else "true"]
            case _ if moment.within:
                words = ["calloc", *options, str(stage.bin / "crun"), "-N1", *own_hooks, *traced]
            case _:
                words = ["crun", *options, *own_hooks, *traced]
        self.front_end = exits.enter_context(stage.start(*words, label=self.label))

    def arrive(self) -> None:
        """Until it stands where the cancel is to find it."""
        if self.moment.at:
            try:
                self.pids = self.gate.await_arrivals(self.moment.gates)
            except AssertionError:
                message = (
                    f"{self.label} does not come: {[texts_of(job) for job in self.stage.jobs(self.label)]} {self._last_words()}"
                )
                raise AssertionError(message) from None
        if not self.job_id:
            self.job_id = eventually(lambda: self.stage.job_ids().get(self.label, 0), deadline_s=PATIENCE_S)
        if self.moment.by != LIMIT:
            eventually(lambda: self.job().state == self.moment.state, deadline_s=PATIENCE_S)

    def _last_words(self) -> str:
        assert self.front_end is not None
        is_alive = self.front_end.poll() is None
        self.front_end.kill()
        _, errors = self.front_end.communicate()
        return f"{'alive' if is_alive else self.front_end.returncode}, has said {errors!r}"

    def job(self) -> JobRecord:
        return self.stage.job_by_id(self.job_id)

    def interrupt(self) -> None:
        """As the user at a terminal does."""
        assert self.front_end is not None
        assert self.front_end.stderr is not None
        self.front_end.send_signal(signal.SIGINT)
        if self.moment.by == TWICE:
            seen = b""
            while b"one more within" not in seen and (line := self.front_end.stderr.readline()):
                seen = line
            self.front_end.send_signal(signal.SIGINT)

    def pass_on(self, *, awaits_prolog: bool) -> None:
        """Opens the gate of what ends by itself, once all have been told that it is over."""
        if self.moment.by == LIMIT:
            eventually(lambda: self.job().state in ("Completing", "TimedOut"), deadline_s=PATIENCE_S)
        is_awaited = self.moment.at == "Prolog" and awaits_prolog
        if is_awaited:
            # The other node has been released, so this one has been told.
            eventually(lambda: self.calls("Epilog"), deadline_s=PATIENCE_S)
            assert self.job().state == "Completing"
        if is_awaited or self.moment.passes:
            self.gate.open()

    def calls(self, *points: str) -> list[Call]:
        return self.stage.calls(self.label, *points)

    def check(self, *, awaits_prolog: bool) -> None:
        """What became of it."""
        moment = self.moment
        eventually(lambda: (job := self.job()).has_ended and not job.busy_nodes, deadline_s=PATIENCE_S)
        job = self.job()
        assert (job.state, job.attempt) == (moment.end, 1 if moment.nodes else 0), job
        self._check_hooks(job, awaits_prolog=awaits_prolog)
        assert self.front_end is not None
        code = self.front_end.wait(PATIENCE_S)
        if moment.kind == BATCH:
            assert code == 0
        elif moment.by in (INTERRUPT, TWICE):
            assert code == moment.exit_code
        else:
            assert (code == 0) == (moment.end == "Completed")
        # An ended job's hooks have ended too, save those of its launcher.
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in self.pids), deadline_s=PATIENCE_S)

    def _check_hooks(self, job: JobRecord, *, awaits_prolog: bool) -> None:
        moment = self.moment
        nodes = [FIRST, SECOND][: moment.nodes]
        assert sorted(call.node for call in self.calls("Epilog")) == nodes, "Epilog runs once on each allocated node"
        for point in ("CranectldProlog", "CranectldEpilog"):
            assert len(self.calls(point)) == bool(nodes), f"{point} runs once"
        prologs = [call.node for call in self.calls("Prolog")]
        assert len(prologs) == len(set(prologs)), "Prolog runs at most once on a node"
        if moment.at in ("CranectldProlog", "Prolog"):
            (run,) = [run for run in runs_of(job, HookPoint(moment.at)) if run.key.node in (moment.node, None)]
            is_awaited = moment.at == "Prolog" and awaits_prolog
            ended = OutcomeKind.EXIT if moment.fails_late else OutcomeKind.OK
            assert run.outcome.kind is (ended if is_awaited else OutcomeKind.STOPPED)
            assert not [call for call in self.calls("task", "TaskProlog") if call.node == moment.node or not call.node]
        elif not moment.fails:
            assert all(run.outcome.ok for run in runs_of(job, HookPoint.PROLOG))
        if moment.at == "CranectldProlog":
            assert not prologs
        user_points = ("CrunProlog", "TaskProlog", TASK_PROLOG, "task", TASK_EPILOG, "TaskEpilog", "CrunEpilog")
        called = {call.point for call in self.calls(*user_points)}
        if (self.stage.work / f"{self.label}.command").exists():
            called.add("command")
        assert called >= set(moment.ran)
        if moment.ran:
            late = user_points[user_points.index(moment.ran[-1]) + 1 :] if moment.ran[-1] in user_points else user_points
            assert not called & (set(late) - {"CrunEpilog", "TaskEpilog"})


def acts_of(profile: str, *, alloc: bool, stage: ScriptedCluster) -> list[Act]:
    return [
        Act(moment, stage) for moment in MOMENTS if profile in moment.profiles and moment.alloc in (None, alloc)
    ]  # fmt: skip


def play(acts: Sequence[Act], stage: ScriptedCluster, exits: contextlib.ExitStack, subtests: pytest.Subtests) -> list[Act]:
    """Brings each to its moment; who drains nodes begins when the others stand at their gates.

    Returns:
        Those that have come there.
    """
    drain = [act for act in acts if act.moment.fails == "Prolog"]
    arrived: list[Act] = []
    for some in ([act for act in acts if act not in drain], drain):
        for act in some:
            act.begin(exits)
        ids = stage.job_ids()
        for act in some:
            act.job_id = ids.get(act.label, 0)
            with subtests.test(f"{act.label} begins"):
                act.arrive()
                arrived.append(act)
    return arrived


def cancel(acts: Sequence[Act], stage: ScriptedCluster) -> None:
    for act in acts:
        if act.moment.by in (INTERRUPT, TWICE):
            act.interrupt()
    ids = [str(act.job_id) for act in acts if act.moment.by == CANCEL]
    for _ in range(2):
        result = stage.hookctl("cancel", *ids)
        assert result.returncode == 0, result.stderr


CLUSTERS = [(name, False) for name in PROFILES]
CLUSTERS += [(name, True) for name, profile in PROFILES.items() if PrologFlag.ALLOC in profile.flags]
ALWAYS = (("crane-requeue", False), ("slurm", True))
"""One that stops Prologs and one that awaits them; the others are for the long suite."""


@pytest.mark.parametrize(
    ("profile", "alloc"),
    [pytest.param(*which, marks=[] if which in ALWAYS else [pytest.mark.long]) for which in CLUSTERS],
    ids=lambda value: {True: "Alloc", False: "first step"}.get(value, value),
)
@pytest.mark.timeout(300)
def test_cancel_at_every_moment(profile: str, alloc: bool, subtests: pytest.Subtests) -> None:
    awaits_prolog = PROFILES[profile].cancel_during_prolog is CancelDuringProlog.AWAITS
    flags = {"PrologFlags": "Alloc"} if alloc else {}
    hooks = {"KillGrace": 0.2, "PrologEpilogTimeout": 300, **flags}
    with contextlib.ExitStack() as exits:
        stage = exits.enter_context(ScriptedCluster(3, cpus=64, hooks=hooks, is_brief=True, Profile=profile, **PATIENT))
        assert stage.hookctl("drain", CLOSED, "-r", "closed").returncode == 0
        acts = acts_of(profile, alloc=alloc, stage=stage)
        arrived = play(acts, stage, exits, subtests)
        cancel(arrived, stage)
        for act in arrived:
            with subtests.test(f"{act.label} ends"):
                act.pass_on(awaits_prolog=awaits_prolog)
        for act in arrived:
            with subtests.test(act.label):
                act.check(awaits_prolog=awaits_prolog)
        with subtests.test("drains"):
            # What was stopped says nothing about its node.
            fail = [act.job_id for act in arrived if act.moment.fails == "Prolog" or (act.moment.fails_late and awaits_prolog)]
            causes = [cause.reason for name, node in stage.nodes().items() if name != CLOSED for cause in node.drains]
            drained = {job_id for job_id in fail if any(f"(job {job_id}, attempt 1)" in reason for reason in causes)}
            assert drained == set(fail)
            assert len(causes) <= 2 * len(fail)
        stage.settle()
