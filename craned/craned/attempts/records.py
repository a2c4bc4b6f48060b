"""Journal records of a craned: the codec between its values and JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import TypeAdapter

from craned.attempts.attempt import AttemptState
from craned.attempts.events import Event
from craned.attempts.reports import Content, Report
from cranehooks.journal import Record
from cranehooks.model.ids import Attempt, AttemptKey, JobId
from cranehooks.model.job import JobOnNode
from cranehooks.model.run import HookSettings

FORMAT: Final = 1
"""Version of the records; a craned reads its own only."""


class RecordError(ValueError):
    """A record that checks, yet is none that this version writes."""


@dataclass(frozen=True, slots=True)
class Booted:
    """The first record of a file, and one per start of the daemon."""

    boot_id: str
    next_report_id: int = 1
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """An attempt, when it is first heard of, or as it is when the journal is rewritten."""

    job: JobOnNode
    hooks: HookSettings
    """Of the moment it was first heard of: the attempt keeps them."""
    state: AttemptState


@dataclass(frozen=True, slots=True)
class EventHappened:
    """The reports that the event causes have `report_ids`, in the machine's order."""

    key: AttemptKey
    event: Event
    at: float
    report_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportQueued:
    """A report that no event brings back: of a task hook, or any when the journal is rewritten."""

    report: Report


@dataclass(frozen=True, slots=True)
class ReportsAcknowledged:
    up_to: int


@dataclass(frozen=True, slots=True)
class AttemptForgotten:
    key: AttemptKey


Entry = Booted | AttemptSeen | EventHappened | ReportQueued | ReportsAcknowledged | AttemptForgotten


class _Tagged:
    """Values of one of several classes, told apart by class name."""

    def __init__(self, classes: Iterable[type[Any]]) -> None:  # any dataclass of the union
        self._adapters: dict[str, TypeAdapter[Any]] = {each.__name__: TypeAdapter(each) for each in classes}

    def dump(self, value: object) -> dict[str, Any]:  # JSON
        name = type(value).__name__
        return {"is": name, "of": self._adapters[name].dump_python(value, mode="json")}

    def load(self, data: dict[str, Any]) -> Any:  # one of the classes
        adapter = self._adapters.get(data.get("is", ""))
        if adapter is None:
            message = f"unknown kind {data.get('is')!r}"
            raise RecordError(message)
        return adapter.validate_python(data.get("of"))


_EVENTS: Final = _Tagged(get_args(Event))
_CONTENTS: Final = _Tagged(get_args(Content))
_PLAIN: Final = _Tagged((Booted, AttemptSeen, ReportsAcknowledged, AttemptForgotten))


def _key(key: AttemptKey) -> list[int]:
    return [key.job_id, key.attempt]


def _parsed_key(data: list[int]) -> AttemptKey:
    job_id, attempt = data
    return AttemptKey(JobId(job_id), Attempt(attempt))


def to_record(entry: Entry) -> Record:
    match entry:
        case EventHappened(key, event, at, report_ids):
            return {"is": "event", "key": _key(key), "at": at, "event": _EVENTS.dump(event), "reports": list(report_ids)}
        case ReportQueued(Report(report_id, at, key, content)):
            return {"is": "report", "id": report_id, "at": at, "key": _key(key), "content": _CONTENTS.dump(content)}
        case _:
            return _PLAIN.dump(entry)


def from_record(record: Record) -> Entry:
    """The entry.

    Raises:
        RecordError: not one that this version writes.
    """
    try:
        match record.get("is"):
            case "event":
                event: Event = _EVENTS.load(record["event"])
                return EventHappened(_parsed_key(record["key"]), event, record["at"], tuple(record["reports"]))
            case "report":
                content: Content = _CONTENTS.load(record["content"])
                return ReportQueued(Report(record["id"], record["at"], _parsed_key(record["key"]), content))
            case _:
                entry: Entry = _PLAIN.load(record)
                return entry
    except (KeyError, TypeError, ValueError) as error:
        message = f"a journal record of another version: {error}"
        raise RecordError(message) from error
