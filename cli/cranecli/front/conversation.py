"""A front end's talk with the controller, which its user may interrupt at any moment."""

from __future__ import annotations

import select
import signal
import time

from cranecli import exits
from cranecli.front.attention import ENDING
from cranecli.front.client import CALL_TIMEOUT_S, FrontError
from cranecli.front.job_watch import FINAL_STATES, RUNNING, ending_of, job_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cranecli.front.attention import Attention
    from cranecli.front.client import Body, FrontClient, FrontStream
    from cranecli.front.job_watch import JobWatch
    from cranecli.front.status_line import StatusLine

PATIENCE_S = 60.0
"""How long a call that must succeed is repeated while the controller is away: a job depends on it."""
SUBMIT_PATIENCE_S = 15.0
"""The same before there is a job: nothing is lost then but the time of who waits."""
SILENT_FOR_S = 1.0
"""An answer that takes longer is worth a word."""
QUEUE_PATIENCE_S = 120.0
"""How long a full queue is waited for: as long as sbatch does."""
LAST_WORDS_PATIENCE_S = 10.0
_RETRY_FIRST_S = 0.1
_RETRY_LONGEST_S = 2.0


class InterruptedFrontError(Exception):
    """A signal asked this program to give up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        return exits.SIGNALLED + self.number


class NotStartedError(Exception):
    """The job ended before it ran. The message says why."""


class Conversation:
    """One connection, the signals and the status line of one front end."""

    def __init__(self, client: FrontClient, attention: Attention, status: StatusLine) -> None:
        self.client = client
        self.attention = attention
        self.status = status

    def turn(self, timeout_s: float | None, wanted: Mapping[int, int] | None = None) -> dict[int, int]:
        """Waits for something to happen: an answer, a signal, one of the `wanted` descriptors (with its poll mask), or the time.

        Returns:
            The wanted descriptors that are ready. Answers are in their streams then, signals in `attention`.
        """
        due_s = [seconds for seconds in (timeout_s, self.status.due_s()) if seconds is not None]
        poll = select.poll()
        poll.register(self.attention.fileno(), select.POLLIN)
        client_fd = -1
        if not self.client.is_broken:
            client_fd = self.client.fileno()
            poll.register(client_fd, select.POLLIN)
        for fd, mask in (wanted or {}).items():
            poll.register(fd, mask)
        # Rounded up, so that nothing is due a moment after it has been looked at.
        ready = dict(poll.poll(min(due_s) * 1000 + 1 if due_s else None))
        if client_fd in ready:
            self.client.receive()
        self.status.refresh()
        return {fd: mask for fd, mask in ready.items() if wanted and fd in wanted}

    def ask(self, method: str, body: Body, *, patience_s: float = PATIENCE_S) -> Body:
        """Makes a call that may be repeated without harm, until it is answered. Says what it waits for, and for how long.

        Raises:
            FrontError: it was refused, or the controller stayed away.
            InterruptedFrontError: the user has lost patience.
        """
        begun = time.monotonic()
        pause_s = _RETRY_FIRST_S
        is_told = False
        while True:
            try:
                if self.client.is_broken:
                    self.client.reconnect()
                remaining_s = begun + patience_s - time.monotonic()
                return self.answer(method, self.client.stream(method, body), max(1.0, min(CALL_TIMEOUT_S, remaining_s)))
            except FrontError as error:
                limit_s = QUEUE_PATIENCE_S if _is_full(error) else patience_s
                wait_s = max(pause_s, error.retry_after_s or 0.0)
                if not (error.code == "UNAVAILABLE" or _is_full(error)) or time.monotonic() + wait_s > begun + limit_s:
                    raise
                if not is_told:
                    is_told = True
                    self.status.say(f"{error.message}; trying again for {limit_s:.0f} s")
            self._pause(wait_s)
            pause_s = min(_RETRY_LONGEST_S, pause_s * 2)

    def ask_for_room(self, method: str, body: Body, sent: FrontStream, *, patience_s: float) -> Body:
        """The answer to a call that was sent already. Only a full queue is waited for, by making the call again; raises as `ask`."""
        try:
            return self.answer(method, sent, patience_s)
        except FrontError as error:
            if not _is_full(error):
                raise
            self.status.say(f"{error.message}; trying again for {QUEUE_PATIENCE_S:.0f} s")
            self._pause(error.retry_after_s or _RETRY_LONGEST_S)
        return self.ask(method, body, patience_s=patience_s)

    def tell(self, method: str, body: Body) -> None:
        """Says one of the last things; if nobody hears it, a warning is all there is to be done. Signals wait."""
        deadline = time.monotonic() + LAST_WORDS_PATIENCE_S
        try:
            if self.client.is_broken:
                self.client.reconnect()
            self.client.call(method, body, timeout_s=deadline - time.monotonic())
        except FrontError as error:
            self.status.say(f"warning: {method}: {error.message}")

    def await_running(self, watch: JobWatch, job_id: int) -> Body:
        """Waits until the job runs; says meanwhile what it waits for.

        Returns:
            Its JobStatus.

        Raises:
            NotStartedError: it has ended before.
            FrontError: the controller does not know it (any more).
            InterruptedFrontError: a signal came.
        """
        was_queued = False
        while True:
            update = watch.take()
            if update is not None:
                job = job_of(update)
                state = job.get("state")
                if state == RUNNING:
                    if was_queued and self.status.was_shown:
                        self.status.say(f"job {job_id} has been allocated resources")
                    self.status.clear()
                    return job
                if watch.is_final or state in FINAL_STATES:
                    self.status.clear()
                    raise NotStartedError(f"job {job_id} {ending_of(job)}")
                was_queued = True
                self.status.show(_waiting_text(job_id, job, update))
                continue
            if watch.lost is not None:
                self.status.show(f"job {job_id}: {watch.lost.message}; trying again")
            self.raise_if_interrupted()
            self.turn(watch.due_s())

    def raise_if_interrupted(self) -> None:
        """Raises InterruptedFrontError: a signal that asks to give up has come."""
        for number in self.attention.take():
            if number in ENDING:
                self.status.clear()
                raise InterruptedFrontError(number)

    def answer(self, method: str, stream: FrontStream, timeout_s: float = CALL_TIMEOUT_S) -> Body:
        """Waits for the answer to a call that has been sent; raises as `ask`."""
        deadline = time.monotonic() + timeout_s
        tell_at: float | None = time.monotonic() + SILENT_FOR_S
        while True:
            answer = stream.take()
            if answer is not None:
                return answer
            if stream.is_ended:
                return {}
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                stream.cancel()
                raise FrontError("DEADLINE_EXCEEDED", f"{method}: no answer from the controller within {timeout_s:.0f} s")
            if tell_at is not None and time.monotonic() >= tell_at:
                tell_at = None
                self.status.say(f"{method}: waiting for the controller's answer, for at most {remaining_s:.0f} s")
            self.raise_if_interrupted()
            self.turn(remaining_s if tell_at is None else min(remaining_s, SILENT_FOR_S))

    def _pause(self, pause_s: float) -> None:
        deadline = time.monotonic() + pause_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            self.raise_if_interrupted()
            self.turn(remaining_s)


def _is_full(error: FrontError) -> bool:
    """Whether the controller has no room now, and has said when to come again."""
    return error.code == "RESOURCE_EXHAUSTED" and error.retry_after_s is not None


def _waiting_text(job_id: int, job: Body, update: Body) -> str:
    cause = update.get("waiting_for") or job.get("reason") or ""
    match job.get("state"):
        case "JOB_STATE_HELD":
            text = f"job {job_id} is held"
        case "JOB_STATE_CONFIGURING":
            text = f"job {job_id} is being prepared"
        case "JOB_STATE_COMPLETING":
            text = f"job {job_id} is ending"
        case _:
            text = f"job {job_id} queued and waiting for resources"
    return f"{text}: {cause}" if cause else text
