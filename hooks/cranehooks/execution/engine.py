"""Runs hooks: interprets the lifecycle's effects with real processes, over one epoll instance and no loop of its own.

A host calls `poll` when `fileno` is readable or `next_deadline` has come; everything happens in there, on one thread.
"""

import errno
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from cranehooks import lifecycle
from cranehooks.execution import scripts
from cranehooks.execution.capture import Capture, Undecodable
from cranehooks.execution.containment.cells import Cell, Containment
from cranehooks.execution.process import OWNED_PIDS, Process, SpawnError, SpawnRequest, reap_orphans, spawn
from cranehooks.execution.records import BegunScript, record_of
from cranehooks.lifecycle import Strength, Timer
from cranehooks.model.ids import RunId
from cranehooks.model.run import HookRun, Leftover, RunSpec, ScriptStarted

OnFinished = Callable[[HookRun], None]
OnScriptStarted = Callable[[ScriptStarted], None]
OnStderr = Callable[[bytes], None]

_READ_BYTES = 1 << 16
_LAST_READS = 32
"""Enough for the largest pipe an ordinary user can make; more means that somebody else keeps writing."""


@dataclass(slots=True)
class _Active:
    """One run and its resources."""

    spec: RunSpec
    state: lifecycle.Run
    on_finished: OnFinished
    on_script_started: OnScriptStarted | None
    started_at: float
    started_mono: float
    cell: Cell | None = None
    process: Process | None = None
    on_stderr: OnStderr | None = None
    pipes: dict[int, OnStderr | None] = field(default_factory=dict)
    """What the script under way writes into, by our end; and who is told besides the capture."""
    wake_fds: set[int] = field(default_factory=set)
    deadlines: dict[Timer, float] = field(default_factory=dict)
    scripts: list[BegunScript] = field(default_factory=list)
    leftovers: dict[int, Leftover] = field(default_factory=dict)
    is_killed: bool = False
    """KILL went to everything of the script under way: what is found dying afterwards was not left behind."""
    is_cell_spent: bool = False
    """The cell has been killed: the next script needs a new one."""
    not_enforced: tuple[str, ...] = ()
    """Limits that do not hold here."""
    oom_kills: int = 0
    """In the cell, by the scripts before this one."""
    forks_refused: int = 0
    """The same of its limit of processes."""

    @property
    def run_id(self) -> RunId:
        return self.spec.key.run_id


