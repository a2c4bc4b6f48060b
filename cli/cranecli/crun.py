"""crun: runs a command as parallel tasks, in an allocation of its own or in the one it is called in."""

from __future__ import annotations

import os
import signal
import sys

from cranecli import exits
from cranecli.front.attention import ENDING, Attention
from cranecli.front.client import FrontClient, FrontError
from cranecli.front.conversation import Conversation, InterruptedFrontError, NotStartedError
from cranecli.front.descriptors import hold_standard_descriptors, print_text
from cranecli.front.status_line import StatusLine
from cranecli.submission.options import (
    JobOptions,
    UsageError,
    apply,
    apply_environment,
    check_command,
    fail_usage,
    help_text,
    limit_nodes,
    parse,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "crun"
_USAGE = "crun [OPTIONS] COMMAND [ARGUMENT]..."
_PURPOSE = (
    "Runs COMMAND as the tasks of a step, with their output here and stdin going to task 0. Within an allocation (calloc, cbatch) the\n"
    "step uses its resources; elsewhere a job is made for it."
)
_EPILOGUE = (
    "Exit status: the highest of the tasks' (128+n for one that signal n killed); 1 refused, or a hook failed; 2 wrong usage;\n"
    "3 no daemon or controller reached; 130 interrupted.\n"
    "CRANE_PROLOG, CRANE_EPILOG, CRANE_TASK_PROLOG and CRANE_TASK_EPILOG (or SLURM_…) stand in for the options of these names.\n"
    "Ctrl-C tells how the tasks are; twice within a second ends the step."
)
_SIGNALS = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)


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
    # Reading the terminal from the background gives an error in place of a stop.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    try:
        with Attention(*_SIGNALS) as attention, FrontClient.connect() as client:
            from cranecli.step.launch import Launch

            return Launch(Conversation(client, attention, status), options, argv).run()
    except (NotStartedError, FrontError) as error:
        status.say(f"error: {error}")
        return error.exit_code if isinstance(error, FrontError) else exits.FAILED
    except InterruptedFrontError as error:
        return error.exit_code


def _read_command_line(words: Sequence[str]) -> tuple[JobOptions, list[str]]:
    options = JobOptions()
    try:
        assignments, argv = parse(PROGRAM, words)
        given = {assignment.attribute for assignment in assignments}
        # A variable that is wrong does not matter where an option stands in its place.
        apply_environment(PROGRAM, os.environ, options, given)
        apply(assignments, options)
        limit_nodes(PROGRAM, options)
        check_command(argv)
    except UsageError as error:
        fail_usage(PROGRAM, error)
    if not (argv or options.is_help_wanted or options.is_version_wanted):
        fail_usage(PROGRAM, UsageError("no command to run"))
    return options, argv
