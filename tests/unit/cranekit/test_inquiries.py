"""Questions that may never be answered hold up nobody else."""

import asyncio
import threading

import pytest

from cranekit.errors import ErrorCode
from cranekit.inquiries import Inquiries, InquiryError
from tests.support.eventually import eventually_async


class Oracle:
    """Answers some questions at once, and others when it is let."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[str] = []

    def answer(self, question: str) -> str:
        self.asked.append(question)
        if question.startswith("hard"):
            self.may_answer.wait(30)
        if question == "broken":
            raise OSError(5, "Input/output error")
        if question == "absurd":
            raise ZeroDivisionError
        return question.upper()


async def test_who_asks_the_same_waits_for_the_same_answer() -> None:
    oracle = Oracle()
    inquiries = Inquiries("the oracle", oracle.answer, within_s=30)
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(inquiries.ask("hard")) for _ in range(3)]
        for _ in answers:
            await asyncio.sleep(0)
        oracle.may_answer.set()
    assert [answer.result() for answer in answers] == ["HARD"] * 3
    assert oracle.asked == ["hard"]
    assert await inquiries.ask("hard") == "HARD"
    assert oracle.asked == ["hard", "hard"], "an answer is not kept"


async def test_a_question_without_answer_costs_its_time_and_a_place() -> None:
    oracle = Oracle()
    inquiries = Inquiries("the oracle", oracle.answer, within_s=0.05, max_under_way=2)
    for question in ("hard", "hard", "harder"):
        with pytest.raises(InquiryError, match=r"^the oracle did not answer within 0\.05 s$") as error:
            await inquiries.ask(question)
        assert error.value.code is ErrorCode.UNAVAILABLE
        if question == "hard":
            assert await inquiries.ask("easy") == "EASY", "others are answered meanwhile"
    with pytest.raises(InquiryError, match=r"^the oracle does not answer: 2 questions wait$"):
        await inquiries.ask("easy")
    oracle.may_answer.set()
    await eventually_async(lambda: inquiries.under_way == 0)
    assert await inquiries.ask("easy") == "EASY"


async def test_errors_reach_who_asked() -> None:
    inquiries = Inquiries("the oracle", Oracle().answer, within_s=30)
    with pytest.raises(InquiryError, match=r"^the oracle failed: Input/output error$"):
        await inquiries.ask("broken")
    with pytest.raises(ZeroDivisionError):
        await inquiries.ask("absurd")
    assert inquiries.under_way == 0
