"""The driver: what is recorded, in which order effects are done, and what is refused."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from craned.attempts.attempt import Phase
from craned.attempts.driver import Attempts, NoSuchStepError, QueueFullError, Started
from craned.attempts.events import PrepareRequested, ProcessesGone, ReleaseRequested, SignalRequested, StepEnded, StepRequested
from craned.attempts.ledger import Ledger
from craned.attempts.recovery import continuation, remember
from craned.attempts.reports import Outbox
from craned.crew import Crew
from cranehooks.journal import Journal, decode
from cranehooks.model.ids import Attempt, AttemptKey, StepKey
from cranehooks.model.job import ExitStatus, JobEnd, JobOnNode, StepSpec, TaskEnd
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, HookSettings
from tests.support.eventually import eventually_async
from tests.unit.craned.test_attempt import BATCH, KEY, NODE, STEP_0, a_run
from tests.unit.craned.test_recovery import HOOKS, JOB

STEP_KEY = StepKey(KEY.job_id, KEY.attempt, STEP_0.step_id)


@dataclass
class FakeHooks:
    """Hooks that end when the test says so."""

    done: list[str] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def run_prolog(
        self, job: JobOnNode, hooks: HookSettings, *, started: Started, stop: asyncio.Event, resumed: bool
    ) -> HookRun:
        del job, hooks, stop, resumed
        await started()
        self.done.append("prolog")
        await self.may_end.wait()
        return a_run(HookPoint.PROLOG)

    async def run_epilog(
        self, job: JobOnNode, hooks: HookSettings, end: JobEnd, unkillable: tuple[str, ...], *, started: Started, resumed: bool
    ) -> HookRun | None:
        del job, hooks, unkillable, resumed
        await started()
        self.done.append(f"epilog {end.exit}, steps {end.derived_exit}")
        return a_run(HookPoint.EPILOG)

    def failure(self, run: HookRun) -> str:
        return str(run.outcome)


@dataclass
class FakeSteps:
    done: list[str] = field(default_factory=list)

    def start(self, job: JobOnNode, hooks: HookSettings, step: StepSpec) -> None:
        del job, hooks
        self.done.append(f"start {step.step_id}")

    def expect(self, job: JobOnNode, step: StepSpec, *, is_running: bool) -> None:
        del job
        self.done.append(f"expect {step.step_id} {is_running}")

    def signal(self, key: StepKey, signal_number: int) -> None:
        self.done.append(f"signal {key} {signal_number}")

    def terminate(self, key: StepKey, reason: str) -> None:
        self.done.append(f"terminate {key} {reason}")

    def ended(self, job: JobOnNode, key: StepKey, tasks: Iterable[TaskEnd], reason: str) -> None:
        del job, tasks
        self.done.append(f"ended {key} {reason}")

    def announce(self) -> None:
        pass

    async def kill_job(self, job: JobOnNode) -> ProcessesGone:
        del job
        self.done.append("kill")
        return ProcessesGone()


@dataclass
class Rig:
    attempts: Attempts
    hooks: FakeHooks
    steps: FakeSteps
    outbox: Outbox
    journal: Path


@asynccontextmanager
async def rig_of(directory: Path, *, capacity: int = 100) -> AsyncIterator[Rig]:
    path = directory / "journal"
    journal, reading = Journal.open(path, sync=False)
    memory = remember(reading.records)
    outbox = Outbox(memory.reports, next_id=memory.next_report_id)
    attempts = Attempts(NODE, Ledger(journal, outbox, "boot"), outbox, capacity=capacity)
    hooks, steps = FakeHooks(), FakeSteps()
    async with asyncio.TaskGroup() as group:
        crew = Crew(group)
        attempts.begin(crew, hooks, steps)
        for key, remembered in memory.attempts.items():
            attempts.restore(key, remembered)
        for key, remembered in memory.attempts.items():
            await attempts.go_on(key, continuation(remembered.state, "root", 1.0, has_rebooted=False))
        try:
            yield Rig(attempts, hooks, steps, outbox, path)
        finally:
            crew.dismiss()
    journal.close()


async def test_a_request_is_on_disk_before_it_is_acknowledged_and_an_intent_before_its_hook(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        await rig.attempts.request(JOB, HOOKS, StepRequested(BATCH))
        assert remember(decode(rig.journal.read_bytes()).records).attempts[KEY].state.knows(BATCH.step_id)
        await eventually_async(lambda: rig.hooks.done == ["prolog"])
        assert remember(decode(rig.journal.read_bytes()).records).attempts[KEY].state.prolog.value == "running"
        assert rig.steps.done == []
        rig.hooks.may_end.set()
        await eventually_async(lambda: rig.steps.done == ["start batch"])


async def test_a_whole_life(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        rig.hooks.may_end.set()
        await rig.attempts.request(JOB, HOOKS, StepRequested(STEP_0))
        await eventually_async(lambda: rig.steps.done == ["start 0"])
        await rig.attempts.tasks_started(STEP_KEY)
        await rig.attempts.signal(STEP_KEY, SignalRequested(STEP_0.step_id, 10))
        await rig.attempts.step_ended(STEP_KEY, StepEnded(STEP_0.step_id, ()))
        await rig.attempts.request(JOB, HOOKS, ReleaseRequested(ExitStatus(3), "", ExitStatus(5)))
        await eventually_async(lambda: rig.attempts.held[KEY].phase is Phase.RELEASED)
        assert rig.steps.done == ["start 0", f"signal {STEP_KEY} 10", f"ended {STEP_KEY} ", "kill"]
        assert rig.hooks.done == ["prolog", "epilog 3:0, steps 5:0"]
        kinds = [type(report.content).__name__ for report in rig.outbox.pending]
        assert kinds == ["ReportProlog", "ReportStepStarted", "ReportStepEnded", "ReportReleased"]
    async with rig_of(tmp_path) as rig:
        await rig.attempts.request(JOB, HOOKS, ReleaseRequested())
        await rig.attempts.request(JOB, HOOKS, StepRequested(BATCH))
        assert rig.hooks.done == []
        assert len(rig.outbox.pending) == 4


async def test_a_step_that_is_not_here_cannot_be_signalled(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        with pytest.raises(NoSuchStepError):
            await rig.attempts.signal(STEP_KEY, SignalRequested(STEP_0.step_id, 10))


async def test_too_much_work_is_refused_and_a_release_never_is(tmp_path: Path) -> None:
    async with rig_of(tmp_path, capacity=3) as rig:
        await rig.attempts.request(JOB, HOOKS, StepRequested(STEP_0))
        await rig.attempts.request(JOB, HOOKS, StepRequested(STEP_0))
        await rig.attempts.request(JOB, HOOKS, StepRequested(BATCH))
        with pytest.raises(QueueFullError):
            await rig.attempts.request(replace(JOB, attempt=Attempt(2)), HOOKS, PrepareRequested())
        await rig.attempts.request(replace(JOB, attempt=Attempt(2)), HOOKS, ReleaseRequested())


async def test_a_full_disk_refuses_a_request_and_nothing_of_it_is_known(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(QueueFullError, match="nothing was accepted"):
                await rig.attempts.request(JOB, HOOKS, PrepareRequested())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert rig.attempts.held == {}
        assert rig.hooks.done == []
        await rig.attempts.request(JOB, HOOKS, PrepareRequested())
        await eventually_async(lambda: rig.hooks.done == ["prolog"])


async def test_late_requests_of_an_older_attempt_are_dropped(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        await rig.attempts.request(replace(JOB, attempt=Attempt(2)), HOOKS, PrepareRequested())
        await rig.attempts.request(JOB, HOOKS, StepRequested(BATCH))
        assert list(rig.attempts.held) == [AttemptKey(KEY.job_id, Attempt(2))]
        await rig.attempts.step_ended(STEP_KEY, StepEnded(STEP_0.step_id, ()))
        assert not rig.outbox.pending


async def test_after_a_restart_steps_are_expected_and_a_queued_prolog_runs(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        rig.hooks.may_end.set()
        await rig.attempts.request(JOB, HOOKS, StepRequested(STEP_0))
        await eventually_async(lambda: rig.steps.done == ["start 0"])
        await rig.attempts.tasks_started(STEP_KEY)
    async with rig_of(tmp_path) as rig:
        assert rig.steps.done == ["expect 0 True"]
        assert rig.hooks.done == []


async def test_closing_refuses_new_work_and_waits_for_hooks(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        await rig.attempts.request(JOB, HOOKS, PrepareRequested())
        await eventually_async(lambda: rig.hooks.done == ["prolog"])
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(rig.attempts.close(30))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="stopping"):
                await rig.attempts.request(JOB, HOOKS, StepRequested(BATCH))
            assert not closing.done()
            rig.hooks.may_end.set()
        await rig.attempts.close(0.01)
