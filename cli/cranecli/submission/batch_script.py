"""The script of a batch job: read, judged, and searched for its #CBATCH lines."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from cranecli.submission.options import UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cranecli.submission.options import Assignment

LARGEST_BYTES = 4 << 20
MARKER = "#CBATCH"


class BatchScriptError(Exception):
    """The script cannot be run. The message says which, and what was expected."""


class BatchScript:
    """A script that may be submitted."""

    __slots__ = ("arguments", "name", "text")

    def __init__(self, name: str, text: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.text = text
        self.arguments = list(arguments)


def from_command(command: str) -> BatchScript:
    """`--wrap`: a script that runs one shell command."""
    return BatchScript("wrap", f"#!/bin/sh\n# This script was made by cbatch --wrap.\n\n{command}\n", [])


def from_words(words: Sequence[str]) -> BatchScript:
    """The script named on the command line with its arguments; stdin for `-` and for nothing.

    Raises:
        BatchScriptError: it cannot be read, or is no script.
    """
    path = words[0] if words else "-"
    if path == "-":
        name, content = "stdin", sys.stdin.buffer.read(LARGEST_BYTES + 1)
    else:
        name, content = Path(path).name, _read(path)
    return BatchScript(name, _checked("the script on stdin" if path == "-" else path, content), words[1:])


def option_lines(script: BatchScript) -> list[Assignment]:
    """What the script's #CBATCH lines set: those before its first line that is neither a comment nor blank.

    Raises:
        UsageError: a line is wrong; the message names it.
    """
    found: list[Assignment] = []
    for number, line in enumerate(script.text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            break
        if not line.startswith(MARKER) or line[len(MARKER) :][:1].strip():
            continue
        where = f"{script.name}:{number}"
        try:
            words = shlex.split(line[len(MARKER) :], comments=True)
            assignments, rest = parse("cbatch", words, in_script=True)
        except (UsageError, ValueError) as error:
            raise UsageError(f"{where}: {error}") from error
        if rest:
            raise UsageError(f"{where}: expected options, got {rest[0]!r}")
        found += assignments
    return found


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise BatchScriptError(f"cannot read the batch script {path}: it is a directory")
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BatchScriptError(f"cannot read the batch script {path}: {error.strerror}") from error


def _checked(name: str, content: bytes) -> str:
    if not content.strip():
        raise BatchScriptError(f"{name} is empty: expected a script")
    if len(content) > LARGEST_BYTES:
        raise BatchScriptError(f"{name} is larger than {LARGEST_BYTES >> 20} MiB")
    if not content.startswith(b"#!"):
        raise BatchScriptError(
            f"{name} does not look like a batch script: its first line must start with #! followed by the path of an interpreter, "
            "for instance #!/bin/sh (--wrap takes a command)"
        )
    first_line = content.split(b"\n", 1)[0]
    if first_line.endswith(b"\r"):
        raise BatchScriptError(f"{name} has DOS line breaks (\\r\\n): convert it, for example with dos2unix")
    if b"\0" in content:
        raise BatchScriptError(f"{name} holds a NUL byte: expected a text, not a program")
    if not first_line[2:].strip().startswith(b"/"):
        raise BatchScriptError(f"{name} names no interpreter by its absolute path in its first line")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BatchScriptError(f"{name} is not UTF-8 (byte {error.start})") from error
