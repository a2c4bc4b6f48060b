"""What happened to a job or a node, why, what was decided, and what to do now: in sentences."""

from collections.abc import Iterator, Sequence

from cranecli.render.details import drain_author, job_title, script_text
from cranecli.render.records import BreakerRecord, EventRecord, JobRecord, NodeRecord
from cranecli.render.style import Style, Tone
from cranecli.render.timeline import DECISION_KINDS, event_text, hook_name, place_of, told_lines, without_told
from cranecli.render.words import count, duration, last_lines, local_time, printable, sentence, wrapped
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import CONTRACTS, HookPoint, Phase
from cranehooks.model.run import HookRun
from cranekit import hostlist

_OUTPUT_LINES = 5
_PLACES_NAMED = 4
_NO_PATH_POINTS = frozenset({HookPoint.CRANECTLD_PROLOG, HookPoint.CRANECTLD_EPILOG, HookPoint.PROLOG, HookPoint.EPILOG})
_NODE_POINTS = frozenset({HookPoint.PROLOG, HookPoint.EPILOG})


def explain_job(
    job: JobRecord, nodes: Sequence[NodeRecord], breakers: Sequence[BreakerRecord], style: Style, now: float
) -> list[str]:
    """The story of a job.

    Args:
        job: With history and runs.
        nodes: As they are now, for what is still to be done about them.
        breakers: As they are now.
        style: How to paint.
        now: As Unix time, for what is still to come.
    """
    lines = [job_title(job, style)]
    if job.reason:
        lines += wrapped(f"because: {job.reason}", "  ", "    ")
    failures = [run for run in job.runs if not run.outcome.ok and run.outcome.kind is not OutcomeKind.STOPPED]
    lines += ["", style.paint("What happened", Tone.STRONG), *_happened(job, failures)]
    told = told_lines(job.runs)
    decided = [event for event in job.history if event.kind in DECISION_KINDS]
    if decided:
        lines += ["", style.paint("What was decided", Tone.STRONG)]
        for event in decided:
            node = f"{event.node}: " if event.node else ""
            lines += wrapped(f"{node}{without_told(event_text(event), told)}", f"  {local_time(event.time)}  ")
    lines += ["", style.paint("What to do now", Tone.STRONG)]
    for advice in _job_advice(job, failures, nodes, breakers, now):
        lines += wrapped(advice, "  - ", "    ")
    return lines


def explain_node(node: NodeRecord, failed: Sequence[HookRun], events: Sequence[EventRecord], style: Style) -> list[str]:
    """Why a node is in its state: causes with owner, time, script and jobs, and what ends them."""
    lines = list(wrapped(_node_summary(node), ""))
    if node.drains:
        lines += ["", style.paint("Why it is drained", Tone.STRONG)]
        for cause in node.drains:
            lines += wrapped(f"by {drain_author(cause.owner, cause.by)}: {cause.reason}", f"  {local_time(cause.time)}  ")
    if failed:
        lines += ["", style.paint("Hooks that failed here", Tone.STRONG)]
        lines += [line for run in failed for line in _failure(run, with_job=True)]
    causes = {cause.reason for cause in node.drains}
    changes = [event for event in events if event.kind in {"drained", "resumed", "node"} and event.text not in causes]
    if changes:
        lines += ["", style.paint("Lately", Tone.STRONG)]
        for event in changes:
            text = event.text if event.kind == "node" else f"{event.kind}: {event.text}"
            lines += wrapped(text, f"  {local_time(event.time)}  ")
    lines += ["", style.paint("What to do now", Tone.STRONG)]
    for advice in _node_advice(node, failed):
        lines += wrapped(advice, "  - ", "    ")
    return lines


def _happened(job: JobRecord, failures: Sequence[HookRun]) -> Iterator[str]:
    if not failures:
        number = sum(1 for run in job.runs if run.scripts)
        ran = f" {count(number, 'hook run')}, all ok." if number else ""
        yield f"  No hook of it failed.{ran}"
    for run in failures:
        yield from _failure(run, with_job=False)
        yield from wrapped(_consequence(run), "    ")
    for step in job.steps:
        if step.reason:
            reason = without_told(printable(step.reason), told_lines(failures))
            yield from wrapped(f"Step {step.step_id} ended: {reason}.", "  ", "    ")


