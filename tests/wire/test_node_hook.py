"""A run that an extern step is asked for keeps everything on its way."""

import dataclasses

from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.limits import Limits
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, RunSpec, TimeoutScope
from cranehooks.wire import node_hook_from_wire, node_hook_to_wire

KEY = HookKey(HookPoint.EPILOG, JobId(42), Attempt(3), NodeName("cn01"))
FULL = RunSpec(
    key=KEY,
    scripts=("/etc/crane/b.sh", "/etc/crane/\udcff.sh"),
    environment={"CRANE_JOB_ID": "42", "CRANE_JOB_NAME": "a\udce9"},
    timeout_s=12.5,
    timeout_scope=TimeoutScope.SCRIPT,
    continue_on_failure=True,
    user="root",
    grace_s=0.5,
    unkillable_after_s=7.0,
    output_limit_bytes=4096,
    notes=("README: passed over",),
    keeps=frozenset({"/etc/crane/b.sh"}),
    limits=Limits(memory_bytes=1 << 30, pids=7, cpu_weight=50),
)
NEVER = {"credentials", "cwd", "trusted_owner", "inherit_stdio", "arguments", "cgroup"}
"""What node hooks have never otherwise than by default, or what the supervisor knows better."""


def test_a_run_comes_through() -> None:
    key = dataclasses.replace(KEY, point=HookPoint.PROLOG)
    assert node_hook_from_wire(node_hook_to_wire(FULL), key) == FULL
    plain = RunSpec(KEY, ("/p.sh",), {}, None)
    assert node_hook_from_wire(node_hook_to_wire(plain), key) == plain


def test_no_field_is_forgotten() -> None:
    for field in dataclasses.fields(RunSpec):
        if field.name in NEVER or field.default is dataclasses.MISSING:
            continue
        assert getattr(FULL, field.name) != field.default, f"{field.name} is not tested, or not carried"
