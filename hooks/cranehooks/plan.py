"""In which order the scripts of a hook run, by profile; a pattern that matched nothing may be the hook's failure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from cranehooks.profiles import EmptyPattern, Profile, ScriptOrder


@dataclass(frozen=True, slots=True)
class PatternMatch:
    """A pattern of the configuration and the files it matched when the run began (a literal path matches itself)."""

    pattern: str
    matches: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    """Files of a directory that are no scripts, each with why: `README (name)`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The scripts of one run in their order, each once; empty: there is no hook."""

    scripts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """For a person: what was passed over."""
    keeps: frozenset[str] = frozenset()
    """Those of the scripts that may leave processes behind."""


@dataclass(frozen=True, slots=True)
class PlanFailure:
    """The hook fails before any script runs; the profile says so."""

    reason: str
    """For a person, one line."""


def order_scripts(profile: Profile, found: Sequence[PatternMatch]) -> Plan | PlanFailure:
    """The scripts in the order they run.

    Paths compare as bytes, directories included, whatever the locale: lower case before upper case before digits when
    descending. A file that several patterns match runs once, where it comes first.
    """
    if profile.empty_pattern is EmptyPattern.FAILS and (empty := [match.pattern for match in found if not match.matches]):
        return PlanFailure(
            f"no file matches {', '.join(empty)} (profile {profile.name}: a pattern that matches nothing fails the hook)"
        )
    notes = tuple(
        _readable(f"passed over in {match.pattern}: {', '.join(match.passed_over)}") for match in found if match.passed_over
    )
    return Plan(tuple(dict.fromkeys(_ordered(profile.order, [match.matches for match in found]))), notes)


def _readable(text: str) -> str:
    """Names that are no UTF-8 become something that can be written down."""
    return text.encode("utf-8", "replace").decode()


def _ordered(order: ScriptOrder, groups: Sequence[Sequence[str]]) -> list[str]:
    match order:
        case ScriptOrder.REVERSE_LIST:
            return _sorted(chain.from_iterable(groups), descending=True)
        case ScriptOrder.REVERSE_WITHIN_PATTERN:
            return [path for group in groups for path in _sorted(group, descending=True)]
        case ScriptOrder.ASCENDING:
            return _sorted(chain.from_iterable(groups), descending=False)


def _sorted(paths: Iterable[str], *, descending: bool) -> list[str]:
    # Names that are no UTF-8 arrive with surrogates, which give back the bytes they stand for.
    return sorted(paths, key=lambda path: path.encode("utf-8", "surrogateescape"), reverse=descending)
