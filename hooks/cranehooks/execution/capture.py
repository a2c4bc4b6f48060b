"""Keeps the beginning and the end of what a script writes, in bounded memory, and counts the rest."""

from collections import deque
from typing import Literal

Undecodable = Literal["replace", "surrogateescape"]
"""What bytes that are no UTF-8 become."""


def whole_lines(kept: bytes, written_bytes: int, limit_bytes: int) -> bytes:
    """What was kept of so many bytes under that limit, without the two lines that were cut where some were dropped."""
    if written_bytes <= limit_bytes:
        return kept
    # By length: a script may itself print a line like the one that stands for what was dropped.
    head, tail = kept[: _head_limit(limit_bytes)], kept[len(kept) - limit_bytes // 2 :]
    return head[: head.rfind(b"\n") + 1] + tail.partition(b"\n")[2]


def _head_limit(limit_bytes: int) -> int:
    return limit_bytes - limit_bytes // 2


class Capture:
    """A head and a tail of half the limit each; what falls between is only counted."""

    __slots__ = ("_head", "_head_limit", "_tail", "_tail_bytes", "_tail_limit", "written_bytes")

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"output limit must not be negative, got {limit_bytes} bytes")
        self._head_limit = _head_limit(limit_bytes)
        self._tail_limit = limit_bytes // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.written_bytes = 0
        """How much was fed in all."""

    def feed(self, data: bytes) -> None:
        """Take what was written next."""
        self.written_bytes += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data or not self._tail_limit:
            return
        self._tail.append(data[-self._tail_limit :])
        self._tail_bytes += len(self._tail[-1])
        while self._tail_bytes > self._tail_limit:
            oldest = self._tail.popleft()
            surplus = self._tail_bytes - self._tail_limit
            if len(oldest) > surplus:
                # A copy: a slice of the old chunk would be as small, a view would keep all of it alive.
                self._tail.appendleft(oldest[surplus:])
                self._tail_bytes -= surplus
            else:
                self._tail_bytes -= len(oldest)

    @property
    def kept_bytes(self) -> int:
        return len(self._head) + self._tail_bytes

    @property
    def dropped_bytes(self) -> int:
        return self.written_bytes - self.kept_bytes

    def value(self) -> bytes:
        """What was kept; where something was dropped, a line of its own says how much."""
        tail = b"".join(self._tail)
        if not self.dropped_bytes:
            return bytes(self._head) + tail
        before = b"" if not self._head or self._head.endswith(b"\n") else b"\n"
        return bytes(self._head) + before + b"[... %d bytes dropped ...]\n" % self.dropped_bytes + tail

    def text(self, undecodable: Undecodable = "replace") -> str:
        """`value` decoded; what is not UTF-8 becomes replacement characters, or surrogate escapes, which stand for the bytes."""
        return self.value().decode("utf-8", undecodable)
