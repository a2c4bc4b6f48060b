"""Who a job's user is on this node: login variables and home, or why jobs of that user cannot run here."""

import os
from dataclasses import dataclass
from typing import Final

from craned.steps.accounts import Accounts
from craned.steps.driver import StepRefusedError
from cranehooks.model.ids import NodeName
from cranehooks.model.job import JobSpec
from cranekit.inquiries import InquiryError

_NO_HOME: Final = frozenset({"", "/", "/nonexistent", "/var/empty", "/run/empty", "/dev/null"})
"""What accounts have as their home that are meant to have none."""


@dataclass(frozen=True, slots=True)
class UserRules:
    """Which users' jobs the node runs, from the configuration of the moment."""

    allow_root_jobs: bool = False
    runs_unknown_users: bool = False
    needs_home: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    """A user who may run jobs here."""

    environment: dict[str, str]
    """HOME, SHELL, USER and LOGNAME."""
    home: str = ""
    """To be there before anything runs; empty: nobody asks."""


async def login_of(job: JobSpec, node: NodeName, accounts: Accounts, rules: UserRules) -> Login:
    """The login of the job's user on this node.

    Raises:
        StepRefusedError: jobs of that user cannot run here.
    """
    own_uid = os.geteuid()
    if job.uid == 0 and not rules.allow_root_jobs:
        message = f"{node} runs no jobs as root (AllowRootJobs)"
        raise StepRefusedError(message)
    if own_uid not in (0, job.uid):
        message = (
            f"craned on {node} runs as uid {own_uid} and so runs jobs of that user only: it cannot run a job of {job.user} "
            f"(uid {job.uid})"
        )
        raise StepRefusedError(message)
    who = f"user {job.user} (uid {job.uid})"
    try:
        account = await accounts.find(job.uid)
    except InquiryError as error:
        message = f"{who} cannot be looked up on {node}: {error}"
        raise StepRefusedError(message) from error
    if account is None:
        if own_uid != job.uid and not rules.runs_unknown_users:
            message = f"{who} is unknown on {node} (UnknownUsers)"
            raise StepRefusedError(message)
        return Login({"HOME": "/", "SHELL": "/bin/sh", "USER": job.user, "LOGNAME": job.user})
    if accounts.is_expired(account):
        message = f"the account of {who} has expired on {node}: since {account.expired_on}"
        raise StepRefusedError(message)
    environment = {
        "HOME": account.home or "/",
        "SHELL": account.shell or "/bin/sh",
        "USER": account.name,
        "LOGNAME": account.name,
    }
    return Login(environment, account.home if rules.needs_home and account.home not in _NO_HOME else "")
