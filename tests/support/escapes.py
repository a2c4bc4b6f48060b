"""What a script may try in order to get away, or to take the machine with it: one table for every suite that tries it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cranehooks.model.limits import LimitKind, Limits
from cranehooks.testing.faulty_scripts import HookScripts

_PYTHON = f"#!{sys.executable} -IS"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Escape:
    """One attempt."""

    name: str
    lines: tuple[str, ...]
    outcome: str
    """How the script ends, as outcomes are written."""
    limits: Limits | None = None
    leaves: bool = False
    """Somebody is found when the script has ended."""
    output: str = ""
    """What it is heard to say."""
    time_s: float = 60.0
    """It is terminated after this time, and killed a moment later."""
    is_python: bool = False
    is_heavy: bool = False
    """It keeps a core busy for seconds."""

    @property
    def needs(self) -> frozenset[LimitKind]:
        """Limits without which the attempt is not to be made."""
        return self.limits.kinds if self.limits is not None else frozenset()

    def write(self, files: HookScripts) -> str:
        """The script's path."""
        name = self.name.replace(" ", "-").replace("/", "_").replace(",", "")
        return files.write(name, *self.lines, interpreter=_PYTHON if self.is_python else "#!/bin/sh")


_SLEEP = "sleep 3600"


def _children(number: int) -> tuple[str, ...]:
    # Two at a time, so that a limit of processes does not end it.
    return ("i=0", f"while [ $i -lt {number} ]; do (:) & (:) & wait; i=$((i + 2)); done")


ESCAPES = (
    Escape("double fork", (f"( ( {_SLEEP} & ) & )",), "ok", leaves=True),
    Escape("setsid", (f"setsid {_SLEEP} < /dev/null > /dev/null 2>&1 &",), "ok", leaves=True),
    Escape("nohup", (f"nohup {_SLEEP} > /dev/null 2>&1 &",), "ok", leaves=True),
    Escape("pipe held open", (f"( trap '' TERM HUP; exec {_SLEEP} ) &", "echo gone"), "ok", leaves=True, output="gone"),
    Escape("TERM ignored", ("trap '' TERM", f"while :; do {_SLEEP}; done"), "timeout after 1 s", time_s=1),
    Escape("TERM answered with success", ("trap 'exit 0' TERM", f"{_SLEEP} & wait"), "timeout after 1 s", time_s=1),
    Escape("stopped process", ("kill -STOP $$",), "timeout after 1 s", time_s=1),
    Escape("stopped, TERM ignored", ("trap '' TERM", "kill -STOP $$", _SLEEP), "timeout after 1 s", time_s=1),
    Escape(
        "zombie parent",
        ("import os, time", "for _ in range(20):", "    if os.fork() == 0: os._exit(0)", "time.sleep(3600)"),
        "timeout after 1 s", time_s=1, is_python=True,
    ),
    Escape(
        "leader gone, thread alive",
        ("import ctypes, threading, time", "threading.Thread(target=time.sleep, args=(3600,)).start()", "ctypes.CDLL(None).syscall(60, 0)")
        if os.uname().machine == "x86_64" else ("import time", "time.sleep(3600)"),
        "timeout after 1 s", time_s=1, is_python=True,
    ),
    Escape("10,000 short-lived children", _children(10_000), "ok", is_heavy=True),
    Escape("output flood", ("head -c 50000000 /dev/zero | tr '\\0' x | fold -w 80", "echo", "echo over"), "ok", output="over", is_heavy=True),
    Escape("/proc/self/cgroup read", ("cat /proc/self/cgroup",), "ok", output="0::/"),
    Escape(
        "fork bomb under a pids limit",
        ("import os", "while True:", "    try: os.fork()", "    except OSError: pass"),
        "timeout after 1 s", Limits(pids=40), time_s=1, is_python=True,
    ),
    Escape(
        "memory hog under a limit",
        ("held = []", "while True: held.append(bytearray(1 << 20))"),
        "signal 9 (KILL)", Limits(memory_bytes=48 * MIB, swap_bytes=0), is_python=True,
    ),
)  # fmt: skip


def processes_with(variables: Mapping[str, str]) -> dict[int, str]:
    """Living processes that have these in their environment, wherever they are: pid and command."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    found = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            if wanted <= set((path / "environ").read_bytes().split(b"\0")):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found