def _failure(run: HookRun, *, with_job: bool) -> Iterator[str]:
    attempt = f"Job {run.key.job_id}, attempt {run.key.attempt}" if with_job else f"Attempt {run.key.attempt}"
    place = place_of(run)
    where = f"on {place}" if run.key.node else f"on the {place}"
    took = "" if run.outcome.kind is OutcomeKind.TIMEOUT else f", after {duration(run.duration_s)}"
    yield from wrapped(
        f"{attempt}: {hook_name(run)} failed {where} as {run.user}: {run.outcome}{took}.",
        "  ",
        "    ",
    )
    failed = run.failed_script
    if failed is None:
        if run.outcome.detail:
            yield from wrapped(run.outcome.detail, "    ")
        return
    yield f"    script  {script_text(failed.path, failed.sha256)}"
    if failed.outcome.detail:
        yield from wrapped(failed.outcome.detail, "    detail  ")
    lines = last_lines(failed.output, _OUTPUT_LINES)
    if not lines:
        yield "    output  none"
    for index, line in enumerate(lines):
        yield f"    {'output' if index == 0 else '':6}  | {line}"
    for left in failed.leftovers:
        yield f"    left    {printable(left.command)} (pid {left.pid}), killed"


def _consequence(run: HookRun) -> str:
    contract = CONTRACTS[run.key.point]
    if contract.phase is Phase.AFTER:
        return (
            "The job's result is not changed by it."
            if run.key.point is HookPoint.EPILOG
            else "It was logged and changes nothing."
        )
    return {
        HookPoint.CRANECTLD_PROLOG: "Nothing of this attempt was sent to a node.",
        HookPoint.PROLOG: "No task of the job started there, and the attempt ended on all its nodes.",
        HookPoint.CRUN_PROLOG: "The step was never sent to a node.",
        HookPoint.TASK_PROLOG: "The task did not run.",
        HookPoint.STEP_TASK_PROLOG: "The task did not run.",
    }[run.key.point]


def _job_advice(
    job: JobRecord, failures: Sequence[HookRun], nodes: Sequence[NodeRecord], breakers: Sequence[BreakerRecord], now: float
) -> Iterator[str]:
    yielded = False
    for advice in _cause_advice(failures):
        yielded = True
        yield advice
    drained = [node.name for node in nodes if node.drains and any(cause.owner == "hooks" for cause in node.drains)]
    concerned = {run.key.node for run in failures if run.key.point in _NODE_POINTS}
    still = [name for name in drained if name in concerned]
    if still:
        yielded = True
        names = hostlist.fold(still)
        verb = "is" if len(still) == 1 else "are"
        yield f"{names} {verb} still drained. Once the cause is gone: hookctl resume {names}"
    for breaker in breakers:
        if breaker.tripped and job.job_id in breaker.held_jobs:
            yielded = True
            yield (
                f"The drain budget of {breaker.script} is spent ({breaker.drained_nodes} nodes). Once it is corrected:"
                f" hookctl breaker reset {breaker.sha256[:12]}"
            )
    state = _state_advice(job, now)
    if state:
        yield state
    elif not yielded:
        yield "Nothing: no action is needed."


def _state_advice(job: JobRecord, now: float) -> str:
    match job.state:
        case "Held":
            return f"The job waits for you. To let it run again: hookctl release {job.job_id}"
        case "Pending" if job.not_before is not None and job.not_before > now:
            return f"The job starts by itself, not before {local_time(job.not_before)}."
        case "Pending":
            return "The job starts by itself as soon as nodes are free for it."
        case "Completing":
            return f"Its Epilogs still run on {hostlist.fold(list(job.busy_nodes)) or 'the controller'}: wait."
        case "Cancelled" | "Failed" | "NodeFail" if job.runs:
            return "The job will not run again by itself: submit it anew when the cause is gone."
        case _:
            return ""


