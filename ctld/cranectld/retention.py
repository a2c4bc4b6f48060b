"""Forgets what is older than the settings want it kept, a little at a time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cranectld.controller import Controller
from cranectld.store import Expiry, StoreError

_log = structlog.get_logger()

LONGEST_PAUSE_S = 300.0
SHORTEST_PAUSE_S = 0.5
BETWEEN_BATCHES_S = 0.05
"""The writer has other things to write."""


@dataclass(frozen=True, slots=True)
class RetentionTimes:
    """Seconds that things are kept; None: for ever."""

    jobs_s: float | None
    events_s: float | None
    requests_s: float | None

    def expiry(self, now: float) -> Expiry:
        """What is to be forgotten at a time (seconds since the epoch)."""

        def before(kept_s: float | None) -> float:
            return 0.0 if kept_s is None else max(0.0, now - kept_s)

        return Expiry(before(self.jobs_s), before(self.events_s), before(self.requests_s))

    @property
    def pause_s(self) -> float:
        """Between two looks: short beside the shortest time, so that nothing stays much longer than it should."""
        shortest = min(
            (kept_s for kept_s in (self.jobs_s, self.events_s, self.requests_s) if kept_s is not None), default=LONGEST_PAUSE_S
        )
        return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, shortest / 10))


class Retention:
    """`run` must be running for anything to be forgotten."""

    def __init__(self, controller: Controller, times: Callable[[], RetentionTimes]) -> None:
        """`times` is asked at each look: a reload changes it."""
        self._controller = controller
        self._times = times

    async def run(self) -> None:
        """Looks again and again, until cancelled. A store that cannot be written is tried again at the next look."""
        while True:
            expiry = self._times().expiry(self._controller.clock.now())
            self._controller.expire(expiry)
            try:
                is_more = True
                while is_more:
                    is_more = await self._controller.store.expire(expiry)
                    await asyncio.sleep(BETWEEN_BATCHES_S)
            except StoreError as error:
                _log.info("retention.postponed", error=error.message)
            await asyncio.sleep(self._times().pause_s)
