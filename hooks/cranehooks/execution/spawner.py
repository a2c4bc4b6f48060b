"""The hook spawner: a small process that runs hooks for a daemon too large, too threaded or too precious to fork.

`python -m cranehooks.execution.spawner --fd N` serves the stream socket N until the daemon closes it, which ends every
run (TERM, grace, KILL). It imports the standard library and this package only.
"""

import argparse
import contextlib
import gc
import os
import select
import signal
import socket
import sys
from pathlib import Path

from cranehooks.execution import spawner_messages as messages
from cranehooks.execution import syscalls
from cranehooks.execution.containment.cells import Containment
from cranehooks.execution.containment.detect import ContainmentUnavailableError, detect
from cranehooks.execution.engine import Engine
from cranehooks.model.run import HookRun, ScriptStarted
from cranekit import crash_points
from cranekit.frames import FrameBuffer

_READ_BYTES = 1 << 16
_EXIT_USAGE = 2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Spawner:
    """Serves one daemon over one socket."""

    def __init__(self, connection: socket.socket, engine: Engine) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._engine = engine
        self._incoming = FrameBuffer()
        self._outgoing = bytearray()
        self._is_connected = True
        """Whether reports can still arrive."""
        self._is_winding_up = False
        """Whether the daemon said its last word, or this process is told to end."""
        self._poller = select.poll()
        self._poller.register(engine.fileno(), select.POLLIN)

    def serve(self, wake_fd: int) -> None:
        """Work until the daemon has gone or `wake_fd` tells of a signal to stop, and every run has ended."""
        self._poller.register(wake_fd, select.POLLIN)
        while not self._is_winding_up:
            if wake_fd in self._turn():
                self._is_winding_up |= not set(os.read(wake_fd, _READ_BYTES)).isdisjoint(_STOP_SIGNALS)
        self._poller.unregister(wake_fd)
        self._wind_up()

    def send(self, message: messages.Message) -> None:
        crash_points.reached(f"spawner says {type(message).__name__}")
        self._outgoing += messages.frame(message)

    def _wind_up(self) -> None:
        self.send(messages.Ending(tuple(self._engine.active)))
        for run_id in self._engine.active:
            self._engine.stop(run_id)
        while self._engine.active or (self._is_connected and self._outgoing):
            self._turn()

    def _turn(self) -> dict[int, int]:
        """Wait for something to happen and do what is to be done about it; the descriptors that were ready."""
        if self._is_connected:
            wanted = (0 if self._is_winding_up else select.POLLIN) | (select.POLLOUT if self._outgoing else 0)
            self._poller.register(self._connection, wanted)
        remaining_s = self._engine.remaining_s()
        ready = dict(self._poller.poll(None if remaining_s is None else remaining_s * 1000))
        self._engine.poll()
        if self._is_connected:
            events = ready.get(self._connection.fileno(), 0)
            if self._is_winding_up and events & (select.POLLHUP | select.POLLERR):
                self._disconnected()
            elif events & ~select.POLLOUT:
                self._receive()
        self._flush()
        return ready

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            # It may have shut down its sending side only, to hear how its runs end.
            self._is_winding_up = True
            return
        for _, payload in self._incoming.feed(data):
            self._obey(messages.decode(payload))

    def _obey(self, message: messages.Message) -> None:
        crash_points.reached(f"spawner hears {type(message).__name__}")
        match message:
            case messages.StartRun(spec):
                self._engine.start(spec, self._report, self._report_start)
            case messages.StopRun(run_id, now):
                self._engine.stop(run_id, now=now)
            case _:
                raise ValueError(f"unexpected message of a daemon to its hook spawner: {type(message).__name__}")

    def _report(self, run: HookRun) -> None:
        for message in messages.report(run):
            self.send(message)

    def _report_start(self, started: ScriptStarted) -> None:
        self.send(messages.ScriptBegan(started))
        # At once: should this process die, its daemon finds what the script has started by this alone where there are no cgroups.
        self._flush()

    def _flush(self) -> None:
        if not self._outgoing or not self._is_connected:
            return
        try:
            sent = self._connection.send(self._outgoing)
        except BlockingIOError:
            return
        except ConnectionError:
            self._disconnected()
            return
        del self._outgoing[:sent]

    def _disconnected(self) -> None:
        self._is_connected = False
        self._is_winding_up = True
        self._poller.unregister(self._connection)
        self._outgoing.clear()


def main(arguments: list[str] | None = None) -> int:
    """Run the process; the exit status is 2 when the containment asked for does not work here."""
    parser = argparse.ArgumentParser(prog="hook-spawner", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--fd", type=int, required=True, help="stream socket to the daemon")
    parser.add_argument("--containment", default="auto", help="auto, or the driver to force")
    parser.add_argument("--root-name", default="default", help="<cluster>.<node>.<instance>: where its cgroups are")
    options = parser.parse_args(arguments)
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A kept process may end while nothing else happens: somebody waits for it to be gone.
    wake_fd = _wake_on((*_STOP_SIGNALS, signal.SIGCHLD))
    syscalls.set_child_subreaper()
    with contextlib.suppress(OSError):
        # A kernel without keys has none to give away.
        syscalls.join_new_session_keyring()
    try:
        containment, what_is_lost = detect(options.containment, options.root_name)
    except ContainmentUnavailableError as error:
        sys.stderr.write(f"hook-spawner: {error}\n")
        return _EXIT_USAGE
    _serve(connection, containment, what_is_lost, wake_fd)
    return 0


def _serve(connection: socket.socket, containment: Containment, what_is_lost: str, wake_fd: int) -> None:
    swept = containment.sweep("hooks")
    is_protected = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")) < 0
    engine = Engine(containment, reaps_orphans=True, oom_score_adj=0 if is_protected else None)
    spawner = Spawner(connection, engine)
    # What is here now stays: no collection visits it, so that fewer pages are copied after each fork.
    gc.freeze()
    killed = tuple(f"{leftover.pid} {leftover.command}" for leftover in swept)
    spawner.send(messages.Ready(containment.driver, what_is_lost, killed, containment.offers.enforced))
    try:
        spawner.serve(wake_fd)
    finally:
        engine.close()
        containment.close()


def _wake_on(numbers: tuple[signal.Signals, ...]) -> int:
    """A descriptor on which the number of each of the signals arrives, a byte each."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return wake_read


if __name__ == "__main__":
    sys.exit(main())
