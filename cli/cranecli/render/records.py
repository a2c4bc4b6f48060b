"""What the controller answered, parsed once: JSON in, frozen values out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId, TaskId
from cranehooks.model.job import ExitStatus, JobKind, NodeShare
from cranehooks.model.limits import Usage
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, Leftover, ScriptRun

Json = Mapping[str, Any]  # the values of a JSON object are of any JSON type
T = TypeVar("T")

ENDED_STATES = frozenset({"Completed", "Failed", "Cancelled", "TimedOut", "NodeFail"})
WAITING_STATES = frozenset({"Pending", "Held"})


class AnswerError(Exception):
    """The controller's answer is not what this version understands."""


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One event of a job's history."""

    time: float
    kind: str
    attempt: int
    text: str
    node: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as it is now."""

    step_id: str
    state: str
    nodes: tuple[str, ...]
    exit: ExitStatus
    reason: str
    started_at: float | None
    ended_at: float | None
    name: str
    ntasks: int
    cancelled: bool = False
    usage: Mapping[str, Usage] = field(default_factory=dict)
    """By node, of those where it has ended."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is now; history and runs only where they were asked for."""

    job_id: int
    attempt: int
    state: str
    reason: str
    kind: JobKind
    name: str
    user: str
    account: str
    partition: str
    num_nodes: int
    ntasks: int
    requeue: bool
    time_limit_s: float | None
    array_job_id: int | None
    array_task_id: int | None
    nodes: tuple[str, ...]
    busy_nodes: tuple[str, ...]
    exit: ExitStatus
    requeue_count: int
    submitted_at: float | None
    started_at: float | None
    ended_at: float | None
    not_before: float | None
    steps: tuple[StepRecord, ...]
    history: tuple[HistoryRecord, ...]
    runs: tuple[HookRun, ...]
    shares: tuple[NodeShare, ...] = ()
    """What its attempt holds, or held, on each node."""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    """By node, of those that its attempt has left."""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def label(self) -> str:
        """`42`, or `44 (41_3)` for an element of an array: the id that commands take comes first."""
        if self.array_task_id is None:
            return str(self.job_id)
        return f"{self.job_id} ({self.array_job_id}_{self.array_task_id})"


@dataclass(frozen=True, slots=True)
class DrainRecord:
    """One cause of a drain."""

    owner: str
    reason: str
    time: float | None
    by: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as it is now."""

    name: str
    up: bool
    use: str
    drains: tuple[DrainRecord, ...]
    cpus: float
    cpus_used: float
    memory_bytes: int
    memory_used_bytes: int
    partitions: tuple[str, ...]
    job_ids: tuple[int, ...]
    owed_epilogs: tuple[int, ...]
    last_heartbeat: float | None
    address: str
    version: str
    config_differs: bool
    config_digest: str
    boot_id: str
    gres: str
    containment: str
    containment_lost: str
    gres_used: str = ""
    """The devices that jobs hold."""
    only_uid: int | None = None
    """Whose jobs alone it can run; None: anybody's."""

    @property
    def state(self) -> str:
        """`up`, `up, drained`, `down`, …"""
        word = "up" if self.up else "down"
        return f"{word}, drained" if self.drains else word


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event of the cluster's stream."""

    cursor: int
    time: float
    kind: str
    job_id: int
    attempt: int
    node: str
    text: str
    run: HookRun | None


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """The drain budget of one script digest."""

    sha256: str
    script: str
    tripped: bool
    drained_nodes: int
    budget: int
    tripped_at: float | None
    nodes: tuple[str, ...]
    held_jobs: tuple[int, ...]


def job_record(answer: Json) -> JobRecord:
    """A JobStatus."""
    spec = _object(answer, "spec")
    return JobRecord(
        job_id=_int(answer, "job_id"),
        attempt=_int(answer, "attempt"),
        state=_word(answer, "state", "JOB_STATE_"),
        reason=_text(answer, "reason"),
        kind=_member(JobKind.__members__, spec, "kind", "JOB_KIND_", JobKind.BATCH),
        name=_text(spec, "name"),
        user=_text(spec, "user"),
        account=_text(spec, "account"),
        partition=_text(spec, "partition"),
        num_nodes=_int(spec, "num_nodes") or 1,
        ntasks=_int(spec, "ntasks"),
        requeue=bool(spec.get("requeue", False)),
        time_limit_s=_seconds(spec, "time_limit"),
        array_job_id=_optional_int(spec, "array_job_id"),
        array_task_id=_optional_int(spec, "array_task_id"),
        nodes=_texts(answer, "nodes"),
        busy_nodes=_texts(answer, "busy_nodes"),
        exit=_exit(_object(answer, "exit")),
        requeue_count=_int(answer, "requeue_count"),
        submitted_at=_time(answer, "submitted_at"),
        started_at=_time(answer, "started_at"),
        ended_at=_time(answer, "ended_at"),
        not_before=_time(answer, "not_before"),
        steps=tuple(_step(step) for step in _objects(answer, "steps")),
        history=tuple(_history(event) for event in _objects(answer, "history")),
        runs=tuple(hook_run(run) for run in _objects(answer, "runs")),
        shares=tuple(_share(share) for share in _objects(answer, "shares")),
        usage=_usages(answer),
    )


