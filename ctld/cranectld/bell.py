"""Wakes everybody who waits for a change, without a queue: watchers look at the state themselves."""

import asyncio


class Bell:
    """Take a ticket, look at the state, then await the ticket: a ring in between is not missed."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        return self._next

    def ring(self) -> None:
        rung, self._next = self._next, asyncio.Event()
        rung.set()
