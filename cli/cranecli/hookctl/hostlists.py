"""Hostlists as they are typed, and node lists as they are shown."""

from collections.abc import Mapping
from typing import Any

from cranecli.hookctl.failure import CommandError, ExitCode
from cranekit import hostlist


def checked(text: str) -> str:
    """The hostlist itself, after a look at its form, so that a slip is told before anything is sent."""
    if not text:
        return ""
    try:
        hostlist.expand(text)
    except ValueError as error:
        message = f"{text!r} is not a hostlist: {error}"
        raise CommandError(message, ExitCode.USAGE) from error
    return text


def folded(answer: Mapping[str, Any]) -> str:  # a JSON object
    """The nodes of an answer as one hostlist."""
    return hostlist.fold([str(name) for name in answer.get("nodes") or ()])
