"""Waiting times between attempts: exponential, with full jitter and a cap. Pure but for the random numbers."""

import random


class Backoff:
    """One sequence of waits. `reset` after a success."""

    def __init__(self, first_s: float, cap_s: float, factor: float = 2.0) -> None:
        """Waits grow from `first_s` by `factor` up to `cap_s`; each is drawn between a half and the whole of that."""
        self._first_s = first_s
        self._cap_s = cap_s
        self._factor = factor
        self._attempt = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        limit_s = min(self._cap_s, self._first_s * self._factor**self._attempt)
        if limit_s < self._cap_s:
            self._attempt += 1
        return limit_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        self._attempt = 0
