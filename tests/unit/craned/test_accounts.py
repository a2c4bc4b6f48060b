"""Accounts as the name service tells them, in time."""

import os
import pwd
import threading
from datetime import date
from pathlib import Path

import pytest

from craned.steps.accounts import Account, Accounts, account_of, expiry_of
from cranekit.inquiries import InquiryError
from tests.support.eventually import eventually_async

ALICE = Account("alice", "/home/alice", "/bin/sh")


async def test_a_name_service_that_hangs_or_fails_is_told() -> None:
    may_answer = threading.Event()

    def lookup(uid: int) -> Account:
        if uid == 1001:
            raise OSError(5, "Input/output error")
        may_answer.wait(30)
        return ALICE

    accounts = Accounts(lookup, answer_within_s=0.05)
    with pytest.raises(InquiryError, match=r"the name service did not answer within 0\.05 s"):
        await accounts.find(1000)
    with pytest.raises(InquiryError, match="Input/output error"):
        await accounts.find(1001)
    may_answer.set()
    await eventually_async(lambda: accounts.inquiries.under_way == 0)
    assert await accounts.find(1000) == ALICE


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
