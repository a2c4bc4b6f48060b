"""Follows one job for as long as it lives, through restarts of the local daemon and of the controller."""

from __future__ import annotations

import time

from cranecli.front.client import FrontError, FrontUnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cranecli.front.client import Body, FrontClient, FrontStream

_RETRY_FIRST_S = 0.25
_RETRY_LONGEST_S = 5.0
PASSING_CODES = frozenset(
    {"UNAVAILABLE", "ABORTED", "INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "RESOURCE_EXHAUSTED"}
)
"""What may pass by itself; every other refusal is final."""

RUNNING = "JOB_STATE_RUNNING"
COMPLETED = "JOB_STATE_COMPLETED"
FINAL_STATES = frozenset(
    {COMPLETED, "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_TIMED_OUT", "JOB_STATE_NODE_FAIL"},
)


class JobWatch:
    """The updates of one job. `take` never waits; the owner's loop calls it when the client has received something, or `due_s` has passed."""

    def __init__(self, client: FrontClient, job_id: int, *, is_bound: bool) -> None:
        """Starts to follow. `is_bound`: the job is cancelled when this program is gone."""
        self._client = client
        self._job_id = job_id
        self._is_bound = is_bound
        self._retry_at: float | None = None
        self._pause_s = _RETRY_FIRST_S
        self.lost: FrontError | None = None
        """Why there is no contact now."""
        self.is_final = False
        """The last update has been taken: the job is over."""
        self._stream: FrontStream | None = None
        self._follow()

    def due_s(self) -> float | None:
        """Seconds until `take` should be called even if nothing comes."""
        return None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def take(self) -> Body | None:
        """An update (a FollowJobResponse) that has come, or None.

        Raises:
            FrontError: the controller refuses for good, for example because it does not know the job.
        """
        if self._retry_at is not None:
            if time.monotonic() < self._retry_at:
                return None
            self._reconnect()
        if self._stream is None:
            return None
        try:
            update = self._stream.take()
        except FrontError as error:
            self._lose(error)
            return None
        if update is None:
            if self._stream.is_ended and not self.is_final:
                self._lose(FrontUnavailableError("the controller has ended its report of the job"))
            return None
        self.lost = None
        self._pause_s = _RETRY_FIRST_S
        self.is_final = bool(update.get("final"))
        return update

    def close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def _follow(self) -> None:
        self._stream = self._client.stream("FollowJob", {"job_id": str(self._job_id), "bind": self._is_bound})

    def _reconnect(self) -> None:
        self._retry_at = None
        try:
            if self._client.is_broken:
                self._client.reconnect()
            self._follow()
        except FrontError as error:
            self._lose(error)

    def _lose(self, error: FrontError) -> None:
        if error.code not in PASSING_CODES:
            raise error
        self._stream = None
        self.lost = error
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(_RETRY_LONGEST_S, self._pause_s * 2)


def job_of(update: Body) -> Body:
    """The JobStatus in an update."""
    job: Body = update.get("job") or {}
    return job


def ending_of(job: Body) -> str:
    """How a job that did not simply run ended, for a person: `cancelled: PrologFailed on cn01`."""
    state = str(job.get("state", "")).removeprefix("JOB_STATE_").lower().replace("_", " ")
    reason = str(job.get("reason", ""))
    return f"{state}: {reason}" if reason else state


def exit_code_of(status: Body | None) -> int:
    """An ExitStatus as a shell reports it."""
    if not status:
        return 0
    signal_number = int(status.get("signal", 0))
    return 128 + signal_number if signal_number else int(status.get("code", 0))
