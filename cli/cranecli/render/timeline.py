"""The timeline of a job: every hook in the order it ran, and between them what was decided."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cranecli.render.records import HistoryRecord, JobRecord
from cranecli.render.style import Style, Tone
from cranecli.render.words import COLUMNS, count, duration, last_lines, offset, printable, shortened, wrapped
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import CONTRACTS, Place
from cranehooks.model.run import HookRun, ScriptRun
from cranekit import hostlist

FOLD_ABOVE = 4
"""More successful runs of one hook in one attempt than this become one row."""

DECISION_KINDS = frozenset({"drained", "requeued", "held", "cancelled", "breaker", "released", "node"})
_SHOWN_ELSEWHERE = frozenset({"hook", "usage"})
_TEXT_ALONE = frozenset({"state", "step", "node"})
_OUTPUT_LINES = 3
_NAMES_WIDTH = 26
_EXIT_TONES = {OutcomeKind.OK: Tone.GOOD, OutcomeKind.STOPPED: Tone.WARNING}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the timeline, before it is laid out."""

    time: float
    attempt: int
    where: str
    what: str
    user: str = ""
    took: str = ""
    outcome: str = ""
    tone: Tone = Tone.PLAIN
    note: str = ""
    """Script names of a hook."""
    below: tuple[str, ...] = ()
    """Lines that belong to the row: the scripts of a list, the last output of a failure."""
    is_hook: bool = False
    is_decision: bool = False


def timeline(job: JobRecord, style: Style) -> list[str]:
    """The story of a job in at most `COLUMNS` columns, attempt by attempt; empty without history and runs."""
    rows = sorted([*_event_rows(job), *_hook_rows(job.runs)], key=lambda row: (row.attempt, row.time))
    if not rows:
        return []
    start = job.submitted_at or min(row.time for row in rows)
    where = _width([row.where for row in rows], 11, 20)
    what = _width([row.what for row in rows if row.is_hook], 15, 28)
    user = _width([row.user for row in rows if row.is_hook], 4, 12)
    outcome = _width([row.outcome for row in rows if row.is_hook], 7, 22)
    layout = _Layout(start, where, what, user, outcome, style)
    lines = [style.paint(layout.heading(), Tone.STRONG)]
    attempt = 0
    for row in rows:
        if row.attempt > attempt and row.attempt > 0:
            attempt = row.attempt
            if job.attempt > 1:
                lines.append(style.paint(f"  -- attempt {attempt} --", Tone.STRONG))
        lines += layout.lines(row)
    return lines


def place_of(run: HookRun) -> str:
    """Where a run ran, for a person: `controller`, `cn07`, `launch node`."""
    place = CONTRACTS[run.key.point].place
    name: str = place.value
    if place is Place.LAUNCH_NODE and run.key.node:
        return f"{run.key.node} (launch)"
    return run.key.node or "?" if place is Place.NODE else name


def hook_name(run: HookRun) -> str:
    """`Prolog`, `CrunProlog 0`, `TaskProlog 0.3`: the point, and of which step and task."""
    if run.key.step_id is None:
        return run.key.point.value
    task = "" if run.key.task_id is None else f".{run.key.task_id}"
    return f"{run.key.point.value} {run.key.step_id}{task}"


