"""The messages between a daemon and its hook spawner: one dataclass each, a JSON frame each.

A run is reported in parts (its scripts one by one, their output in pieces), so that no frame grows with it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cranehooks.execution import spec_json
from cranehooks.execution.spec_json import Json
from cranehooks.model.ids import RunId
from cranehooks.model.limits import LimitKind, words
from cranehooks.model.run import HookRun, RunSpec, ScriptRun, ScriptStarted
from cranekit import frames

_PIECE_CHARACTERS = 1 << 18
"""Of output; a character takes up to 12 bytes of JSON."""


@dataclass(frozen=True, slots=True)
class StartRun:
    """Daemon → spawner: run this; answered by `RunFinished`."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class StopRun:
    """Daemon → spawner: end it; nothing happens when it has ended."""

    run_id: RunId
    now: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Spawner → daemon, once: it takes runs, contained by `driver`."""

    driver: str
    what_is_lost: str
    swept: tuple[str, ...] = ()
    """Processes that a dead predecessor left, killed now: pid and command line."""
    enforced: frozenset[LimitKind] = frozenset()
    """Limits that hold."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Spawner → daemon: it ends after these runs; what else was asked for has not been begun and never will be here."""

    run_ids: tuple[RunId, ...]


@dataclass(frozen=True, slots=True)
class ScriptBegan:
    """Spawner → daemon."""

    started: ScriptStarted


@dataclass(frozen=True, slots=True)
class ScriptOutput:
    """Spawner → daemon: a piece of the output of the script that is told of next."""

    run_id: RunId
    text: str


@dataclass(frozen=True, slots=True)
class ScriptEnded:
    """Spawner → daemon, in the order of the list, right before `RunFinished`; the output came before."""

    run_id: RunId
    script: ScriptRun


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Spawner → daemon; the scripts came before."""

    run: HookRun


Message = StartRun | StopRun | Ready | Ending | ScriptBegan | ScriptOutput | ScriptEnded | RunFinished


def report(run: HookRun) -> Iterator[Message]:
    """The messages that tell of a run that has ended."""
    run_id = run.key.run_id
    for script in run.scripts:
        for start in range(0, len(script.output), _PIECE_CHARACTERS):
            yield ScriptOutput(run_id, script.output[start : start + _PIECE_CHARACTERS])
        yield ScriptEnded(run_id, replace(script, output=""))
    yield RunFinished(replace(run, scripts=()))


def frame(message: Message) -> bytes:
    """The message as a frame.

    Raises:
        frames.FrameError: a `StartRun` whose environment and arguments are larger than any program may be given.
    """
    return frames.encode(frames.JSON, encode(message))


def encode(message: Message) -> bytes:
    """The payload of the message's frame: ASCII, because text may hold lone surrogates."""
    body: Json
    match message:
        case StartRun(spec):
            body = {"spec": spec_json.encode_spec(spec)}
        case StopRun(run_id, now):
            body = {"run_id": run_id, "now": now}
        case Ready(driver, lost, swept, enforced):
            body = {"driver": driver, "lost": lost, "swept": list(swept), "enforced": list(words(enforced))}
        case Ending(run_ids):
            body = {"run_ids": list(run_ids)}
        case ScriptBegan(started):
            body = {"started": spec_json.encode_started(started)}
        case ScriptOutput(run_id, text):
            body = {"run_id": run_id, "text": text}
        case ScriptEnded(run_id, script):
            body = {"run_id": run_id, "script": spec_json.encode_script(script)}
        case RunFinished(run):
            body = {"run": spec_json.encode_run(run)}
    return json.dumps({"type": type(message).__name__, **body}, separators=(",", ":")).encode("ascii")


def decode(payload: bytes) -> Message:
    """The message in a frame.

    Raises:
        ValueError: it is none; the two sides are of one program, so this is a defect.
    """
    body: Json = json.loads(payload)
    match body["type"]:
        case "StartRun":
            return StartRun(spec_json.decode_spec(body["spec"]))
        case "StopRun":
            return StopRun(RunId(body["run_id"]), body["now"])
        case "Ready":
            enforced = frozenset(LimitKind(word) for word in body["enforced"])
            return Ready(body["driver"], body["lost"], tuple(body["swept"]), enforced)
        case "Ending":
            return Ending(tuple(RunId(run_id) for run_id in body["run_ids"]))
        case "ScriptBegan":
            return ScriptBegan(spec_json.decode_started(body["started"]))
        case "ScriptOutput":
            return ScriptOutput(RunId(body["run_id"]), body["text"])
        case "ScriptEnded":
            return ScriptEnded(RunId(body["run_id"]), spec_json.decode_script(body["script"]))
        case "RunFinished":
            return RunFinished(spec_json.decode_run(body["run"]))
        case other:
            raise ValueError(f"unknown message {other!r} between daemon and hook spawner")
