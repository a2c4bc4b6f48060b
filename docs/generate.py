"""Writes the pages of the documentation that follow from the code; with --check, says what is out of date and changes nothing."""

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cranehooks.directives import MAX_VARIABLE_BYTES
from cranehooks.environment import SCRIPT_CONTEXTS, scope_of, variables_of
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import CONTRACTS, HookPoint, Phase, PointContract, RunsAs
from cranehooks.profile_cells import CELLS, FIXED
from cranehooks.profiles import (
    FLAG_EFFECTS,
    IMPLIED_FLAGS,
    INCOMPATIBLE_FLAGS,
    OVERRIDES,
    PROFILES,
    PrologFlag,
)
from cranehooks.settings import ClusterSettings, json_schema
from cranehooks.settings.devices import GresSection
from cranehooks.settings.document import OLDER_HOOK_KEYS, OLDER_TOP_KEYS
from cranehooks.settings.hook_limits import HookLimitsSection, PointLimitsSection
from cranehooks.settings.limits import JobLimitsSection
from cranehooks.settings.retention import RetentionSection
from cranehooks.settings.schema import HookSection, MetricsSection, NodeGroup, PartitionSection, SchedulerSection
from cranehooks.settings.section import Section

DOCS = Path(__file__).resolve().parent
_NOTICE = "<!-- Written by docs/generate.py from the code. -->"


def hook_points() -> str:
    """docs/hook-points.md: the contract table, then a section for each point."""
    lines = [
        "# Hook points",
        "",
        _NOTICE,
        "",
        "Ten points in the life of a job where scripts of the site, or of the user, run. What a failure means is told for the default",
        "profile, crane-requeue; [profiles](reference/profiles.md) has the others.",
        "",
        "| point | where | run by | as | once per | on failure |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        _row(
            f"[`{point.value}`](#{_anchor(point.value)})",
            contract.place.value,
            contract.runner.value,
            contract.runs_as.value,
            contract.scope,
            contract.on_failure,
        )
        for point, contract in CONTRACTS.items()
    ]
    lines += ["", "## How a script runs", "", *_RUN_RULES, ""]
    for point, contract in CONTRACTS.items():
        lines += _point_section(point, contract)
    return "\n".join(lines)


_RUN_RULES = (
    "- Its absolute path is its only argument (crun hooks get the command of the step after it). Standard input is empty; standard output and",
    "  standard error are kept together up to `MaxOutputSize`, head and tail. crun hooks have crun's terminal instead.",
    "- It has a session of its own, default signals, umask 022 and no open file of ours.",
    "- Hooks that run as another user than the job's get exactly the variables listed here: no `PATH`, `HOME` or `USER`, and nothing of the",
    "  user's environment. Name programs by absolute path, or set `PATH` in the script.",
    "- It ends when its process has exited. What it leaves behind is killed and named, unless `KeepProcesses` lets it stay.",
    "- [Processes of hooks and tasks](hook-processes.md) tells the rest: identity, privileges, what is inherited, and limits.",
    "- At its timeout it gets TERM, after `KillGrace` KILL, with everything it started. The outcome is `timeout`, whatever its exit status.",
    f"- Outcomes: {', '.join(f'`{kind.value}`' for kind in OutcomeKind)}.",
    "- A before-point stops at its first failing script, and so does an after-point unless `ContinueOnFailure` says otherwise.",
    "- Scripts must be safe to run again, and after-hooks safe where the before-hook never ran.",
)


_DIRECTIVES = (
    "- Lines it prints, to standard output or standard error, act on its task and on no other. The word stands in lower case at the very",
    "  beginning of the line, with one space; every other line is ignored, so that traces (`set -x`) do no harm.",
    "",
    "  | line | effect |",
    "  |---|---|",
    (
        "  | `export NAME=value` | Sets a variable. The name is what stands before the first `=`, any characters, without blanks around it;"
        " the value is verbatim to the end of the line: no quotes, no expansion, blanks and a carriage return kept. Together with its name"
        f" and `=` it has at most {MAX_VARIABLE_BYTES - 1:,} bytes, or the line is ignored |"
    ),
    "  | `unset NAME` | Removes a variable. The rest of the line, without blanks around it, is one name |",
    "  | `print text` | Writes the text, without leading blanks, and a newline to the task's standard output; nothing where it is blank |",
    "",
    "  They take effect in the order of the lines, when the hook has ended; the last line needs no newline, and a NUL byte ends the output.",
    "  What a script exported counts for the task's epilogs even where it failed; what it printed, where it ended by itself. Beyond",
    "  `MaxOutputSize` the middle of the output is left out, with the directives in it; the run says so.",
)


