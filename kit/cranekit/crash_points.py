"""Named points of a daemon at which a test can end it as a crash would, in the middle of what it does.

They stand where something leaves the process or becomes durable: before and after every write to a disk, every order to a helper process,
every call, and every answer. The environment decides, once, when a program starts:

    CRANE_CRASH_POINTS=record:FILE     appends a line with each point that is reached to FILE
    CRANE_CRASH_POINTS=kill:NAME#3     kills the process with SIGKILL when it reaches NAME for the third time

Without it a point costs a comparison.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

VARIABLE = "CRANE_CRASH_POINTS"


class _Recorder:
    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def __call__(self, point: str) -> None:
        # One write: processes that share the file do not mix their lines.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, f"{point}\n".encode())
        finally:
            os.close(descriptor)


class _Killer:
    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._count = count
        self._reached: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        if point != self._point:
            return
        self._reached[point] += 1
        if self._reached[point] == self._count:
            os.kill(os.getpid(), signal.SIGKILL)


def _planned(text: str) -> Callable[[str], None] | None:
    """What to do at each point.

    Raises:
        ValueError: The variable says something else.
    """
    what, _, rest = text.partition(":")
    match what:
        case "":
            return None
        case "record" if rest:
            return _Recorder(rest)
        case "kill" if rest:
            point, _, count = rest.rpartition("#")
            if point and count.isdecimal():
                return _Killer(point, int(count))
    message = f"{VARIABLE}={text}: expected record:FILE or kill:NAME#COUNT"
    raise ValueError(message)


_plan = _planned(os.environ.get(VARIABLE, ""))
are_planned = _plan is not None
"""Whether a test looks at the points: for places that must make themselves a hook first."""


def reached(point: str) -> None:
    """Says that the program is at `point`: a fixed word or two, never with ids in it."""
    if _plan is not None:
        _plan(point)
