"""What craned says to a step's supervisor and hears from it: the words, and their protobuf form."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from crane.hooks.v1 import craned_service_pb2 as stdio_pb
from crane.hooks.v1 import supervisor_pb2 as pb
from craned.service.messages import output_from_wire
from craned.steps.stdio import Output
from cranehooks import wire
from cranehooks.model.ids import Attempt, JobId, StepId, StepKey
from cranehooks.model.job import TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, RunSpec


class SupervisorProtocolError(Exception):
    """A supervisor sent what it must not."""


# ---- from the supervisor


@dataclass(frozen=True, slots=True)
class Hello:
    key: StepKey
    nonce: str
    pid: int
    has_started: bool
    """Whether its tasks were started before."""
    node_hooks: frozenset[HookPoint] = frozenset()
    """What the extern step was asked to run so far."""
    output_taken_bytes: int = 0
    """Of its output, in all; what it sends again begins behind it."""


@dataclass(frozen=True, slots=True)
class Started:
    """All tasks have been started; the extern step holds its place."""

    cgroup: str = ""
    """Of the extern step, for hooks to run in; empty where there are none."""


@dataclass(frozen=True, slots=True)
class HookDone:
    run: HookRun


@dataclass(frozen=True, slots=True)
class Written:
    output: Output


@dataclass(frozen=True, slots=True)
class StdinTaken:
    count_bytes: int


@dataclass(frozen=True, slots=True)
class Notice:
    """For the launcher's terminal."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    tasks: tuple[TaskEnd, ...]
    reason: str
    unkillable: tuple[str, ...]
    usage: Usage | None = None


FromSupervisor = Hello | Started | HookDone | Written | StdinTaken | Notice | Ended


# ---- to the supervisor


@dataclass(frozen=True, slots=True)
class LauncherPresence:
    is_attached: bool


@dataclass(frozen=True, slots=True)
class Stdin:
    data: bytes
    is_eof: bool = False


@dataclass(frozen=True, slots=True)
class OutputTaken:
    count_bytes: int


@dataclass(frozen=True, slots=True)
class Signal:
    number: int


@dataclass(frozen=True, slots=True)
class Terminate:
    reason: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Its end is noted: it may exit."""


@dataclass(frozen=True, slots=True)
class RunNodeHook:
    """For the extern step; repeating it changes nothing."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class StopNodeHook:
    """TERM, grace, KILL; HookDone still comes."""

    point: HookPoint


ToSupervisor = LauncherPresence | Stdin | OutputTaken | Signal | Terminate | Acknowledge | RunNodeHook | StopNodeHook


def to_bytes(message: ToSupervisor) -> bytes:
    return _to_wire(message).SerializeToString()


def _to_wire(message: ToSupervisor) -> pb.ToSupervisor:
    match message:
        case LauncherPresence(is_attached):
            return pb.ToSupervisor(launcher=pb.LauncherPresence(attached=is_attached))
        case Stdin(data, is_eof):
            return pb.ToSupervisor(stdin=stdio_pb.StdinData(data=data, eof=is_eof))
        case OutputTaken(count_bytes):
            return pb.ToSupervisor(output_credit=count_bytes)
        case Signal(number):
            return pb.ToSupervisor(signal=pb.TasksSignal(signal=number))
        case Terminate(reason):
            return pb.ToSupervisor(terminate=pb.TasksTermination(reason=reason))
        case Acknowledge():
            return pb.ToSupervisor(acknowledged=pb.StepEndAcknowledged())
        case RunNodeHook(spec):
            return pb.ToSupervisor(run_hook=wire.node_hook_to_wire(spec))
        case StopNodeHook(point):
            return pb.ToSupervisor(stop_hook=pb.StopNodeHook(point=wire.hook_point_to_wire(point)))


def from_bytes(payload: bytes) -> FromSupervisor:
    """One message.

    Raises:
        SupervisorProtocolError: it is none.
    """
    try:
        message = pb.FromSupervisor.FromString(payload)
        return _from_wire(message)
    except (DecodeError, wire.WireError) as error:
        text = f"a supervisor's message cannot be read: {error}"
        raise SupervisorProtocolError(text) from error


def _from_wire(message: pb.FromSupervisor) -> FromSupervisor:
    match message.WhichOneof("message"):
        case "hello":
            hello = message.hello
            key = StepKey(JobId(hello.job_id), Attempt(hello.attempt), StepId(hello.step_id))
            node_hooks = frozenset(map(wire.hook_point_from_wire, hello.node_hooks))
            return Hello(key, hello.nonce, hello.pid, hello.started, node_hooks, hello.output_taken)
        case "tasks_started":
            return Started(message.tasks_started.cgroup)
        case "hook_run":
            return HookDone(wire.hook_run_from_wire(message.hook_run))
        case "output":
            return Written(output_from_wire(message.output))
        case "stdin_credit":
            return StdinTaken(message.stdin_credit)
        case "notice":
            return Notice(message.notice.text)
        case "step_ended":
            ended = message.step_ended
            usage = wire.usage_from_wire(ended.usage) if ended.HasField("usage") else None
            return Ended(tuple(map(wire.task_end_from_wire, ended.tasks)), ended.reason, tuple(ended.unkillable), usage)
        case _:
            text = "a supervisor's message is empty, or newer than this craned"
            raise SupervisorProtocolError(text)


# ---- the parent


@dataclass(frozen=True, slots=True)
class Forked:
    nonce: str
    pid: int


@dataclass(frozen=True, slots=True)
class Gone:
    nonce: str
    pid: int
    wait_status: int


def parent_message_from_bytes(payload: bytes) -> Forked | Gone:
    """What the supervisor parent says.

    Raises:
        SupervisorProtocolError: it is no such message.
    """
    try:
        message = pb.ParentMessage.FromString(payload)
    except DecodeError as error:
        text = "the supervisor parent's message cannot be read"
        raise SupervisorProtocolError(text) from error
    match message.WhichOneof("message"):
        case "forked":
            return Forked(message.forked.nonce, message.forked.pid)
        case "gone":
            return Gone(message.gone.nonce, message.gone.pid, message.gone.wait_status)
        case kind:
            text = f"the supervisor parent sent {kind}, expected forked or gone"
            raise SupervisorProtocolError(text)


HELLO_WITHIN_S: Final = 10.0
"""A connection that has not said who it is by then is closed."""
