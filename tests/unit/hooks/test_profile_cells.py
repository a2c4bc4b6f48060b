"""The table of profiles has every cell, its one setting and its sources; overrides reach the verdicts."""

import dataclasses

import pytest

from cranehooks.model.job import JobKind
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from cranehooks.policy import JobAction, decide_outcome
from cranehooks.profile_cells import CELLS
from cranehooks.profiles import OVERRIDES, PROFILES, PrologFlag, StepAction, TaskAction, effective, overridden, profile_named

_WORDS_ABOUT_IT = {"name", "summary", "source", "notes"}

TABLE = """\
field                     | setting                  | crane-requeue | crane-fail | slurm | sunk
prolog_failure            | OnPrologFailure          | drain; batch: requeue; --no-requeue: cancel; interactive: cancel | drain; job: fail | drain; batch: requeue held; --no-requeue: cancel; interactive: cancel | =
hold_on_prolog_fail       | HoldOnPrologFail         | is not held | is not held | is held | =
cranectld_prolog_failure  | OnCranectldPrologFailure | batch: requeue; --no-requeue: cancel; interactive: cancel | job: fail | batch: requeue; --no-requeue: cancel; interactive: cancel | =
task_prolog_failure       | OnTaskPrologFailure      | task: cancel | task: fail | task: exit as the hook | =
crun_prolog_failure       | OnCrunPrologFailure      | step: cancel, nothing is sent | step: fail, nothing is sent | step: cancel, nothing is sent | =
epilog_failure            | OnEpilogFailure          | drain; the job's result stays | = | = | =
task_epilog_failure       | OnTaskEpilogFailure      | logged | = | = | =
cranectld_epilog_failure  | OnCranectldEpilogFailure | logged | = | = | =
crun_epilog_failure       | OnCrunEpilogFailure      | logged | = | = | =
cancel_during_prolog      | CancelDuringProlog       | the Prolog is stopped | = | the Prolog runs to its end | =
batch_start               | BatchScriptStart         | after the Prologs of all nodes | = | after the Prolog of its own node, with DeferBatch after those of all nodes | =
order                     | ScriptOrder              | reverse byte order of the whole list (z to a, Z to A, 9 to 0) | = | reverse byte order within each pattern, patterns in the order given | ascending byte order of the whole list, as run-parts
empty_pattern             | EmptyPattern             | no hook | = | the hook fails | no hook
directory_entry           | DirectoryEntry           | as an entry: the hook fails; in a pattern: passed over | = | the hook fails when it comes to it | as an entry: its files, as run-parts takes them, and *.sh; in a pattern: passed over
timeout_cover             | TimeoutCovers            | the whole list | = | each script | =
shared_timeout            | TimeoutPrecedence        | overrides both | = | default of both | =
default_timeout_s         | DefaultTimeout           | 60 s | = | 300 s | =
timeouts_cover_task_hooks | TimeoutsCoverTaskHooks   | PrologTimeout, EpilogTimeout | = | 300 s, always | =
task_epilog_view          | TaskEpilogEnvironment    | the task's, with what TaskProlog exported | = | the task's, as it was before TaskProlog | =
task_epilog_output        | TaskEpilogStderr         | kept with the job | = | kept with the job; stderr also in that of the node's first task | =
flags                     | AllowedPrologFlags       | Alloc, Contain, ForceRequeueOnFail, NoHold, RunInJob, Serial | Contain, RunInJob, Serial | Alloc, Contain, DeferBatch, ForceRequeueOnFail, NoHold, RunInJob, Serial, X11 | =
slurm_environment         | EnableSlurmCompatibleEnv | no | = | yes | =
"""
"""`=`: as the profile to the left."""


def test_the_table() -> None:
    heading, *rows = ([field.strip() for field in line.split("|")] for line in TABLE.splitlines())
    names = heading[2:]
    assert names == list(PROFILES)
    expected = []
    for field, setting, *cells in rows:
        for index, cell in enumerate(cells):
            cells[index] = cells[index - 1] if cell == "=" else cell
        expected.append([field, setting, *cells])
    assert [[cell.field, cell.setting, *(cell.text(PROFILES[name]) for name in names)] for cell in CELLS] == expected


