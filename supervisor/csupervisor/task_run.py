"""Does what the machine of one task asks for: runs its hooks, starts and signals its process, ends what is left of it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, replace
from signal import SIGKILL
from typing import Final, Protocol

from cranehooks import directives
from cranehooks.environment import SCRIPT_CONTEXTS, task_hook_environment
from cranehooks.execution.capture import whole_lines
from cranehooks.execution.containment.cells import Cell
from cranehooks.execution.process import Process, SpawnError, SpawnRequest, spawn
from cranehooks.model.ids import RunId
from cranehooks.model.job import ExitStatus, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.oom import oom_cause, with_oom
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, RunSpec
from cranehooks.model.usage import usage_of
from cranehooks.policy import task_exit
from cranehooks.profiles import TaskAction
from cranekit import crash_points
from csupervisor import task as machine
from csupervisor.bootstrap import Bootstrap, TaskHook, TaskStart
from csupervisor.cleanup import emptied, end_all
from csupervisor.hook_failure import failure_of
from csupervisor.identity import acting_as
from csupervisor.limits import rlimits_of
from csupervisor.program import UnrunnableError, find_program, unrunnable
from csupervisor.stdio import Output, TaskStreams

_DEFAULT_OUTPUT_LIMIT_BYTES: Final = 1 << 20
_EDITS: Final = frozenset({HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_PROLOG})
"""Hooks whose output may change the task."""


_EXITED: Final = frozenset({OutcomeKind.OK, OutcomeKind.EXIT})


_MAY_BE_LOST: Final = "directives in what was dropped were not obeyed"


class HookEngine(Protocol):
    """Runs hooks; `cranehooks.execution.asyncio_engine.AsyncEngine` is the real one."""

    async def run(self, spec: RunSpec, *, on_stderr: Callable[[bytes], None] | None = None) -> HookRun: ...

    def stop(self, run_id: RunId) -> bool: ...


@dataclass(frozen=True, slots=True)
class TaskReports:
    """Who is told of what a task does."""

    running: Callable[[TaskStart], None]
    over: Callable[[TaskEnd, str, Usage], None]
    """With a notice for its owner, or none, and with what it used."""
    hook_ended: Callable[[HookRun], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """The script of a batch step, where it was written."""

    path: str
    name: str
    """As its owner knows it."""
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskSurroundings:
    """What the tasks of a step share."""

    bootstrap: Bootstrap
    engine: HookEngine
    group: asyncio.TaskGroup
    reports: TaskReports
    batch: Batch | None
    shown: Output
    """Standard error of the first task here: what hooks say goes there where the profile wants it."""
    oom_score_adj: int | None
    """Given to processes of the user; None lets them inherit ours."""


class _Shown:
    """Passes on the beginning of what a hook says, and that there was more."""

    def __init__(self, output: Output, limit_bytes: int) -> None:
        self._output = output
        self._left_bytes = limit_bytes

    def write(self, data: bytes) -> None:
        if self._left_bytes <= 0:
            return
        self._output.write(data[: self._left_bytes])
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._output.write(b"\n[... more is not shown ...]\n")


class TaskRun:
    """One task. All calls come from the loop's thread."""

    def __init__(self, surroundings: TaskSurroundings, start: TaskStart, streams: TaskStreams, cell: Cell) -> None:
        bootstrap = surroundings.bootstrap
        self._around = surroundings
        self._bootstrap = bootstrap
        self._start = start
        self._streams = streams
        self._cell = cell
        self._environment = dict(start.environment)
        self._output_limit_bytes = bootstrap.output_limit_bytes or _DEFAULT_OUTPUT_LIMIT_BYTES
        self._state = machine.Task(
            start.task_id, frozenset(bootstrap.hooks), bootstrap.kill_grace_s, bootstrap.unkillable_after_s
        )
        self._events: deque[machine.Event] = deque()
        self._loop = asyncio.get_running_loop()
        self._timers: dict[machine.Timer, asyncio.TimerHandle] = {}
        self._process: Process | None = None
        self._task_pid: int | None = None
        self._process_usage: Usage | None = None
        self._oom_kills = 0
        """Told so far."""
        self._hook: RunId | None = None
        self._waiting_for_rest: asyncio.Task[None] | None = None

    def feed(self, event: machine.Event) -> None:
        """Let the machine take a step, and do what follows."""
        self._events.append(event)
        if len(self._events) > 1:
            # A report of an effect led here: the loop below goes on with it.
            return
        while self._events:
            self._state, effects = machine.advance(self._state, self._events[0])
            for effect in effects:
                answer = self._carry_out(effect)
                if answer is not None:
                    self._events.append(answer)
            self._events.popleft()

    def _carry_out(self, effect: machine.Effect) -> machine.Event | None:
        crash_points.reached(f"task: {type(effect).__name__}")
        match effect:
            case machine.RunHook(point):
                self._hook = self._key(point).run_id
                self._around.group.create_task(self._run_hook(point), name=self._hook)
            case machine.StopHook():
                if self._hook is not None and not self._around.engine.stop(self._hook):
                    # It has not begun: `_run_hook` finds no hook to run.
                    self._hook = None
            case machine.SpawnTask():
                return self._spawn()
            case machine.SignalTask(number):
                self._cell.signal_all(number)
            case machine.KillTask():
                self._cell.kill()
            case machine.AwaitRest():
                self._wait_for_rest(emptied(self._cell))
            case machine.KillRest():
                self._wait_for_rest(end_all(self._cell, self._bootstrap.unkillable_after_s))
            case machine.SetTimer(timer, after_s):
                self._timers[timer] = self._loop.call_later(after_s, self._timer_ended, timer)
            case machine.CancelTimer(timer):
                if handle := self._timers.pop(timer, None):
                    handle.cancel()
            case machine.ReportRunning():
                self._around.reports.running(self._start)
            case machine.ReportEnd(end):
                usage = self._usage()
                self._give_up()
                self._around.reports.over(end, self._state.notice, usage)
        return None

    def _timer_ended(self, timer: machine.Timer) -> None:
        del self._timers[timer]
        self.feed(machine.TimerEnded(timer))

    # ---- hooks

    def _key(self, point: HookPoint) -> HookKey:
        key = self._bootstrap.key
        return HookKey(point, key.job_id, key.attempt, self._bootstrap.node, key.step_id, self._start.task_id)

    async def _run_hook(self, point: HookPoint) -> None:
        if self._hook is None:
            self.feed(machine.HookEnded(point))
            return
        bootstrap, hook = self._bootstrap, self._bootstrap.hooks[point]
        if hook.problem:
            outcome = Outcome(OutcomeKind.SPAWN, 0, hook.problem)
            run = HookRun(self._key(point), bootstrap.job.user, time.time(), 0.0, outcome)
        else:
            told = _Shown(self._around.shown, self._output_limit_bytes).write if hook.shows_stderr else None
            run = await self._around.engine.run(self._spec(point, hook), on_stderr=told)
        self._hook = None
        if point in _EDITS:
            run = self._apply_directives(run)
        run = with_oom(_readable(run), self._new_oom_kills(), bootstrap.limits.memory_bytes)
        self._around.reports.hook_ended(run)
        action = bootstrap.task_prolog_failure
        self.feed(machine.HookEnded(point, failure_of(run), task_exit(action, run.outcome), action is TaskAction.CANCEL))

    def _spec(self, point: HookPoint, hook: TaskHook) -> RunSpec:
        bootstrap = self._bootstrap
        return RunSpec(
            key=self._key(point),
            scripts=hook.scripts,
            environment=task_hook_environment(
                point,
                self._start.environment if hook.original_environment else self._environment,
                task_pid=self._task_pid,
                slurm=bootstrap.slurm_compatible_env,
            ),
            timeout_s=hook.timeout_s,
            timeout_scope=hook.timeout_scope,
            continue_on_failure=hook.continue_on_failure,
            credentials=bootstrap.job.credentials,
            user=bootstrap.job.user,
            cwd=bootstrap.cwd,
            grace_s=hook.grace_s,
            limits=hook.limits,
            unkillable_after_s=bootstrap.unkillable_after_s,
            output_limit_bytes=self._output_limit_bytes,
            trusted_owner=hook.trusted_owner,
            cgroup=self._cell.cgroup,
            notes=hook.notes,
        )

    def _apply_directives(self, run: HookRun) -> HookRun:
        """What the scripts exported counts however they ended: an after-hook may need to know. What they print, if they ended.

        Returns: the run, with a note where directives may have been among output that was dropped.
        """
        if self._bootstrap.slurm_compatible_env and run.scripts:
            # As Slurm: the task keeps it.
            self._environment["SLURM_SCRIPT_CONTEXT"] = SCRIPT_CONTEXTS[run.key.point][1]
        for script in run.scripts:
            said = whole_lines(script.output.encode("utf-8", "surrogateescape"), script.output_bytes, self._output_limit_bytes)
            edits = directives.parse(said)
            self._environment, printed = directives.apply(self._environment, edits)
            if printed and script.outcome.kind in _EXITED:
                self._streams.stdout.write(printed)
            if script.output_bytes > self._output_limit_bytes:
                note = f"{script.name} wrote {script.output_bytes} bytes, MaxOutputSize is {self._output_limit_bytes}: {_MAY_BE_LOST}"
                run = replace(run, notes=(*run.notes, note))
        return run

    # ---- the process

    def _spawn(self) -> machine.Event:
        try:
            self._process = self._spawn_process()
        except UnrunnableError as error:
            self._streams.stderr.write(f"crane: {error}\n".encode("utf-8", "surrogateescape"))
            return machine.SpawnFailed(error.exit, str(error))
        self._task_pid = self._process.pid
        self._cell.started(self._task_pid)
        self._loop.add_reader(self._process.pidfd, self._exited)
        return machine.Spawned()

    def _spawn_process(self) -> Process:
        """Start the task's program.

        Raises:
            UnrunnableError: it cannot be run.
        """
        bootstrap, batch = self._bootstrap, self._around.batch
        if batch is not None:
            name, path, argv = batch.name, batch.path, (batch.path, *batch.arguments)
        else:
            argv = bootstrap.step.argv
            name = argv[0]
            with acting_as(bootstrap.job.credentials):
                path = find_program(name, self._environment, bootstrap.cwd)
        with ExitStack() as lent:
            stdin, stdout, stderr = self._streams.stdin, self._streams.stdout, self._streams.stderr
            request = SpawnRequest(
                path=path,
                argv=argv,
                environment=self._environment,
                stdin=lent.enter_context(stdin.for_child()) if stdin is not None else None,
                stdout=lent.enter_context(stdout.for_child()),
                stderr=lent.enter_context(stderr.for_child()),
                cwd=bootstrap.cwd,
                credentials=bootstrap.job.credentials,
                umask=bootstrap.umask,
                rlimits=rlimits_of(bootstrap.soft_limits),
                drops_capabilities=bootstrap.job.uid != 0,
                empties_bounding_set=bootstrap.job.uid != 0 and not bootstrap.allow_setuid_programs,
                cgroup_fd=self._cell.cgroup_fd,
                entry_fds=tuple(self._cell.entry_fds),
                oom_score_adj=self._around.oom_score_adj,
                # Nobody could tell how it ended, nor take its output.
                parent_death_signal=SIGKILL,
                child_subreaper=self._cell.wants_subreaper,
            )
            try:
                return spawn(request)
            except SpawnError as error:
                raise unrunnable(error, name) from error

    def _exited(self) -> None:
        assert self._process is not None
        pidfd = self._process.pidfd
        status = self._process.reap()
        if status is None:
            return
        self._loop.remove_reader(pidfd)
        self._process_usage = self._process.usage
        self._process = None
        self._cell.leader_exited()
        signal = status & 0x7F
        ended = ExitStatus(signal=signal) if signal else ExitStatus(code=status >> 8)
        cause = oom_cause(ended, self._new_oom_kills(), self._bootstrap.limits.memory_bytes)
        self.feed(machine.ProcessExited(ended, cause))

    def _new_oom_kills(self) -> int:
        """How many processes in the task's cell the kernel has killed for want of memory since the last call."""
        before, self._oom_kills = self._oom_kills, self._cell.usage().oom_kills or 0
        return self._oom_kills - before

    def _usage(self) -> Usage:
        """Of the whole cell where the driver counts it, else of the process."""
        return usage_of(self._cell.usage(), () if self._process_usage is None else (self._process_usage,))

    def _wait_for_rest(self, rest: Coroutine[None, None, object]) -> None:
        if self._waiting_for_rest is not None:
            self._waiting_for_rest.cancel()
        self._waiting_for_rest = self._around.group.create_task(self._clear(rest))

    async def _clear(self, rest: Coroutine[None, None, object]) -> None:
        await rest
        self._waiting_for_rest = None
        self.feed(machine.Cleared())

    def _give_up(self) -> None:
        if self._process is not None:
            # Unkillable: if it ever ends, it is reaped like an orphan.
            self._loop.remove_reader(self._process.pidfd)
        self._cell.remove()
        if self._streams.stdin is not None:
            self._streams.stdin.close()


def _readable(run: HookRun) -> HookRun:
    """For people: replacement characters where the output is no UTF-8."""
    scripts = tuple(
        replace(script, output=script.output.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        for script in run.scripts
    )
    return replace(run, scripts=scripts)