def _point_section(point: HookPoint, contract: PointContract) -> Iterator[str]:
    yield f"## {point.value}"
    yield ""
    yield f"- **When:** {contract.moment}."
    yield f"- **Where and as whom:** on the {contract.place.value}, run by {contract.runner.value}, as {contract.runs_as.value}."
    yield f"- **At most once per** {contract.scope}; {contract.concurrency}."
    yield f"- **Timeout:** `{contract.timeout_key}`{_timeout_note(point)}."
    after = " The result of the job is not changed." if contract.phase is Phase.AFTER and point is not HookPoint.EPILOG else ""
    yield f"- **On failure:** {contract.on_failure}.{after}"
    if contract.replaced_by is not None:
        yield f"- `{contract.replaced_by}` takes its place; `none` there means no hook."
    if point is HookPoint.TASK_PROLOG:
        yield from _DIRECTIVES
    if point is HookPoint.STEP_TASK_PROLOG:
        yield "- Lines it prints act on the task, as those of [`TaskProlog`](#taskprolog) do; it sees what that one has exported."
    if point in {HookPoint.STEP_TASK_EPILOG, HookPoint.TASK_EPILOG}:
        yield "- It sees what TaskProlog exported, or not, and its standard error is kept, or also shown, as the profile says:"
        yield "  `TaskEpilogEnvironment`, `TaskEpilogStderr`."
    yield f"- **Environment:** {_environment_note(contract)}"
    yield ""
    yield "| variable | with Slurm-compatible names also | meaning |"
    yield "|---|---|---|"
    for variable in variables_of(point):
        meaning = variable.meaning
        if variable.name == "CRANE_SCRIPT_CONTEXT":
            context, slurm_context = SCRIPT_CONTEXTS[point]
            meaning = f"`{context}` (`{slurm_context}` in the Slurm name)"
        yield _row(f"`{variable.name}`", ", ".join(f"`{twin}`" for twin in variable.twins), meaning)
    yield ""


def _timeout_note(point: HookPoint) -> str:
    if "Crun" in point.value:
        return "; no limit by default"
    return " (`PrologEpilogTimeout` as the profile says)"


def _environment_note(contract: PointContract) -> str:
    if contract.runs_as is not RunsAs.JOB_USER:
        return "exactly these, those that have a value:"
    whose = "crun's own environment" if scope_of(contract.point).value.startswith("crun") else "the task's whole environment"
    return f"{whose}, in which these have our values:"


def profiles() -> str:
    """docs/reference/profiles.md: the table of profiles, its flags, and where they depart from their models."""
    lines = ["# Profiles", "", _NOTICE, "", "`Profile` in the configuration chooses whose behaviour the hooks have.", ""]
    lines += [_row("", *(f"`{name}`" for name in PROFILES)), _row("---", *("---" for _ in PROFILES))]
    lines += [_row("source", *(profile.source for profile in PROFILES.values()))]
    lines += [_row(cell.label, *(cell.text(profile) for profile in PROFILES.values())) for cell in CELLS]
    lines += [
        "",
        "`--no-requeue` jobs are treated as if they allowed a requeue when their Prolog fails and `PrologFlags` has `ForceRequeueOnFail`.",
        FIXED,
        "A requeue is counted and delayed; after `MaxRequeueCount` the job is held.",
        "A job whose node does not answer is requeued without hold, or cancelled; nothing is drained for it.",
        "",
        "`hookctl profile NAME` prints one profile; `hookctl plan` shows what it means for this host's scripts.",
        "",
        "## Overrides",
        "",
        "One key of `JobLifecycleHook` overrides each cell (`EnableSlurmCompatibleEnv` stands at the top of the file); a job keeps what was",
        "in force when it started.",
        "",
        "| cell | setting | words |",
        "|---|---|---|",
    ]
    lines += [_row(cell.label, f"`{cell.setting}`", _words_of(cell.setting)) for cell in CELLS]
    lines += [
        "",
        "## Flags",
        "",
        "Words of `PrologFlags`, in any case. A word that the profile has not is refused, and so are two that exclude each other.",
        "",
        "| flag | implies | profiles | effect |",
        "|---|---|---|---|",
    ]
    lines += [_row(f"`{flag}`", _implied_by(flag), _having(flag), FLAG_EFFECTS[flag]) for flag in PrologFlag]
    lines += ["", *_FLAG_RULES]
    lines += ["", *(f"- `{one}` and `{other}` exclude each other: {why}." for one, other, why in INCOMPATIBLE_FLAGS), ""]
    for profile in PROFILES.values():
        lines += [
            f"## {profile.name}",
            "",
            f"{profile.summary} Source: {profile.source}.",
            "",
            *(f"- {note}" for note in profile.notes),
            "",
            "| cell | source |",
            "|---|---|",
            *(_row(f"{cell.label}: {cell.text(profile)}", cell.sources[profile.name]) for cell in CELLS),
            "",
        ]
    return "\n".join(lines)


