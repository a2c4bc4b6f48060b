"""Tables of jobs, nodes, events and breakers."""

from collections.abc import Sequence

from cranecli.render.records import BreakerRecord, EventRecord, JobRecord, NodeRecord
from cranecli.render.style import Style, Tone
from cranecli.render.table import Cell, Column, table
from cranecli.render.timeline import hook_name, place_of
from cranecli.render.words import duration, local_time, memory, number, printable, shortened
from cranekit import hostlist

_JOB_TONES = {
    "Completed": Tone.GOOD, "Failed": Tone.BAD, "NodeFail": Tone.BAD, "TimedOut": Tone.BAD, "Held": Tone.WARNING,
    "Cancelled": Tone.WARNING, "Running": Tone.STRONG,
}  # fmt: skip


def jobs_table(jobs: Sequence[JobRecord], now: float, style: Style, width: int | None = None) -> list[str]:
    """One line per job; the last column says where it runs, or why it does not."""
    columns = [
        Column("JOB", right=True), Column("NAME"), Column("USER"), Column("PARTITION"), Column("STATE"),
        Column("TIME", right=True), Column("NODES", right=True), Column("NODELIST (REASON)"),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = [
        [
            job.label, shortened(job.name, 24), job.user, job.partition, Cell(job.state, _JOB_TONES.get(job.state, Tone.PLAIN)),
            _elapsed(job, now), str(len(job.nodes) or job.num_nodes), _where_or_why(job),
        ]
        for job in jobs
    ]  # fmt: skip
    return table(columns, rows, style, width)


def nodes_table(nodes: Sequence[NodeRecord], style: Style, width: int | None = None) -> list[str]:
    """One line per node, or per group of nodes that differ in nothing but their name; the last column is why it is drained."""
    columns = [
        Column("NODES"), Column("STATE"), Column("USE"), Column("CPUS", right=True), Column("MEMORY"), Column("PARTITIONS"),
        Column("JOBS"), Column("REASON"),
    ]  # fmt: skip
    groups: dict[tuple[str, ...], list[NodeRecord]] = {}
    for node in nodes:
        key = (
            node.state, node.use, f"{number(node.cpus_used)}/{number(node.cpus)}",
            f"{memory(node.memory_used_bytes) if node.memory_used_bytes else '0'}/{memory(node.memory_bytes)}",
            ",".join(node.partitions), ",".join(map(str, node.job_ids)), node_reason(node),
        )  # fmt: skip
        groups.setdefault(key, []).append(node)
    rows: list[list[Cell | str]] = [
        [hostlist.fold([node.name for node in group]), Cell(key[0], _node_tone(group[0])), *key[1:]]
        for key, group in groups.items()
    ]
    return table(columns, rows, style, width)


def node_reason(node: NodeRecord) -> str:
    """Why a node takes no work: its first cause, and how many more there are."""
    if node.drains:
        more = f" (and {len(node.drains) - 1} more)" if len(node.drains) > 1 else ""
        return f"{node.drains[0].owner}: {node.drains[0].reason}{more}"
    if node.owed_epilogs:
        return f"owes the Epilog of {', '.join(map(str, node.owed_epilogs))}"
    return "configuration differs from the controller's" if node.config_differs else ""


def breakers_table(breakers: Sequence[BreakerRecord], style: Style) -> list[str]:
    """One line per script that was charged with a drain."""
    columns = [
        Column("SCRIPT"), Column("DIGEST"), Column("STATE"), Column("DRAINS", right=True), Column("NODES"), Column("HELD JOBS"),
        Column("SINCE"),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = [
        [
            breaker.script, breaker.sha256[:12], Cell("tripped", Tone.BAD) if breaker.tripped else Cell("closed", Tone.GOOD),
            f"{breaker.drained_nodes}/{breaker.budget}", hostlist.fold(list(breaker.nodes)),
            ",".join(map(str, breaker.held_jobs)), local_time(breaker.tripped_at),
        ]
        for breaker in breakers
    ]  # fmt: skip
    return table(columns, rows, style)


def event_line(event: EventRecord, style: Style) -> str:
    """`2026-11-21 09:40:11  42.1  cn01  drained  prolog …`: one event, one line."""
    attempt = f".{event.attempt}" if event.attempt else ""
    job = f"{event.job_id}{attempt}" if event.job_id else "-"
    text = _run_text(event) if event.run else printable(event.text)
    failed = event.run is not None and not event.run.outcome.ok
    tone = Tone.BAD if failed else (Tone.WARNING if event.kind in {"drained", "held", "requeued"} else Tone.PLAIN)
    kind = style.paint(event.kind, tone) + " " * (10 - len(event.kind))
    return f"{local_time(event.time)}  {job:>6}  {event.node or '-':<10}  {kind}  {text}".rstrip()


def _run_text(event: EventRecord) -> str:
    run = event.run
    if run is None:
        return ""
    failed = run.failed_script
    script = f" {failed.name}" if failed else ""
    last = f": {failed.last_line}" if failed and failed.last_line else ""
    return printable(f"{hook_name(run)} on {place_of(run)}{script} {run.outcome}, {duration(run.duration_s)}{last}")


def _elapsed(job: JobRecord, now: float) -> str:
    if job.started_at is None:
        return "-"
    return duration((job.ended_at or now) - job.started_at)


def _where_or_why(job: JobRecord) -> str:
    nodes = hostlist.fold(list(job.nodes))
    reason = f"({job.reason})" if job.reason else ""
    return f"{nodes} {reason}".strip()


def _node_tone(node: NodeRecord) -> Tone:
    if not node.up:
        return Tone.BAD
    return Tone.WARNING if node.drains else Tone.GOOD
