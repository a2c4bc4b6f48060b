"""The jobs that wait, in the order of their ids, so that a long queue costs no more than what is looked at of it. Pure."""

from bisect import bisect_left
from collections.abc import Sequence

from cranectld.jobs.model import Job, JobState
from cranehooks.model.ids import JobId


class JobQueue:
    """Told of every change of a job; knows who is pending, and how many are pending or held."""

    def __init__(self) -> None:
        self._ids: list[JobId] = []
        self._jobs: list[Job] = []
        self._delayed: dict[JobId, float] = {}
        self.waiting = 0
        """How many are pending or held: what MaxQueuedJobs bounds."""

    @property
    def pending(self) -> Sequence[Job]:
        """By id; as it is now, so it changes with the next job that does."""
        return self._jobs

    def changed(self, old: Job | None, new: Job) -> None:
        """A job came, or is another one now."""
        was_pending = old is not None and old.state is JobState.PENDING
        is_pending = new.state is JobState.PENDING
        self.waiting += new.state.is_waiting - (old is not None and old.state.is_waiting)
        if was_pending or is_pending:
            place = bisect_left(self._ids, new.job_id)
            if was_pending and is_pending:
                self._jobs[place] = new
            elif is_pending:
                self._ids.insert(place, new.job_id)
                self._jobs.insert(place, new)
            else:
                del self._ids[place], self._jobs[place]
        self._delayed.pop(new.job_id, None)
        if is_pending and new.not_before > 0:
            self._delayed[new.job_id] = new.not_before

    def next_due(self, now: float) -> float | None:
        """When the next delayed job may be placed (seconds since the epoch), if one may not be yet."""
        for job_id in [job_id for job_id, due in self._delayed.items() if due <= now]:
            del self._delayed[job_id]
        return min(self._delayed.values(), default=None)
