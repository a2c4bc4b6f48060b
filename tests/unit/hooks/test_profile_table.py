"""The table of profiles, cell by cell, as a configuration file with `Profile: NAME` makes hooks behave: verdicts, order, timeouts, flags."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cranehooks.execution.scripts import planned
from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobKind
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings, ScriptRun
from cranehooks.plan import PlanFailure
from cranehooks.policy import StepAction, TaskAction, Verdict, decide, task_exit
from cranehooks.profiles import (
    PROFILES,
    CancelDuringProlog,
    EmptyPattern,
    JobAction,
    PrologFlag,
    TimeoutCover,
    effective,
)
from cranehooks.settings import load
from cranekit.yaml_lines import SettingsError

TABLE = """\
what                                             | crane-requeue      | crane-fail         | slurm              | sunk
Prolog fails, batch                              | drain, requeue     | drain, fail        | drain, requeue held | =
Prolog fails, batch, HoldOnPrologFail: false     | drain, requeue     | drain, fail        | drain, requeue     | =
Prolog fails, batch, HoldOnPrologFail: true      | drain, requeue held | drain, fail       | drain, requeue held | =
Prolog fails, --no-requeue                       | drain, cancel      | drain, fail        | drain, cancel      | =
Prolog fails, --no-requeue, ForceRequeueOnFail   | drain, requeue     | drain, fail        | drain, requeue held | =
Prolog fails, crun                               | drain, cancel      | drain, fail        | drain, cancel      | =
Prolog fails, crun, ForceRequeueOnFail           | drain, cancel      | drain, fail        | drain, cancel      | =
Prolog fails, calloc                             | drain, cancel      | drain, fail        | drain, cancel      | =
CranectldProlog fails, batch                     | requeue            | fail               | requeue            | =
CranectldProlog fails, --no-requeue              | cancel             | fail               | cancel             | =
CranectldProlog fails, crun                      | cancel             | fail               | cancel             | =
CranectldProlog fails, calloc                    | cancel             | fail               | cancel             | =
Epilog fails                                     | drain              | =                  | =                  | =
CranectldEpilog fails                            | logged             | =                  | =                  | =
TaskEpilog fails                                 | logged             | =                  | =                  | =
--task-epilog fails                              | logged             | =                  | =                  | =
CrunEpilog fails                                 | logged             | =                  | =                  | =
TaskProlog fails with exit 3                     | task cancel, exit 1 | task fail, exit 1 | task exit as the hook, exit 3 | =
TaskProlog killed by a signal                    | task cancel, exit 1 | task fail, exit 1 | task exit as the hook, exit 1 | =
--task-prolog fails with exit 3                  | task cancel, exit 1 | task fail, exit 1 | task exit as the hook, exit 3 | =
CrunProlog fails                                 | step cancel        | step fail          | step cancel        | =
cancel while Prolog runs                         | it is stopped      | =                  | it runs to its end | =
order of [a.d/*, z.d/*, b]                       | z.d/z z.d/Z z.d/9 z.d/10 b a.d/2 a.d/1 | = | a.d/2 a.d/1 z.d/z z.d/Z z.d/9 z.d/10 b | a.d/1 a.d/2 b z.d/10 z.d/9 z.d/Z z.d/z
a pattern that matches nothing                   | no hook            | =                  | the hook fails     | no hook
a directory as an entry                          | itself             | =                  | =                  | its files
a directory in a pattern                         | passed over        | =                  | itself             | passed over
no timeout given                                 | 60: all            | =                  | 300: all           | =
PrologTimeout: 7                                 | 7: CranectldProlog Prolog TaskProlog --task-prolog; 60: the others | = | 7: CranectldProlog Prolog; 300: the others | =
EpilogTimeout: 8                                 | 8: --task-epilog TaskEpilog Epilog CranectldEpilog; 60: the others | = | 8: Epilog CranectldEpilog; 300: the others | =
PrologEpilogTimeout: 9                           | 9: all             | =                  | 9: CranectldProlog Prolog Epilog CranectldEpilog; 300: the others | =
all three                                        | 9: all             | =                  | 7: CranectldProlog Prolog; 8: Epilog CranectldEpilog; 300: the others | =
crun hooks                                       | no limit           | =                  | =                  | =
CrunPrologTimeout: 5, CrunEpilogTimeout: 6       | 5, 6               | =                  | =                  | =
a timeout covers                                 | the list           | =                  | each script        | =
flags                                            | Alloc Contain ForceRequeueOnFail NoHold RunInJob Serial | Contain RunInJob Serial | Alloc Contain DeferBatch ForceRequeueOnFail NoHold RunInJob Serial X11 | =
SLURM_* variables                                | no                 | =                  | yes                | =
"""
"""`=`: as the profile to the left."""

MINIMAL = """\
ClusterName: test
Profile: {profile}
Nodes:
  - {{name: cn01, address: "unix:/run/crane/cn01.sock"}}
JobLifecycleHook:
  KillGrace: 5
"""
EXIT_3 = Outcome(OutcomeKind.EXIT, 3)
KILLED = Outcome(OutcomeKind.SIGNAL, 9)
FORCED = "  PrologFlags: ForceRequeueOnFail\n  AllowedPrologFlags: Alloc,ForceRequeueOnFail\n"
"""Also where the profile does not know the flag."""
WAITING = [point for point in HookPoint if point not in (HookPoint.CRUN_PROLOG, HookPoint.CRUN_EPILOG)]


class Trial:
    """One profile under test, read from files in a directory of its own."""

    def __init__(self, profile: str, directory: Path) -> None:
        self.profile = profile
        self.directory = directory

    def settings(self, lines: str = "") -> HookSettings:
        path = self.directory / "config.yaml"
        path.write_text(MINIMAL.format(profile=self.profile) + lines)
        return load(path).hook_settings()

    def verdict(
        self,
        point: HookPoint,
        kind: JobKind = JobKind.BATCH,
        lines: str = "",
        *,
        requeue: bool = True,
        outcome: Outcome = EXIT_3,
    ) -> Verdict:
        key = HookKey(point, JobId(1), Attempt(1), NodeName("cn01"))
        run = HookRun(key, "root", 0.0, 1.0, outcome, (ScriptRun("/p", outcome, 0.0, 1.0),))
        return decide(run, kind, requeue_allowed=requeue, hooks=self.settings(lines))

    def fate(self, point: HookPoint, kind: JobKind = JobKind.BATCH, lines: str = "", *, requeue: bool = True) -> str:
        """Of node and job."""
        verdict = self.verdict(point, kind, lines, requeue=requeue)
        job = [] if verdict.job is JobAction.CONTINUE else [verdict.job.value]
        return "logged" if verdict.log_only else ", ".join([*(["drain"] if verdict.drain else []), *job])

    def task_fate(self, point: HookPoint, outcome: Outcome = EXIT_3) -> str:
        verdict = self.verdict(point, outcome=outcome)
        assert verdict.task is not TaskAction.CONTINUE
        exit_status = task_exit(verdict.task, outcome)
        assert exit_status == ExitStatus(code=exit_status.code)
        return f"task {verdict.task.value}, exit {exit_status.code}"

    def step_fate(self) -> str:
        verdict = self.verdict(HookPoint.CRUN_PROLOG, JobKind.RUN)
        assert (verdict.drain, verdict.job) == (False, JobAction.CONTINUE)
        assert verdict.step is not StepAction.CONTINUE
        return f"step {verdict.step.value}"

    def order(self) -> str:
        for name in ("a.d/1", "a.d/2", "z.d/9", "z.d/10", "z.d/Z", "z.d/z", "b"):
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.touch(0o755)
        hooks = self.settings("  Prolog: [a.d/*, z.d/*, b]\n")
        plan = planned(effective(hooks), hooks.patterns[HookPoint.PROLOG])
        assert not isinstance(plan, PlanFailure)
        return " ".join(str(Path(path).relative_to(self.directory)) for path in plan.scripts)

    def empty(self) -> str:
        hooks = self.settings("  Prolog: nothing.d/*\n")
        plan = planned(effective(hooks), hooks.patterns[HookPoint.PROLOG])
        fails = effective(hooks).empty_pattern is EmptyPattern.FAILS
        assert isinstance(plan, PlanFailure) is fails
        return "the hook fails" if isinstance(plan, PlanFailure) else "no hook" if not plan.scripts else "?"

    def directory_entry(self, entry: str) -> str:
        (self.directory / "d.d/sub").mkdir(parents=True, exist_ok=True)
        (self.directory / "d.d/10-file").touch(0o755)
        (self.directory / "d.d/sub/20-below").touch(0o755)
        hooks = self.settings(f"  Prolog: {entry}\n")
        plan = planned(effective(hooks), hooks.patterns[HookPoint.PROLOG])
        assert not isinstance(plan, PlanFailure)
        found = {str(Path(path).relative_to(self.directory)): "file" for path in plan.scripts}
        told = any("sub (directory)" in note for note in plan.notes)
        match (entry, "d.d" in found or "d.d/sub" in found, "d.d/10-file" in found, told):
            case (_, True, _, False):
                return "itself"
            case ("d.d", False, True, True):
                return "its files"
            case ("d.d/*", False, True, True):
                return "passed over"
            case _:
                return f"{found} {plan.notes}"

    def timeouts(self, lines: str = "") -> str:
        timeouts = self.settings(lines).timeouts_s
        by_value: dict[float | None, list[str]] = {}
        for point in HookPoint:
            if point in WAITING:
                by_value.setdefault(timeouts[point], []).append(point.value)
        if len(by_value) == 1:
            return "".join(f"{value:g}: all" for value in by_value if value is not None)
        default = effective(self.settings()).default_timeout_s
        named = [f"{value:g}: {' '.join(names)}" for value, names in by_value.items() if value not in (default, None)]
        return "; ".join([*named, *(f"{value:g}: the others" for value in by_value if value == default)])

    def crun_timeouts(self, lines: str = "") -> str:
        timeouts = self.settings(lines).timeouts_s
        values = [timeouts[point] for point in (HookPoint.CRUN_PROLOG, HookPoint.CRUN_EPILOG)]
        return "no limit" if values == [None, None] else ", ".join(f"{value:g}" for value in values if value is not None)

    def flags(self) -> str:
        return " ".join(flag for flag in sorted(PrologFlag) if self.knows(flag))

    def knows(self, flag: PrologFlag) -> bool:
        """A version that lacks a flag says so in other words."""
        try:
            self.settings(f"  PrologFlags: {flag.upper()}\n")
        except SettingsError as error:
            return f"is no flag of profile {self.profile}" not in str(error)
        return True


def rows(trial: Trial) -> Iterator[tuple[str, Callable[[], str]]]:
    """How each row is found out."""
    prolog, ctld = HookPoint.PROLOG, HookPoint.CRANECTLD_PROLOG
    yield "Prolog fails, batch", lambda: trial.fate(prolog)
    yield "Prolog fails, batch, HoldOnPrologFail: false", lambda: trial.fate(prolog, lines="  HoldOnPrologFail: false\n")
    yield "Prolog fails, batch, HoldOnPrologFail: true", lambda: trial.fate(prolog, lines="  HoldOnPrologFail: true\n")
    yield "Prolog fails, --no-requeue", lambda: trial.fate(prolog, requeue=False)
    yield "Prolog fails, --no-requeue, ForceRequeueOnFail", lambda: trial.fate(prolog, lines=FORCED, requeue=False)
    yield "Prolog fails, crun", lambda: trial.fate(prolog, JobKind.RUN)
    yield "Prolog fails, crun, ForceRequeueOnFail", lambda: trial.fate(prolog, JobKind.RUN, FORCED)
    yield "Prolog fails, calloc", lambda: trial.fate(prolog, JobKind.ALLOCATION)
    yield "CranectldProlog fails, batch", lambda: trial.fate(ctld)
    yield "CranectldProlog fails, --no-requeue", lambda: trial.fate(ctld, requeue=False)
    yield "CranectldProlog fails, crun", lambda: trial.fate(ctld, JobKind.RUN)
    yield "CranectldProlog fails, calloc", lambda: trial.fate(ctld, JobKind.ALLOCATION)
    yield "Epilog fails", lambda: trial.fate(HookPoint.EPILOG)
    yield "CranectldEpilog fails", lambda: trial.fate(HookPoint.CRANECTLD_EPILOG)
    yield "TaskEpilog fails", lambda: trial.fate(HookPoint.TASK_EPILOG)
    yield "--task-epilog fails", lambda: trial.fate(HookPoint.STEP_TASK_EPILOG)
    yield "CrunEpilog fails", lambda: trial.fate(HookPoint.CRUN_EPILOG, JobKind.RUN)
    yield "TaskProlog fails with exit 3", lambda: trial.task_fate(HookPoint.TASK_PROLOG)
    yield "TaskProlog killed by a signal", lambda: trial.task_fate(HookPoint.TASK_PROLOG, KILLED)
    yield "--task-prolog fails with exit 3", lambda: trial.task_fate(HookPoint.STEP_TASK_PROLOG)
    yield "CrunProlog fails", trial.step_fate
    yield (
        "cancel while Prolog runs",
        lambda: {CancelDuringProlog.STOPS: "it is stopped", CancelDuringProlog.AWAITS: "it runs to its end"}[
            effective(trial.settings()).cancel_during_prolog
        ],
    )
    yield "order of [a.d/*, z.d/*, b]", trial.order
    yield "a pattern that matches nothing", trial.empty
    yield "a directory as an entry", lambda: trial.directory_entry("d.d")
    yield "a directory in a pattern", lambda: trial.directory_entry("d.d/*")
    yield "no timeout given", trial.timeouts
    yield "PrologTimeout: 7", lambda: trial.timeouts("  PrologTimeout: 7\n")
    yield "EpilogTimeout: 8", lambda: trial.timeouts("  EpilogTimeout: 8\n")
    yield "PrologEpilogTimeout: 9", lambda: trial.timeouts("  PrologEpilogTimeout: 9\n")
    yield "all three", lambda: trial.timeouts("  PrologTimeout: 7\n  EpilogTimeout: 8\n  PrologEpilogTimeout: 9\n")
    yield "crun hooks", lambda: trial.crun_timeouts("  PrologTimeout: 7\n  EpilogTimeout: 8\n  PrologEpilogTimeout: 9\n")
    yield (
        "CrunPrologTimeout: 5, CrunEpilogTimeout: 6",
        lambda: trial.crun_timeouts("  CrunPrologTimeout: 5\n  CrunEpilogTimeout: 6\n"),
    )
    yield (
        "a timeout covers",
        lambda: {TimeoutCover.LIST: "the list", TimeoutCover.SCRIPT: "each script"}[effective(trial.settings()).timeout_cover],
    )
    yield "flags", trial.flags
    yield "SLURM_* variables", lambda: "yes" if trial.settings().slurm_compatible_env else "no"


def golden(profile: str) -> list[tuple[str, str]]:
    """That profile's column."""
    heading, *lines = ([cell.strip() for cell in line.split("|")] for line in TABLE.splitlines())
    column = heading.index(profile)
    found = []
    for what, *cells in lines:
        at = column - 1
        while cells[at] == "=":
            at -= 1
        found.append((what, cells[at]))
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profile_behaves_as_its_column_says(profile: str, tmp_path: Path) -> None:
    trial = Trial(profile, tmp_path)
    assert [(what, find_out()) for what, find_out in rows(trial)] == golden(profile)


def test_the_table_has_a_column_for_every_profile() -> None:
    assert [cell.strip() for cell in TABLE.splitlines()[0].split("|")[1:]] == list(PROFILES)