def _cause_advice(failures: Sequence[HookRun]) -> Iterator[str]:
    """One line per cause, however many runs failed for it."""
    causes: dict[tuple[HookPoint, str, Outcome], list[str]] = {}
    for run in failures:
        failed = run.failed_script
        outcome = failed.outcome if failed else run.outcome
        script = printable(failed.path) if failed else hook_name(run)
        causes.setdefault((run.key.point, script, outcome), []).append(place_of(run))
    for (point, script, outcome), places in causes.items():
        seen = sorted(set(places))
        more = f" and {len(seen) - _PLACES_NAMED} more" if len(seen) > _PLACES_NAMED else ""
        where = ", ".join(seen[:_PLACES_NAMED]) if more else sentence(seen)
        yield f"{_outcome_advice(point, outcome, script)} (seen on {where}{more})"


def _outcome_advice(point: HookPoint, outcome: Outcome, script: str) -> str:
    match outcome.kind:
        case OutcomeKind.EXIT if outcome.code in {126, 127} and point in _NO_PATH_POINTS:
            return (
                f"{script} could not run a command (exit {outcome.code}). {point.value} scripts get no PATH:"
                " name programs by absolute path, or set PATH in the script"
            )
        case OutcomeKind.EXIT:
            return f"See what {script} checks: it ended with status {outcome.code} of its own accord"
        case OutcomeKind.SIGNAL:
            return f"{script} was killed by a signal this system did not send: look for an out-of-memory kill there (dmesg)"
        case OutcomeKind.TIMEOUT:
            return f"{script} took longer than {outcome.code} s: make it faster, or raise {CONTRACTS[point].timeout_key}"
        case OutcomeKind.SPAWN:
            return f"{script} could not be started: run `hookctl check-scripts` there, it names what is wrong and how to mend it"
        case OutcomeKind.UNREACHABLE:
            return "The node did not answer in time: see whether its craned runs"
        case OutcomeKind.UNKILLABLE:
            return f"A process of {script} survives KILL (often a hanging file system): the node may need a reboot"
        case OutcomeKind.LOST:
            return f"The daemon that ran {script} died meanwhile and nobody saw the end: check the node before it takes work"
        case OutcomeKind.OK | OutcomeKind.STOPPED:
            return f"{script} did not fail"


def _node_summary(node: NodeRecord) -> str:
    use = {"idle": "has no job", "allocated": "has jobs", "completing": "runs Epilogs"}.get(node.use, node.use)
    jobs = f" ({', '.join(map(str, node.job_ids))})" if node.job_ids else ""
    drained = (
        f" It is drained, for {count(len(node.drains), 'cause')}: running jobs go on, no new one starts." if node.drains else ""
    )
    owed = ""
    if node.owed_epilogs:
        owed = f" It owes the Epilog of {', '.join(map(str, node.owed_epilogs))} and takes no work until that has run."
    return f"Node {node.name} is {'up' if node.up else 'down'} and {use}{jobs}.{drained}{owed}"


def _node_advice(node: NodeRecord, failed: Sequence[HookRun]) -> Iterator[str]:
    acted = False
    if not node.up:
        acted = True
        yield f"See whether craned runs on {node.name} and reaches the controller; it was last heard of at {local_time(node.last_heartbeat)}"
    if node.drains:
        acted = True
        yield from _cause_advice(failed)
        owners = sorted({cause.owner for cause in node.drains})
        option = (
            f" (--owner {owners[0]} clears these causes only)"
            if len(owners) == 1
            else f" (or --owner {' / --owner '.join(owners)})"
        )
        yield f"Once every cause is gone: hookctl resume {node.name}{option}"
    if node.config_differs:
        acted = True
        yield "Its configuration differs from the controller's: copy config.yaml there, then send craned SIGHUP"
    if not acted:
        yield "Nothing: no action is needed."
