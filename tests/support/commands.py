"""Commands that a test runs, in an environment that is the same whoever runs it."""

import os
import subprocess
from collections.abc import Mapping, Sequence


def output_of(argv: Sequence[str], env: Mapping[str, str], timeout_s: float = 30) -> str:
    """What an administrator's command prints.

    Raises:
        AssertionError: It failed.
    """
    result = subprocess.run(
        argv, env=env, capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, f"{' '.join(argv)} exited with {result.returncode}: {result.stderr.strip()}"
    return result.stdout


def plain_environment() -> dict[str, str]:
    """The same for daemons and users, whoever runs this."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "HOME": "/",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
