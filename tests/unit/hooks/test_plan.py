"""Order of scripts, by profile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.plan import PatternMatch, Plan, PlanFailure, order_scripts
from cranehooks.profiles import PROFILES

DIRECTORY = PatternMatch("/p.d/*", tuple(f"/p.d/{name}" for name in ("00-x", "10-a", "2-b", "B.sh", "Z", "_x", "a.sh", "z", "é")))
SINGLE = PatternMatch("/b/first.sh", ("/b/first.sh",))

GOLDEN = {
    "crane-requeue": "/p.d/é /p.d/z /p.d/a.sh /p.d/_x /p.d/Z /p.d/B.sh /p.d/2-b /p.d/10-a /p.d/00-x /b/first.sh",
    "crane-fail": "/p.d/é /p.d/z /p.d/a.sh /p.d/_x /p.d/Z /p.d/B.sh /p.d/2-b /p.d/10-a /p.d/00-x /b/first.sh",
    "slurm": "/b/first.sh /p.d/é /p.d/z /p.d/a.sh /p.d/_x /p.d/Z /p.d/B.sh /p.d/2-b /p.d/10-a /p.d/00-x",
    "sunk": "/b/first.sh /p.d/00-x /p.d/10-a /p.d/2-b /p.d/B.sh /p.d/Z /p.d/_x /p.d/a.sh /p.d/z /p.d/é",
}


@pytest.mark.parametrize("profile", PROFILES)
def test_order(profile: str) -> None:
    assert order_scripts(PROFILES[profile], [SINGLE, DIRECTORY]) == Plan(tuple(GOLDEN[profile].split()))


@pytest.mark.parametrize(
    ("profile", "fails"), [("crane-requeue", False), ("crane-fail", False), ("slurm", True), ("sunk", False)]
)
def test_a_pattern_without_match(profile: str, fails: bool) -> None:
    plan = order_scripts(PROFILES[profile], [SINGLE, PatternMatch("/empty.d/*", ())])
    if fails:
        assert isinstance(plan, PlanFailure)
        assert "/empty.d/*" in plan.reason
    else:
        assert plan == Plan(("/b/first.sh",))


@pytest.mark.parametrize("profile", PROFILES)
def test_no_pattern_is_no_hook(profile: str) -> None:
    assert order_scripts(PROFILES[profile], []) == Plan(())


@pytest.mark.parametrize("profile", PROFILES)
def test_a_script_matched_twice_runs_once(profile: str) -> None:
    plan = order_scripts(PROFILES[profile], [PatternMatch("/a/*", ("/a/1", "/a/2")), PatternMatch("/a/1", ("/a/1",))])
    assert isinstance(plan, Plan)
    assert sorted(plan.scripts) == ["/a/1", "/a/2"]


def test_names_that_are_no_utf8_compare_by_their_bytes() -> None:
    raw = b"/d/\xff".decode("utf-8", "surrogateescape")
    assert order_scripts(PROFILES["sunk"], [PatternMatch("/d/*", (raw, "/d/é", "/d/z"))]) == Plan(("/d/z", "/d/é", raw))


PATHS = st.lists(st.text(min_size=1, alphabet=st.characters(blacklist_categories=["Cs"])), unique=True).map(tuple)


@given(st.lists(PATHS, max_size=4), st.sampled_from(sorted(PROFILES)))
def test_every_match_is_planned_once(groups: list[tuple[str, ...]], profile: str) -> None:
    found = [PatternMatch(str(number), group) for number, group in enumerate(groups)]
    plan = order_scripts(PROFILES[profile], found)
    if isinstance(plan, PlanFailure):
        assert not all(groups)
    else:
        assert len(plan.scripts) == len(set(plan.scripts))
        assert set(plan.scripts) == {path for group in groups for path in group}
