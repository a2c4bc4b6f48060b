"""The few system calls that the standard library lacks, through ctypes.

The library is loaded as `PyDLL`: the interpreter lock stays held during a call, which is what lets a child of `clone3`
go on running Python.
"""

import ctypes
import errno
import os
import platform

libc = ctypes.PyDLL(None, use_errno=True)
"""Functions of the C library; the interpreter lock is held while they run."""
_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_execve = libc.execve
_execve.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
_prctl = libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_fork = libc.fork
libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
libc.signal.restype = ctypes.c_ssize_t

_SYS_CLONE3 = ctypes.c_long(435)
_SYS_CLOSE_RANGE = ctypes.c_long(436)
"""Both numbers are the same on every architecture that Linux gained since 2019 tables were unified (all but alpha)."""
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134, "loongarch64": 134, "ppc64le": 173, "s390x": 174}.get(
    platform.machine()
)
_LIBC_SIGNALS = (32, 33)
"""The C library keeps them for itself and refuses to touch them, but its posix_spawn leaves them ignored in the child."""
_DEFAULT_ACTION = ctypes.create_string_buffer(64)
_CLONE_VFORK = 0x4000
_CLONE_PIDFD = 0x1000
_CLONE_CLEAR_SIGHAND = 0x1_0000_0000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_SIGCHLD = 17
_SIG_SETMASK = 2
_EVERY_SIGNAL = ctypes.create_string_buffer(b"\xff" * 128, 128)
_CLOSE_RANGE_CLOEXEC = 4
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}.get(
    platform.machine()
)
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "loongarch64": 30, "ppc64le": 273, "s390x": 282}.get(
    platform.machine()
)
_KEYCTL_JOIN_SESSION_KEYRING = 1
_IOPRIO_WHO_PROCESS = 1
_PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
            "cgroup",
        )
    ]  # fmt: skip


def clone3(cgroup_fd: int | None) -> tuple[int, int]:
    """Fork, the child born in the cgroup of `cgroup_fd`, and stop until it has called exec or exited.

    Runs none of the C library's fork handlers: only for a process with one thread. The child's signal handlers are
    reset by the kernel; ignored signals stay ignored.

    Returns:
        (0, -1) in the child, (pid, pidfd) in the parent.

    Raises:
        OSError: the kernel refuses.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments(
        flags=_CLONE_PIDFD | _CLONE_CLEAR_SIGHAND | _CLONE_VFORK,
        pidfd=ctypes.addressof(pidfd),
        exit_signal=_SIGCHLD,
    )
    if cgroup_fd is not None:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    pid = _syscall(_SYS_CLONE3, ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid < 0:
        raise _last_error("clone3")
    return (pid, pidfd.value) if pid else (0, -1)


def reset_libc_signals() -> None:
    """Give the C library's own signals their default disposition, where we know the call's number.

    Raises:
        OSError: the kernel refuses.
    """
    if _SYS_RT_SIGACTION is None:
        return
    for number in _LIBC_SIGNALS:
        arguments = (ctypes.c_long(_SYS_RT_SIGACTION), number, _DEFAULT_ACTION, None, ctypes.c_size_t(8))
        if _syscall(*arguments) < 0:
            raise _last_error("rt_sigaction")


def fork() -> int:
    """Fork as the C library and the interpreter want it, safe beside other threads.

    `os.fork` does the same, and warns about threads; the child of `spawn` only prepares an exec.
    """
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, os.strerror(error), "fork")
    return pid


class SignalsBlocked:
    """Context in which no signal is delivered to this thread, and none that came before is still to be handled."""

    __slots__ = ("_mask",)

    def __enter__(self) -> None:
        self._mask = ctypes.create_string_buffer(128)
        libc.pthread_sigmask(_SIG_SETMASK, _EVERY_SIGNAL, self._mask)
        try:
            ctypes.pythonapi.PyErr_CheckSignals()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_exception: object) -> None:
        libc.pthread_sigmask(_SIG_SETMASK, self._mask, None)


class ExecImage:
    """Path, arguments and environment of an exec, laid out in memory before the fork."""

    __slots__ = ("_arguments", "_environment", "_path")

    def __init__(self, path: bytes, arguments: list[bytes], environment: list[bytes]) -> None:
        self._path = path
        self._arguments = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
        self._environment = (ctypes.c_char_p * (len(environment) + 1))(*environment, None)

    def execve(self) -> int:
        """Become the program; returns the errno when that fails."""
        _execve(self._path, self._arguments, self._environment)
        return ctypes.get_errno()


def mark_close_on_exec(first_fd: int) -> None:
    """Have every descriptor from `first_fd` on closed by the next exec."""
    done = _syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first_fd), ctypes.c_uint(0xFFFF_FFFF), ctypes.c_uint(_CLOSE_RANGE_CLOEXEC))
    if done == 0:
        return
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd >= first_fd:
            try:
                os.set_inheritable(fd, False)
            except OSError as error:
                # The descriptor of the listing itself is gone by now.
                if error.errno != errno.EBADF:
                    raise


def set_child_subreaper() -> None:
    """Become the parent of every descendant that loses its own; survives exec, children do not inherit it."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise _last_error("PR_SET_CHILD_SUBREAPER")


def set_parent_death_signal(signal: int) -> None:
    """Be sent `signal` when the thread that forked us ends; a change of identity resets it."""
    if _prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0):
        raise _last_error("PR_SET_PDEATHSIG")


def set_no_new_privileges() -> None:
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _last_error("PR_SET_NO_NEW_PRIVS")


def clear_inherited_capabilities() -> None:
    """Empty the ambient and the inheritable set, so that an exec gains nothing from them."""
    if _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0):
        raise _last_error("PR_CAP_AMBIENT_CLEAR_ALL")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise _last_error("capget")
    sets[2] = sets[5] = 0
    if libc.capset(header, sets):
        raise _last_error("capset")


def reset_scheduling() -> None:
    """Become an ordinary process: nice 0, no real-time policy, no I/O priority of its own.

    Raises:
        OSError: the kernel refuses.
    """
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if _SYS_IOPRIO_SET is not None and _syscall(ctypes.c_long(_SYS_IOPRIO_SET), _IOPRIO_WHO_PROCESS, 0, 0) < 0:
        raise _last_error("ioprio_set")


def personality(value: int = 0xFFFFFFFF) -> int:
    """Set the execution domain, or, without a value, only tell it."""
    result: int = libc.personality(ctypes.c_ulong(value))
    return result


def join_new_session_keyring() -> None:
    """Leave the session keyring that was inherited for a new and empty one: what is in it is not our children's to use.

    Raises:
        OSError: the kernel has no keys, or refuses.
    """
    if _SYS_KEYCTL is not None and _syscall(ctypes.c_long(_SYS_KEYCTL), _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise _last_error("KEYCTL_JOIN_SESSION_KEYRING")


def _last_error(what: str) -> OSError:
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error), what)
