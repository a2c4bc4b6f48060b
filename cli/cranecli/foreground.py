"""A command in the foreground of the user's terminal, in a process group of its own: job control works, and it can be ended as a whole."""

from __future__ import annotations

import errno
import os
import signal
import time

from cranecli import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from cranecli.front.client import Body

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_DEFAULT_AGAIN = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCONT,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


class CannotRunError(Exception):
    """The command was not started. `exit_code` is what a shell would exit with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ForegroundChild:
    """The command, started. The owner's loop calls `advance` after each SIGCHLD, and when `due_s` has passed."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], directory: str) -> None:
        """Raises CannotRunError: it does not exist, or is no program."""
        self.is_over = False
        self._status = 0
        self._kill_at: float | None = None
        self._terminal = _own_terminal()
        self._group = os.getpgrp()
        self._pid = self._start(argv, environment, directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs, and takes the terminal back."""
        if not self.is_over:
            self._kill(signal.SIGKILL)
            self._status = os.waitpid(self._pid, 0)[1]
            self.is_over = True
        self._take_terminal(self._group)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    @property
    def exit_status(self) -> Body:
        """As an ExitStatus."""
        if os.WIFSIGNALED(self._status):
            return {"code": 0, "signal": os.WTERMSIG(self._status)}
        return {"code": os.WEXITSTATUS(self._status), "signal": 0}

    @property
    def exit_code(self) -> int:
        """As a shell reports it."""
        status = self.exit_status
        number: int = status["signal"]
        code: int = status["code"]
        return exits.SIGNALLED + number if number else code

    def due_s(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def advance(self) -> None:
        """Looks whether it has ended or was stopped; never waits."""
        if self.is_over:
            return
        pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        if pid:
            if os.WIFSTOPPED(status):
                self._stopped()
                return
            self._status = status
            self.is_over = True
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            self._kill(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Passes a signal on."""
        self._kill(number)

    def end(self, grace_s: float) -> None:
        """TERM and HUP (which a shell heeds), and after the grace KILL, to its whole group."""
        self._kill(signal.SIGHUP)
        self._kill(signal.SIGTERM)
        self._kill(signal.SIGCONT)
        self._kill_at = time.monotonic() + grace_s

    def resume(self) -> None:
        """After a stop of this program: the command goes on in the foreground."""
        self._take_terminal(self._pid)
        self._kill(signal.SIGCONT)

    def _stopped(self) -> None:
        """Stops with it, so that the shell around gets its prompt; `fg` there continues both."""
        if self._terminal is None or self._kill_at is not None:
            return
        self._take_terminal(self._group)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _start(self, argv: Sequence[str], environment: Mapping[str, str], directory: str) -> int:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(argv, environment, directory, write_fd)
        finally:
            os.close(write_fd)
        with os.fdopen(read_fd, "rb") as report:
            failure = report.read()
        self._set_group(pid)
        if failure:
            os.waitpid(pid, 0)
            self._take_terminal(self._group)
            if self._terminal is not None:
                os.close(self._terminal)
            what, _, number = failure.decode().partition(" ")
            cause = os.strerror(int(number))
            message = f"cannot enter {directory}: {cause}" if what == "directory" else f"cannot run {argv[0]}: {cause}"
            raise CannotRunError(message, _NOT_FOUND if int(number) == errno.ENOENT else _NOT_EXECUTABLE)
        return pid

    def _become(self, argv: Sequence[str], environment: Mapping[str, str], directory: str, write_fd: int) -> None:
        """The child's part; does not return."""
        stage = "group"
        try:
            os.setpgid(0, 0)
            self._take_terminal(os.getpid())
            signal.set_wakeup_fd(-1)
            for number in _DEFAULT_AGAIN:
                signal.signal(number, signal.SIG_DFL)
            stage = "directory"
            os.chdir(directory)
            stage = "program"
            os.execvpe(argv[0], list(argv), dict(environment))
        except OSError as error:
            os.write(write_fd, f"{stage} {error.errno}".encode())
        finally:
            os._exit(_NOT_FOUND)

    def _set_group(self, pid: int) -> None:
        """Whoever comes first, parent or child, makes the group."""
        try:
            os.setpgid(pid, pid)
        except (PermissionError, ProcessLookupError):
            # It did so itself and runs its program, or has ended.
            return

    def _take_terminal(self, group: int) -> None:
        """Gives the terminal to a group, if it is ours to give."""
        if self._terminal is None:
            return
        previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(self._terminal, group)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM, errno.ENOTTY, errno.EIO, errno.EINVAL):
                raise
        finally:
            signal.signal(signal.SIGTTOU, previous)

    def _kill(self, number: int) -> None:
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # The group has gone; `advance` collects its leader.
            return


def _own_terminal() -> int | None:
    """The controlling terminal, if this program is in its foreground: then it may pass it on."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    if os.tcgetpgrp(terminal) == os.getpgrp():
        return terminal
    os.close(terminal)
    return None