_FLAG_RULES = (
    "Under `Alloc` and the flags that imply it, an interactive job waits for the Prologs of all its nodes; a batch script for them, or for its",
    "own node's alone (`BatchScriptStart`, `DeferBatch`).",
    "",
    "Under `Contain`, and the flags that imply it, each node of a job has an *extern step* from the allocation to the end of the job there. It is",
    "listed among the job's steps, runs no task, cannot be cancelled, and makes the cgroup `job_<id>/step_extern`. The Prolog runs in it, within",
    "the job's limits; what it leaves there is killed when it ends, or, where `KeepProcesses` lets it stay, with everything else in the",
    "job's cgroup before the Epilog. If the step cannot be started, the Prolog has failed.",
    "",
    "Under `RunInJob` the supervisor of that step runs Prolog and Epilog. Nothing else differs: identity, environment, timeouts, output,",
    "outcomes, drains, `KillGrace`, limits. The Epilog runs when nothing else of the job is left; what it leaves is killed, whatever `KeepProcesses` says.",
    "Both hooks live through a restart of craned. If the supervisor dies, the hook that it ran is `lost`; an Epilog that had not begun runs outside",
    "the job's cgroup, and its record says so.",
    "",
    "Without control groups (`Containment: none`) both flags hold a job together by sessions alone; craned says so when it starts.",
)


def _implied_by(flag: PrologFlag) -> str:
    return ", ".join(f"`{implied}`" for implied in sorted(IMPLIED_FLAGS.get(flag, ())))


def _having(flag: PrologFlag) -> str:
    return ", ".join(name for name, profile in PROFILES.items() if flag in profile.flags)


def _words_of(setting: str) -> str:
    words = OVERRIDES[setting].words
    if words:
        return ", ".join(f"`{word}`" for word in words)
    return "seconds" if setting == "DefaultTimeout" else "a list of flags"


def configuration() -> str:
    """docs/reference/configuration.md: every key with what its docstring says."""
    lines = [
        "# Configuration",
        "",
        _NOTICE,
        "",
        "One YAML file for the whole cluster, the same on every host: `/etc/crane/config.yaml`. [An example](../../deploy/config/config.yaml);",
        "[its JSON Schema](config.schema.json). Unknown keys, wrong types and contradictions are errors, all told at once with file, line and",
        "column. SIGHUP reloads; a file with errors changes nothing, and a job keeps the hooks it started with.",
        "",
    ]
    lines += _section("Top of the file", ClusterSettings, OLDER_TOP_KEYS)
    for title, section, older in (
        ("`Nodes`: a list of", NodeGroup, {}),
        ("`Nodes`: `gres`, as a list of", GresSection, {}),
        ("`Partitions`: a list of", PartitionSection, {}),
        ("`Scheduler`", SchedulerSection, {}),
        ("`MetricsListen`", MetricsSection, {}),
        ("`Retention`", RetentionSection, {}),
        ("`JobLimits`", JobLimitsSection, {}),
        ("`JobLifecycleHook`", HookSection, OLDER_HOOK_KEYS),
        ("`JobLifecycleHook`: `HookLimits`", HookLimitsSection, {}),
        ("`JobLifecycleHook`: `HookLimits`: a point", PointLimitsSection, {}),
    ):
        lines += _section(title, section, older)
    return "\n".join(lines)


def _section(title: str, section: type[Section], older: Mapping[str, str]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    if section in (HookSection, HookLimitsSection, JobLimitsSection, RetentionSection):
        yield from (*(section.__doc__ or "").replace("\n    ", "\n").strip().splitlines(), "")
    for name, field in section.model_fields.items():
        key = field.alias or name
        others = ", ".join(f"`{old}`" for old, new in older.items() if new == key)
        also = f" (or {others})" if others else ""
        yield f"- **`{key}`**{also}: {' '.join((field.description or '').split())}"
    yield ""


def schema() -> str:
    return json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


PAGES: dict[Path, Callable[[], str]] = {
    Path("hook-points.md"): hook_points,
    Path("reference/configuration.md"): configuration,
    Path("reference/profiles.md"): profiles,
    Path("reference/config.schema.json"): schema,
}


def differences(directory: Path) -> list[str]:
    """A unified diff from the files in the directory to what they should be; empty when all are up to date."""
    lines: list[str] = []
    for path, page in PAGES.items():
        present = (directory / path).read_text(encoding="utf-8") if (directory / path).exists() else ""
        lines += difflib.unified_diff(
            present.splitlines(), page().splitlines(), str(path), f"{path} (from the code)", lineterm=""
        )
    return lines


def write(directory: Path) -> None:
    """Writes every page."""
    for path, page in PAGES.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(page(), encoding="utf-8")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _anchor(heading: str) -> str:
    return heading.lower()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 with a diff when a page is out of date")
    if not parser.parse_args().check:
        write(DOCS)
        return 0
    stale = differences(DOCS)
    if stale:
        print("\n".join(stale))
        print("docs are out of date: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