def run_tone(run: HookRun) -> Tone:
    return _EXIT_TONES.get(run.outcome.kind, Tone.BAD)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Column widths of one timeline, and how its lines are put together."""

    start: float
    where: int
    what: int
    user: int
    outcome: int
    style: Style

    def heading(self) -> str:
        return (
            f"{'time':>9}  {'where':<{self.where}}  {'hook':<{self.what}}  {'as':<{self.user}}"
            f"  {'took':>8}  {'outcome':<{self.outcome}}  script"
        )

    def lines(self, row: Row) -> Iterator[str]:
        mark = "!" if row.tone is Tone.BAD else (">" if row.is_decision else " ")
        lead = f"{mark}{offset(row.time - self.start):>8}  {shortened(row.where, self.where):<{self.where}}  "
        if row.is_hook:
            before = f"{lead}{shortened(row.what, self.what):<{self.what}}  {row.user:<{self.user}}  {row.took:>8}  "
            result = self.style.paint(row.outcome, row.tone) + " " * (self.outcome - len(row.outcome))
            room = max(COLUMNS - len(before) - self.outcome - 2, 12)
            yield f"{before}{result}  {shortened(row.note, room)}".rstrip()
        else:
            tone = row.tone if row.tone is not Tone.PLAIN else (Tone.WARNING if row.is_decision else Tone.DIM)
            head, *rest = wrapped(row.what, lead)
            yield lead + self.style.paint(head[len(lead) :], tone)
            for line in rest:
                yield self.style.paint(line, tone)
        indent = " " * (9 + 2 + self.where + 2)
        for line in row.below:
            yield shortened(indent + line, COLUMNS)


def _event_rows(job: JobRecord) -> Iterator[Row]:
    told = told_lines(job.runs)
    for event in job.history:
        if event.kind not in _SHOWN_ELSEWHERE:
            text = without_told(event_text(event), told)
            yield Row(event.time, event.attempt, event.node or "controller", text, is_decision=event.kind in DECISION_KINDS)


def event_text(event: HistoryRecord) -> str:
    """`drained: prolog 20-gpu.sh exit 3 (…)`, `submitted by alice`, `running`: the kind, unless the text says it itself."""
    text = printable(event.text)
    if not text:
        return event.kind
    if event.kind in _TEXT_ALONE or text.lower().startswith(event.kind.lower()):
        return text
    return f"{event.kind} {text}" if text.startswith("by ") else f"{event.kind}: {text}"


def told_lines(runs: Iterable[HookRun]) -> set[str]:
    """The last lines of output of failures: reasons end with them, and they are shown with the runs."""
    return {printable(run.failed_script.last_line) for run in runs if run.failed_script} - {""}


def without_told(text: str, told: Iterable[str]) -> str:
    """The text without last lines of output that are shown elsewhere on the page."""
    for line in told:
        text = text.replace(f": {line}", "")
    return text


def _hook_rows(runs: Sequence[HookRun]) -> Iterator[Row]:
    groups: dict[tuple[object, ...], list[HookRun]] = defaultdict(list)
    for run in runs:
        if run.outcome.ok and not run.scripts:
            # Nothing is configured for this point.
            continue
        scripts = tuple(script.path for script in run.scripts)
        groups[run.key.attempt, run.key.point, run.key.step_id, run.outcome.ok, run.user, scripts].append(run)
    for group in groups.values():
        if len(group) > FOLD_ABOVE and group[0].outcome.ok:
            yield _folded(group)
        else:
            yield from (_hook_row(run) for run in group)


def _hook_row(run: HookRun) -> Row:
    return Row(
        time=run.started_at, attempt=run.key.attempt, where=place_of(run), what=hook_name(run), user=run.user,
        took=duration(run.duration_s), outcome=str(run.outcome), tone=run_tone(run), note=_note(run.scripts),
        below=tuple(_below(run)), is_hook=True,
    )  # fmt: skip


def _folded(runs: Sequence[HookRun]) -> Row:
    first = min(runs, key=lambda run: run.started_at)
    nodes = sorted({run.key.node for run in runs if run.key.node})
    longest = max(run.duration_s for run in runs)
    step = "" if first.key.step_id is None else f" {first.key.step_id}"
    return Row(
        time=first.started_at, attempt=first.key.attempt, where=hostlist.fold(nodes) if nodes else place_of(first),
        what=f"{first.key.point.value}{step} x{len(runs)}", user=first.user, took=f"<={duration(longest)}",
        outcome="all ok", tone=Tone.GOOD, note=_note(first.scripts), is_hook=True,
    )  # fmt: skip


def _note(scripts: Sequence[ScriptRun]) -> str:
    """The script that failed, or the names of all where they fit, or how many there were."""
    failed = next((script.name for script in scripts if not script.outcome.ok), "")
    names = printable(failed or ", ".join(script.name for script in scripts))
    return names if failed or len(names) <= _NAMES_WIDTH else count(len(scripts), "script")


def _below(run: HookRun) -> Iterator[str]:
    yield from map(printable, run.notes)
    if len(run.scripts) > 1 and (not run.outcome.ok or _note(run.scripts) != ", ".join(script.name for script in run.scripts)):
        for script in run.scripts:
            yield f"{printable(script.name)}: {script.outcome}, {duration(script.duration_s)}"
    for script in run.scripts:
        for left in script.leftovers:
            yield f"left behind and killed: {printable(left.command)} (pid {left.pid})"
        for left in script.kept:
            yield f"left behind and kept: {printable(left.command)} (pid {left.pid})"
    if run.outcome.ok:
        return
    failed = run.failed_script
    outcome = failed.outcome if failed else run.outcome
    if outcome.detail:
        yield printable(outcome.detail)
    for line in last_lines(failed.output if failed else run.output, _OUTPUT_LINES):
        yield f"| {line}"


def _width(texts: Sequence[str], least: int, most: int) -> int:
    return min(max([least, *(len(text) for text in texts)]), most)
