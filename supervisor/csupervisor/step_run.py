"""Does what the machine of the step asks for, and tells the machine what craned, the launcher and the tasks do."""

import asyncio
import logging
import os
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

from cranehooks.execution.asyncio_engine import AsyncEngine
from cranehooks.execution.containment.detect import ContainmentUnavailableError
from cranehooks.execution.engine import Engine
from cranehooks.model.ids import TaskId
from cranehooks.model.job import StdioMode, TaskEnd
from cranehooks.model.limits import Usage
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, RunSpec
from cranehooks.model.usage import usage_of
from cranekit import crash_points
from csupervisor import step as machine
from csupervisor import task
from csupervisor.batch import remove_script, write_script
from csupervisor.bootstrap import Bootstrap, TaskStart
from csupervisor.cleanup import StepCells
from csupervisor.identity import acting_as
from csupervisor.stdio import OutputChunk, OutputWindow
from csupervisor.step_streams import OutputFileError, StepStreams
from csupervisor.task_run import TaskReports, TaskRun, TaskSurroundings

_OOM_SCORE_ADJ: Final = Path("/proc/self/oom_score_adj")

_log = logging.getLogger(__name__)


class Craned(Protocol):
    """What a step has to say to its craned; nothing of it waits."""

    def send_started(self) -> None: ...

    def send_hook_run(self, run: HookRun) -> None: ...

    def send_output(self, chunk: OutputChunk) -> None: ...

    def send_stdin_credit(self, size_bytes: int) -> None: ...

    def send_notice(self, text: str) -> None: ...

    def send_end(self, end: machine.StepEnd) -> None: ...


class PreparationError(Exception):
    """The step cannot start on this node: says why, for its owner."""


