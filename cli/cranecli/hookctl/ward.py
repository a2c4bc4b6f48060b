"""The launcher's side of the warden: starts it, gives it orders, and hears from it what has ended."""

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STOP_MARGIN_S = 35.0
"""What the warden may need beyond the grace: it gives up on what survives KILL after 30 s."""


class WardError(Exception):
    """The warden refused an order, or is gone."""


class Ward:
    """Processes in the care of a warden: all of them end when this is closed, or when this process is gone."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            self._warden = subprocess.Popen(
                [sys.executable, "-m", "cranecli.hookctl.warden", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Its own session, so that an interrupt on the terminal reaches the launcher only.
                start_new_session=True,
                cwd="/",
            )
            undo.pop_all()
        self._socket = ours
        self._buffer = b""
        self._started: dict[str, int] = {}
        """Pid of the last start of each, also when it has ended since."""
        self._running: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._leftovers: int | None = None

    @property
    def pids(self) -> Mapping[str, int]:
        """Of what runs, as far as it has been heard."""
        return dict(self._running)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Starts a process in a session of its own; returns its pid."""
        self._ended.pop(name, None)
        self._started.pop(name, None)
        self._order({"start": name, "argv": list(argv), "env": dict(env), "log": str(log)})
        deadline = time.monotonic() + 10
        while name not in self._started:
            if not self.listen(deadline - time.monotonic()):
                message = f"the warden did not start {argv[0]} within 10 s"
                raise WardError(message)
        return self._started[name]

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a process, if it still runs."""
        self._order({"signal": name, "number": number})

    def status_of(self, name: str) -> int | None:
        """The wait status of a process that has ended; None while it runs."""
        self.listen(0)
        return self._ended.get(name)

    def wait(self, name: str, timeout_s: float) -> int | None:
        """Waits until a process has ended; its wait status, or None when the time is over."""
        deadline = time.monotonic() + timeout_s
        while name not in self._ended:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self.listen(remaining):
                break
        return self._ended.get(name)

    def listen(self, timeout_s: float) -> bool:
        """Takes in what the warden says; False when nothing came in time."""
        heard = False
        wait_s = max(timeout_s, 0.0)
        while select.select([self._socket], [], [], wait_s)[0]:
            data = self._socket.recv(1 << 16)
            if not data:
                message = "the warden of the cluster is gone, and so are its processes"
                raise WardError(message)
            self._buffer += data
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                self._hear(json.loads(line))
                heard = True
            wait_s = 0.0 if heard else max(timeout_s, 0.0)
            if self._leftovers is not None:
                break
        return heard

    def close(self, grace_s: float = 10.0) -> int:
        """Ends everything: TERM, the grace, KILL. Returns how many processes had to be killed. A repeat does nothing."""
        if self._warden.returncode is not None:
            return self._leftovers or 0
        with contextlib.suppress(OSError):  # It is gone already, and so is what it cared for.
            self._order({"stop": grace_s})
        deadline = time.monotonic() + grace_s + _STOP_MARGIN_S
        with contextlib.suppress(WardError):
            while self._leftovers is None and time.monotonic() < deadline:
                self.listen(deadline - time.monotonic())
        self._socket.close()
        try:
            self._warden.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._warden.kill()
            self._warden.wait()
        self._running.clear()
        return self._leftovers or 0

    def _order(self, order: dict[str, object]) -> None:
        self._socket.sendall(json.dumps(order).encode() + b"\n")

    def _hear(self, message: dict[str, Any]) -> None:  # the values of a JSON object are of any JSON type
        if "started" in message:
            self._started[message["started"]] = self._running[message["started"]] = message["pid"]
        elif "ended" in message:
            self._running.pop(message["ended"], None)
            self._ended[message["ended"]] = message["status"]
        elif "refused" in message:
            raise WardError(message["message"])
        elif "stopped" in message:
            self._leftovers = message["stopped"]
