"""Whether somebody goes on answering while something else happens."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

_PERIOD_S = 0.01
_LEAST_BOUND_S, _BOUND_FACTOR = 1.0, 20


@dataclass(slots=True)
class Heartbeat:
    """The slowest of the answers to questions asked in a row."""

    slowest_s: float = 0.0

    def bound_s(self) -> float:
        """What a loaded machine may take at most, where this was measured without load: a busy machine is slow for everybody."""
        return max(_LEAST_BOUND_S, _BOUND_FACTOR * self.slowest_s)


@asynccontextmanager
async def heartbeat(ask: Callable[[], Awaitable[object]]) -> AsyncIterator[Heartbeat]:
    """Asks again and again inside the block; a question that has no answer yet at its end counts as far as it got."""
    beat = Heartbeat()
    asked = time.monotonic()

    async def ask_on() -> None:
        nonlocal asked
        while True:
            asked = time.monotonic()
            await ask()
            beat.slowest_s = max(beat.slowest_s, time.monotonic() - asked)
            await asyncio.sleep(_PERIOD_S)
            # The loop itself may have been held up.
            beat.slowest_s = max(beat.slowest_s, time.monotonic() - asked - _PERIOD_S)

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask_on())
        try:
            yield beat
        finally:
            asking.cancel()
