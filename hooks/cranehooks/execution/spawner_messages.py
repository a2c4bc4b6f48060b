"""The messages between a daemon and its hook spawner: one dataclass each, and their frames.

A frame is a header (`!IB`: length of the payload, type) and a JSON object (type 1). A run's scripts are reported one by
one, so that a frame is never larger than one script's output.
"""

import json
from dataclasses import dataclass, replace

from cranehooks.execution import spec_json
from cranehooks.execution.spec_json import Json
from cranehooks.model.ids import RunId
from cranehooks.model.run import HookRun, RunSpec, ScriptRun, ScriptStarted


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
    """Command lines of processes that a dead predecessor left, killed now."""


@dataclass(frozen=True, slots=True)
class ScriptBegan:
    """Spawner → daemon."""

    started: ScriptStarted


@dataclass(frozen=True, slots=True)
class ScriptEnded:
    """Spawner → daemon, in the order of the list, right before `RunFinished`."""

    run_id: RunId
    script: ScriptRun


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Spawner → daemon; the scripts came before."""

    run: HookRun


Message = StartRun | StopRun | Ready | ScriptBegan | ScriptEnded | RunFinished


def report(run: HookRun) -> list[Message]:
    """The messages that tell of a run that has ended."""
    ended: list[Message] = [ScriptEnded(run.key.run_id, script) for script in run.scripts]
    return [*ended, RunFinished(replace(run, scripts=()))]


def encode(message: Message) -> bytes:
    """The payload of the message's frame."""
    body: Json
    match message:
        case StartRun(spec):
            body = {"spec": spec_json.encode_spec(spec)}
        case StopRun(run_id, now):
            body = {"run_id": run_id, "now": now}
        case Ready(driver, lost, swept):
            body = {"driver": driver, "lost": lost, "swept": list(swept)}
        case ScriptBegan(started):
            body = {"started": spec_json.encode_started(started)}
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
            return Ready(body["driver"], body["lost"], tuple(body["swept"]))
        case "ScriptBegan":
            return ScriptBegan(spec_json.decode_started(body["started"]))
        case "ScriptEnded":
            return ScriptEnded(RunId(body["run_id"]), spec_json.decode_script(body["script"]))
        case "RunFinished":
            return RunFinished(spec_json.decode_run(body["run"]))
        case other:
            raise ValueError(f"unknown message {other!r} between daemon and hook spawner")
