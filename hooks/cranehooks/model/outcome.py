"""What became of a script: one value that names the cause, never a bare number."""

import errno as errno_names
import signal as signal_names
from dataclasses import dataclass
from enum import Enum


class OutcomeKind(Enum):
    """The cause. The value is the word used in logs, metrics, drain reasons and tables."""

    OK = "ok"
    EXIT = "exit"
    """Ended with a status other than 0; `code` is the status."""
    SIGNAL = "signal"
    """Killed by a signal that this run did not send; `code` is its number."""
    TIMEOUT = "timeout"
    """Exceeded its time, whatever its exit status says; `code` is the limit in seconds, rounded up."""
    SPAWN = "spawn"
    """Never started; `code` is the errno, or 0 where `detail` alone says why (an unsafe script, for example)."""
    STOPPED = "stopped"
    """Stopped by us because the job was cancelled or its attempt ended: nobody's failure."""
    UNREACHABLE = "unreachable"
    """The node did not answer in time."""
    UNKILLABLE = "unkillable"
    """Something of the run survived KILL."""
    LOST = "lost"
    """Started by a daemon that died; nobody saw the end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a script, or a whole hook run, ended.

    `code` means what its kind says; `detail` is one line for a person, empty when the kind and code say all.
    """

    kind: OutcomeKind
    code: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.kind is OutcomeKind.OK

    def __str__(self) -> str:
        """`exit 3`, `signal 9 (KILL)`, `timeout after 60 s`, `spawn failed: ENOENT`: as in drain reasons."""
        match self.kind:
            case OutcomeKind.EXIT:
                return f"exit {self.code}"
            case OutcomeKind.SIGNAL:
                return f"signal {self.code} ({_signal_name(self.code)})"
            case OutcomeKind.TIMEOUT:
                return f"timeout after {self.code} s"
            case OutcomeKind.SPAWN:
                cause = errno_names.errorcode.get(self.code, str(self.code)) if self.code else "refused"
                return f"spawn failed: {cause}"
            case _:
                word: str = self.kind.value
                return word


OK = Outcome(OutcomeKind.OK)


def from_wait_status(status: int) -> Outcome:
    """The outcome that a wait(2) status means by itself (timeouts and stops are the caller's knowledge)."""
    if status & 0x7F:
        return Outcome(OutcomeKind.SIGNAL, status & 0x7F)
    code = status >> 8
    return OK if code == 0 else Outcome(OutcomeKind.EXIT, code)


def _signal_name(number: int) -> str:
    try:
        return signal_names.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return "unknown"