def node_record(answer: Json) -> NodeRecord:
    """A NodeStatus."""
    return NodeRecord(
        name=_text(answer, "name"),
        up=bool(answer.get("up", False)),
        use=_word(answer, "use", "NODE_USE_").lower(),
        drains=tuple(_drain(cause) for cause in _objects(answer, "drain_causes")),
        cpus=float(answer.get("cpus", 0)),
        cpus_used=float(answer.get("cpus_used", 0)),
        memory_bytes=_int(answer, "memory_bytes"),
        memory_used_bytes=_int(answer, "memory_used_bytes"),
        partitions=_texts(answer, "partitions"),
        job_ids=_ints(answer, "job_ids"),
        owed_epilogs=_ints(answer, "owed_epilogs"),
        last_heartbeat=_time(answer, "last_heartbeat"),
        address=_text(answer, "address"),
        version=_text(answer, "version"),
        config_differs=bool(answer.get("config_differs", False)),
        config_digest=_text(answer, "config_digest"),
        boot_id=_text(answer, "boot_id"),
        gres=_text(answer, "gres"),
        gres_used=_text(answer, "gres_used"),
        containment=_text(answer, "containment"),
        containment_lost=_text(answer, "containment_lost"),
        only_uid=_int(answer, "only_uid") if "only_uid" in answer else None,
    )


def event_record(answer: Json) -> EventRecord:
    """An Event."""
    run = _object(answer, "run")
    return EventRecord(
        cursor=_int(answer, "cursor"),
        time=_time(answer, "time") or 0.0,
        kind=_text(answer, "kind"),
        job_id=_int(answer, "job_id"),
        attempt=_int(answer, "attempt"),
        node=_text(answer, "node"),
        text=_text(answer, "text"),
        run=hook_run(run) if run else None,
    )


def breaker_record(answer: Json) -> BreakerRecord:
    """A BreakerStatus."""
    return BreakerRecord(
        sha256=_text(answer, "sha256"),
        script=_text(answer, "script"),
        tripped=bool(answer.get("tripped", False)),
        drained_nodes=_int(answer, "drained_nodes"),
        budget=_int(answer, "budget"),
        tripped_at=_time(answer, "tripped_at"),
        nodes=_texts(answer, "nodes"),
        held_jobs=_ints(answer, "held_jobs"),
    )


def hook_run(answer: Json) -> HookRun:
    """A HookRun."""
    task_id = _int(answer, "task_id")
    step_id, node = _text(answer, "step_id"), _text(answer, "node")
    return HookRun(
        key=HookKey(
            point=_member(HookPoint.__members__, answer, "point", "HOOK_POINT_"),
            job_id=JobId(_int(answer, "job_id")),
            attempt=Attempt(_int(answer, "attempt")),
            node=NodeName(node) if node else None,
            step_id=StepId(step_id) if step_id else None,
            task_id=TaskId(task_id) if step_id and task_id >= 0 else None,
        ),
        user=_text(answer, "user"),
        started_at=_time(answer, "started_at") or 0.0,
        duration_s=_seconds(answer, "duration") or 0.0,
        outcome=_outcome(_object(answer, "outcome")),
        scripts=tuple(_script(script) for script in _objects(answer, "scripts")),
        queue_wait_s=_seconds(answer, "queue_wait") or 0.0,
        notes=tuple(map(str, answer.get("notes") or ())),
    )


def objects(answer: Json, field: str) -> Sequence[Json]:
    """The objects of a repeated field, none where the answer leaves it out."""
    return _objects(answer, field)


def _script(answer: Json) -> ScriptRun:
    return ScriptRun(
        path=_text(answer, "path"),
        outcome=_outcome(_object(answer, "outcome")),
        started_at=_time(answer, "started_at") or 0.0,
        duration_s=_seconds(answer, "duration") or 0.0,
        sha256=_text(answer, "sha256"),
        output=_text(answer, "output"),
        output_bytes=_int(answer, "output_bytes"),
        leftovers=_processes(answer, "leftovers"),
        kept=_processes(answer, "kept"),
    )


