"""Accounts are asked for in threads of their own, within a time, and each once."""

import asyncio
import os
import pwd
import threading
from datetime import date
from pathlib import Path

import pytest

from craned.steps import accounts as module
from craned.steps.accounts import Account, Accounts, NameServiceError, account_of, expiry_of
from tests.support.eventually import eventually_async

ALICE = Account("alice", "/home/alice", "/bin/sh")


async def test_who_asks_for_the_same_user_waits_for_the_same_answer() -> None:
    may_answer, asked = threading.Event(), list[int]()

    def lookup(uid: int) -> Account:
        asked.append(uid)
        may_answer.wait(30)
        return ALICE

    accounts = Accounts(lookup)
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(accounts.find(1000)) for _ in range(3)]
        for _ in answers:
            await asyncio.sleep(0)
        may_answer.set()
    assert [answer.result() for answer in answers] == [ALICE] * 3
    assert asked == [1000]
    assert await accounts.find(1000) == ALICE
    assert asked == [1000, 1000], "an answer is not kept: the account may change"


async def test_a_name_service_that_hangs_costs_a_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()

    def lookup(uid: int) -> Account:
        if uid == 1000:
            may_answer.wait(30)
        return ALICE

    accounts = Accounts(lookup, answer_within_s=0.05)
    with pytest.raises(NameServiceError, match=r"did not answer within 0\.05 s"):
        await accounts.find(1000)
    assert await accounts.find(1001) == ALICE, "others are not held up"
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    with pytest.raises(NameServiceError, match="1 questions wait"):
        await accounts.find(1002)
    may_answer.set()
    await eventually_async(lambda: not accounts._under_way)
    assert await accounts.find(1002) == ALICE


async def test_an_error_is_told_to_who_asked() -> None:
    def lookup(_: int) -> Account:
        raise OSError(5, "Input/output error")

    with pytest.raises(NameServiceError, match="Input/output error"):
        await Accounts(lookup).find(1000)


async def test_the_name_service_of_this_system() -> None:
    accounts = Accounts()
    mine = await accounts.find(os.geteuid())
    entry = pwd.getpwuid(os.geteuid())
    assert mine is not None
    assert (mine.name, mine.home) == (entry.pw_name, entry.pw_dir)
    assert await accounts.find(4_000_000_123) is None
    assert account_of(4_000_000_123) is None


def test_expiry_is_known_to_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = Path("/etc/shadow")
    entries = shadow.read_text().splitlines() if os.access(shadow, os.R_OK) else []
    for fields in (line.split(":") for line in entries[:5]):
        assert (expiry_of(fields[0]) is None) is not bool(fields[7])
    assert expiry_of("nobody-of-that-name") is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert expiry_of("root") is None


@pytest.mark.parametrize(("expired_on", "is_expired"), [(None, False), (date(2026, 3, 2), False), (date(2026, 3, 1), True)])
def test_an_account_expires_at_the_beginning_of_a_day(expired_on: date | None, is_expired: bool) -> None:
    accounts = Accounts(today=lambda: date(2026, 3, 1))
    assert accounts.is_expired(Account("a", "/", "/bin/sh", expired_on)) is is_expired
