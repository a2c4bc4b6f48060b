"""Does what the machine of the extern step asks for, and tells the machine what craned says and how hooks end."""

import asyncio
import logging
import time
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol

from cranehooks.execution.asyncio_engine import AsyncEngine
from cranehooks.execution.containment.cells import Cell, Containment
from cranehooks.execution.containment.detect import AUTO, ContainmentUnavailableError, detect
from cranehooks.execution.engine import Engine
from cranehooks.model.ids import RunId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, RunSpec
from csupervisor import extern as machine
from csupervisor.bootstrap import Bootstrap
from csupervisor.cleanup import end_all
from csupervisor.step import StepEnd
from csupervisor.step_run import oom_score_adj_for_users

_log = logging.getLogger(__name__)


class Craned(Protocol):
    """What the step has to say to its craned; nothing of it waits."""

    def send_started(self, cgroup: str = "") -> None: ...

    def send_node_hook_run(self, run: HookRun) -> None: ...

    def note_node_hook(self, point: HookPoint) -> None: ...

    def send_end(self, end: StepEnd) -> None: ...


class ExternRun:
    """The extern step on this node; hears what craned says (`craned_client.CranedListener`)."""

    def __init__(self, bootstrap: Bootstrap, craned: Craned, group: asyncio.TaskGroup, resources: AsyncExitStack) -> None:
        """Work goes into `group`; what has to be closed after all of that goes onto `resources`."""
        self._bootstrap = bootstrap
        self._craned = craned
        self._group = group
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._state = machine.Extern()
        self._events: deque[machine.Event] = deque()
        self._orders: dict[HookPoint, RunSpec] = {}
        self._running: dict[HookPoint, RunId] = {}
        self._place: _Place | None = None
        self._engine: AsyncEngine | None = None
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
        """It lives on without a craned; nothing of it is for a launcher."""

    def launcher(self, *, attached: bool) -> None:
        """It has none."""

    def stdin(self, data: bytes, *, eof: bool) -> None:
        """Nobody reads it."""

    def output_taken(self, size_bytes: int) -> None:
        """Nothing was sent."""

    def signalled(self, number: int) -> None:
        """There is no task to signal."""

    def terminated(self, reason: str) -> None:
        self.feed(machine.Terminate(reason))

    def end_acknowledged(self) -> None:
        self.feed(machine.EndAcknowledged())

    def node_hook_ordered(self, spec: RunSpec) -> None:
        self._orders.setdefault(spec.key.point, spec)
        self.feed(machine.HookOrdered(spec.key.point))

    def node_hook_stopped(self, point: HookPoint) -> None:
        self.feed(machine.HookStopOrdered(point))

    def stop(self) -> None:
        """The supervisor is asked to go."""
        self.feed(machine.Stop("its supervisor was asked to stop"))

    # ---- what the machine asks for

    def _carry_out(self, effect: machine.Effect) -> None:
        match effect:
            case machine.Open():
                self._group.create_task(self._open(), name="open")
            case machine.ReportReady():
                self._craned.send_started(self._place.cgroup or "" if self._place is not None else "")
            case machine.RunHook(point):
                self._craned.note_node_hook(point)
                self._group.create_task(self._run(self._orders[point]), name=f"hook {point.value}")
            case machine.StopHook(point):
                if self._engine is not None and point in self._running:
                    self._engine.stop(self._running[point])
            case machine.CleanUp():
                self._group.create_task(self._clean_up(), name="clean up")
            case machine.ReportEnd(reason, unkillable):
                _log.info("extern step %s ended: %s", self._bootstrap.key, reason)
                self._craned.send_end(StepEnd((), reason, unkillable))
            case machine.BoundDelivery(after_s):
                self._loop.call_later(after_s, self.feed, machine.DeliveryTimeEnded())
            case machine.Exit():
                if self._state.phase is machine.Phase.UNDELIVERED:
                    _log.warning("extern step %s: no craned took its end in time", self._bootstrap.key)
                self.over.set()

    async def _open(self) -> None:
        try:
            self._place = _Place(self._bootstrap)
        except (OSError, ContainmentUnavailableError) as error:
            self.feed(machine.OpeningFailed(f"cannot contain the job's processes: {error}"))
            return
        engine = Engine(self._place.containment, oom_score_adj=oom_score_adj_for_users())
        self._engine = await self._resources.enter_async_context(AsyncEngine(engine))
        self.feed(machine.Opened())

    async def _run(self, spec: RunSpec) -> None:
        assert self._engine is not None, "hooks run once the step is open"
        assert self._place is not None, "hooks run once the step is open"
        point = spec.key.point
        self._running[point] = spec.key.run_id
        try:
            spec = self._place.placed(spec)
        except OSError as error:
            outcome = Outcome(OutcomeKind.SPAWN, error.errno or 0, f"containment: {error.strerror or error}")
            run = HookRun(spec.key, spec.user, time.time(), 0.0, outcome, notes=spec.notes)
        else:
            run = await self._engine.run(spec)
        del self._running[point]
        self._craned.send_node_hook_run(run)
        self.feed(machine.HookEnded(point))

    async def _clean_up(self) -> None:
        unkillable: tuple[str, ...] = ()
        if self._place is not None:
            unkillable = await self._place.clear(self._bootstrap.unkillable_after_s)
        self.feed(machine.CleanedUp(unkillable))


class _Place:
    """The step's place among the job's, where its hooks have their cells."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        """Make its cell. Raises OSError, ContainmentUnavailableError."""
        driver = bootstrap.containment
        self.containment: Containment = detect(driver, bootstrap.cgroup_instance, is_shown=driver != AUTO)[0]
        self._parts = bootstrap.cgroup_root.split("/")
        self._cell = self._make()

    @property
    def cgroup(self) -> str | None:
        """Absolute directory; None where there are no cgroups."""
        return self._cell.cgroup

    def placed(self, spec: RunSpec) -> RunSpec:
        """The run in this place. Whatever was in the job's cgroup may have been ended since, and the cgroups with it: they are made anew."""
        self._cell.remove()
        self._cell = self._make()
        return replace(spec, cgroup=self._cell.cgroup)

    async def clear(self, patience_s: float) -> tuple[str, ...]:
        """Kill what lives here and remove it; the processes that survive, as `pid command`."""
        # From now on it stands for whatever falls to us; it never had a first process.
        self._cell.leader_exited()
        survivors = await end_all(self._cell, patience_s)
        self._cell.remove()
        return tuple(f"{survivor.pid} {survivor.command}" for survivor in survivors)

    def _make(self) -> Cell:
        return self.containment.create_at(*self._parts)
