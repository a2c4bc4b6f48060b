"""One job, or one node, with everything that is known of it."""

from collections.abc import Iterator, Sequence

from cranecli.render.records import EventRecord, JobRecord, NodeRecord, StepRecord
from cranecli.render.style import Style, Tone
from cranecli.render.table import Column, table
from cranecli.render.tables import event_line
from cranecli.render.timeline import hook_name, timeline
from cranecli.render.words import duration, joined, last_lines, local_time, memory, number, printable, wrapped
from cranehooks.model.gres import held_text
from cranehooks.model.job import ExitStatus, JobKind
from cranehooks.model.limits import Usage
from cranehooks.model.run import HookRun
from cranehooks.model.usage import usage_sum, usage_text
from cranekit import hostlist

_KIND_NAMES = {JobKind.BATCH: "batch job", JobKind.ALLOCATION: "allocation", JobKind.RUN: "crun"}
_NODES_TOLD_APART = 8
_TONES = {"Completed": Tone.GOOD, "Failed": Tone.BAD, "NodeFail": Tone.BAD, "TimedOut": Tone.BAD}


def job_title(job: JobRecord, style: Style) -> str:
    """`Job 42 "train" · batch job of alice · Completed, exit code 0 · cn[01-02]`."""
    name = f' "{printable(job.name)}"' if job.name else ""
    state = style.paint(job.state, _TONES.get(job.state, Tone.WARNING))
    ended = f", {exit_text(job.exit)}" if job.state in {"Completed", "Failed"} else ""
    nodes = f"on {hostlist.fold(list(job.nodes))}" if job.nodes else ""
    return joined([f"Job {job.label}{name}", f"{_KIND_NAMES[job.kind]} of {printable(job.user)}", f"{state}{ended}", nodes])


def exit_text(status: ExitStatus) -> str:
    """`exit code 3`, `killed by signal 9`."""
    return f"killed by signal {status.signal}" if status.signal else f"exit code {status.code}"


def job_details(job: JobRecord, style: Style) -> list[str]:
    """Title, facts, steps and timeline."""
    lines = [job_title(job, style)]
    if job.reason:
        lines += wrapped(f"reason: {job.reason}", "  ", "    ")
    lines += [f"  {line}" for line in _job_facts(job)]
    if job.steps:
        lines += ["", *_steps(job, style)]
    story = timeline(job, style)
    return [*lines, "", *story] if story else lines


def node_details(node: NodeRecord, failed: Sequence[HookRun], events: Sequence[EventRecord], style: Style) -> list[str]:
    """Facts, drains, hooks that failed there, and recent events."""
    tone = Tone.BAD if not node.up else (Tone.WARNING if node.drains else Tone.GOOD)
    lines = [f"Node {node.name} · {style.paint(node.state, tone)} · {node.use}"]
    lines += [f"  {line}" for line in _node_facts(node)]
    if node.drains:
        lines += ["", style.paint("Drained", Tone.STRONG)]
        for cause in node.drains:
            lines += wrapped(f"{local_time(cause.time)} by {drain_author(cause.owner, cause.by)}: {cause.reason}", "  ", "      ")
    if failed:
        lines += ["", style.paint("Hooks that failed here", Tone.STRONG)]
        lines += [line for run in failed for line in failed_run(run)]
    if events:
        lines += ["", style.paint("Recent events", Tone.STRONG), *(f"  {event_line(event, style)}" for event in events)]
    return lines


def drain_author(owner: str, by: str) -> str:
    """`hooks`, or `administrator alice` (`administrator uid 1000` where the controller knows a number only)."""
    if owner != "admin":
        return owner
    return f"administrator uid {by}" if by.isdigit() else f"administrator {by}".strip()


def failed_run(run: HookRun) -> Iterator[str]:
    """When, of which job, which script, how, and its last lines of output."""
    job = f"job {run.key.job_id}, attempt {run.key.attempt}"
    failed = run.failed_script
    yield f"  {local_time(run.started_at)}  {hook_name(run)} ({job}) as {run.user}: {run.outcome} after {duration(run.duration_s)}"
    if failed:
        yield f"      {script_text(failed.path, failed.sha256)}"
    detail = failed.outcome.detail if failed else run.outcome.detail
    if detail:
        yield from wrapped(detail, "      ")
    for line in last_lines(failed.output if failed else run.output, 3):
        yield f"      | {line}"


def script_text(path: str, sha256: str) -> str:
    """`/etc/crane/prolog.d/20-gpu.sh (sha256 0123456789ab)`."""
    return printable(path) + (f" (sha256 {sha256[:12]})" if sha256 else "")