class Engine:
    """Hosts any number of runs at a time.

    Args:
        containment: where cells come from; the engine does not close it.
        reaps_orphans: reap every child that is not of our making: for a process that does nothing else. Others get
            only those reaped that were found among a script's leftovers.
        oom_score_adj: given to scripts; None lets them inherit ours.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        containment: Containment,
        *,
        reaps_orphans: bool = False,
        oom_score_adj: int | None = None,
        keeps_undecodable: bool = False,
        allows_setuid_programs: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keeps_undecodable`: output that is no UTF-8 has surrogate escapes in place of replacement characters.

        `allows_setuid_programs`: they give capabilities to scripts that run as another user than root.
        """
        self._containment = containment
        self._reaps_orphans = reaps_orphans
        self._oom_score_adj = oom_score_adj
        self._undecodable: Undecodable = "surrogateescape" if keeps_undecodable else "replace"
        self._allows_setuid_programs = allows_setuid_programs
        self._clock = clock
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._active: dict[RunId, _Active] = {}
        self._ended: deque[tuple[OnFinished, HookRun]] = deque()

    @property
    def active(self) -> frozenset[RunId]:
        """Runs that have been started and not been reported."""
        return frozenset(self._active) | {run.key.run_id for _, run in self._ended}

    def fileno(self) -> int:
        """Readable when `poll` has something to do."""
        return self._epoll.fileno()

    def next_deadline(self) -> float | None:
        """When `poll` is due even if nothing happens, by the clock; changes with `start`, `stop` and `poll`."""
        if self._ended:
            return self._clock()
        return min((deadline for run in self._active.values() for deadline in run.deadlines.values()), default=None)

    def remaining_s(self) -> float | None:
        """Seconds to `next_deadline`, at least 0; None without one."""
        deadline = self.next_deadline()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def start(
        self,
        spec: RunSpec,
        on_finished: OnFinished,
        on_script_started: OnScriptStarted | None = None,
        on_stderr: OnStderr | None = None,
    ) -> None:
        """Begin a run. `on_finished` is called exactly once, from a later `poll`; the first script may start in here.

        `on_stderr` hears what the scripts write to their standard error, all of it, as it comes; it is captured as ever.

        Raises:
            ValueError: a run of that key is under way.
        """
        run_id = spec.key.run_id
        if run_id in self.active:
            raise ValueError(f"hook run {run_id} is under way")
        state = lifecycle.Run(lifecycle.Limits.of(spec))
        run = _Active(spec, state, on_finished, on_script_started, time.time(), self._clock(), on_stderr=on_stderr)
        self._active[run_id] = run
        self._feed(run, lifecycle.Begin())

    def stop(self, run_id: RunId, *, now: bool = False) -> bool:
        """End a run with TERM, its grace and KILL, or with KILL at once; it finishes as `STOPPED` unless it had ended.

        Returns:
            Whether the run is under way. Safe to repeat.
        """
        run = self._active.get(run_id)
        if run is None:
            return False
        self._feed(run, lifecycle.StopRequested(now))
        return True

    def poll(self, timeout_s: float | None = 0.0) -> None:
        """Do what is due, waiting up to `timeout_s` (None: without end) for something to happen."""
        remaining_s = self.remaining_s()
        if remaining_s is not None:
            timeout_s = remaining_s if timeout_s is None else min(timeout_s, remaining_s)
        for fd, _ in self._epoll.poll(timeout_s):
            handler = self._handlers.get(fd)
            # Handlers bear a stale call, for a descriptor closed and opened again within this batch.
            if handler is not None:
                handler(fd)
        # After the exits: what ended before we looked was in time.
        self._fire_timers()
        if self._reaps_orphans:
            reap_orphans()
        while self._ended:
            on_finished, record = self._ended.popleft()
            on_finished(record)

    def close(self) -> None:
        """Kill every run, wait for the end of each (bounded by its `unkillable_after_s`), and report it."""
        for run_id in list(self._active):
            self.stop(run_id, now=True)
        while self._active or self._ended:
            self.poll(None)
        self._epoll.close()

    # ---- events

    def _feed(self, run: _Active, first: lifecycle.Event) -> None:
        events: deque[lifecycle.Event] = deque((first,))
        while events:
            run.state, effects = run.state.advance(events.popleft())
            for effect in effects:
                answer = self._carry_out(run, effect)
                if answer is not None:
                    events.append(answer)

    def _fire_timers(self) -> None:
        now = self._clock()
        for run in list(self._active.values()):
            for timer, deadline in sorted(run.deadlines.items(), key=lambda item: item[1]):
                # An earlier one of this run may have cancelled it.
                if deadline > now or run.deadlines.get(timer) != deadline:
                    continue
                del run.deadlines[timer]
                match timer:
                    case Timer.DEADLINE:
                        self._feed(run, lifecycle.DeadlineReached())
                    case Timer.GRACE:
                        self._feed(run, lifecycle.GraceEnded())
                    case Timer.KILL_WAIT:
                        survivors = tuple(run.cell.members()) if run.cell else ()
                        self._feed(run, lifecycle.KillWaitEnded(survivors))

    def _process_ready(self, run: _Active) -> None:
        if run.process is None or run.cell is None:
            return
        pidfd = run.process.pidfd
        status = run.process.reap()
        if status is None:
            return
        self._handlers.pop(pidfd, None)
        run.process = None
        run.cell.leader_exited()
        script = run.scripts[-1]
        script.duration_s = self._clock() - script.started_mono
        self._feed(run, lifecycle.ProcessExited(status))

    def _pipe_ready(self, run: _Active, fd: int) -> None:
        if fd in run.pipes and not self._read_once(run, fd):
            self._close_pipe(run, fd)

    def _cell_ready(self, run: _Active) -> None:
        if run.state.phase is lifecycle.Phase.REAPING and run.cell is not None and run.wake_fds:
            answer = self._reap_leftovers(run, run.cell)
            if answer is not None:
                self._feed(run, answer)

    # ---- effects

    def _carry_out(self, run: _Active, effect: lifecycle.Effect) -> lifecycle.Event | None:
        match effect:
            case lifecycle.SpawnScript(index):
                return self._spawn(run, index)
            case lifecycle.SignalAll(strength):
                run.is_killed |= strength is Strength.KILL
                _signal_all(run.cell, strength)
            case lifecycle.SetTimer(timer, after_s):
                run.deadlines[timer] = self._clock() + after_s
            case lifecycle.CancelTimer(timer):
                run.deadlines.pop(timer, None)
            case lifecycle.ReapLeftovers():
                if run.cell is not None:
                    return self._reap_leftovers(run, run.cell)
            case lifecycle.KeepLeftovers():
                if run.cell is not None:
                    return self._keep_leftovers(run, run.cell)
            case lifecycle.Finish(ends):
                self._finish(run, ends)
        return None

    def _spawn(self, run: _Active, index: int) -> lifecycle.Event:
        spec = run.spec
        path = spec.scripts[index]
        script = BegunScript(path, time.time(), self._clock())
        run.scripts.append(script)
        run.leftovers.clear()
        run.is_killed = run.is_cell_spent = False
        try:
            checked = scripts.check(path, trusted_owner=spec.trusted_owner)
        except scripts.UnsafeScriptError as error:
            return lifecycle.SpawnFailed(error.errno, error.reason)
        script.sha256, script.interpreter = checked.sha256, checked.interpreter
        try:
            if run.cell is None:
                name = run.run_id
                run.cell = (
                    self._containment.create(name, limits=spec.limits)
                    if spec.cgroup is None
                    else self._containment.create_inside(spec.cgroup, name, limits=spec.limits)
                )
                run.not_enforced, run.oom_kills, run.forks_refused = run.cell.not_enforced, 0, 0
            run.process = self._spawn_in(run, run.cell, script)
        except SpawnError as error:
            return lifecycle.SpawnFailed(error.errno, scripts.spawn_detail(error, script.interpreter))
        except OSError as error:
            return lifecycle.SpawnFailed(error.errno or errno.EIO, f"containment: {error.strerror}")
        run.cell.started(run.process.pid)
        self._watch(run.process.pidfd, select.EPOLLIN, lambda _: self._process_ready(run))
        if run.on_script_started is not None:
            process = run.process
            run.on_script_started(ScriptStarted(run.run_id, index, path, script.sha256, process.pid, process.start_time))
        return lifecycle.Started()

    def _spawn_in(self, run: _Active, cell: Cell, script: BegunScript) -> Process:
        spec = run.spec
        is_users = spec.credentials is not None and spec.credentials.uid != 0
        pipes: dict[int, OnStderr | None] = {}
        with ExitStack() as lent, ExitStack() as ours:

            def pipe(listener: OnStderr | None) -> int:
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                ours.callback(os.close, read_fd)
                lent.callback(os.close, write_fd)
                os.set_blocking(read_fd, False)
                if spec.credentials is not None and spec.credentials.uid != os.geteuid():
                    # So that the script may open /dev/stderr.
                    os.fchown(write_fd, spec.credentials.uid, spec.credentials.gid)
                pipes[read_fd] = listener
                return write_fd

            stdin, stdout, stderr = (0, 1, 2) if spec.inherit_stdio else (None, pipe(None), None)
            if run.on_stderr is not None and not spec.inherit_stdio:
                stderr = pipe(run.on_stderr)
            process = spawn(
                SpawnRequest(
                    path=script.path,
                    argv=(script.path, *spec.arguments),
                    environment=spec.environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=spec.cwd,
                    credentials=spec.credentials,
                    drops_capabilities=is_users,
                    empties_bounding_set=is_users and not self._allows_setuid_programs,
                    cgroup_fd=cell.cgroup_fd,
                    entry_fds=tuple(cell.entry_fds),
                    oom_score_adj=self._oom_score_adj,
                    parent_death_signal=signal.SIGKILL,
                    child_subreaper=cell.wants_subreaper,
                )
            )
            ours.pop_all()
        run.pipes = pipes
        if pipes:
            script.capture = Capture(spec.output_limit_bytes)
        for read_fd in pipes:
            self._watch(read_fd, select.EPOLLIN, lambda fd: self._pipe_ready(run, fd))
        return process

    def _keep_leftovers(self, run: _Active, cell: Cell) -> lifecycle.Event | None:
        """Leave alone what lives, with a cell of its own; where that cannot be noted it is killed."""
        self._drain(run)
        _note_limits_met(run, cell)
        kept = tuple(cell.members())
        if kept:
            try:
                cell.keep()
            except OSError:
                return self._reap_leftovers(run, cell)
            run.cell = None
        return lifecycle.LeftoversKept(kept)

    def _reap_leftovers(self, run: _Active, cell: Cell) -> lifecycle.Event | None:
        """Kill what lives; the event once nothing does."""
        is_empty = cell.is_empty()
        if not is_empty:
            if not run.is_killed:
                run.leftovers.update((member.pid, member) for member in cell.members())
            run.is_cell_spent = True
            cell.kill()
            is_empty = cell.is_empty()
        self._watch_cell(run, () if is_empty else tuple(cell.wake_fds()))
        if not is_empty:
            return None
        self._drain(run)
        _note_limits_met(run, cell)
        if run.is_cell_spent or run.is_killed:
            cell.remove()
            run.cell = None
        return lifecycle.ContainmentEmpty(tuple(run.leftovers.values()))

    def _finish(self, run: _Active, ends: tuple[lifecycle.ScriptEnd, ...]) -> None:
        self._watch_cell(run, ())
        self._drain(run)
        if run.process is not None:
            run.scripts[-1].duration_s = self._clock() - run.scripts[-1].started_mono
            # Unkillable: it stays our child, and is reaped as an orphan if it ever ends.
            self._epoll.unregister(run.process.pidfd)
            del self._handlers[run.process.pidfd]
            os.close(run.process.pidfd)
            OWNED_PIDS.discard(run.process.pid)
        if run.cell is not None:
            run.cell.remove()
        del self._active[run.run_id]
        self._ended.append((run.on_finished, self._record(run, ends)))

    def _record(self, run: _Active, ends: tuple[lifecycle.ScriptEnd, ...]) -> HookRun:
        notes = (f"limits of {', '.join(run.not_enforced)} do not hold here",) if run.not_enforced else ()
        duration_s = self._clock() - run.started_mono
        return record_of(run.spec, run.started_at, duration_s, run.scripts, ends, notes, self._undecodable)

    # ---- descriptors

    def _watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def _watch_cell(self, run: _Active, wanted: tuple[tuple[int, int], ...]) -> None:
        """Watch exactly these of the cell's descriptors; those it has closed left the epoll instance by themselves."""
        for fd in run.wake_fds - {fd for fd, _ in wanted}:
            self._handlers.pop(fd, None)
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ENOENT):
                    raise
        for fd, mask in wanted:
            self._handlers[fd] = lambda _: self._cell_ready(run)
            try:
                self._epoll.register(fd, mask)
            except FileExistsError:
                continue
        run.wake_fds = {fd for fd, _ in wanted}

    def _read_once(self, run: _Active, fd: int) -> bool:
        """Take what is in the pipe; False at its end."""
        capture, listener = run.scripts[-1].capture, run.pipes[fd]
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if capture is not None:
            capture.feed(data)
        if listener is not None and data:
            listener(data)
        return bool(data)

    def _drain(self, run: _Active) -> None:
        """Take what the script wrote last, and close its pipes."""
        capture = run.scripts[-1].capture if run.scripts else None
        for fd in tuple(run.pipes):
            for _ in range(_LAST_READS):
                before = capture.written_bytes if capture else 0
                if not self._read_once(run, fd) or (capture and capture.written_bytes == before):
                    break
            self._close_pipe(run, fd)

    def _close_pipe(self, run: _Active, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._handlers[fd], run.pipes[fd]
        os.close(fd)


def _note_limits_met(run: _Active, cell: Cell) -> None:
    """Blame the script that has just ended for what its limits did since the one before."""
    if run.spec.limits is None:
        return
    usage = cell.usage()
    kills, refused = usage.oom_kills or 0, usage.forks_refused or 0
    run.scripts[-1].oom_kills, run.scripts[-1].forks_refused = kills - run.oom_kills, refused - run.forks_refused
    run.oom_kills, run.forks_refused = kills, refused


def _signal_all(cell: Cell | None, strength: Strength) -> None:
    if cell is None:
        return
    match strength:
        case Strength.TERM:
            cell.signal_all(signal.SIGTERM)
            # A stopped process hears TERM only once it goes on.
            cell.signal_all(signal.SIGCONT)
        case Strength.KILL:
            cell.kill()
