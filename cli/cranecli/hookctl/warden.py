"""The ancestor of a local cluster's processes: starts them for a launcher, and leaves none behind, however the launcher ends.

A process of its own, because whoever is a child subreaper adopts every orphan below it: here these are the cluster's processes and nothing
else, so all of them may be killed. Its parent talks to it over a socket, one JSON object per line:

    {"start": NAME, "argv": […], "env": {…}, "log": PATH}    → {"started": NAME, "pid": 42}
    {"signal": NAME, "number": 15}                           → (nothing)
    {"stop": 10.0}     TERM, this many seconds, KILL         → {"stopped": 0}, the number that had to be killed; then it exits
                                                   at any time {"ended": NAME, "status": WAIT_STATUS}

The end of the socket stops everything, too.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

ORPHAN_GRACE_S = 10.0
"""From TERM to KILL when the launcher is gone."""
UNKILLABLE_AFTER_S = 30.0
"""From the first KILL to giving up on what survives it (a process in a hanging file system)."""
_PR_SET_CHILD_SUBREAPER = 36
_DEVNULL = "/dev/null"


class Warden:
    """Owns the cluster's processes until the last is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[str, int] = {}
        self._buffer = b""
        self._stop_grace_s: float | None = None

    def run(self) -> None:
        """Serves the launcher until told to stop, or until it is gone."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._ask_to_stop())
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while self._stop_grace_s is None:
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        self._receive()
                    else:
                        _drain(wake_read)
                self._reap()
            self._stop(selector, wake_read, self._stop_grace_s)

    def _ask_to_stop(self) -> None:
        self._stop_grace_s = ORPHAN_GRACE_S

    def _receive(self) -> None:
        data = self._control.recv(1 << 16)
        if not data:
            self._ask_to_stop()
            return
        self._buffer += data
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if "start" in order:
            self._start(order["start"], order["argv"], order["env"], order["log"])
        elif "signal" in order:
            self._signal(order["signal"], order["number"])
        elif "stop" in order:
            self._stop_grace_s = float(order["stop"])

    def _start(self, name: str, argv: list[str], env: dict[str, str], log: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, _DEVNULL, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE],
            )
        except OSError as error:
            self._say({"refused": name, "message": f"cannot start {argv[0]}: {error.strerror}"})
            return
        self._pids[name] = pid
        self._say({"started": name, "pid": pid})

    def _signal(self, name: str, number: int) -> None:
        if name in self._pids:
            os.kill(self._pids[name], number)

    def _say(self, message: dict[str, object]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # The launcher is gone, which the next read tells, too.
            self._ask_to_stop()

    def _reap(self) -> bool:
        """Collects what has ended; False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            name = next((name for name, known in self._pids.items() if known == pid), None)
            if name is not None:
                del self._pids[name]
                self._say({"ended": name, "status": status})

    def _stop(self, selector: selectors.BaseSelector, wake_read: int, grace_s: float) -> None:
        selector.unregister(self._control)
        for name in list(self._pids):
            self._signal(name, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._reap() and self._pids and time.monotonic() < deadline:
            if selector.select(timeout=deadline - time.monotonic()):
                _drain(wake_read)
        killed: set[int] = set()
        # Every pass kills what is below this process; orphans of the killed come to it and fall in the next pass.
        deadline = time.monotonic() + UNKILLABLE_AFTER_S
        while self._reap() and time.monotonic() < deadline:
            doomed = descendants(os.getpid())
            killed |= doomed
            for pid in doomed:
                _kill(pid)
            if selector.select(timeout=0.2):
                _drain(wake_read)
        self._say({"stopped": len(killed)})


def descendants(ancestor: int) -> set[int]:
    """Pids of all processes below `ancestor`, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    frontier = [ancestor]
    while frontier:
        for pid in children.get(frontier.pop(), []):
            if pid not in found:
                found.add(pid)
                frontier.append(pid)
    return found


def _parent(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # It ended while this looked.
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Gone already, or a set-uid program of a user: its end comes with its parent's.
        return


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def main() -> None:
    """Entry point of `python -m cranecli.hookctl.warden FD`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")
    Warden(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
