"""Job ids, states and hostlists as they are typed."""

import re

from cranecli.hookctl.failure import CommandError, ExitCode

MOST_JOBS = 10_000
"""Of one command: more is a slip of the hand."""

ACTIVE_STATES = ("pending", "configuring", "running", "completing", "held")
ENDED_STATES = ("completed", "failed", "cancelled", "timed_out", "node_fail")
STATES = (*ACTIVE_STATES, *ENDED_STATES)
_GROUPS = {"active": ACTIVE_STATES, "ended": ENDED_STATES}


def job_number(text: str) -> str:
    """One job id, as the wire has it."""
    if re.fullmatch(r"[1-9][0-9]{0,18}", text) is None:
        message = f"{text!r} is not a job id: expected a number such as 42"
        raise CommandError(message, ExitCode.USAGE)
    return text


def job_numbers(texts: list[str]) -> list[str]:
    """Job ids; `40-45` and `1,2` are understood."""
    numbers: list[str] = []
    for part in ",".join(texts).split(","):
        first, dash, last = part.partition("-")
        start, end = int(job_number(first)), int(job_number(last if dash else first))
        if end < start or end - start >= MOST_JOBS or len(numbers) + end - start >= MOST_JOBS:
            message = f"{part!r}: expected a range that grows, and at most {MOST_JOBS} jobs in all"
            raise CommandError(message, ExitCode.USAGE)
        numbers += [str(number) for number in range(start, end + 1)]
    return numbers


def job_states(text: str) -> list[str]:
    """Names of job states as the wire has them, from `running,held`, `active` or `ended`."""
    wanted: list[str] = []
    for word in filter(None, (part.strip().lower().replace("-", "_") for part in text.split(","))):
        if word in _GROUPS:
            wanted += _GROUPS[word]
            continue
        known = next((state for state in STATES if state.replace("_", "") == word.replace("_", "")), None)
        if known is None:
            message = f"unknown state {word!r}: expected active, ended, or some of {', '.join(STATES)}"
            raise CommandError(message, ExitCode.USAGE)
        wanted.append(known)
    return [f"JOB_STATE_{state.upper()}" for state in wanted]


def node_name(text: str) -> str:
    """One node's name."""
    from cranehooks.model.ids import is_node_name

    if not is_node_name(text):
        message = f"{text!r} is not the name of a node"
        raise CommandError(message, ExitCode.USAGE)
    return text
