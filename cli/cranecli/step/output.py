"""Puts the output of many tasks together so that no line is mixed of two: decides what is written, and writes nothing."""

from __future__ import annotations

LONGEST_HELD_BYTES = 1 << 16
"""A line longer than this is passed on in parts."""


class LineAssembly:
    """One output stream (stdout, or stderr) of a step.

    Lines of several tasks come out whole, each as soon as its end has come. Output of a single task passes at once, so that prompts
    appear. A part of a line that had to be passed on (its task ended, or it is very long) is closed with a newline before another
    task's line follows it.
    """

    def __init__(self, ntasks: int, *, is_labelled: bool) -> None:
        self._is_labelled = is_labelled
        self._passes_at_once = ntasks == 1
        self._label_width = len(str(max(0, ntasks - 1)))
        self._held: dict[int, bytearray] = {}
        self._open_task: int | None = None
        """Whose unfinished line was written last."""

    def feed(self, task_id: int, data: bytes) -> bytes:
        """What is to be written now that `data` has come from a task."""
        if self._passes_at_once:
            return self._emitted(task_id, data)
        held = self._held.setdefault(task_id, bytearray())
        # Only what is new is searched: a long line that comes in small parts costs no more than its length.
        end = data.rfind(b"\n") + 1
        if end:
            lines = bytes(held) + data[:end]
            held[:] = data[end:]
            ready = self._emitted(task_id, lines)
        else:
            held += data
            ready = b""
        if len(held) > LONGEST_HELD_BYTES:
            ready += self._flushed(task_id)
        return ready

    def end(self, task_id: int) -> bytes:
        """What is to be written when a task has ended: its last, unfinished line."""
        ready = self._flushed(task_id)
        self._held.pop(task_id, None)
        return ready

    def end_all(self) -> bytes:
        """The same for all tasks, in order."""
        return b"".join(self.end(task_id) for task_id in sorted(self._held))

    def _flushed(self, task_id: int) -> bytes:
        held = self._held.get(task_id)
        if not held:
            return b""
        ready = self._emitted(task_id, bytes(held))
        held.clear()
        return ready

    def _emitted(self, task_id: int, text: bytes) -> bytes:
        if not text:
            return b""
        goes_on = self._open_task == task_id
        separator = b"\n" if self._open_task is not None and not goes_on else b""
        self._open_task = None if text.endswith(b"\n") else task_id
        if not self._is_labelled:
            return separator + text
        label = f"{task_id:{self._label_width}d}: ".encode()
        labelled = label.join([b"", *_split(text)])
        return separator + (labelled[len(label) :] if goes_on else labelled)


def _split(text: bytes) -> list[bytes]:
    """At newlines alone: carriage returns are a task's own affair."""
    parts = text.split(b"\n")
    last = parts.pop()
    return [part + b"\n" for part in parts] + ([last] if last else [])
