"""Runs the real front ends as processes of their own against a daemon of the test."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SOCKET_VARIABLE = "CRANE_FRONT_SOCKET"


def command(program: str, *words: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import sys; from cranecli.{program} import main; sys.argv[0] = {program!r}; sys.exit(main())",
        *words,
    ]


def environment(socket: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CRANE_", "SLURM_"))}
    return {**kept, SOCKET_VARIABLE: str(socket), **(extra or {})}


def run(
    socket: Path,
    program: str,
    *words: str,
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(program, *words),
        input=stdin,
        capture_output=True,
        env=environment(socket, extra),
        timeout=60,
        check=False,
        cwd=cwd,
    )


def start(socket: Path, program: str, words: Sequence[str], extra: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(program, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(socket, extra),
    )
