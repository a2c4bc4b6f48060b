import asyncio

from craned.hooks.turns import Turn, Turns


async def test_turns_are_taken_in_order() -> None:
    turns, order = Turns(), list[int]()

    async def work(number: int) -> None:
        assert await turns.take(asyncio.Event(), None) is Turn.TAKEN
        order.append(number)
        await asyncio.sleep(0)
        turns.give_back()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(number))
    assert order == [0, 1, 2, 3, 4]
    assert await turns.take(asyncio.Event(), None) is Turn.TAKEN


async def test_waiting_ends_when_it_is_stopped_or_too_late() -> None:
    turns, stop = Turns(), asyncio.Event()
    await turns.take(stop, None)
    assert await turns.take(asyncio.Event(), 0.001) is Turn.TOO_LATE
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(turns.take(stop, None))
        await asyncio.sleep(0)
        stop.set()
    assert waiting.result() is Turn.STOPPED
    assert await turns.take(stop, None) is Turn.STOPPED
    turns.give_back()
    assert await turns.take(asyncio.Event(), None) is Turn.TAKEN


async def test_who_is_cancelled_does_not_keep_the_turn() -> None:
    turns = Turns()
    await turns.take(asyncio.Event(), None)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(turns.take(asyncio.Event(), None))
        second = group.create_task(turns.take(asyncio.Event(), None))
        await asyncio.sleep(0)
        turns.give_back()
        first.cancel()
    assert second.result() is Turn.TAKEN