def test_every_field_has_one_cell_one_setting_and_a_source_in_every_profile() -> None:
    fields = [cell.field for cell in CELLS]
    assert sorted(fields) == sorted({field.name for field in dataclasses.fields(PROFILES["slurm"])} - _WORDS_ABOUT_IT)
    assert sorted(fields) == sorted(override.field for override in OVERRIDES.values())
    for cell in CELLS:
        assert list(cell.sources) == list(PROFILES)
        assert all(cell.sources.values())


@pytest.mark.parametrize("setting", OVERRIDES)
@pytest.mark.parametrize("name", PROFILES)
def test_an_override_changes_its_cell_and_no_other(name: str, setting: str) -> None:
    profile, override = profile_named(name), OVERRIDES[setting]
    texts = list(override.words) or {"DefaultTimeout": ["12.5"], "AllowedPrologFlags": ["Alloc,Serial", ""]}[setting]
    for text in texts:
        changed = overridden(profile, {setting: text})
        assert getattr(changed, override.field) == override.value(text)
        assert type(getattr(changed, override.field)) is type(getattr(profile, override.field))
        assert dataclasses.replace(changed, **{override.field: getattr(profile, override.field)}) == profile


def test_the_effective_profile() -> None:
    assert effective(HookSettings("crane-fail")) is PROFILES["crane-fail"]
    hooks = HookSettings("slurm", overrides={"AllowedPrologFlags": "Serial", "TimeoutCovers": "list"}, hold_on_prolog_fail=False)
    profile = effective(hooks)
    assert profile.flags == frozenset({PrologFlag.SERIAL})
    assert (profile.timeout_cover.value, profile.hold_on_prolog_fail) == ("the whole list", False)


FAILED = Outcome(OutcomeKind.EXIT, 3)
LOST = Outcome(OutcomeKind.LOST)


@pytest.mark.parametrize(
    ("setting", "word", "point", "outcome", "field", "value"),
    [
        ("OnPrologFailure", "requeue", HookPoint.PROLOG, FAILED, "job", JobAction.REQUEUE),
        ("OnPrologFailure", "cancel", HookPoint.PROLOG, FAILED, "job", JobAction.CANCEL),
        ("OnPrologFailure", "fail", HookPoint.PROLOG, FAILED, "job", JobAction.FAIL),
        ("HoldOnPrologFail", "true", HookPoint.PROLOG, FAILED, "job", JobAction.REQUEUE_HELD),
        ("OnCranectldPrologFailure", "fail", HookPoint.CRANECTLD_PROLOG, FAILED, "job", JobAction.FAIL),
        ("OnTaskPrologFailure", "exit-as-hook", HookPoint.TASK_PROLOG, FAILED, "task", TaskAction.EXIT_AS_HOOK),
        ("OnCrunPrologFailure", "fail", HookPoint.CRUN_PROLOG, FAILED, "step", StepAction.FAIL),
        ("OnEpilogFailure", "drain", HookPoint.EPILOG, FAILED, "drain", True),
        ("OnEpilogFailure", "log", HookPoint.EPILOG, FAILED, "drain", False),
        ("OnEpilogFailure", "log", HookPoint.EPILOG, LOST, "drain", True),
        ("OnTaskEpilogFailure", "log", HookPoint.TASK_EPILOG, FAILED, "drain", False),
        ("OnTaskEpilogFailure", "drain", HookPoint.TASK_EPILOG, FAILED, "drain", True),
        ("OnTaskEpilogFailure", "drain", HookPoint.STEP_TASK_EPILOG, FAILED, "drain", False),
        ("OnCranectldEpilogFailure", "log", HookPoint.CRANECTLD_EPILOG, FAILED, "drain", False),
        ("OnCranectldEpilogFailure", "drain", HookPoint.CRANECTLD_EPILOG, FAILED, "drain", True),
        ("OnCrunEpilogFailure", "log", HookPoint.CRUN_EPILOG, FAILED, "step", StepAction.CONTINUE),
        ("OnCrunEpilogFailure", "fail", HookPoint.CRUN_EPILOG, FAILED, "step", StepAction.FAIL),
    ],
)
def test_what_overridden_failures_do(
    setting: str, word: str, point: HookPoint, outcome: Outcome, field: str, value: object
) -> None:
    profile = overridden(PROFILES["crane-requeue"], {setting: word})
    verdict = decide_outcome(point, outcome, kind=JobKind.BATCH, requeue_allowed=True, profile=profile)
    assert getattr(verdict, field) == value
