"""Turns that are taken one at a time, in the order they were asked for: the hooks of a node under the flag Serial."""

import asyncio
from collections import deque
from enum import Enum


class Turn(Enum):
    """How waiting for a turn ended."""

    TAKEN = "taken"
    STOPPED = "stopped"
    TOO_LATE = "too late"


class Turns:
    """First come, first served. Whoever has taken a turn gives it back."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[Turn]] = deque()

    async def take(self, stop: asyncio.Event, limit_s: float | None) -> Turn:
        """Waits for a turn, until `stop` is set or the limit is over. Cancelling gives up the place, or the turn."""
        if stop.is_set():
            return Turn.STOPPED
        if not self._is_taken:
            self._is_taken = True
            return Turn.TAKEN
        place: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_leave(place, stop, limit_s))
                turn = await asyncio.shield(place)
                watcher.cancel()
        except asyncio.CancelledError:
            if not place.done():
                place.set_result(Turn.STOPPED)
            elif place.result() is Turn.TAKEN:
                self.give_back()
            raise
        return turn

    def give_back(self) -> None:
        """The next one in line, if any, has its turn."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(Turn.TAKEN)
                return
        self._is_taken = False


async def _leave(place: asyncio.Future[Turn], stop: asyncio.Event, limit_s: float | None) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await stop.wait()
        turn = Turn.STOPPED
    except TimeoutError:
        turn = Turn.TOO_LATE
    if not place.done():
        place.set_result(turn)
