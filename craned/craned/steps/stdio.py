"""A step's standard streams between its supervisor and its launcher: nothing is lost when either comes back, and nothing piles up.

Output: the supervisor may have `WINDOW_BYTES` that its launcher has not consumed; so much is kept here, and given again to a launcher that
comes after one that was lost. All three count the bytes of the step on this node from its start, so that a launcher that joins again gets
what it has not got, whichever credit was lost on the way. Input: a launcher may have as much under way; what an earlier launcher has under way is not credited to the next.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from cranehooks.model.ids import TaskId

WINDOW_BYTES = 256 << 10


class Stream(Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Output:
    """What a task wrote."""

    task_id: TaskId
    stream: Stream
    data: bytes


class StdinOverrunError(Exception):
    """A launcher sent more than it may."""


@dataclass(eq=False, slots=True)
class OutputWindow:
    """Output on its way to the launcher: sent and not consumed, then not sent."""

    _kept: deque[Output] = field(default_factory=deque)
    _sent: int = 0
    """How many of those kept went to the present launcher."""
    _position: int = 0
    """Of the first byte that is kept, or comes next."""
    _incoming: int = 0
    """Of the next byte that the supervisor sends."""
    _received: int = 0
    """The launcher has all before this position."""

    @property
    def kept_bytes(self) -> int:
        return sum(len(output.data) for output in self._kept)

    @property
    def is_all_sent(self) -> bool:
        return self._sent == len(self._kept)

    def begin_at(self, position: int) -> None:
        """The supervisor has dialled, and sends again all output from there on."""
        self._incoming = position
        if position > self._position + self.kept_bytes:
            # This node daemon is a new one: what came before is gone, and was taken.
            self._kept.clear()
            self._sent = 0
            self._position = position

    def put(self, output: Output) -> int:
        """More output; how much of it the launcher has already, which is what the supervisor is credited at once."""
        start, size, end = self._incoming, len(output.data), self._position + self.kept_bytes
        self._incoming += size
        repeated = max(0, min(size, end - start))
        credited = max(0, min(repeated, self._position - start))
        received = max(0, min(size - repeated, self._received - end))
        self._position += received
        if fresh := output.data[repeated + received :]:
            self._kept.append(Output(output.task_id, output.stream, fresh))
        return credited + received

    def take(self) -> Output | None:
        """The next to send to the launcher."""
        if self.is_all_sent:
            return None
        self._sent += 1
        return self._kept[self._sent - 1]

    def consumed(self, count_bytes: int) -> int:
        """The launcher has taken so much; how much of it was really sent, which is what the supervisor is credited."""
        credited = 0
        while count_bytes > 0 and self._sent:
            head = self._kept[0]
            if len(head.data) <= count_bytes:
                self._kept.popleft()
                self._sent -= 1
                taken = len(head.data)
            else:
                self._kept[0] = Output(head.task_id, head.stream, head.data[count_bytes:])
                taken = count_bytes
            count_bytes -= taken
            credited += taken
        self._position += credited
        return credited

    def resume(self, received: int) -> int:
        """A launcher joins that has got so many bytes before: it gets all that is behind them and that none has consumed.

        Returns how much the supervisor is credited: what was received, and whose credit was lost.
        """
        self._sent = len(self._kept)
        credited = self.consumed(received - self._position)
        self._sent = 0
        self._received = received
        return credited

    def drop(self) -> int:
        """Nobody will take it; how much the supervisor is credited."""
        dropped = self.kept_bytes
        self._kept.clear()
        self._sent = 0
        self._position += dropped
        return dropped


@dataclass(slots=True)
class InputWindow:
    """Standard input on its way to the supervisor."""

    _under_way: int = 0
    _of_earlier: int = 0
    """Part of it that a launcher sent which is gone."""

    def sent(self, count_bytes: int) -> None:
        """The launcher sent so much.

        Raises:
            StdinOverrunError: more than its window.
        """
        self._under_way += count_bytes
        if self._under_way - self._of_earlier > WINDOW_BYTES:
            message = f"{self._under_way - self._of_earlier} bytes of stdin are under way, the window has {WINDOW_BYTES}"
            raise StdinOverrunError(message)

    def credited(self, count_bytes: int) -> int:
        """The supervisor took so much; how much of it is the present launcher's."""
        count_bytes = min(count_bytes, self._under_way)
        self._under_way -= count_bytes
        earlier = min(count_bytes, self._of_earlier)
        self._of_earlier -= earlier
        return count_bytes - earlier

    def new_launcher(self) -> None:
        self._of_earlier = self._under_way
