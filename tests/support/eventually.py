"""Polling for a condition with a deadline: what tests do in place of sleeping for a guessed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

T = TypeVar("T")

DEFAULT_DEADLINE_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1


class NeverTrueError(AssertionError):
    """The condition did not hold before the deadline."""


def _next_pause_s(pause_s: float) -> float:
    return min(pause_s * 2, _LONGEST_PAUSE_S)


def _failure(predicate: Callable[..., object], deadline_s: float, last: object) -> NeverTrueError:
    name = getattr(predicate, "__qualname__", repr(predicate))
    return NeverTrueError(f"{name} did not hold within {deadline_s:g} s; its last answer was {last!r}")


def eventually(predicate: Callable[[], T], *, deadline_s: float = DEFAULT_DEADLINE_S) -> T:
    """Call ``predicate`` until its answer is true and return that answer.

    The predicate is always called once more after the deadline, so that a stalled test process is no failure by itself.
    What it raises is not caught.

    Raises:
        NeverTrueError: no answer was true within ``deadline_s`` seconds; the message holds the last one.
    """
    end = time.monotonic() + deadline_s
    pause_s = _FIRST_PAUSE_S
    while True:
        late = time.monotonic() >= end
        if answer := predicate():
            return answer
        if late:
            raise _failure(predicate, deadline_s, answer)
        time.sleep(pause_s)
        pause_s = _next_pause_s(pause_s)


@overload
async def eventually_async(predicate: Callable[[], Awaitable[T]], *, deadline_s: float = ...) -> T: ...


@overload
async def eventually_async(predicate: Callable[[], T], *, deadline_s: float = ...) -> T: ...


async def eventually_async(predicate: Callable[[], T | Awaitable[T]], *, deadline_s: float = DEFAULT_DEADLINE_S) -> T:
    """The same on an event loop; the predicate may be a coroutine function.

    Raises:
        NeverTrueError: no answer was true within ``deadline_s`` seconds; the message holds the last one.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    pause_s = _FIRST_PAUSE_S
    while True:
        late = loop.time() >= end
        result = predicate()
        answer = await result if isinstance(result, Awaitable) else result
        if answer:
            return answer
        if late:
            raise _failure(predicate, deadline_s, answer)
        await asyncio.sleep(pause_s)
        pause_s = _next_pause_s(pause_s)
