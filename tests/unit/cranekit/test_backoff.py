"""Waits between attempts: they grow, stay within their bounds, and begin anew after a success."""

from hypothesis import given
from hypothesis import strategies as st

from cranekit.backoff import Backoff


@given(st.floats(0.001, 10), st.floats(1, 4), st.integers(1, 200))
def test_waits_stay_between_a_half_and_the_whole_of_their_step(first_s: float, factor: float, attempts: int) -> None:
    cap_s = first_s * 20
    backoff = Backoff(first_s, cap_s, factor)
    for attempt in range(attempts):
        step_s = min(cap_s, first_s * factor**attempt)
        assert step_s * 0.499 <= backoff.next_s() <= step_s * 1.001


def test_it_ends_at_the_cap_and_begins_anew() -> None:
    backoff = Backoff(1.0, 4.0)
    for _ in range(2000):
        assert backoff.next_s() <= 4.0
    assert backoff.next_s() >= 2.0
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_a_cap_below_the_first_wait_holds() -> None:
    assert Backoff(10.0, 1.0).next_s() <= 1.0
