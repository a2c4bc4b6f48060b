"""Hooks in the extern step: what craned makes of a supervisor that runs them, dies, or comes back after a restart."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from craned.hooks.node_hooks import ExternGoneError
from craned.job.cells import JobCells
from craned.job.limits import LimitSettings
from craned.steps.driver import ActiveStep
from craned.steps.extern import ExternHooks, tell_of_loss
from craned.steps.node_hook_orders import NodeHookOrders
from craned.steps.supervisor_client import RunNodeHook, StopNodeHook, ToSupervisor
from cranehooks.model.ids import EXTERN_STEP, StepKey
from cranehooks.model.outcome import OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings, RunSpec
from tests.support.eventually import eventually_async
from tests.unit.craned.test_attempt import KEY, NODE, a_run
from tests.unit.craned.test_recovery import JOB

PROLOG = HookKey(HookPoint.PROLOG, KEY.job_id, KEY.attempt, NODE)
SPEC = RunSpec(PROLOG, ("/p.sh",), {}, 60.0, user="root")


@dataclass
class FakeLink:
    sent: list[ToSupervisor] = field(default_factory=list)

    def send(self, message: ToSupervisor) -> None:
        self.sent.append(message)


@dataclass
class FakeSteps:
    """The part of `Steps` that is used here, with one extern step."""

    active: ActiveStep | None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, key: StepKey) -> ActiveStep | None:
        return self.active if self.active is not None and self.active.key == key else None

    def announce(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


class Rig:
    def __init__(self) -> None:
        self.orders = NodeHookOrders()
        self.link = FakeLink()
        key = StepKey(KEY.job_id, KEY.attempt, EXTERN_STEP)
        self.active = ActiveStep(key, 0, JOB, node_hooks=self.orders)
        self.steps = FakeSteps(self.active)
        cells = JobCells(None, LimitSettings)
        self.extern = ExternHooks(self.steps, cells)  # type: ignore[arg-type]  # the part that is used

    def connect(self, *known: HookPoint) -> None:
        """The supervisor dials, and knows of these hooks."""
        self.active.link = self.link  # type: ignore[assignment]  # the part that is used
        self.link.sent += self.orders.dialled(known)
        self.orders.cgroup = "/sys/fs/cgroup/job_42/step_extern"
        self.steps.announce()

    def end(self, reason: str) -> None:
        self.active.is_over, self.active.end = True, ((), reason)
        self.steps.announce()

    def ended(self, run: HookRun) -> None:
        self.orders.ended(run)
        self.steps.announce()


@asynccontextmanager
async def awaited(rig: Rig, *, resumed: bool = False) -> AsyncIterator[asyncio.Task[HookRun | str]]:
    """The hook as it is waited for; the block makes it end. A text: why it has not begun."""

    async def run() -> HookRun | str:
        try:
            return await (rig.extern.resume(PROLOG, "root") if resumed else rig.extern.run(JOB, SPEC))
        except ExternGoneError as error:
            return str(error)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(run())
        if not resumed:
            # `run` looks at the job's cell in a thread.
            await eventually_async(lambda: rig.orders._orders)
        yield task


async def test_a_hook_is_sent_to_the_supervisor_and_its_record_comes_back() -> None:
    rig = Rig()
    rig.connect()
    assert await rig.extern.ready(JOB, asyncio.Event()) == "/sys/fs/cgroup/job_42/step_extern"
    async with awaited(rig) as task:
        assert rig.link.sent == [RunNodeHook(SPEC)]
        rig.ended(a_run(HookPoint.PROLOG))
    assert task.result() == a_run(HookPoint.PROLOG)


async def test_what_it_was_not_given_is_given_at_the_next_dial_with_the_stop_that_came_meanwhile() -> None:
    rig = Rig()
    async with awaited(rig):
        rig.extern.stop(PROLOG)
        rig.connect()
        assert rig.link.sent == [RunNodeHook(SPEC), StopNodeHook(HookPoint.PROLOG)]
        rig.ended(a_run(HookPoint.PROLOG))
    rig = Rig()
    async with awaited(rig):
        rig.connect(HookPoint.PROLOG)
        assert rig.link.sent == []
        rig.ended(a_run(HookPoint.PROLOG))


async def test_a_supervisor_that_dies_loses_the_hook_that_it_had_and_no_other() -> None:
    rig = Rig()
    rig.connect()
    async with awaited(rig) as task:
        rig.end("supervisor died")
    lost = task.result()
    assert isinstance(lost, HookRun)
    assert (lost.outcome.kind, lost.key) == (OutcomeKind.LOST, PROLOG)
    assert "supervisor died" in lost.outcome.detail
    rig = Rig()
    async with awaited(rig) as task:
        rig.end("supervisor died")
    assert task.result() == "supervisor died"
    with pytest.raises(ExternGoneError, match="supervisor died"):
        await rig.extern.ready(JOB, asyncio.Event())
    rig.steps.active = None
    with pytest.raises(ExternGoneError, match="there is none"):
        await rig.extern.ready(JOB, asyncio.Event())


@pytest.mark.parametrize(
    ("happens", "kind"),
    [
        (lambda rig: rig.connect(HookPoint.PROLOG) or rig.ended(a_run(HookPoint.PROLOG)), OutcomeKind.OK),
        (lambda rig: rig.connect(), OutcomeKind.LOST),
        (lambda rig: rig.end("it did not connect"), OutcomeKind.LOST),
    ],
    ids=["it has ended meanwhile", "it was never handed over", "its supervisor is gone"],
)
async def test_after_a_restart_the_supervisor_says_what_became_of_it(happens: Callable[[Rig], object], kind: OutcomeKind) -> None:
    rig = Rig()
    async with awaited(rig, resumed=True) as task:
        happens(rig)
    run = task.result()
    assert isinstance(run, HookRun)
    assert run.outcome.kind is kind


async def test_waiting_for_the_step_ends_when_the_hook_is_stopped() -> None:
    rig, stop = Rig(), asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(rig.extern.ready(JOB, stop))
        stop.set()
        rig.steps.announce()
    assert waiting.result() is None


def test_without_control_groups_the_flags_say_what_is_lost() -> None:
    for flags, driver, told in (({"Contain", "RunInJob"}, "none", 1), ({"Contain"}, "cgroup2", 0), ({"Alloc"}, "none", 0)):
        with capture_logs() as logs:
            tell_of_loss(HookSettings("crane-requeue", flags=frozenset(flags)), driver)
        assert [entry["event"] for entry in logs] == ["flags_without_control_groups"] * told
