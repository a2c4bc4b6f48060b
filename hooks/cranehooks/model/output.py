"""Makes what scripts wrote small enough to be told: the head says what was done, the tail why it failed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cranehooks.model.run import HookRun, ScriptRun

_LEAST_WITH_HEAD_BYTES: Final = 256
"""Below it only the tail is kept."""


def clipped(run: HookRun, limit_bytes: int) -> HookRun:
    """The run with at most `limit_bytes` of output (as UTF-8) in all its scripts.

    Scripts that wrote little keep everything; the others share what is left evenly.
    """
    shares = _shares([_size(script.output) for script in run.scripts], limit_bytes)
    if shares is None:
        return run
    return replace(run, scripts=tuple(clipped_script(script, share) for script, share in zip(run.scripts, shares, strict=True)))


def clipped_script(script: ScriptRun, limit_bytes: int) -> ScriptRun:
    """The script with at most `limit_bytes` of output: head and tail, and between them a line that says how much was dropped.

    Its last line that is not blank stays the last, or, where that is longer, its end.
    """
    output = _encoded(script.output)
    if len(output) <= limit_bytes:
        return script
    # Trailing blank lines must not push out the last line.
    told = output.rstrip()
    told = told + b"\n" if len(told) < len(output) else told
    if len(told) <= limit_bytes or limit_bytes < _LEAST_WITH_HEAD_BYTES:
        return replace(script, output=_decoded(told[max(0, len(told) - limit_bytes) :]))
    written_bytes = max(script.output_bytes, _written_bytes(script.output))
    budget = limit_bytes - len(_mark(written_bytes)) - 1
    head, tail = _decoded(told[: budget // 2]), _decoded(told[budget // 2 - budget :])
    dropped_bytes = written_bytes - _written_bytes(head) - _written_bytes(tail)
    before = "" if head.endswith("\n") else "\n"
    return replace(script, output=f"{head}{before}{_mark(dropped_bytes).decode()}{tail}")


def _mark(dropped_bytes: int) -> bytes:
    return b"[... %d bytes dropped ...]\n" % dropped_bytes


def _shares(sizes: Sequence[int], limit: int) -> list[int] | None:
    """How much of each may stay; None: all of it."""
    if sum(sizes) <= limit:
        return None
    shares = [0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for place, index in enumerate(by_size):
        shares[index] = min(sizes[index], limit // (len(by_size) - place))
        limit -= shares[index]
    return shares


def _written_bytes(text: str) -> int:
    """A replacement character most often stands for one byte."""
    return _size(text) - 2 * text.count("\N{REPLACEMENT CHARACTER}")


def _size(text: str) -> int:
    return len(_encoded(text))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _decoded(data: bytes) -> str:
    """Without the pieces of characters at its ends."""
    return data.decode("utf-8", "ignore")
