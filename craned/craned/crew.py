"""The tasks of a running daemon, which all end together."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Crew:
    """Tasks of one group. An error in any of them ends them all; `dismiss` ends them in peace."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_dismissed = False

    def start(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        """Begins work that nobody waits for; after `dismiss` it is cancelled before its first step."""
        self._keep(self._group.create_task(work, name=name))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Work that goes on when the caller is cancelled; returns what it returns, raises what it raises to the caller alone."""
        task = self._group.create_task(_settled(work))
        self._keep(task)
        result, error = await asyncio.shield(task)
        if error is not None:
            raise error
        return cast("T", result)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_dismissed:
            task.cancel()

    def dismiss(self) -> None:
        """Cancels everything under way; the group then ends when all of it has."""
        self._is_dismissed = True
        for task in self._tasks:
            task.cancel()


async def _settled(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    """A result or an error, so that the caller's error does not end the group."""
    try:
        return await work, None
    except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
        return None, error
