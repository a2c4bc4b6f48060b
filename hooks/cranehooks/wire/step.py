"""Steps on the wire."""

from typing import Final

from crane.hooks.v1 import job_pb2 as pb
from crane.hooks.v1 import supervisor_pb2
from cranehooks.model.ids import NodeName, StepId, TaskId
from cranehooks.model.job import StdioMode, StepSpec, TaskEnd
from cranehooks.profiles import TaskAction
from cranehooks.wire.enumeration import EnumCodec
from cranehooks.wire.job import exit_status_from_wire, exit_status_to_wire, inherited_from_wire, inherited_to_wire
from cranehooks.wire.nodelist import nodelist_from_wire, nodelist_to_wire

_STDIO: Final = EnumCodec(StdioMode, pb.StdioMode, "STDIO_MODE")
_TASK_ACTION: Final = EnumCodec(TaskAction, supervisor_pb2.TaskAction, "TASK_ACTION")


def stdio_mode_to_wire(mode: StdioMode) -> pb.StdioMode.ValueType:
    return _STDIO.to_wire(mode)


def stdio_mode_from_wire(value: int) -> StdioMode:
    return _STDIO.from_wire(value)


def step_spec_to_wire(step: StepSpec) -> pb.StepSpec:
    return pb.StepSpec(
        step_id=step.step_id,
        argv=step.argv,
        ntasks=step.ntasks,
        placement=[pb.TaskPlacement(node=node, task_ids=tasks) for node, tasks in step.tasks_per_node.items()],
        cpus_per_task=step.cpus_per_task,
        environment=step.environment,
        cwd=step.cwd,
        stdio=stdio_mode_to_wire(step.stdio),
        task_prolog=step.task_prolog,
        task_epilog=step.task_epilog,
        name=step.name,
        nodelist=nodelist_to_wire(step.nodelist),
        num_nodes=step.num_nodes,
        inherited=inherited_to_wire(step.inherited),
    )


def step_spec_from_wire(message: pb.StepSpec) -> StepSpec:
    """The step; streams that are not said to go to files go to the launcher.

    Raises:
        WireError: stdio is a value of a newer peer, or nodelist is no hostlist.
    """
    return StepSpec(
        step_id=StepId(message.step_id),
        argv=tuple(message.argv),
        ntasks=message.ntasks,
        tasks_per_node={NodeName(place.node): tuple(place.task_ids) for place in message.placement},
        cpus_per_task=message.cpus_per_task or 1.0,
        environment=dict(message.environment),
        cwd=message.cwd,
        stdio=stdio_mode_from_wire(message.stdio) if message.stdio else StdioMode.ATTACHED,
        task_prolog=message.task_prolog,
        task_epilog=message.task_epilog,
        name=message.name,
        nodelist=nodelist_from_wire(message.nodelist, "nodelist"),
        num_nodes=message.num_nodes,
        inherited=inherited_from_wire(message.inherited) if message.HasField("inherited") else None,
    )


def task_end_to_wire(end: TaskEnd) -> pb.TaskEnd:
    return pb.TaskEnd(task_id=end.task_id, exit=exit_status_to_wire(end.exit), cancelled=end.cancelled, reason=end.reason)


def task_end_from_wire(message: pb.TaskEnd) -> TaskEnd:
    return TaskEnd(TaskId(message.task_id), exit_status_from_wire(message.exit), message.cancelled, message.reason)


def task_action_to_wire(action: TaskAction) -> supervisor_pb2.TaskAction.ValueType:
    return _TASK_ACTION.to_wire(action)


def task_action_from_wire(value: int) -> TaskAction:
    return _TASK_ACTION.from_wire(value)
