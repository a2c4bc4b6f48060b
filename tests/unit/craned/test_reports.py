import asyncio
from dataclasses import replace

from craned.attempts.effects import ReportProlog, ReportReleased, ReportStepStarted
from craned.attempts.reports import Outbox, ReportHook, clipped_content
from cranehooks.model.ids import StepId
from cranehooks.model.limits import Usage
from cranehooks.model.outcome import OK
from cranehooks.model.points import HookPoint
from cranehooks.model.run import ScriptRun
from tests.unit.craned.test_attempt import KEY, a_run

STARTED = ReportStepStarted(StepId("0"))


def ids(outbox: Outbox) -> list[int]:
    return [report.report_id for report in outbox.pending]


async def test_nothing_overtakes_a_report_that_is_not_durable_yet() -> None:
    outbox = Outbox()
    first, second = outbox.reserve(KEY, [STARTED], 1.0), outbox.reserve(KEY, [STARTED], 2.0)
    outbox.release(second)
    waiting = asyncio.timeout(0.01)
    try:
        async with waiting:
            await outbox.next_batch(10)
    except TimeoutError:
        outbox.release(first)
    assert waiting.expired()
    assert [report.report_id for report in await outbox.next_batch(10)] == [1, 2]
    assert [report.report_id for report in await outbox.next_batch(1)] == [1]


def test_acknowledging_drops_the_oldest_ones_only() -> None:
    outbox = Outbox()
    outbox.release(outbox.reserve(KEY, [STARTED] * 3, 1.0))
    assert outbox.acknowledge(2) == 2
    assert ids(outbox) == [3]
    assert outbox.acknowledge(2) == 0


def test_what_is_withdrawn_was_never_told() -> None:
    outbox = Outbox(next_id=5)
    outbox.withdraw(outbox.reserve(KEY, [STARTED], 1.0))
    outbox.release(outbox.reserve(KEY, [STARTED], 1.0))
    assert ids(outbox) == [6]
    assert outbox.next_id == 7


def test_it_says_when_it_is_full() -> None:
    outbox = Outbox(capacity=2)
    outbox.reserve(KEY, [STARTED], 1.0)
    assert not outbox.is_full
    outbox.reserve(KEY, [STARTED], 1.0)
    assert outbox.is_full


def test_long_output_of_any_hook_is_clipped() -> None:
    long = replace(a_run(HookPoint.PROLOG), scripts=(ScriptRun("/p", OK, 1.0, 1.0, output="x" * 100 + "end"),))
    for content in (ReportProlog(long), ReportHook(long)):
        assert clipped_content(content, 50) != content
    assert clipped_content(STARTED, 50) is STARTED


def test_a_release_that_is_clipped_keeps_what_was_used() -> None:
    script = ScriptRun("/e.sh", OK, 1.0, 0.1, output="x" * 1000)
    released = ReportReleased(replace(a_run(HookPoint.EPILOG), scripts=(script,)), Usage(1.0, 2, 3))
    clipped = clipped_content(released, 100)
    assert isinstance(clipped, ReportReleased)
    assert clipped.usage == Usage(1.0, 2, 3)
    assert clipped != released
