import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from craned.attempts.attempt import AttemptState
from craned.attempts.effects import ReportStepStarted
from craned.attempts.ledger import Ledger
from craned.attempts.reports import Outbox, Report
from craned.ctld_client import ControllerSession, NodeCard, Registration
from cranehooks.journal import Journal
from cranehooks.model.ids import StepId
from cranekit.errors import CraneError, ErrorCode
from tests.support.eventually import eventually_async
from tests.unit.craned.test_attempt import KEY, NODE, new

CARD = NodeCard(NODE, "i1", "boot", "0", "unix:/x", "digest", "none")
STARTED = ReportStepStarted(StepId("0"))


@dataclass
class FakeController:
    """The port, with a controller that may be away or forget."""

    registered: list[list[AttemptState]] = field(default_factory=list)
    heartbeats: int = 0
    reports: list[int] = field(default_factory=list)
    failure: CraneError | None = None
    takes: int = 1_000_000
    """Reports it acknowledges per call."""

    async def register(self, card: NodeCard, jobs: Iterable[AttemptState]) -> Registration:
        self._answer()
        assert card == CARD
        self.registered.append(list(jobs))
        return Registration(0.01, config_differs=False)

    async def heartbeat(self, card: NodeCard) -> None:
        del card
        self._answer()
        self.heartbeats += 1

    async def report(self, card: NodeCard, reports: Sequence[Report]) -> int:
        del card
        self._answer()
        taken = [report.report_id for report in reports][: self.takes]
        self.reports += taken
        return taken[-1] if taken else 0

    def _answer(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass
class Rig:
    controller: FakeController
    outbox: Outbox
    session: ControllerSession


@asynccontextmanager
async def rig_of(directory: Path) -> AsyncIterator[Rig]:
    journal, _ = Journal.open(directory / "journal", sync=False)
    outbox = Outbox()
    controller = FakeController()
    session = ControllerSession(controller, lambda: CARD, lambda: [new()], outbox, Ledger(journal, outbox, "boot"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        try:
            yield Rig(controller, outbox, session)
        finally:
            running.cancel()
    journal.close()


async def test_it_registers_with_what_it_holds_and_then_heartbeats(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        await eventually_async(lambda: rig.controller.heartbeats >= 2)
        assert rig.controller.registered == [[new()]]


async def test_it_registers_again_after_lost_contact_and_when_its_card_changes(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        await eventually_async(lambda: rig.controller.heartbeats)
        rig.controller.failure = CraneError(ErrorCode.FAILED_PRECONDITION, "register first")
        rig.outbox.release(rig.outbox.reserve(KEY, [STARTED], 1.0))
        await asyncio.sleep(0)
        rig.controller.failure = None
        rig.session.card_changed()
        await eventually_async(lambda: len(rig.controller.registered) == 2)
        await eventually_async(lambda: rig.controller.reports == [1])


async def test_reports_are_delivered_in_order_and_repeated_from_the_first_that_was_not_taken(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        rig.controller.takes = 2
        rig.outbox.release(rig.outbox.reserve(KEY, [STARTED] * 5, 1.0))
        await eventually_async(lambda: not rig.outbox.pending)
        assert rig.controller.reports == [1, 2, 3, 4, 5]


async def test_what_is_not_acknowledged_stays(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        rig.controller.takes = 0
        rig.outbox.release(rig.outbox.reserve(KEY, [STARTED], 1.0))
        await eventually_async(lambda: rig.controller.heartbeats >= 3)
        assert len(rig.outbox.pending) == 1
        rig.controller.takes = 1
        await eventually_async(lambda: rig.controller.reports == [1])
