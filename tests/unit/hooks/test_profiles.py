"""The profiles and their flags are consistent data."""

import pytest

from cranehooks.profiles import (
    DEFAULT_PROFILE,
    IMPLIED_FLAGS,
    PROFILES,
    EmptyPattern,
    PrologFlag,
    ScriptOrder,
    SharedTimeout,
    TimeoutCover,
    profile_named,
    with_implied,
)

A, C, F, N, R, S = (
    PrologFlag.ALLOC,
    PrologFlag.CONTAIN,
    PrologFlag.FORCE_REQUEUE_ON_FAIL,
    PrologFlag.NO_HOLD,
    PrologFlag.RUN_IN_JOB,
    PrologFlag.SERIAL,
)

GOLDEN = {
    "crane-requeue": (
        ScriptOrder.REVERSE_LIST,
        TimeoutCover.LIST,
        SharedTimeout.OVERRIDES,
        60,
        EmptyPattern.NO_HOOK,
        {A, C, F, N, R, S},
    ),
    "crane-fail": (ScriptOrder.REVERSE_LIST, TimeoutCover.LIST, SharedTimeout.OVERRIDES, 60, EmptyPattern.NO_HOOK, {C, R, S}),
    "slurm": (
        ScriptOrder.REVERSE_WITHIN_PATTERN,
        TimeoutCover.SCRIPT,
        SharedTimeout.DEFAULT,
        300,
        EmptyPattern.FAILS,
        set(PrologFlag),
    ),
    "sunk": (ScriptOrder.ASCENDING, TimeoutCover.SCRIPT, SharedTimeout.DEFAULT, 300, EmptyPattern.NO_HOOK, set(PrologFlag)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_table(name: str) -> None:
    profile = PROFILES[name]
    assert GOLDEN[name] == (
        profile.order,
        profile.timeout_cover,
        profile.shared_timeout,
        profile.default_timeout_s,
        profile.empty_pattern,
        set(profile.flags),
    )


def test_names() -> None:
    assert list(PROFILES) == list(GOLDEN)
    assert all(profile.name == name for name, profile in PROFILES.items())
    assert profile_named(DEFAULT_PROFILE).name == "crane-requeue"


@pytest.mark.parametrize("flag", PrologFlag)
def test_implications_are_complete(flag: PrologFlag) -> None:
    implied = with_implied(frozenset({flag}))
    assert with_implied(implied) == implied
    assert flag not in IMPLIED_FLAGS.get(flag, frozenset())


def test_implied_flags() -> None:
    assert with_implied(frozenset({R})) == {R, C, A}
    assert with_implied(frozenset({S})) == {S}
    assert with_implied(frozenset()) == frozenset()
