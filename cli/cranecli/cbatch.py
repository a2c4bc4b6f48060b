"""cbatch: submits a script that runs when its resources are free."""

from __future__ import annotations

import signal
import sys

from cranecli import exits
from cranecli.front.attention import ENDING, Attention
from cranecli.front.client import FrontClient, FrontError
from cranecli.front.conversation import SUBMIT_PATIENCE_S, Conversation, InterruptedFrontError
from cranecli.front.descriptors import give_up_stdout, hold_standard_descriptors, print_text
from cranecli.front.job_watch import COMPLETED, FINAL_STATES, JobWatch, ending_of, exit_code_of, job_of
from cranecli.front.status_line import StatusLine
from cranecli.submission.batch_script import BatchScript, BatchScriptError, from_command, from_words, option_lines
from cranecli.submission.options import JobOptions, UsageError, apply, check_command, fail_usage, help_text, limit_nodes, parse
from cranecli.submission.requests import environment_for, job_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cranecli.front.client import Body

PROGRAM = "cbatch"
_USAGE = "cbatch [OPTIONS] SCRIPT [ARGUMENT]...\n       cbatch [OPTIONS] --wrap COMMAND\n       cbatch [OPTIONS] < SCRIPT"
_PURPOSE = (
    "Submits SCRIPT (- or nothing: from stdin) as a job. Lines `#CBATCH OPTIONS` at its beginning are read as options;\n"
    "those of the command line win."
)
_EPILOGUE = (
    "Exit status: 0 submitted; 1 refused; 2 wrong usage; 3 no daemon or controller reached. With --wait the job's own (128+n for\n"
    "signal n; the highest of an array's), 1 when it did not run, 130 when interrupted: the job goes on then."
)


def main() -> int:
    """Entry point."""
    hold_standard_descriptors()
    options, script = _read_command_line(sys.argv[1:])
    if options.is_help_wanted:
        return print_text(PROGRAM, help_text(PROGRAM, _USAGE, _PURPOSE, _EPILOGUE))
    if options.is_version_wanted:
        from cranecli.version import version_text

        return print_text(PROGRAM, version_text(PROGRAM))
    assert script is not None
    status = StatusLine(PROGRAM)
    try:
        with Attention(*ENDING, signal.SIGCONT) as attention, FrontClient.connect() as client:
            talk = Conversation(client, attention, status)
            job_ids = _submit(talk, options, script)
            if not _tell(talk, options, job_ids):
                return exits.FAILED
            return _wait(talk, job_ids) if options.wait else exits.OK
    except FrontError as error:
        status.say(f"error: {error}")
        return error.exit_code
    except InterruptedFrontError as error:
        return error.exit_code


def _read_command_line(words: Sequence[str]) -> tuple[JobOptions, BatchScript | None]:
    options = JobOptions()
    try:
        assignments, rest = parse(PROGRAM, words)
        apply(assignments, options)
        if options.is_help_wanted or options.is_version_wanted:
            return options, None
        check_command(rest)
        script = _script(options, rest)
        # The command line is applied once more, over the script's lines.
        apply([*option_lines(script), *assignments], options)
        limit_nodes(PROGRAM, options)
    except UsageError as error:
        fail_usage(PROGRAM, error)
    except BatchScriptError as error:
        sys.stderr.write(f"{PROGRAM}: error: {error}\n")
        raise SystemExit(exits.FAILED) from error
    return options, script


def _script(options: JobOptions, rest: Sequence[str]) -> BatchScript:
    if options.wrap is None:
        return from_words(rest)
    if rest:
        raise UsageError(f"--wrap takes the place of a script, got {rest[0]!r} as well")
    return from_command(options.wrap)


def _submit(talk: Conversation, options: JobOptions, script: BatchScript) -> list[int]:
    body = job_request("JOB_KIND_BATCH", options, environment_for(PROGRAM, options), script.name)
    body["spec"].update(script=script.text, script_name=script.name, script_arguments=script.arguments)
    # Repeated without harm by its request id; a controller that restarts is back before people are.
    try:
        answer = talk.ask("SubmitJob", body, patience_s=SUBMIT_PATIENCE_S)
    except FrontError as error:
        if error.code == "DEADLINE_EXCEEDED":
            talk.status.say("warning: it may have been submitted all the same: hookctl jobs tells")
        raise
    return [int(job_id) for job_id in answer["job_ids"]]


def _tell(talk: Conversation, options: JobOptions, job_ids: Sequence[int]) -> bool:
    """Prints what was submitted; whether that was possible."""
    if options.parsable:
        text = ",".join(map(str, job_ids))
    elif len(job_ids) == 1:
        text = f"Submitted batch job {job_ids[0]}"
    else:
        text = f"Submitted batch jobs {_ranges(job_ids)}"
    try:
        print(text, flush=True)
    except OSError as error:
        give_up_stdout()
        talk.status.say(f"error: submitted job {_ranges(job_ids)}, but cannot write that to stdout: {error.strerror}")
        return False
    return True


def _wait(talk: Conversation, job_ids: Sequence[int]) -> int:
    """Until all have ended; the highest of their exit codes."""
    codes = [0]
    for job_id in job_ids:
        watch = JobWatch(talk.client, job_id, is_bound=False)
        try:
            codes.append(_wait_for(talk, watch, job_id))
        finally:
            watch.close()
    return max(codes)


def _wait_for(talk: Conversation, watch: JobWatch, job_id: int) -> int:
    while True:
        update = watch.take()
        if update is not None:
            job = job_of(update)
            if watch.is_final or job.get("state") in FINAL_STATES:
                talk.status.clear()
                return _final_code(talk, job_id, job)
            talk.status.show(_state_text(job_id, job, update))
            continue
        if watch.lost is not None:
            talk.status.show(f"job {job_id}: {watch.lost.message}; trying again")
        talk.raise_if_interrupted()
        talk.turn(watch.due_s())


def _final_code(talk: Conversation, job_id: int, job: Body) -> int:
    code = exit_code_of(job.get("exit"))
    if job.get("state") == COMPLETED:
        return code
    talk.status.say(f"job {job_id} {ending_of(job)}")
    return code or exits.FAILED


def _state_text(job_id: int, job: Body, update: Body) -> str:
    state = str(job.get("state", "")).removeprefix("JOB_STATE_").lower()
    cause = update.get("waiting_for") or (job.get("reason") if state in {"pending", "held"} else "")
    nodes = f" on {','.join(job.get('nodes') or ())}" if state == "running" else ""
    return f"job {job_id} {state}{nodes}" + (f": {cause}" if cause else "")


def _ranges(numbers: Sequence[int]) -> str:
    """`42-51`: an array's ids follow one another."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))
