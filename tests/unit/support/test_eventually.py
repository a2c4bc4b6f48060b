"""eventually: answers, deadlines, errors."""

from collections.abc import Callable

import pytest

from tests.support.eventually import NeverTrueError, eventually, eventually_async


def answers(*values: object) -> Callable[[], object]:
    """A predicate that gives these answers, one per call."""
    remaining = iter(values)
    return lambda: next(remaining)


def test_returns_the_first_true_answer() -> None:
    assert eventually(answers(None, 0, "", "ready", "later")) == "ready"


def test_a_true_answer_counts_even_when_the_deadline_has_passed() -> None:
    assert eventually(answers("ready"), deadline_s=0) == "ready"


def test_says_what_it_waited_for_and_the_last_answer() -> None:
    def node_is_up() -> list[str]:
        return []

    with pytest.raises(NeverTrueError, match=r"node_is_up did not hold within 0\.01 s; its last answer was \[\]"):
        eventually(node_is_up, deadline_s=0.01)


def test_lets_an_error_of_the_predicate_through() -> None:
    def broken() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        eventually(broken)


async def test_async_with_a_plain_predicate() -> None:
    assert await eventually_async(answers(None, 7)) == 7


async def test_async_with_a_coroutine() -> None:
    remaining = iter([0, 0, 3])

    async def count() -> int:
        return next(remaining)

    assert await eventually_async(count) == 3


async def test_async_gives_up_at_the_deadline() -> None:
    with pytest.raises(NeverTrueError, match="last answer was False"):
        await eventually_async(lambda: False, deadline_s=0.01)