def _processes(answer: Json, field: str) -> tuple[Leftover, ...]:
    return tuple(Leftover(_int(process, "pid"), _text(process, "command")) for process in _objects(answer, field))


def _outcome(answer: Json) -> Outcome:
    kind = _member(OutcomeKind.__members__, answer, "kind", "OUTCOME_KIND_", OutcomeKind.OK)
    return Outcome(kind, _int(answer, "code"), _text(answer, "detail"))


def _step(answer: Json) -> StepRecord:
    return StepRecord(
        step_id=_text(answer, "step_id"),
        state=_word(answer, "state", "STEP_STATE_"),
        nodes=_texts(answer, "nodes"),
        exit=_exit(_object(answer, "exit")),
        reason=_text(answer, "reason"),
        started_at=_time(answer, "started_at"),
        ended_at=_time(answer, "ended_at"),
        name=_text(answer, "name"),
        ntasks=_int(answer, "ntasks"),
        cancelled=bool(answer.get("cancelled")),
        usage=_usages(answer),
    )


def _share(answer: Json) -> NodeShare:
    devices = (HeldDevices(_text(held, "name"), _ints(held, "indexes")) for held in _objects(answer, "devices"))
    return NodeShare(
        NodeName(_text(answer, "node")),
        _int(answer, "ntasks"),
        float(answer.get("cpus") or 0),
        _int(answer, "memory_bytes"),
        _text(answer, "gres"),
        tuple(devices),
    )


def _usages(answer: Json) -> dict[str, Usage]:
    return {_text(used, "node"): _usage(_object(used, "usage")) for used in _objects(answer, "usage")}


def _usage(answer: Json) -> Usage:
    cpu_s = answer.get("cpu_s")
    return Usage(
        None if cpu_s is None else float(cpu_s), _optional_int(answer, "memory_peak_bytes"), _optional_int(answer, "oom_kills")
    )


def _history(answer: Json) -> HistoryRecord:
    return HistoryRecord(
        time=_time(answer, "time") or 0.0,
        kind=_text(answer, "kind"),
        attempt=_int(answer, "attempt"),
        text=_text(answer, "text"),
        node=_text(answer, "node"),
    )


def _drain(answer: Json) -> DrainRecord:
    owner = _word(answer, "owner", "DRAIN_OWNER_").lower()
    return DrainRecord(owner, _text(answer, "reason"), _time(answer, "time"), _text(answer, "by"))


def _exit(answer: Json) -> ExitStatus:
    return ExitStatus(_int(answer, "code"), _int(answer, "signal"))


def _word(answer: Json, field: str, prefix: str) -> str:
    """`JOB_STATE_TIMED_OUT` → `TimedOut`."""
    name = _text(answer, field).removeprefix(prefix) or "UNSPECIFIED"
    return "".join(part.capitalize() for part in name.split("_"))


def _member(members: Mapping[str, T], answer: Json, field: str, prefix: str, default: T | None = None) -> T:
    name = _text(answer, field).removeprefix(prefix)
    found = members.get(name, default if name in {"", "UNSPECIFIED"} else None)
    if found is None:
        message = f"the controller answered {field} {name!r}, which this hookctl does not know: is the controller newer?"
        raise AnswerError(message)
    return found


def _object(answer: Json, field: str) -> Json:
    value = answer.get(field)
    return value if isinstance(value, Mapping) else {}


def _objects(answer: Json, field: str) -> Sequence[Json]:
    value = answer.get(field)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(answer: Json, field: str) -> str:
    value = answer.get(field)
    return "" if value is None else str(value)


def _texts(answer: Json, field: str) -> tuple[str, ...]:
    return tuple(str(item) for item in answer.get(field) or ())


def _int(answer: Json, field: str) -> int:
    return int(answer.get(field) or 0)


def _optional_int(answer: Json, field: str) -> int | None:
    value = answer.get(field)
    return None if value is None else int(value)


def _ints(answer: Json, field: str) -> tuple[int, ...]:
    return tuple(int(item) for item in answer.get(field) or ())


def _seconds(answer: Json, field: str) -> float | None:
    """A duration: `3.5s`."""
    value = answer.get(field)
    return None if value is None else float(str(value).removesuffix("s"))


def _time(answer: Json, field: str) -> float | None:
    """An RFC 3339 time, which protobuf may write with nanoseconds; None for the epoch, which means never."""
    value = answer.get(field)
    if not value:
        return None
    text = str(value)
    if "." in text:
        head, _, tail = text.partition(".")
        digits = tail.rstrip("Zz")
        text = f"{head}.{digits[:6]:0<6}Z"
    return datetime.fromisoformat(text).timestamp() or None
