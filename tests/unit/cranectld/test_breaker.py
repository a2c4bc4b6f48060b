from cranectld.nodes.breaker import DrainBudget
from cranehooks.model.ids import NodeName


def node(number: int) -> NodeName:
    return NodeName(f"cn{number:02}")


def test_third_node_trips_and_nothing_more_is_drained() -> None:
    budget = DrainBudget(2, 3600)

    assert [budget.charge("d", "s", node(n), 1.0).drains for n in (1, 2)] == [True, True]
    third = budget.charge("d", "s", node(3), 1.0)
    assert (third.drains, third.trips) == (False, True)
    again = budget.charge("d", "s", node(1), 2.0)
    assert (again.drains, again.trips) == (False, False)
    assert [breaker.digest for breaker in budget.tripped()] == ["d"]


def test_same_node_is_charged_once() -> None:
    budget = DrainBudget(1, 3600)

    assert budget.charge("d", "s", node(1), 1.0).drains
    assert budget.charge("d", "s", node(1), 1.0).drains
    assert not budget.charge("d", "s", node(2), 2.0).drains


def test_charges_leave_the_window() -> None:
    budget = DrainBudget(1, 60)
    budget.charge("d", "s", node(1), 1.0)

    assert budget.charge("d", "s", node(2), 62.0).drains


def test_scripts_have_budgets_of_their_own() -> None:
    budget = DrainBudget(1, 60)
    budget.charge("d", "s", node(1), 1.0)

    assert budget.charge("e", "s", node(2), 1.0).drains


def test_reset_by_prefix() -> None:
    budget = DrainBudget(0, 60)
    budget.charge("abc", "s", node(1), 1.0)
    budget.charge("xyz", "t", node(1), 1.0)

    assert [breaker.digest for breaker in budget.reset("ab", 1.0)] == ["abc"]
    assert [breaker.digest for breaker in budget.tripped()] == ["xyz"]
