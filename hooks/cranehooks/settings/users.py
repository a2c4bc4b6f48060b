"""Whose jobs run, and with what: words of the configuration file about users, and the limits that their tasks take over."""

from enum import Enum
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from cranehooks.model.job import SOFT_LIMITS
from cranehooks.settings.schema import word_parser
from cranehooks.settings.values import parse_names, shown


class UnknownUser(Enum):
    """What a node does with a job of a user it has no account of."""

    REFUSE = "refuse"
    RUN = "run"


class MissingHome(Enum):
    """What it means that a user has no home on the node."""

    FAIL = "fail"
    IGNORE = "ignore"


def parse_limits(value: object) -> frozenset[str]:
    """`all`, `none`, or names of limits in any case, with or without `RLIMIT_`."""
    if isinstance(value, frozenset):
        return value
    names = [name.upper().removeprefix("RLIMIT_") for name in parse_names(value)]
    if names == ["ALL"]:
        return frozenset(SOFT_LIMITS)
    if names == ["NONE"]:
        return frozenset()
    if unknown := [name for name in names if name not in SOFT_LIMITS]:
        msg = f"expected all, none, or some of {', '.join(SOFT_LIMITS)}, not {shown(unknown[0])}"
        raise ValueError(msg)
    return frozenset(names)


def _words(words: type[Enum]) -> WithJsonSchema:
    return WithJsonSchema({"enum": [word.value for word in words]})


UnknownUsers = Annotated[UnknownUser, BeforeValidator(word_parser(UnknownUser)), _words(UnknownUser)]
MissingHomes = Annotated[MissingHome, BeforeValidator(word_parser(MissingHome)), _words(MissingHome)]
PropagatedLimits = Annotated[
    frozenset[str], BeforeValidator(parse_limits), PlainSerializer(sorted), WithJsonSchema({"type": ["string", "array"]})
]
