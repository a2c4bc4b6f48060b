"""The child's side of a spawn: a list of prepared calls, made before the fork, carried out between fork and exec.

A step is a call of the C library with its arguments bound, -1 meaning failure, because a freshly forked interpreter pays
a page fault for nearly everything it touches: this is four times faster than the same calls through `os` and `signal`.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import NoReturn

from cranehooks.execution import syscalls
from cranehooks.execution.syscalls import ExecImage, libc
from cranehooks.model.run import Credentials

_EXIT_STATUS = 127
_EINVAL = 22
_SIG_SETMASK = 2
_SIG_DFL = 0
_TIOCSCTTY = 0x540E
_O_CLOEXEC = os.O_CLOEXEC
_NO_SIGNALS = ctypes.create_string_buffer(128)
_OOM_SCORE_ADJ = b"/proc/self/oom_score_adj"


class Stage(Enum):
    """What a spawn was doing when it failed."""

    PREPARE = "preparing arguments and environment"
    FORK = "fork"
    CGROUP = "entering its cgroup"
    SIGNALS = "resetting signals"
    STDIO = "setting up descriptors"
    SESSION = "starting a session"
    LIMITS = "setting limits"
    IDENTITY = "changing identity"
    PRIVILEGES = "dropping privileges"
    CWD = "entering its working directory"
    FILES = "opening its input and output files"
    EXEC = "exec"


STAGES = tuple(Stage)
"""By the number that crosses the report pipe."""

Step = Callable[[], int | None]
"""Returns -1 and sets ctypes' errno, or raises OSError, when it fails."""

Source = int | tuple[bytes, int, int]
"""Of a standard stream: a descriptor, or (path, flags, mode) to open."""


class Steps:
    """The steps in the order they are carried out, each under the stage it belongs to."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Step]] = []

    def _add(self, stage: Stage, *steps: Step) -> None:
        number = STAGES.index(stage)
        self.steps.extend((number, step) for step in steps)

    def enter_cgroup(self, procs_fd: int) -> None:
        self._add(Stage.CGROUP, partial(libc.write, procs_fd, b"0", 1))

    def reset_signals(self, numbers: Sequence[int]) -> None:
        self._add(Stage.SIGNALS, *(partial(libc.signal, number, _SIG_DFL) for number in numbers))
        self._add(Stage.SIGNALS, syscalls.reset_libc_signals)
        self._add(Stage.SIGNALS, partial(libc.sigprocmask, _SIG_SETMASK, _NO_SIGNALS, None))

    def use_descriptors(self, stdio: Sequence[Source | None]) -> None:
        """Put given descriptors in place; None for stderr copies stdout when that is a descriptor."""
        for target, source in enumerate(stdio):
            if isinstance(source, int):
                self._add(Stage.STDIO, _put(source, target))
        if stdio[2] is None and isinstance(stdio[1], int):
            self._add(Stage.STDIO, partial(libc.dup2, 1, 2))
        self._add(Stage.STDIO, partial(syscalls.mark_close_on_exec, 3))

    def open_files(self, stdio: Sequence[Source | None]) -> None:
        for target, source in enumerate(stdio):
            if isinstance(source, tuple):
                self._add(Stage.FILES, partial(_open_onto, *source, target))
        if stdio[2] is None and isinstance(stdio[1], tuple):
            self._add(Stage.FILES, partial(libc.dup2, 1, 2))

    def start_session(self, *, controlling_terminal: bool) -> None:
        self._add(Stage.SESSION, libc.setsid)
        if controlling_terminal:
            self._add(Stage.SESSION, partial(libc.ioctl, 0, ctypes.c_ulong(_TIOCSCTTY), 0))

    def become_subreaper(self) -> None:
        self._add(Stage.SESSION, syscalls.set_child_subreaper)

    def set_oom_score_adj(self, value: int) -> None:
        self._add(Stage.LIMITS, partial(_write, _OOM_SCORE_ADJ, str(value).encode()))

    def reset_scheduling(self) -> None:
        self._add(Stage.LIMITS, syscalls.reset_scheduling)

    def reset_personality(self) -> None:
        self._add(Stage.LIMITS, partial(libc.personality, ctypes.c_ulong(0)))

    def empty_bounding_set(self, capabilities: Sequence[int]) -> None:
        # Before the change of identity, which takes the right to do so.
        self._add(Stage.PRIVILEGES, *(partial(libc.prctl, syscalls.PR_CAPBSET_DROP, number, 0, 0, 0) for number in capabilities))

    def set_rlimit(self, number: int, limits: tuple[int, int]) -> None:
        self._add(Stage.LIMITS, partial(libc.setrlimit, number, (ctypes.c_ulong * 2)(*limits)))

    def set_umask(self, umask: int) -> None:
        self._add(Stage.LIMITS, partial(libc.umask, umask))

    def change_identity(self, credentials: Credentials) -> None:
        uid, gid = ctypes.c_uint(credentials.uid), ctypes.c_uint(credentials.gid)
        count = len(credentials.groups)
        self._add(
            Stage.IDENTITY,
            partial(libc.setgroups, ctypes.c_size_t(count), (ctypes.c_uint * count)(*credentials.groups)),
            partial(libc.setresgid, gid, gid, gid),
            partial(libc.setresuid, uid, uid, uid),
        )

    def drop_privileges(self, *, clears_capabilities: bool, no_new_privileges: bool) -> None:
        if clears_capabilities:
            self._add(Stage.PRIVILEGES, syscalls.clear_inherited_capabilities)
        if no_new_privileges:
            self._add(Stage.PRIVILEGES, syscalls.set_no_new_privileges)

    def die_with_parent(self, signal: int, parent_pid: int) -> None:
        # After the change of identity, which would undo it.
        self._add(Stage.PRIVILEGES, partial(_die_with, signal, parent_pid))

    def enter_directory(self, path: bytes, fallback: bytes | None) -> None:
        enter = partial(libc.chdir, path)
        self._add(Stage.CWD, enter if fallback is None else partial(_first_that_works, enter, partial(libc.chdir, fallback)))


def run_child(steps: list[tuple[int, Step]], image: ExecImage, report_fd: int) -> NoReturn:
    """Carry out the steps and exec; report the failing stage and its errno otherwise."""
    stage = 0
    try:
        for stage, step in steps:  # noqa: B007 - told when a step raises
            if step() == -1:
                error = ctypes.get_errno()
                break
        else:
            stage = len(STAGES) - 1
            error = image.execve()
    except OSError as failure:
        error = failure.errno or _EINVAL
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not return into its parent's code
        error = _EINVAL
    libc.write(report_fd, bytes((stage,)) + error.to_bytes(4, "big"), 5)
    os._exit(_EXIT_STATUS)


def _put(fd: int, target: int) -> Step:
    return partial(os.set_inheritable, fd, True) if fd == target else partial(libc.dup2, fd, target)


def _open_onto(path: bytes, flags: int, mode: int, target: int) -> None:
    # With the target closed, open itself may return it.
    _put(os.open(path, flags | _O_CLOEXEC, mode), target)()


def _write(path: bytes, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | _O_CLOEXEC)
    os.write(fd, data)
    os.close(fd)


def _first_that_works(first: Step, second: Step) -> int | None:
    return second() if first() == -1 else 0


def _die_with(signal: int, parent_pid: int) -> None:
    syscalls.set_parent_death_signal(signal)
    if os.getppid() != parent_pid:
        os._exit(_EXIT_STATUS)
