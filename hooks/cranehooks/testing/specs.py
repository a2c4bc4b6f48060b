"""Builders of runs for tests."""

import itertools
from typing import Any

from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, RunSpec

_JOB_IDS = itertools.count(1)


def prolog_spec(*scripts: str, **options: Any) -> RunSpec:  # Any: fields of RunSpec
    """A Prolog of a job of its own, with a minute's time."""
    key = HookKey(HookPoint.PROLOG, JobId(next(_JOB_IDS)), Attempt(1), NodeName("cn01"))
    defaults: dict[str, Any] = {"environment": {"CRANE_JOB_ID": "42"}, "timeout_s": 60.0, "key": key}  # Any: fields of RunSpec
    return RunSpec(scripts=scripts, **{**defaults, **options})
