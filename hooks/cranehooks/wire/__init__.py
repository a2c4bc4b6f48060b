"""The only codec between the model and protobuf: `<type>_to_wire(value)` and `<type>_from_wire(message)`.

Reading is strict about what has no meaning (an enum of a newer peer, a job without its spec: `WireError`) and fills in the
defaults that the messages document. What is written can be read back to an equal value; times keep nanoseconds.
"""

from cranehooks.wire.enumeration import EnumCodec, WireError
from cranehooks.wire.hook import (
    hook_point_from_wire,
    hook_point_to_wire,
    hook_run_from_wire,
    hook_run_to_wire,
    outcome_from_wire,
    outcome_to_wire,
    script_run_from_wire,
    script_run_to_wire,
)
from cranehooks.wire.job import (
    exit_status_from_wire,
    exit_status_to_wire,
    job_kind_from_wire,
    job_kind_to_wire,
    job_on_node_from_wire,
    job_on_node_to_wire,
    job_spec_from_wire,
    job_spec_to_wire,
    node_share_from_wire,
    node_share_to_wire,
)
from cranehooks.wire.moment import duration, seconds, timestamp
from cranehooks.wire.node_hook import node_hook_from_wire, node_hook_to_wire
from cranehooks.wire.step import (
    stdio_mode_from_wire,
    stdio_mode_to_wire,
    step_spec_from_wire,
    step_spec_to_wire,
    task_action_from_wire,
    task_action_to_wire,
    task_end_from_wire,
    task_end_to_wire,
)
from cranehooks.wire.usage import (
    job_limits_from_wire,
    job_limits_to_wire,
    usage_from_wire,
    usage_to_wire,
)

__all__ = [
    "EnumCodec",
    "WireError",
    "duration",
    "exit_status_from_wire",
    "exit_status_to_wire",
    "hook_point_from_wire",
    "hook_point_to_wire",
    "hook_run_from_wire",
    "hook_run_to_wire",
    "job_kind_from_wire",
    "job_kind_to_wire",
    "job_limits_from_wire",
    "job_limits_to_wire",
    "job_on_node_from_wire",
    "job_on_node_to_wire",
    "job_spec_from_wire",
    "job_spec_to_wire",
    "node_hook_from_wire",
    "node_hook_to_wire",
    "node_share_from_wire",
    "node_share_to_wire",
    "outcome_from_wire",
    "outcome_to_wire",
    "script_run_from_wire",
    "script_run_to_wire",
    "seconds",
    "stdio_mode_from_wire",
    "stdio_mode_to_wire",
    "step_spec_from_wire",
    "step_spec_to_wire",
    "task_action_from_wire",
    "task_action_to_wire",
    "task_end_from_wire",
    "task_end_to_wire",
    "timestamp",
    "usage_from_wire",
    "usage_to_wire",
]
