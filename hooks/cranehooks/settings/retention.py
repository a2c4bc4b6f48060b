"""Section `Retention`: how long the controller keeps what is over."""

from typing import Annotated

from pydantic import Field

from cranehooks.settings.section import Section
from cranehooks.settings.values import Age


class RetentionSection(Section):
    """Section `Retention`. A time is a number of seconds, or `30d`, `12h`, `15m`, `45s`, or `UNLIMITED`.

    What is older goes a little at a time. Jobs that have not ended stay with all their history, whatever their age.
    """

    jobs: Age = 30 * 86400.0
    """How long a job is kept after its end, for `hookctl job` and `hookctl explain`. Default 30d."""
    events: Age = 90 * 86400.0
    """How long the events of jobs and nodes are kept, with the outcomes and the output of hooks: the larger part of the file. Default
    90d."""
    requests: Age = 86400.0
    """How long a submission is remembered by its request id, so that a repeat does not submit a second job. Default 1d: no client tries
    for longer."""
    max_requests: Annotated[int, Field(ge=1000, le=10_000_000)] = 100_000
    """How many of them are remembered at most. Default 100000."""
