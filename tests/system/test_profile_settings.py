"""Each cell of the profiles' table has one setting that overrides it: what happens without it, and with it, on real nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from cranehooks.model.points import HookPoint
from cranehooks.profiles import OVERRIDES
from tests.support.eventually import eventually
from tests.support.reconfiguration import reconfigured
from tests.support.scripted_cluster import CONFIGURED, PATIENCE_S, ScriptedCluster, runs_of

Scene = Callable[[ScriptedCluster, str, bool], str]
"""Plays one job of that name, knowing whether the setting is given, and says in a few words what happened."""


def prolog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "Prolog", "exit 3", node="cn01")
    stage.submit(label, "true")
    job = stage.await_state(label, "Completed", "Failed", "Cancelled", "Held")
    return f"{job.state}, attempt {job.attempt}"


def controller_prolog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "CranectldProlog", 'test "$CRANE_JOB_ATTEMPT" = 2')
    stage.submit(label, "true")
    job = stage.ended(label)
    return f"{job.state}, attempt {job.attempt}"


def task_prolog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "TaskProlog", "exit 8")
    result = stage.run("crun", str(stage.tracer), "task", label=label)
    assert stage.calls(label, "task") == []
    word = next(word for word in ("cancelled", "failed") if f"task 0 {word}: TaskProlog TaskProlog exit 8" in result.stderr)
    return f"task {word}, crun exits with {result.returncode}"


def crun_prolog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "CrunProlog", "echo not today >&2", "exit 8")
    result = stage.run("crun", str(stage.tracer), "task", label=label)
    job = stage.ended(label)
    (step,) = job.steps
    assert (result.returncode, stage.calls(label, "Prolog", "TaskProlog", "task")) == (1, [])
    fate = "cancelled" if step.cancelled else "failed"
    assert f"step {job.job_id}.0 {fate}, nothing was sent: CrunProlog {stage.hook('CrunProlog')} exit 8" in result.stderr
    assert (step.reason, job.reason) == (f"CrunProlog {stage.hook('CrunProlog')} exit 8",) * 2
    return f"step {fate}, job {job.state} {job.exit.code}:{job.exit.signal}"


def epilog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "Epilog", "exit 3")
    stage.submit(label, "true")
    assert stage.ended(label).state == "Completed"
    return drained(stage)


def task_epilog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "TaskEpilog", "exit 3")
    stage.submit(label, "true")
    assert stage.ended(label).state == "Completed"
    return drained(stage)


def task_epilog_looks(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "TaskProlog", "echo export MADE=made")
    stage.submit(label, "true")
    stage.ended(label)
    (call,) = stage.calls(label, "TaskEpilog")
    return f"TaskEpilog sees {call.environment.get('MADE', 'nothing')}"


def task_epilog_speaks(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "TaskEpilog", "echo unheard", "echo words >&2")
    result = stage.run("crun", "true", label=label)
    stage.ended(label)
    return f"the user reads {result.stderr.strip() or 'nothing'}"


def controller_epilog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "CranectldEpilog", "exit 3")
    stage.submit(label, "true")
    assert stage.ended(label).state == "Completed"
    return drained(stage)


def crun_epilog_fails(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "CrunEpilog", "exit 3")
    result = stage.run("crun", "true", label=label)
    assert f"CrunEpilog {stage.hook('CrunEpilog')} exit 3" in result.stderr
    return f"crun exits with {result.returncode}, job {stage.ended(label).state}"


def drained(stage: ScriptedCluster) -> str:
    names = [node.name for node in stage.nodes().values() if node.drains]
    return f"{' '.join(names)} drained" if names else "nothing drained"


def cancelled_during_its_prolog(stage: ScriptedCluster, label: str, is_awaited: bool) -> str:
    gate = stage.gate(label)
    stage.plan(label, "Prolog", gate.line)
    job_id = stage.submit(label, "true")
    gate.await_arrivals()
    assert stage.hookctl("cancel", str(job_id)).returncode == 0
    if is_awaited:
        stage.await_state(label, "Completing")
        gate.open()
    job = stage.ended(label)
    assert job.state == "Cancelled"
    assert len(stage.calls(label, "Epilog")) == 1
    (run,) = runs_of(job, HookPoint.PROLOG)
    return f"Prolog {run.outcome.kind.value}"


def two_scripts(stage: ScriptedCluster, label: str, _: bool) -> str:
    for name in ("a", "b"):
        stage.plan(label, name, "sleep 1.6")
    stage.submit(label, "true")
    (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
    return ", ".join(f"{script.name} {script.outcome.kind.value}" for script in run.scripts)


def two_scripts_at_once(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.submit(label, "true")
    (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
    return " ".join(script.name for script in run.scripts)


def slow_epilog(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "Epilog", "sleep 1.3")
    stage.submit(label, "true")
    (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
    return str(run.outcome)


def slow_task_prolog(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.plan(label, "TaskProlog", "sleep 1.3")
    stage.submit(label, "true")
    (run,) = runs_of(stage.ended(label), HookPoint.TASK_PROLOG)
    return str(run.outcome)


def no_epilog_there(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.submit(label, "true")
    job = stage.ended(label)
    assert job.state == "Completed"
    runs = runs_of(job, HookPoint.EPILOG)
    return runs[0].outcome.detail.split(" (")[0] if runs else "no hook"


def directory_in_a_pattern(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.submit(label, "true")
    (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
    return " ".join([*(script.name for script in run.scripts if script.outcome.ok), str(run.outcome)])


def first_step_waits(stage: ScriptedCluster, label: str, is_given: bool) -> str:
    with reconfigured(stage, {"PrologFlags": "Alloc"}) if is_given else reconfigured(stage):
        result = stage.run("calloc", "-N2", "true", label=label)
        assert result.returncode == 0
        stage.ended(label)
        return f"{len(stage.calls(label, 'Prolog'))} Prologs without a step"


def slow_prolog_elsewhere(stage: ScriptedCluster, label: str, is_given: bool) -> str:
    gate = stage.gate(label)
    ended = stage.work / f"{label}.ended"
    stage.plan(label, "Prolog", gate.line, f"touch {ended}", node="cn02")
    stage.submit(label, f"if test -e {ended}; then echo after; else echo before; fi", "-N2", "-n2")
    gate.await_arrivals()
    if is_given:
        eventually(lambda: stage.output(label), deadline_s=PATIENCE_S)
    gate.open()
    assert stage.ended(label).state == "Completed"
    return f"script {stage.output(label).strip()} the other node's Prolog"


def names_of_slurm(stage: ScriptedCluster, label: str, _: bool) -> str:
    stage.submit(label, "true")
    stage.ended(label)
    (call,) = stage.calls(label, "Epilog")
    return "SLURM_JOB_ID" if call.environment.get("SLURM_JOB_ID") == call.environment["CRANE_JOB_ID"] else "no SLURM_JOB_ID"


@dataclass(frozen=True)
class Case:
    """What a setting changes."""

    value: object
    play: Scene
    without: str
    """What happens by the profile alone."""
    with_it: str
    profile: str = "crane-requeue"
    hooks: Mapping[str, object] = field(default_factory=dict)
    """Other keys, both times; `{hooks}` is the directory of the scripts."""


def only(**hooks: object) -> Mapping[str, object]:
    """No hook but these."""
    return {**dict.fromkeys(CONFIGURED), **hooks}


TWO = only(Epilog="{hooks}/two.d/*")

CASES = {
    "OnPrologFailure": Case("fail", prolog_fails, "Completed, attempt 2", "Failed, attempt 1"),
    "HoldOnPrologFail": Case(True, prolog_fails, "Completed, attempt 2", "Held, attempt 1"),
    "OnCranectldPrologFailure": Case("fail", controller_prolog_fails, "Completed, attempt 2", "Failed, attempt 1"),
    "OnTaskPrologFailure": Case(
        "exit-as-hook", task_prolog_fails, "task cancelled, crun exits with 1", "task failed, crun exits with 8"
    ),
    "OnCrunPrologFailure": Case("fail", crun_prolog_fails, "step cancelled, job Cancelled 0:15", "step failed, job Failed 1:0"),
    "OnEpilogFailure": Case("log", epilog_fails, "cn01 drained", "nothing drained"),
    "OnTaskEpilogFailure": Case("drain", task_epilog_fails, "nothing drained", "cn01 drained"),
    "OnCranectldEpilogFailure": Case("drain", controller_epilog_fails, "nothing drained", "cn01 drained"),
    "OnCrunEpilogFailure": Case(
        "fail", crun_epilog_fails, "crun exits with 0, job Completed", "crun exits with 1, job Completed"
    ),
    "CancelDuringProlog": Case("await", cancelled_during_its_prolog, "Prolog stopped", "Prolog ok"),
    "ScriptOrder": Case("ascending", two_scripts_at_once, "b a", "a b", hooks=TWO),
    "EmptyPattern": Case(
        "fails", no_epilog_there, "no hook", "no file matches {hooks}/nothing.d/*", hooks=only(Epilog="{hooks}/nothing.d/*")
    ),
    "DirectoryEntry": Case(
        "fails", directory_in_a_pattern, "b a ok", "b spawn failed: EISDIR", hooks=only(Epilog="{hooks}/mixed.d/*")
    ),
    "TimeoutCovers": Case("script", two_scripts, "b ok, a timeout", "b ok, a ok", hooks={**TWO, "EpilogTimeout": 3}),
    "TimeoutPrecedence": Case(
        "own",
        slow_epilog,
        "ok",
        "timeout after 1 s",
        hooks=only(Epilog="{hooks}/Epilog", EpilogTimeout=1, PrologEpilogTimeout=3600),
    ),
    "DefaultTimeout": Case(1, slow_epilog, "ok", "timeout after 1 s", hooks=only(Epilog="{hooks}/Epilog")),
    "TimeoutsCoverTaskHooks": Case(
        False, slow_task_prolog, "timeout after 1 s", "ok", hooks=only(TaskProlog="{hooks}/TaskProlog", PrologTimeout=1)
    ),
    "TaskEpilogEnvironment": Case("step", task_epilog_looks, "TaskEpilog sees made", "TaskEpilog sees nothing"),
    "TaskEpilogStderr": Case("shown", task_epilog_speaks, "the user reads nothing", "the user reads words"),
    "AllowedPrologFlags": Case(
        "Alloc", first_step_waits, "0 Prologs without a step", "2 Prologs without a step", profile="crane-fail"
    ),
    "BatchScriptStart": Case(
        "own-node",
        slow_prolog_elsewhere,
        "script after the other node's Prolog",
        "script before the other node's Prolog",
        hooks={"PrologFlags": "Alloc"},
    ),
    "EnableSlurmCompatibleEnv": Case(True, names_of_slurm, "no SLURM_JOB_ID", "SLURM_JOB_ID"),
}


def test_there_is_a_case_for_every_setting() -> None:
    assert CASES.keys() == OVERRIDES.keys()


@pytest.mark.parametrize("setting", CASES)
def test_a_setting_changes_what_happens(stage: ScriptedCluster, setting: str) -> None:
    case = CASES[setting]
    for name in ("two.d/a", "two.d/b", "mixed.d/a", "mixed.d/b"):
        path = stage.hooks / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(stage.tracer.read_text())
        path.chmod(0o755)
    (stage.hooks / "mixed.d/aa").mkdir(exist_ok=True)
    hooks = {
        key: text.format(hooks=stage.hooks) if isinstance(text := value, str) else value for key, value in case.hooks.items()
    }
    for is_given, expected in ((False, case.without), (True, case.with_it)):
        # One setting stands at the top of the file.
        given = {setting: case.value} if is_given else {}
        at_top = given if setting == "EnableSlurmCompatibleEnv" else {}
        with reconfigured(stage, {**hooks, **({} if at_top else given)}, Profile=case.profile, **at_top):
            happened = case.play(stage, f"{setting}-{'with' if is_given else 'without'}", is_given)
            assert happened == expected.format(hooks=stage.hooks)
