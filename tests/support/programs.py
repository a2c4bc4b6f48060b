"""Starts the project's programs as processes of their own and ends them again, by pid."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.eventually import eventually_async

START_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0


@dataclass(slots=True)
class Program:
    """A running daemon, and what it said of itself when it was ready."""

    process: subprocess.Popen[bytes]
    ready: Mapping[str, str]
    log: Path

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def running(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    *,
    user: int | None = None,
    interpreter: str = sys.executable,
) -> AsyncIterator[Program]:
    """Runs `python -m <name>.main` until the end of the block, as `user` if one is given; waits for its ready file.

    Raises:
        AssertionError: it ended before it was ready; the message holds its log.
    """
    ready_file = directory / f"{name}.{os.urandom(4).hex()}.ready"
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - a test
            [interpreter, "-m", f"{name}.main", *arguments, "--ready-file", str(ready_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{log.read_text()}"
            return ready_file.exists()

        await eventually_async(is_ready, deadline_s=START_WITHIN_S)
        yield Program(process, json.loads(ready_file.read_text()), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{name} did not stop on SIGTERM:\n{log.read_text()[-3000:]}") from None
