"""Runs of node hooks that the supervisor of an extern step is asked for, on the wire."""

from crane.hooks.v1 import supervisor_pb2 as pb
from cranehooks.model.run import HookKey, RunSpec, TimeoutScope
from cranehooks.wire.hook import hook_point_from_wire, hook_point_to_wire
from cranehooks.wire.usage import job_limits_from_wire, job_limits_to_wire


def node_hook_to_wire(spec: RunSpec) -> pb.RunNodeHook:
    """The run, but for its job and node, which the supervisor knows, and for what node hooks never have: other credentials, arguments."""
    return pb.RunNodeHook(
        point=hook_point_to_wire(spec.key.point),
        scripts=[_bytes(path) for path in spec.scripts],
        environment={name: _bytes(value) for name, value in spec.environment.items()},
        timeout_s=spec.timeout_s,
        timeout_per_script=spec.timeout_scope is TimeoutScope.SCRIPT,
        continue_on_failure=spec.continue_on_failure,
        grace_s=spec.grace_s,
        unkillable_after_s=spec.unkillable_after_s,
        output_limit_bytes=spec.output_limit_bytes,
        user=spec.user,
        notes=spec.notes,
        keeps=[_bytes(path) for path in sorted(spec.keeps)],
        limits=None if spec.limits is None else job_limits_to_wire(spec.limits),
    )


def node_hook_from_wire(message: pb.RunNodeHook, step_key: HookKey) -> RunSpec:
    """The run of that job on that node.

    Args:
        message: What craned asks for.
        step_key: Of any hook of the same job, attempt and node.

    Raises:
        WireError: There is no such point.
        ValueError: A limit is out of range.
    """
    return RunSpec(
        key=HookKey(hook_point_from_wire(message.point), step_key.job_id, step_key.attempt, step_key.node),
        scripts=tuple(map(_text, message.scripts)),
        environment={name: _text(value) for name, value in message.environment.items()},
        timeout_s=message.timeout_s if message.HasField("timeout_s") else None,
        timeout_scope=TimeoutScope.SCRIPT if message.timeout_per_script else TimeoutScope.LIST,
        continue_on_failure=message.continue_on_failure,
        grace_s=message.grace_s,
        unkillable_after_s=message.unkillable_after_s,
        output_limit_bytes=message.output_limit_bytes,
        user=message.user,
        notes=tuple(message.notes),
        keeps=frozenset(map(_text, message.keeps)),
        limits=job_limits_from_wire(message.limits) if message.HasField("limits") else None,
    )


def _bytes(text: str) -> bytes:
    """Names of files need be no UTF-8: they are text with surrogates here."""
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
