"""Identifiers of the domain, one type each, so that a job id is never passed where a step id is meant."""

import re
from dataclasses import dataclass
from typing import NewType

JobId = NewType("JobId", int)
"""Number of a job, given by the controller, never reused."""

Attempt = NewType("Attempt", int)
"""Which try of a job this is: 1 for the first allocation, one more after every requeue."""

StepId = NewType("StepId", str)
"""`batch`, `extern`, or the decimal number of a crun step: `0`, `1`, …"""

TaskId = NewType("TaskId", int)
"""Rank of a task in its step, over all nodes, from 0."""

NodeName = NewType("NodeName", str)
"""A node's name in the configuration (not necessarily its host name)."""

RunId = NewType("RunId", str)
"""One run of one hook; unique in the cluster: see `HookKey.run_id`."""

BATCH_STEP = StepId("batch")
EXTERN_STEP = StepId("extern")

_NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")


def is_node_name(text: str) -> bool:
    """Whether `text` may name a node: letters, digits, `_ . -`, at most 64 characters, no separator at either end."""
    return _NODE_NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class AttemptKey:
    """One attempt of one job: the key under which every message about it is idempotent."""

    job_id: JobId
    attempt: Attempt

    def __str__(self) -> str:
        return f"{self.job_id}.{self.attempt}"


@dataclass(frozen=True, slots=True, order=True)
class StepKey:
    """One step of one attempt."""

    job_id: JobId
    attempt: Attempt
    step_id: StepId

    @property
    def attempt_key(self) -> AttemptKey:
        return AttemptKey(self.job_id, self.attempt)

    def __str__(self) -> str:
        return f"{self.job_id}.{self.attempt}.{self.step_id}"