class StepRun:
    """One step on this node; hears what craned says (`craned_client.CranedListener`)."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        craned: Craned,
        window: OutputWindow,
        group: asyncio.TaskGroup,
        resources: AsyncExitStack,
        *,
        deliver_within_s: float = machine.DELIVER_WITHIN_S,
    ) -> None:
        """Work goes into `group`; what has to be closed after all of that goes onto `resources`."""
        self._bootstrap = bootstrap
        self._craned = craned
        self._group = group
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._window = window
        self._streams = StepStreams(bootstrap, window, craned.send_stdin_credit)
        self._state = machine.Step(
            task_ids=tuple(start.task_id for start in bootstrap.tasks),
            has_launcher=bootstrap.step.stdio is StdioMode.ATTACHED,
            launcher_grace_s=bootstrap.launcher_grace_s,
            output_grace_s=bootstrap.kill_grace_s,
            deliver_within_s=deliver_within_s,
        )
        self._events: deque[machine.Event] = deque()
        self._timers: dict[machine.Timer, asyncio.TimerHandle] = {}
        self._cells: StepCells | None = None
        self._tasks: dict[TaskId, TaskRun] = {}
        self._usages: list[Usage] = []
        """Of tasks that are over."""
        self._is_redialled = False
        self.over = asyncio.Event()
        """Set once nothing is left to do."""

    def begin(self) -> None:
        """Once, when craned can be told."""
        self.feed(machine.Begin())

    def feed(self, event: machine.Event) -> None:
        """Let the machine take a step, and do what follows."""
        self._events.append(event)
        if len(self._events) > 1:
            # An effect led here: the loop below goes on with it.
            return
        while self._events:
            self._state, effects = machine.advance(self._state, self._events[0])
            for effect in effects:
                self._carry_out(effect)
            self._events.popleft()

    # ---- what craned says

    def dialled(self) -> None:
        if self._is_redialled:
            # The launcher was connected through the craned that went away; the grace is for it to come back.
            self.feed(machine.LauncherLost())
            if self._streams.stdin is not None:
                self._streams.stdin.redialled()
        self._is_redialled = True

    def launcher(self, *, attached: bool) -> None:
        self.feed(machine.LauncherAttached() if attached else machine.LauncherLost())

    def stdin(self, data: bytes, *, eof: bool) -> None:
        stdin = self._streams.stdin
        if stdin is None:
            # No task here reads; the sender need not wait for one.
            self._craned.send_stdin_credit(len(data))
            return
        if data:
            stdin.feed(data)
        if eof:
            stdin.end()

    def output_taken(self, size_bytes: int) -> None:
        self._window.acknowledge(size_bytes)

    def signalled(self, number: int) -> None:
        self.feed(machine.Signal(number))

    def terminated(self, reason: str) -> None:
        self.feed(machine.Terminate(reason))

    def end_acknowledged(self) -> None:
        self.feed(machine.EndAcknowledged())

    def node_hook_ordered(self, spec: RunSpec) -> None:
        _log.error("step %s was asked for %s, which is the extern step's", self._bootstrap.key, spec.key.point.value)

    def node_hook_stopped(self, point: HookPoint) -> None:
        """None runs here."""

    def stop(self) -> None:
        """The supervisor is asked to go: it ends the step, and waits only so long for somebody who takes the end."""
        self.feed(machine.Stop("its supervisor was asked to stop"))

    # ---- what the machine asks for

    def _carry_out(self, effect: machine.Effect) -> None:
        crash_points.reached(f"step: {type(effect).__name__}")
        match effect:
            case machine.Prepare():
                self._group.create_task(self._prepare(), name="prepare")
            case machine.BeginTasks():
                for run in self._tasks.values():
                    run.feed(task.Begin())
            case machine.TerminateTasks(reason):
                self._streams.tell(f"step {self._bootstrap.key.step_id} on {self._bootstrap.node} is ended: {reason}")
                for run in self._tasks.values():
                    run.feed(task.Terminate(reason))
            case machine.SignalTasks(number):
                for run in self._tasks.values():
                    run.feed(task.Signal(number))
            case machine.CleanUp():
                self._group.create_task(self._clean_up(), name="clean up")
            case machine.DropOutput():
                self._streams.drop()
            case machine.SetTimer(timer, after_s):
                self._cancel_timer(timer)
                self._timers[timer] = self._loop.call_later(after_s, self._timer_ended, timer)
            case machine.CancelTimer(timer):
                self._cancel_timer(timer)
            case machine.ReportStarted():
                self._craned.send_started()
            case machine.ReportEnd(end):
                _log.info("step %s ended: %s", self._bootstrap.key, _summary(end))
                self._craned.send_end(end)
            case machine.Exit():
                if self._state.phase is machine.Phase.UNDELIVERED:
                    _log.warning("step %s: no craned took its end within %g s", self._bootstrap.key, self._state.deliver_within_s)
                self.over.set()

    def _cancel_timer(self, timer: machine.Timer) -> None:
        if handle := self._timers.pop(timer, None):
            handle.cancel()

    def _timer_ended(self, timer: machine.Timer) -> None:
        del self._timers[timer]
        self.feed(machine.TimerEnded(timer))

    async def _prepare(self) -> None:
        try:
            await self._make_ready()
        except PreparationError as error:
            self._streams.tell(str(error))
            self.feed(machine.PreparationFailed(str(error)))
        else:
            self.feed(machine.Prepared())

    async def _make_ready(self) -> None:
        bootstrap = self._bootstrap
        try:
            self._streams.open_files()
        except OutputFileError as error:
            _check_directories(bootstrap)
            raise PreparationError(str(error)) from error
        _check_directories(bootstrap)
        try:
            batch = write_script(bootstrap) if bootstrap.is_batch else None
        except OSError as error:
            message = f"cannot write the batch script below {bootstrap.state_dir}: {error.strerror}"
            raise PreparationError(message) from error
        try:
            self._cells = StepCells.open(bootstrap)
            cells = {start.task_id: self._cells.task_cell(start.task_id) for start in bootstrap.tasks}
        except (OSError, ContainmentUnavailableError) as error:
            message = f"cannot contain the step's processes: {error}"
            raise PreparationError(message) from error
        oom_score_adj = oom_score_adj_for_users()
        # Directives are bytes: a value that is no UTF-8 reaches its task as it is.
        engine = Engine(
            self._cells.containment,
            oom_score_adj=oom_score_adj,
            keeps_undecodable=True,
            allows_setuid_programs=bootstrap.allow_setuid_programs,
        )
        streams = {start.task_id: self._streams.of_task(start.task_id) for start in bootstrap.tasks}
        surroundings = TaskSurroundings(
            bootstrap=bootstrap,
            engine=await self._resources.enter_async_context(AsyncEngine(engine)),
            group=self._group,
            reports=TaskReports(self._task_running, self._task_over, self._craned.send_hook_run),
            batch=batch,
            shown=streams[bootstrap.tasks[0].task_id].stderr,
            oom_score_adj=oom_score_adj,
        )
        for start in bootstrap.tasks:
            self._tasks[start.task_id] = TaskRun(surroundings, start, streams[start.task_id], cells[start.task_id])

    def _task_running(self, start: TaskStart) -> None:
        self.feed(machine.TaskRunning(start.task_id))

    def _task_over(self, end: TaskEnd, notice: str, usage: Usage) -> None:
        self._usages.append(usage)
        if notice:
            self._streams.tell(notice)
            if not self._streams.goes_to_files:
                self._craned.send_notice(notice)
        self.feed(machine.TaskOver(end))

    async def _clean_up(self) -> None:
        unkillable: tuple[str, ...] = ()
        usage: Usage | None = None
        if self._cells is not None:
            unkillable, whole = await self._cells.clean_up(self._bootstrap.unkillable_after_s)
            usage = usage_of(whole, self._usages)
        if self._bootstrap.is_batch:
            remove_script(self._bootstrap)
        self.feed(machine.CleanedUp(unkillable, usage))
        self._streams.finish(lambda: self.feed(machine.OutputSent()))


def _check_directories(bootstrap: Bootstrap) -> None:
    """Whether the user may work where the step is to work, and has a home.

    Raises:
        PreparationError: no.
    """
    for what, path in (("home directory", bootstrap.home), ("working directory", bootstrap.cwd)):
        if not path:
            continue
        try:
            with acting_as(bootstrap.job.credentials):
                os.chdir(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            message = f"cannot enter {what} {path} on {bootstrap.node}: {why}"
            raise PreparationError(message) from error
        finally:
            os.chdir("/")


def oom_score_adj_for_users() -> int | None:
    """A daemon that the kernel spares does not pass that on."""
    return 0 if int(_OOM_SCORE_ADJ.read_text(encoding="ascii")) < 0 else None


def _summary(end: machine.StepEnd) -> str:
    tasks = ", ".join(f"task {over.task_id} {over.exit}" for over in end.tasks[:8])
    more = f" and {len(end.tasks) - 8} more" if len(end.tasks) > 8 else ""
    return f"{tasks}{more}{f'; {end.reason}' if end.reason else ''}"