def _job_facts(job: JobRecord) -> Iterator[str]:
    times = [
        f"submitted {local_time(job.submitted_at)}",
        f"started {local_time(job.started_at)}" if job.started_at else "",
        f"ended {local_time(job.ended_at)}" if job.ended_at else "",
    ]
    yield joined(times)
    limit = "no time limit" if job.time_limit_s is None else f"time limit {duration(job.time_limit_s)}"
    account = f"account {printable(job.account)}" if job.account else ""
    yield joined([f"partition {printable(job.partition) or '-'}", account, limit])
    requeues = f"requeued {job.requeue_count} times" if job.requeue_count != 1 else "requeued once"
    yield joined([f"attempt {job.attempt}", requeues if job.requeue_count else "", "" if job.requeue else "never requeued"])
    if job.state == "Pending" and job.not_before:
        yield f"starts again not before {local_time(job.not_before)}"
    if job.busy_nodes:
        yield f"Epilog still runs on {hostlist.fold(list(job.busy_nodes))}"
    yield from _holdings(job)
    yield from _used_by(job)


def _used_by(job: JobRecord) -> Iterator[str]:
    """What it used: by node, of many nodes together."""
    if 1 < len(job.usage) <= _NODES_TOLD_APART:
        for node, usage in job.usage.items():
            yield f"used on {node}: {usage_text(usage)}"
    elif total := usage_sum(job.usage.values()):
        places = f" on {len(job.usage)} nodes" if len(job.usage) > 1 else ""
        yield f"used {usage_text(total)}{places}"


def _holdings(job: JobRecord) -> Iterator[str]:
    """What it holds, or held: nodes with the same on one line."""
    nodes: dict[str, list[str]] = {}
    for share in job.shares:
        parts = [f"{number(share.cpus)} CPUs"]
        if share.memory_bytes:
            parts.append(memory(share.memory_bytes))
        parts += [held_text(share.devices)] if share.devices else []
        nodes.setdefault(", ".join(parts), []).append(share.node)
    word = "held" if job.has_ended else "holds"
    for text, names in nodes.items():
        yield f"{word} {text} on {hostlist.fold(names)}"


def _steps(job: JobRecord, style: Style) -> list[str]:
    columns = [
        Column("STEP"),
        Column("STATE"),
        Column("NODES"),
        Column("TASKS", right=True),
        Column("EXIT"),
        Column("TIME"),
        Column("CPU"),
        Column("MEMORY"),
        Column("REASON"),
    ]
    rows = [
        [
            step.step_id, "Cancelled" if step.cancelled and step.state == "Ended" else step.state, hostlist.fold(list(step.nodes)), str(step.ntasks or 1),
            str(step.exit) if step.state == "Ended" else "-",
            duration(step.ended_at - step.started_at) if step.started_at and step.ended_at else "-",
            *_used(step), step.reason,
        ]
        for step in job.steps
    ]  # fmt: skip
    return table(columns, rows, style)


def _used(step: StepRecord) -> tuple[str, str]:
    """CPU time on all nodes, and the highest peak of memory on one."""
    total = usage_sum(step.usage.values()) or Usage()
    cpu = "-" if total.cpu_s is None else duration(total.cpu_s)
    return cpu, "-" if total.memory_peak_bytes is None else memory(total.memory_peak_bytes)


def _node_facts(node: NodeRecord) -> Iterator[str]:
    used = f"{memory(node.memory_used_bytes)} of " if node.memory_used_bytes else ""
    yield joined([
        f"{number(node.cpus_used)} of {number(node.cpus)} CPUs in use", f"memory {used}{memory(node.memory_bytes)}",
        f"gres {node.gres}{f' (in use {node.gres_used})' if node.gres_used else ''}" if node.gres else "", f"partitions {', '.join(node.partitions)}",
    ])  # fmt: skip
    if node.job_ids:
        yield f"jobs {', '.join(map(str, node.job_ids))}"
    if node.owed_epilogs:
        yield f"owes the Epilog of jobs {', '.join(map(str, node.owed_epilogs))}: takes no work until it has run"
    yield joined(
        [f"craned {node.version}" if node.version else "", node.address, f"hooks contained by {node.containment or '?'}"]
    )
    if node.containment_lost:
        yield f"not contained there: {node.containment_lost}"
    if node.only_uid is not None:
        yield f"runs jobs of uid {node.only_uid} only: its craned is not root"
    yield f"last heartbeat {local_time(node.last_heartbeat)}"
    if node.config_differs:
        yield "its configuration differs from the controller's: copy config.yaml there and send craned SIGHUP"
