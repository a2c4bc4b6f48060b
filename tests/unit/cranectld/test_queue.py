"""Who waits, in which order, and until when."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cranectld.jobs.model import Job, JobState
from cranectld.queue import JobQueue
from cranehooks.model.ids import JobId
from tests.unit.cranectld.builders import job

STATES = list(JobState)


def in_state(number: int, state: JobState, not_before: float = 0.0) -> Job:
    return replace(job(), job_id=JobId(number), state=state, not_before=not_before)


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(STATES), st.sampled_from([0.0, 5.0, 9.0]))))
def test_it_is_what_a_look_at_all_jobs_would_find(changes: list[tuple[int, JobState, float]]) -> None:
    queue = JobQueue()
    jobs: dict[int, Job] = {}
    for number, state, not_before in changes:
        changed = in_state(number, state, not_before)
        queue.changed(jobs.get(number), changed)
        jobs[number] = changed
        pending = [jobs[known] for known in sorted(jobs) if jobs[known].state is JobState.PENDING]
        assert list(queue.pending) == pending
        assert queue.waiting == sum(known.state.is_waiting for known in jobs.values())
    later = [known.not_before for known in jobs.values() if known.state is JobState.PENDING and known.not_before > 5.0]
    assert queue.next_due(5.0) == min(later, default=None)


def test_a_delayed_job_is_due_once() -> None:
    queue = JobQueue()
    queue.changed(None, in_state(1, JobState.PENDING, 5.0))
    assert queue.next_due(4.0) == 5.0
    assert queue.next_due(5.0) is None
