"""`hookctl profile`: the list, one profile, and what a wrong name gets."""

import json

import pytest

from cranecli.hookctl.main import run

CRANE_FAIL = """\
crane-fail: Today's Crane: a failing Prolog fails the job. Source: CraneSched's Prolog/Epilog guide,
  current edition.

WHAT                            CELL                                                           OVERRIDDEN BY             SOURCE OF THE CELL
Prolog fails                    drain; job: fail                                               OnPrologFailure           CraneSched Prolog/Epilog guide, current edition: node drained, job failed
a job requeued by its Prolog    is not held                                                    HoldOnPrologFail          CraneSched Prolog/Epilog guide, current edition: no requeue
CranectldProlog fails           job: fail                                                      OnCranectldPrologFailure  CraneSched Prolog/Epilog guide, current edition: job failed
TaskProlog fails                task: fail                                                     OnTaskPrologFailure       CraneSched Prolog/Epilog guide, current edition: task failed
CrunProlog fails                step: fail, nothing is sent                                    OnCrunPrologFailure       CraneSched Prolog/Epilog guide, current edition: crun fails; CraneSched's code: nothing submitted
Epilog fails                    drain; the job's result stays                                  OnEpilogFailure           CraneSched Prolog/Epilog guide, current edition
TaskEpilog fails                logged                                                         OnTaskEpilogFailure       CraneSched Prolog/Epilog guide, current edition
CranectldEpilog fails           logged                                                         OnCranectldEpilogFailure  CraneSched Prolog/Epilog guide, current edition
CrunEpilog fails                logged                                                         OnCrunEpilogFailure       CraneSched Prolog/Epilog guide, current edition; CraneSched's code sets crun's exit code
cancel while Prolog runs        the Prolog is stopped                                          CancelDuringProlog        ours: the guide does not say; CraneSched's code awaits
batch script starts (Alloc)     after the Prologs of all nodes                                 BatchScriptStart          ours: as crane-requeue
order of scripts                reverse byte order of the whole list (z to a, Z to A, 9 to 0)  ScriptOrder               CraneSched Prolog/Epilog guide, current edition; CraneSched's code: by full path, the whole list
a pattern that matches nothing  no hook                                                        EmptyPattern              CraneSched's code: no script
a directory among the scripts   as an entry: the hook fails; in a pattern: passed over         DirectoryEntry            ours: a pattern means files; CraneSched's code: it cannot be run
a timeout covers                the whole list                                                 TimeoutCovers             CraneSched's code: one budget for the list
PrologEpilogTimeout             overrides both                                                 TimeoutPrecedence         CraneSched Prolog/Epilog guide, current edition: overrides
default timeout                 60 s                                                           DefaultTimeout            CraneSched Prolog/Epilog guide, current edition: 60
task hooks are bounded by       PrologTimeout, EpilogTimeout                                   TimeoutsCoverTaskHooks    CraneSched Prolog/Epilog guide, current edition
TaskEpilog's environment        the task's, with what TaskProlog exported                      TaskEpilogEnvironment     ours, to find again what TaskProlog made; CraneSched's code: the step's alone
TaskEpilog's output             kept with the job                                              TaskEpilogStderr          ours: CraneSched's code drops it
flags                           Contain, RunInJob, Serial                                      AllowedPrologFlags        CraneSched Prolog/Epilog guide, current edition
SLURM_* variables               no                                                             EnableSlurmCompatibleEnv  ours: CRANE_* names alone

In every profile: Before its job is requeued, cancelled or failed, the node of a failing Prolog is
drained. A failing --task-epilog is logged.
- Contain (implies Alloc): each node of the job has an extern step from its allocation on, and
  Prolog runs in the job's cgroup.
- RunInJob (implies Alloc, Contain): the supervisor of the extern step runs Prolog and Epilog, in
  the job's cgroup.
- Serial: Prologs and Epilogs of all jobs take turns on a node; waiting does not count as their
  time.
- crun's exit code is the step's even when CrunEpilog fails: the guide says that such a failure is
  logged.
"""


def test_one_profile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["profile", "CRANE-fail"]) == 0
    assert capsys.readouterr().out == CRANE_FAIL


def test_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["profile"]) == 0
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["PROFILE", "crane-requeue (default)", "crane-fail", "slurm", "sunk"]


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "sunk", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["profile"]
    assert (found["name"], found["default"]) == ("sunk", False)
    assert found["cells"]["order"] == {
        "label": "order of scripts",
        "value": "ascending byte order of the whole list, as run-parts",
        "setting": "ScriptOrder",
        "words": ["reverse", "reverse-within-pattern", "ascending"],
        "source": "SUNK documentation: run-parts.sh",
    }
    assert found["flags"]["X11"]["implies"] == ["Alloc", "Contain"]
    assert "nothing is forwarded" in found["flags"]["X11"]["effect"]
    assert run(["profile", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["profiles"]) == 4


def test_an_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "pbs"]) == 5
    assert capsys.readouterr().err == (
        "hookctl: error: there is no profile pbs: the profiles are crane-requeue, crane-fail, slurm, sunk\n"
    )
