"""Starts one process with exactly the identity, environment, descriptors and cgroup asked for, and reaps it.

Used for hooks and for tasks alike. What the child has to do is prepared before the fork; the child reports the stage at
which it failed, so that an error says what was wrong.
"""

import errno
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from signal import SIG_DFL, SIGKILL, SIGSTOP, getsignal, pidfd_send_signal, valid_signals

from cranehooks.execution import syscalls
from cranehooks.execution.child import STAGES, Source, Stage, Step, Steps, run_child
from cranehooks.model.limits import Usage
from cranehooks.model.run import Credentials

_THREADS_OF_SELF = "/proc/self/task"
_LINKS_WITH_ONE_THREAD = 3
_FIRST_FREE_FD = 3
_REPORT_BYTES = 5
_MAXRSS_UNIT_BYTES = 1024
# Beneath the wrapper that makes enum members of handlers, and costs more than all the rest of preparing a spawn.
_handler_of: Callable[[int], object] = getattr(getsignal, "__wrapped__", getsignal)
_CATCHABLE = tuple(sorted(int(number) for number in valid_signals() - {SIGKILL, SIGSTOP}))
_CAP_SETPCAP = 8
_FORK_EXHAUSTED = (errno.EAGAIN, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that the process itself opens, with its own identity and in its own working directory."""

    path: str
    append: bool = False
    """Add to what is there; otherwise the file is emptied."""
    mode: int = 0o666
    """Of a new file, before the umask."""


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One process to start."""

    path: str
    """Absolute; no search, and no shell when the file has no `#!` line."""
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """Exactly what the process sees."""
    stdin: int | str | None = None
    """A descriptor, a path to open with the new identity, or None for /dev/null."""
    stdout: int | OutputFile | None = None
    """None: /dev/null."""
    stderr: int | OutputFile | None = None
    """None: where stdout goes."""
    cwd: str = "/"
    cwd_fallback: str | None = None
    """Where to start when `cwd` cannot be entered; None makes that an error."""
    credentials: Credentials | None = None
    """None keeps our identity."""
    umask: int = 0o022
    new_session: bool = True
    controlling_terminal: bool = False
    """Whether stdin becomes the terminal of the new session."""
    cgroup_fd: int | None = None
    """Directory of a v2 cgroup in which the process is born."""
    entry_fds: tuple[int, ...] = ()
    """`cgroup.procs` files of further cgroups that the process enters before anything else."""
    drops_capabilities: bool = False
    """Empty the ambient and inheritable sets. The change to a user other than root empties the effective and permitted ones."""
    empties_bounding_set: bool = False
    """Have set-uid programs and file capabilities give no capability; passed over where we may not."""
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    """Of the process; None inherits ours."""
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """`resource.RLIMIT_*` to (soft, hard)."""
    parent_death_signal: int = 0
    """Sent to the process when the thread that started it ends."""
    child_subreaper: bool = False
    """Whether orphaned descendants come to the process instead of to us."""


class SpawnError(Exception):
    """The process never ran: `stage` failed with `errno`."""

    def __init__(self, path: str, stage: Stage, error: int) -> None:
        super().__init__(f"cannot start {path}: {stage.value}: {os.strerror(error)}")
        self.path = path
        self.stage = stage
        self.errno = error


class Process:
    """A child of ours, until `reap` has returned its status."""

    __slots__ = ("pid", "pidfd", "start_time", "usage")

    def __init__(self, pid: int, pidfd: int, start_time: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        """Readable once the process has exited."""
        self.start_time = start_time
        """In clock ticks since boot: with the pid, it names the process for good."""
        self.usage: Usage | None = None
        """Once it has been reaped: its own, and that of descendants which their parents have waited for. The peak is that of the largest
        of them, not of all together."""

    def signal(self, number: int) -> None:
        """Signal this process alone; nothing happens when it has gone."""
        try:
            pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def reap(self, *, block: bool = False) -> int | None:
        """The wait status (as of wait(2)) once the process has exited, else None; a status is returned only once.

        Closes `pidfd` with it: take it out of any event loop first.

        Raises:
            ChildProcessError: it has been reaped.
        """
        # Nobody else reaps it: the number is ours until then.
        pid, status, used = os.wait4(self.pid, 0 if block else os.WNOHANG)
        if pid == 0:
            return None
        self.usage = Usage(cpu_s=used.ru_utime + used.ru_stime, memory_peak_bytes=used.ru_maxrss * _MAXRSS_UNIT_BYTES)
        OWNED_PIDS.discard(self.pid)
        os.close(self.pidfd)
        return status


OWNED_PIDS: set[int] = set()
"""Children started here and not reaped yet. Whoever reaps orphans leaves these alone; a program that starts children by
other means while it does so adds them."""


def spawn(request: SpawnRequest) -> Process:
    """Start a process; returns once it runs its program.

    The process must be reaped by `Process.reap` and by nothing else. A process with other threads forks the slow way and
    moves the child into its cgroup, because what `clone3` does is safe with one thread only.

    Raises:
        SpawnError: with the stage and its errno. Nothing is left of the child then.
    """
    report_read, report_write = (_above_stdio(fd) for fd in os.pipe2(os.O_CLOEXEC))
    opened = [report_write]
    try:
        try:
            plan = _plan(request, opened)
            pid, pidfd = _start(request, plan, report_write)
        finally:
            for fd in opened:
                os.close(fd)
        report = os.read(report_read, _REPORT_BYTES)
    finally:
        os.close(report_read)
    if report:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        raise SpawnError(request.path, STAGES[report[0]], int.from_bytes(report[1:], "big"))
    start_time = start_time_of(pid)
    OWNED_PIDS.add(pid)
    return Process(pid, pidfd, start_time)


def reap_orphans() -> None:
    """Reap children that fell to us, and none that somebody waits for: look first, then take."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in OWNED_PIDS:
            return
        os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)


def start_time_of(pid: int) -> int:
    """When the process started, in clock ticks since boot.

    Raises:
        ProcessLookupError: there is no such process.
    """
    return int(stat_fields(pid)[19])


def stat_fields(pid: int | str) -> list[bytes]:
    """The fields of `/proc/PID/stat` after the command name: state, ppid, pgrp, session, …

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, "no such process", str(pid)) from error
    return text[text.rindex(b")") + 2 :].split()


def _start(request: SpawnRequest, plan: "_Plan", report_fd: int) -> tuple[int, int]:
    """Fork by the best means there is; the child never returns."""
    # A handler must not run in the child, where it would act on descriptors shared with us.
    with syscalls.SignalsBlocked():
        pid, pidfd = _fork(request, plan)
        if pid == 0:
            run_child(plan.steps, plan.image, report_fd)
    return pid, pidfd if pidfd >= 0 else os.pidfd_open(pid)


def _fork(request: SpawnRequest, plan: "_Plan") -> tuple[int, int]:
    if os.stat(_THREADS_OF_SELF).st_nlink == _LINKS_WITH_ONE_THREAD:
        try:
            return syscalls.clone3(request.cgroup_fd)
        except OSError as error:
            # Anything else (old kernel, seccomp, a cgroup that takes no process) is told better by the other way.
            if error.errno in _FORK_EXHAUSTED:
                raise SpawnError(request.path, Stage.FORK, error.errno) from error
    plan.steps[:0] = plan.cgroup_steps
    try:
        return syscalls.fork(), -1
    except OSError as error:
        raise SpawnError(request.path, Stage.FORK, error.errno or 0) from error


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the child does."""

    steps: list[tuple[int, Step]]
    cgroup_steps: list[tuple[int, Step]]
    """In front of the others when the child is not born in its cgroup."""
    image: syscalls.ExecImage


def _plan(request: SpawnRequest, opened: list[int]) -> _Plan:
    """Prepare everything; descriptors opened on the way are added to `opened`."""
    path = os.fsencode(request.path)
    argv = [os.fsencode(argument) for argument in request.argv]
    environment = [os.fsencode(f"{name}={value}") for name, value in request.environment.items()]
    if any(b"\0" in text for text in (path, *argv, *environment)):
        raise SpawnError(request.path, Stage.PREPARE, errno.EINVAL)
    cgroup = Steps()
    if request.cgroup_fd is not None:
        try:
            procs_fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=request.cgroup_fd)
        except OSError as error:
            raise SpawnError(request.path, Stage.CGROUP, error.errno or 0) from error
        opened.append(_above_stdio(procs_fd))
        cgroup.enter_cgroup(opened[-1])
    stdio = _stdio(request, opened)
    steps = Steps()
    for fd in request.entry_fds:
        steps.enter_cgroup(fd)
    steps.reset_signals([number for number in _CATCHABLE if _handler_of(number) != SIG_DFL])
    steps.use_descriptors(stdio)
    if request.new_session:
        steps.start_session(controlling_terminal=request.controlling_terminal)
    if request.child_subreaper:
        steps.become_subreaper()
    if request.oom_score_adj is not None:
        steps.set_oom_score_adj(request.oom_score_adj)
    if _is_favoured():
        steps.reset_scheduling()
    if syscalls.personality() not in (0, -1):
        steps.reset_personality()
    steps.set_umask(request.umask)
    if request.empties_bounding_set:
        steps.empty_bounding_set(bounded_capabilities())
    credentials = _needed(request.credentials)
    if credentials is not None:
        steps.change_identity(credentials)
    steps.drop_privileges(clears_capabilities=request.drops_capabilities, no_new_privileges=request.no_new_privileges)
    if request.parent_death_signal:
        steps.die_with_parent(request.parent_death_signal, os.getpid())
    fallback = None if request.cwd_fallback is None else os.fsencode(request.cwd_fallback)
    steps.enter_directory(os.fsencode(request.cwd), fallback)
    steps.open_files(stdio)
    for number, limits in request.rlimits.items():
        # Last: what is enough for the program need not be enough for what comes before it.
        steps.set_rlimit(number, limits)
    return _Plan(steps.steps, cgroup.steps, syscalls.ExecImage(path, argv, environment))


def _stdio(request: SpawnRequest, opened: list[int]) -> tuple[Source, Source, Source | None]:
    null_fd = -1
    if request.stdin is None or request.stdout is None:
        null_fd = _above_stdio(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        opened.append(null_fd)

    def source(wanted: int | str | OutputFile | None, target: int) -> Source:
        match wanted:
            case None:
                return null_fd
            case int(fd) if fd < _FIRST_FREE_FD and fd != target:
                # It would be overwritten by an earlier dup2.
                opened.append(fcntl(fd, F_DUPFD_CLOEXEC, _FIRST_FREE_FD))
                return opened[-1]
            case int(fd):
                return fd
            case OutputFile(name, append, mode):
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOCTTY | (os.O_APPEND if append else os.O_TRUNC)
                return os.fsencode(name), flags, mode
            case str(name):
                return os.fsencode(name), os.O_RDONLY | os.O_NOCTTY, 0

    return source(request.stdin, 0), source(request.stdout, 1), None if request.stderr is None else source(request.stderr, 2)


def _needed(credentials: Credentials | None) -> Credentials | None:
    """The credentials if taking them on changes anything, so that an ordinary user may name its own."""
    if credentials is None:
        return None
    uid, gid = credentials.uid, credentials.gid
    is_ours = os.getresuid() == (uid, uid, uid) and os.getresgid() == (gid, gid, gid)
    if is_ours and (uid != 0 or set(credentials.groups) == set(os.getgroups())):
        return None
    return credentials


def _is_favoured() -> bool:
    """Whether our own scheduling is not the ordinary one, and we may give children that."""
    if os.geteuid() != 0:
        return False
    return os.getpriority(os.PRIO_PROCESS, 0) != 0 or os.sched_getscheduler(0) not in (os.SCHED_OTHER, os.SCHED_BATCH)


@functools.cache
def bounded_capabilities() -> tuple[int, ...]:
    """Capabilities by number that we can take from the bounding set of a child; none where we may not."""
    words = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    effective, bounding = int(words["CapEff"], 16), int(words["CapBnd"], 16)
    if not effective >> _CAP_SETPCAP & 1:
        return ()
    return tuple(number for number in range(bounding.bit_length()) if bounding >> number & 1)


def _above_stdio(fd: int) -> int:
    """The descriptor itself, or a copy that dup2 onto 0, 1 and 2 does not overwrite (we may run with those closed)."""
    if fd >= _FIRST_FREE_FD:
        return fd
    copy = fcntl(fd, F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    os.close(fd)
    return copy
