"""What crosses between a daemon and its hook spawner, as JSON values: `decode(encode(x)) == x`."""

from typing import Any

from cranehooks.model.ids import Attempt, JobId, NodeName, RunId, StepId, TaskId
from cranehooks.model.limits import Device, DeviceKind, DeviceRules, Limits
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import Credentials, HookKey, HookRun, Leftover, RunSpec, ScriptRun, ScriptStarted, TimeoutScope

Json = dict[str, Any]  # Any: JSON
"""An object. Text may hold lone surrogates (bytes of an environment that are no UTF-8): encode with ASCII escapes."""


def encode_key(key: HookKey) -> Json:
    return {
        "point": key.point.value,
        "job": key.job_id,
        "attempt": key.attempt,
        "node": key.node,
        "step": key.step_id,
        "task": key.task_id,
    }


def decode_key(data: Json) -> HookKey:
    return HookKey(
        point=HookPoint(data["point"]),
        job_id=JobId(data["job"]),
        attempt=Attempt(data["attempt"]),
        node=None if data["node"] is None else NodeName(data["node"]),
        step_id=None if data["step"] is None else StepId(data["step"]),
        task_id=None if data["task"] is None else TaskId(data["task"]),
    )


def encode_spec(spec: RunSpec) -> Json:
    credentials = spec.credentials
    return {
        "key": encode_key(spec.key),
        "scripts": list(spec.scripts),
        "environment": dict(spec.environment),
        "timeout_s": spec.timeout_s,
        "timeout_scope": spec.timeout_scope.value,
        "continue_on_failure": spec.continue_on_failure,
        "credentials": None if credentials is None else [credentials.uid, credentials.gid, list(credentials.groups)],
        "user": spec.user,
        "cwd": spec.cwd,
        "grace_s": spec.grace_s,
        "unkillable_after_s": spec.unkillable_after_s,
        "output_limit_bytes": spec.output_limit_bytes,
        "trusted_owner": spec.trusted_owner,
        "inherit_stdio": spec.inherit_stdio,
        "arguments": list(spec.arguments),
        "cgroup": spec.cgroup,
        "limits": None if spec.limits is None else encode_limits(spec.limits),
        "notes": list(spec.notes),
        "keeps": sorted(spec.keeps),
    }


def decode_spec(data: Json) -> RunSpec:
    credentials = data["credentials"]
    return RunSpec(
        key=decode_key(data["key"]),
        scripts=tuple(data["scripts"]),
        environment=data["environment"],
        timeout_s=data["timeout_s"],
        timeout_scope=TimeoutScope(data["timeout_scope"]),
        continue_on_failure=data["continue_on_failure"],
        credentials=None if credentials is None else Credentials(credentials[0], credentials[1], tuple(credentials[2])),
        user=data["user"],
        cwd=data["cwd"],
        grace_s=data["grace_s"],
        unkillable_after_s=data["unkillable_after_s"],
        output_limit_bytes=data["output_limit_bytes"],
        trusted_owner=data["trusted_owner"],
        inherit_stdio=data["inherit_stdio"],
        arguments=tuple(data["arguments"]),
        cgroup=data["cgroup"],
        limits=None if data["limits"] is None else decode_limits(data["limits"]),
        notes=tuple(data["notes"]),
        keeps=frozenset(data["keeps"]),
    )


def encode_limits(limits: Limits) -> Json:
    rules = limits.devices
    return {
        "memory_bytes": limits.memory_bytes,
        "swap_bytes": limits.swap_bytes,
        "cpu_cores": limits.cpu_cores,
        "cpu_weight": limits.cpu_weight,
        "pids": limits.pids,
        "cpuset": limits.cpuset,
        "io_weight": limits.io_weight,
        "devices": None if rules is None else [_encode_devices(rules.denied), _encode_devices(rules.allowed)],
        "measures_memory": limits.measures_memory,
        "kills_all": limits.kills_all,
    }


def decode_limits(data: Json) -> Limits:
    rules = data["devices"]
    devices = None if rules is None else DeviceRules(_decode_devices(rules[0]) or (), _decode_devices(rules[1]))
    return Limits(**{**data, "devices": devices})


def _encode_devices(devices: tuple[Device, ...] | None) -> list[Any] | None:  # Any: JSON
    return None if devices is None else [[device.kind.value, device.major, device.minor] for device in devices]


def _decode_devices(data: list[Any] | None) -> tuple[Device, ...] | None:  # Any: JSON
    return None if data is None else tuple(Device(DeviceKind(kind), major, minor) for kind, major, minor in data)


def encode_started(started: ScriptStarted) -> Json:
    return {
        "run_id": started.run_id,
        "index": started.index,
        "path": started.path,
        "sha256": started.sha256,
        "pid": started.pid,
        "start_time": started.start_time,
    }


def decode_started(data: Json) -> ScriptStarted:
    return ScriptStarted(RunId(data["run_id"]), data["index"], data["path"], data["sha256"], data["pid"], data["start_time"])


def encode_script(script: ScriptRun) -> Json:
    return {
        "path": script.path,
        "outcome": _encode_outcome(script.outcome),
        "started_at": script.started_at,
        "duration_s": script.duration_s,
        "sha256": script.sha256,
        "output": script.output,
        "output_bytes": script.output_bytes,
        "leftovers": [[leftover.pid, leftover.command] for leftover in script.leftovers],
        "kept": [[process.pid, process.command] for process in script.kept],
    }


def decode_script(data: Json) -> ScriptRun:
    return ScriptRun(
        path=data["path"],
        outcome=_decode_outcome(data["outcome"]),
        started_at=data["started_at"],
        duration_s=data["duration_s"],
        sha256=data["sha256"],
        output=data["output"],
        output_bytes=data["output_bytes"],
        leftovers=tuple(Leftover(pid, command) for pid, command in data["leftovers"]),
        kept=tuple(Leftover(pid, command) for pid, command in data["kept"]),
    )


def encode_run(run: HookRun) -> Json:
    return {
        "key": encode_key(run.key),
        "user": run.user,
        "started_at": run.started_at,
        "duration_s": run.duration_s,
        "outcome": _encode_outcome(run.outcome),
        "scripts": [encode_script(script) for script in run.scripts],
        "queue_wait_s": run.queue_wait_s,
        "notes": list(run.notes),
    }


def decode_run(data: Json) -> HookRun:
    return HookRun(
        key=decode_key(data["key"]),
        user=data["user"],
        started_at=data["started_at"],
        duration_s=data["duration_s"],
        outcome=_decode_outcome(data["outcome"]),
        scripts=tuple(decode_script(script) for script in data["scripts"]),
        queue_wait_s=data["queue_wait_s"],
        notes=tuple(data["notes"]),
    )


def _encode_outcome(outcome: Outcome) -> list[Any]:  # Any: JSON
    return [outcome.kind.value, outcome.code, outcome.detail]


def _decode_outcome(data: list[Any]) -> Outcome:  # Any: JSON
    return Outcome(OutcomeKind(data[0]), data[1], data[2])
