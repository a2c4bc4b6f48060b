"""`csupervisor --parent-fd N`: the warm parent, which forks a supervisor for each step it is asked to.

It imports all that a supervisor needs and runs no thread and no event loop, so that a fork is cheap and safe: a new
supervisor shares its memory and has nothing to load. It ends when craned closes its end of the socket; the supervisors
live on.
"""

import argparse
import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from cranehooks.execution import syscalls
from cranekit import crash_points, frames
from csupervisor import app
from csupervisor.bootstrap import BootstrapError, ForkRequest, fork_request_from_bytes, forked_to_bytes, gone_to_bytes

_READ_BYTES: Final = 1 << 16
_FORK_FAILED_STATUS: Final = 71 << 8
"""As wait(2) gives it: a process that exits with EX_OSERR."""
_COMM_LIMIT: Final = 15


class SupervisorParent:
    """Serves one craned over a socket."""

    def __init__(self, craned: socket.socket) -> None:
        self._craned = craned
        self._children: dict[int, tuple[int, str]] = {}
        """pidfd → (pid, nonce)."""
        self._poll = select.poll()
        self._poll.register(craned, select.POLLIN)

    def serve(self) -> None:
        """Fork and reap until craned has gone.

        Raises:
            BootstrapError: craned asked for something else than a fork.
            FrameError: craned sent no frames.
        """
        buffer = frames.FrameBuffer()
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd != self._craned.fileno():
                        self._reap(fd)
                        continue
                    data = self._craned.recv(_READ_BYTES)
                    if not data:
                        return
                    for _, payload in buffer.feed(data):
                        self._fork(fork_request_from_bytes(payload))
        except (BrokenPipeError, ConnectionResetError):
            return

    def _fork(self, request: ForkRequest) -> None:
        crash_points.reached("supervisor parent: forks")
        try:
            pid = os.fork()
        except OSError:
            # No memory, or too many processes: the step ends as if its supervisor had died at once.
            self._tell(gone_to_bytes(request.nonce, 0, _FORK_FAILED_STATUS))
            return
        if pid == 0:
            self._become_supervisor(request)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid, request.nonce
        self._poll.register(pidfd, select.POLLIN)
        crash_points.reached("supervisor parent: forked")
        self._tell(forked_to_bytes(request.nonce, pid))

    def _reap(self, pidfd: int) -> None:
        pid, nonce = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        self._tell(gone_to_bytes(nonce, pid, status))

    def _tell(self, payload: bytes) -> None:
        self._craned.sendall(frames.encode(frames.PROTOBUF, payload))

    def _become_supervisor(self, request: ForkRequest) -> NoReturn:
        status = app.EXIT_BROKEN
        try:
            self._craned.close()
            for pidfd in self._children:
                os.close(pidfd)
            _take_on_a_life_of_its_own(request.title)
            status = app.run(request)
            sys.stderr.flush()
        finally:
            os._exit(status)


def _take_on_a_life_of_its_own(name: str) -> None:
    os.setsid()
    os.umask(0o022)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    syscalls.set_child_subreaper()
    with contextlib.suppress(OSError):
        # A kernel without keys has none to give away.
        syscalls.join_new_session_keyring()
    Path("/proc/self/comm").write_bytes(name.encode()[:_COMM_LIMIT])


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status."""
    parser = argparse.ArgumentParser(prog="csupervisor", description="Forks step supervisors for craned.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--parent-fd", type=int, metavar="N", help="connected socket that craned talks over")
    what.add_argument("--check-config", type=Path, metavar="FILE", help="only look at FILE: every problem with its place, exit 2")
    options = parser.parse_args(arguments)
    if options.check_config is not None:
        from csupervisor.check_config import check_config

        return check_config(options.check_config)
    try:
        craned = socket.socket(fileno=options.parent_fd)
    except OSError as error:
        print(f"csupervisor: descriptor {options.parent_fd} is no socket: {error.strerror}", file=sys.stderr)  # noqa: T201 - no log yet
        return 2
    os.set_inheritable(options.parent_fd, False)
    # What exists now is shared with every supervisor; the collector would copy it by looking at it.
    gc.collect()
    gc.freeze()
    try:
        SupervisorParent(craned).serve()
    except (BootstrapError, frames.FrameError) as error:
        print(f"csupervisor: {error}", file=sys.stderr)  # noqa: T201 - no log yet
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
