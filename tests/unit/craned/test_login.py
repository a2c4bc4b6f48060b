import os
from dataclasses import replace
from datetime import date

import pytest

from craned.steps.accounts import Account, Accounts
from craned.steps.driver import StepRefusedError
from craned.steps.login import Login, UserRules, login_of
from cranehooks.model.job import JobSpec
from tests.unit.craned.test_attempt import NODE
from tests.unit.craned.test_recovery import JOB

ALICE = Account("alice", "/home/alice", "/bin/zsh")
RULES = UserRules()


def spec_of(uid: int, user: str = "alice") -> JobSpec:
    return replace(JOB.spec, uid=uid, user=user)


def accounts_of(account: Account | None) -> Accounts:
    return Accounts(lambda _: account, today=lambda: date(2026, 3, 1))


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
async def test_a_user_with_an_account_logs_in() -> None:
    login = await login_of(spec_of(1000), NODE, accounts_of(ALICE), RULES)
    environment = {"HOME": "/home/alice", "SHELL": "/bin/zsh", "USER": "alice", "LOGNAME": "alice"}
    assert login == Login(environment, "/home/alice")
    assert (await login_of(spec_of(1000), NODE, accounts_of(ALICE), UserRules(needs_home=False))).home == ""


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("home", ["/nonexistent", "", "/"])
async def test_an_account_that_is_meant_to_have_no_home_needs_none(home: str) -> None:
    login = await login_of(spec_of(65534), NODE, accounts_of(replace(ALICE, home=home)), RULES)
    assert login.home == ""
    assert login.environment["HOME"] == (home or "/")


@pytest.mark.usefixtures("as_root")
async def test_a_user_without_an_account_is_refused_or_runs_with_what_the_job_says() -> None:
    with pytest.raises(StepRefusedError, match=r"^user alice \(uid 1000\) is unknown on cn01"):
        await login_of(spec_of(1000), NODE, accounts_of(None), RULES)
    login = await login_of(spec_of(1000), NODE, accounts_of(None), UserRules(runs_unknown_users=True))
    assert login == Login({"HOME": "/", "SHELL": "/bin/sh", "USER": "alice", "LOGNAME": "alice"})


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(("day", "is_valid"), [(date(2026, 3, 2), True), (date(2026, 3, 1), False), (date(2020, 1, 1), False)])
async def test_an_account_is_valid_until_the_day_it_expires(day: date, is_valid: bool) -> None:
    accounts = accounts_of(replace(ALICE, expired_on=day))
    if is_valid:
        assert (await login_of(spec_of(1000), NODE, accounts, RULES)).home == "/home/alice"
        return
    with pytest.raises(StepRefusedError, match=rf"^the account of user alice \(uid 1000\) has expired on cn01: since {day}$"):
        await login_of(spec_of(1000), NODE, accounts, RULES)


@pytest.mark.usefixtures("as_root")
async def test_jobs_of_root_need_leave() -> None:
    with pytest.raises(StepRefusedError, match="AllowRootJobs"):
        await login_of(spec_of(0, "root"), NODE, accounts_of(ALICE), RULES)
    await login_of(spec_of(0, "root"), NODE, accounts_of(ALICE), UserRules(allow_root_jobs=True))


@pytest.mark.usefixtures("as_root")
async def test_a_name_service_that_fails_is_told() -> None:
    def broken(_: int) -> Account | None:
        raise OSError(5, "Input/output error")

    with pytest.raises(StepRefusedError, match=r"user alice \(uid 1000\) cannot be looked up on cn01: .*Input/output error"):
        await login_of(spec_of(1000), NODE, Accounts(broken), RULES)


async def test_a_daemon_that_is_not_root_runs_its_own_users_jobs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_123)
    assert (await login_of(spec_of(4_000_000_123), NODE, accounts_of(None), RULES)).environment["LOGNAME"] == "alice"
    with pytest.raises(StepRefusedError, match=r"runs as uid 4000000123 .* cannot run a job of bob \(uid 1000\)$"):
        await login_of(spec_of(1000, "bob"), NODE, accounts_of(ALICE), RULES)
