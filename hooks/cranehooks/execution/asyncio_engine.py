"""An engine on an asyncio event loop."""

import asyncio
from types import TracebackType
from typing import Self

from cranehooks.execution.engine import Engine, OnScriptStarted, OnStderr
from cranehooks.model.ids import RunId
from cranehooks.model.run import HookRun, RunSpec


class AsyncEngine:
    """Drives an `Engine` from the running loop: `async with AsyncEngine(Engine(containment)) as engine`.

    Leaving the context kills what still runs and closes the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # The engine's deadlines are read against the clock that fires them.
        self._loop.add_reader(self._engine.fileno(), self._turn)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.remove_reader(self._engine.fileno())
        if self._timer is not None:
            self._timer.cancel()
        # Every run was awaited by someone who has gone by now; what is left gets no grace.
        self._engine.close()

    @property
    def active(self) -> frozenset[RunId]:
        return self._engine.active

    async def run(self, spec: RunSpec, on_started: OnScriptStarted | None = None, on_stderr: OnStderr | None = None) -> HookRun:
        """Run a hook to its end; see `Engine.start` for what is told on the way.

        Cancellation stops the run (TERM, grace, KILL) and waits until it has ended; a second one kills it now.

        Raises:
            ValueError: a run of that key is under way.
        """
        done: asyncio.Future[HookRun] = self._loop.create_future()
        self._engine.start(spec, done.set_result, on_started, on_stderr)
        self._arm()
        cancellations = 0
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError:
                cancellations += 1
                self.stop(spec.key.run_id, now=cancellations > 1)
        if cancellations:
            raise asyncio.CancelledError
        return done.result()

    def stop(self, run_id: RunId, *, now: bool = False) -> bool:
        """See `Engine.stop`."""
        is_under_way = self._engine.stop(run_id, now=now)
        self._arm()
        return is_under_way

    def _turn(self) -> None:
        self._engine.poll(0.0)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._engine.next_deadline()
        # Loop and engine both read time.monotonic.
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._turn)
