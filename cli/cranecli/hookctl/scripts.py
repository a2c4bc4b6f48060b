"""What this host's hook scripts look like to the programs that would run them."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cranecli.render.words import wrapped
from cranehooks.execution.scripts import WINDOWS_LINE_ENDS, UnsafeScriptError, check, planned, resolve
from cranehooks.model.points import CONTRACTS, HookPoint, RunsAs
from cranehooks.plan import PlanFailure
from cranehooks.profiles import Profile
from cranehooks.settings import ClusterSettings

_IN_ORDER = tuple(HookPoint)


@dataclass(frozen=True, slots=True)
class ScriptReport:
    """One script, and what keeps it from running; no problem, no words."""

    path: str
    sha256: str
    owner: str
    mode: str
    problem: str


@dataclass(frozen=True, slots=True)
class PointReport:
    """The scripts of one point in the order they run."""

    point: HookPoint
    scripts: tuple[ScriptReport, ...]
    problem: str = ""
    """Of the hook as a whole."""
    note: str = ""
    keeps: tuple[str, ...] = ()
    """Paths of scripts that may leave processes behind (KeepProcesses)."""

    @property
    def has_problem(self) -> bool:
        return bool(self.problem) or any(script.problem for script in self.scripts)

    def lines(self) -> Iterator[str]:
        """For a person."""
        contract = CONTRACTS[self.point]
        yield f"{self.point.value}: on the {contract.place.value}, as {contract.runs_as.value}"
        if self.problem:
            yield from wrapped(f"PROBLEM: {self.problem}", "  ", "    ")
        if self.note:
            yield from wrapped(self.note, "  ", "    ")
        for number, script in enumerate(self.scripts, start=1):
            yield f"  {number:2}  {'PROBLEM' if script.problem else 'ok':7}  {script.mode} {script.owner:8}  {script.path}"
            if script.problem:
                yield from wrapped(script.problem, "      ")

    def document(self) -> dict[str, Any]:  # JSON
        """For programs."""
        return {
            "point": self.point.value,
            "problem": self.problem or None,
            "note": self.note or None,
            "scripts": [
                {
                    "path": script.path,
                    "sha256": script.sha256 or None,
                    "owner": script.owner or None,
                    "mode": script.mode or None,
                    "problem": script.problem or None,
                    "keeps_processes": script.path in self.keeps,
                }
                for script in self.scripts
            ],
        }


def point_reports(settings: ClusterSettings) -> list[PointReport]:
    """Every configured point, in the order in which a job meets them."""
    hooks = settings.hook_settings()
    return [
        point_report(point, hooks.patterns[point], settings.profile, kept=hooks.keep_processes.get(point))
        for point in _IN_ORDER
        if hooks.patterns.get(point)
    ]


def point_report(
    point: HookPoint,
    patterns: tuple[str, ...],
    profile: Profile,
    *,
    trusted_owner: bool = True,
    kept: tuple[str, ...] | None = None,
) -> PointReport:
    """The scripts of a point as they are now.

    Args:
        point: Where they run.
        patterns: Absolute.
        profile: Decides about their order.
        trusted_owner: False for a user's own scripts.
        kept: Patterns of those that may leave processes behind; empty: all; None: none.
    """
    plan = planned(profile, patterns, kept=kept)
    if isinstance(plan, PlanFailure):
        return PointReport(point, (), problem=plan.reason)
    empty = [match.pattern for match in resolve(profile, patterns) if not match.matches]
    notes = [f"nothing matches {', '.join(empty)}: no hook"] if empty else []
    runs_as_user = CONTRACTS[point].runs_as is RunsAs.JOB_USER
    scripts = tuple(_script_report(path, runs_as_user=runs_as_user, trusted_owner=trusted_owner) for path in plan.scripts)
    keeps = tuple(path for path in plan.scripts if path in plan.keeps)
    if keeps:
        names = ", ".join(path.rsplit("/", 1)[-1] for path in keeps)
        notes.append(f"{'all scripts' if kept == () else names} may leave processes behind (KeepProcesses)")
    return PointReport(point, scripts, note="; ".join([*notes, *plan.notes]), keeps=keeps)


def _script_report(path: str, *, runs_as_user: bool, trusted_owner: bool) -> ScriptReport:
    owner, mode = _owner_and_mode(path)
    try:
        checked = check(path, trusted_owner=trusted_owner)
    except UnsafeScriptError as error:
        return ScriptReport(path, "", owner, mode, error.reason)
    if not checked.sha256:
        return ScriptReport(path, "", owner, mode, "")  # a user's program that may be run and not read
    problem = _interpreter_problem(path, checked.interpreter) or (_access_problem(path) if runs_as_user else "")
    return ScriptReport(path, checked.sha256, owner, mode, problem)


def _owner_and_mode(path: str) -> tuple[str, str]:
    import pwd

    try:
        status = Path(path).stat()
    except OSError:
        return "", "----------"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    return owner, stat.filemode(status.st_mode)


def _interpreter_problem(path: str, interpreter: str) -> str:
    if not interpreter:
        with Path(path).open("rb") as file:
            is_program = file.read(4) == b"\x7fELF"
        return "" if is_program else "has no #! line, so the kernel cannot run it: put `#!/bin/sh` (or its interpreter) in line 1"
    if not interpreter.startswith("/"):
        return f"names its interpreter {interpreter} without a path: hooks have no PATH, write #!/… in full"
    if interpreter.endswith("\r"):
        return WINDOWS_LINE_ENDS
    try:
        mode = Path(interpreter).stat().st_mode
    except OSError as error:
        return f"its interpreter {interpreter} {'does not exist' if error.errno == errno.ENOENT else os.strerror(error.errno or 0).lower()}"
    return "" if mode & 0o111 else f"its interpreter {interpreter} is not executable"


def _access_problem(path: str) -> str:
    """What keeps a user, in no group of the script's, from running it."""
    if Path(path).stat().st_mode & 0o005 != 0o005:
        return f"users cannot read and execute it, and it runs as the user: chmod o+rx {path}"
    for parent in Path(path).parents:
        if not parent.stat().st_mode & 0o001:
            return f"users cannot enter {parent}, and it runs as the user: chmod o+x {parent}"
    return ""
