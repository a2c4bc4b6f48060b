"""Exit statuses of the front ends, the same in each."""

OK = 0
FAILED = 1
"""Refused, or a hook failed, or the job did not run."""
USAGE = 2
UNREACHABLE = 3
"""No local daemon, or it does not reach the controller."""
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended."""
SIGNALLED = 128
"""Plus the number of the signal that ended a task, or this program."""
