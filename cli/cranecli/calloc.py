"""calloc: gets an allocation and runs a shell, or a command, in which crun makes steps."""

from __future__ import annotations

import os
import signal
import sys
import time

from cranecli import exits
from cranecli.front.attention import ENDING, Attention
from cranecli.front.client import FrontClient, FrontError
from cranecli.front.conversation import SUBMIT_PATIENCE_S, Conversation, InterruptedFrontError, NotStartedError
from cranecli.front.descriptors import hold_standard_descriptors, print_text
from cranecli.front.job_watch import FINAL_STATES, JobWatch, ending_of, job_of
from cranecli.front.status_line import StatusLine
from cranecli.submission.options import JobOptions, UsageError, apply, fail_usage, help_text, limit_nodes, parse
from cranecli.submission.requests import job_request, working_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cranecli.foreground import ForegroundChild
    from cranecli.front.client import Body

PROGRAM = "calloc"
_USAGE = "calloc [OPTIONS] [COMMAND [ARGUMENT]...]"
_PURPOSE = "Gets an allocation and runs COMMAND, or a shell, in which crun makes steps. The allocation ends with it."
_EPILOGUE = (
    "Exit status: COMMAND's (128+n when signal n killed it); 1 refused or revoked; 2 wrong usage; 3 no daemon or controller reached;\n"
    "126, 127 COMMAND cannot be run; 130 interrupted while waiting."
)
LAST_WORDS_S = 2.0
"""From the revocation to TERM where the allocation has had steps: time for crun to say what ended them, and for its shell to see it."""
REVOKED_GRACE_S = 5.0
"""From TERM to KILL for the command of a revoked allocation."""


def main() -> int:
    """Entry point."""
    hold_standard_descriptors()
    options, argv = _read_command_line(sys.argv[1:])
    if options.is_help_wanted:
        return print_text(PROGRAM, help_text(PROGRAM, _USAGE, _PURPOSE, _EPILOGUE))
    if options.is_version_wanted:
        from cranecli.version import version_text

        return print_text(PROGRAM, version_text(PROGRAM))
    status = StatusLine(PROGRAM)
    try:
        with Attention(*ENDING, signal.SIGCONT, signal.SIGCHLD) as attention, FrontClient.connect() as client:
            return Allocation(Conversation(client, attention, status), options, argv).run()
    except (NotStartedError, FrontError) as error:
        status.say(f"error: {error}")
        return error.exit_code if isinstance(error, FrontError) else exits.FAILED
    except InterruptedFrontError as error:
        return error.exit_code


class Allocation:
    """One allocation, from its request to its release."""

    def __init__(self, talk: Conversation, options: JobOptions, argv: Sequence[str]) -> None:
        self._talk = talk
        self._options = options
        self._argv = list(argv) or [os.environ.get("SHELL") or "/bin/sh"]

    def run(self) -> int:
        """Raises NotStartedError, FrontError and InterruptedFrontError where the command was not run."""
        talk = self._talk
        site = talk.client.stream("LaunchHooks")
        # Steps bring the environment of their crun.
        request = job_request("JOB_KIND_ALLOCATION", self._options, {}, "interactive")
        sent = talk.client.stream("SubmitJob", request)
        submitted = talk.ask_for_room("SubmitJob", request, sent, patience_s=SUBMIT_PATIENCE_S)
        job_id = int(submitted["job_ids"][0])
        facts = talk.answer("LaunchHooks", site)
        watch = JobWatch(talk.client, job_id, is_bound=True)
        try:
            job = talk.await_running(watch, job_id)
            talk.status.say(f"Granted job allocation {job_id}")
            code = self._run_command(job_id, job, facts, watch)
        except InterruptedFrontError as error:
            talk.status.say(f"interrupted: job {job_id} is cancelled")
            self._complete(job_id, {"code": exits.FAILED}, str(error))
            raise
        except FrontError as error:
            self._complete(job_id, {"code": exits.FAILED}, error.message)
            raise
        finally:
            watch.close()
        return code

    def _run_command(self, job_id: int, job: Body, site: Body, watch: JobWatch) -> int:
        from cranecli.allocated_job import job_of
        from cranecli.foreground import CannotRunError, ForegroundChild
        from cranehooks.environment import allocation_environment

        allocated = job_of(job, str(site.get("cluster", "")))
        environment = {**os.environ, **allocation_environment(allocated, slurm=bool(site.get("slurm_compatible_env")))}
        try:
            child = ForegroundChild(self._argv, environment, working_directory(self._options))
        except CannotRunError as error:
            self._talk.status.say(f"error: {error}")
            self._complete(job_id, {"code": error.exit_code}, "")
            return error.exit_code
        with child:
            revoked = self._await_end(child, watch)
        if revoked:
            self._talk.status.say(f"error: job {job_id} {revoked}: the allocation has been revoked")
            return exits.FAILED
        self._talk.status.say(f"Relinquishing job allocation {job_id}")
        self._complete(job_id, child.exit_status, "")
        return child.exit_code

    def _await_end(self, child: ForegroundChild, watch: JobWatch) -> str:
        """Until the command has ended; why the allocation was revoked, if it was."""
        revoked = ""
        end_at: float | None = None
        while not child.is_over:
            left_s = None if end_at is None else max(0.0, end_at - time.monotonic())
            due_s = [seconds for seconds in (watch.due_s(), child.due_s(), left_s) if seconds is not None]
            self._talk.turn(min(due_s, default=None))
            child.advance()
            if end_at is not None and time.monotonic() >= end_at:
                end_at = None
                child.end(REVOKED_GRACE_S)
            for number in self._talk.attention.take():
                if number == signal.SIGCONT:
                    child.resume()
                elif number != signal.SIGCHLD:
                    child.signal(number)
            while (update := watch.take()) is not None:
                job = job_of(update)
                is_over = watch.is_final or job.get("state") in FINAL_STATES or job.get("state") != "JOB_STATE_RUNNING"
                if is_over and not revoked and not child.is_over:
                    revoked = ending_of(job)
                    # Who runs its steps is told by the nodes, and tells the user before the signal comes.
                    end_at = time.monotonic() + (LAST_WORDS_S if job.get("steps") else 0.0)
        return revoked

    def _complete(self, job_id: int, exit_status: Body, cancel_reason: str) -> None:
        self._talk.tell("CompleteAllocation", {"job_id": str(job_id), "exit": exit_status, "cancel_reason": cancel_reason})


def _read_command_line(words: Sequence[str]) -> tuple[JobOptions, list[str]]:
    options = JobOptions()
    try:
        assignments, argv = parse(PROGRAM, words)
        apply(assignments, options)
        limit_nodes(PROGRAM, options)
    except UsageError as error:
        fail_usage(PROGRAM, error)
    return options, argv
