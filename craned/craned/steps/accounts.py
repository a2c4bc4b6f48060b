"""The accounts of users on this node, as the name service tells them, which may take its time."""

import ctypes
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from cranekit.inquiries import MAX_UNDER_WAY, Inquiries

ANSWER_WITHIN_S: Final = 30.0
"""A name service that has not answered by then is taken for broken; the job is told so."""

_EPOCH: Final = date(1970, 1, 1)
_SHADOW_BUFFER_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Account:
    """A user as this node knows it."""

    name: str
    home: str
    shell: str
    expired_on: date | None = None
    """The first day on which it is no longer valid; None: it has none, or we may not know."""


Lookup = Callable[[int], Account | None]
"""The account of a uid; None: there is none. Blocks; raises OSError where the name service fails."""


class Accounts:
    """Asks about users, each once at a time."""

    def __init__(
        self,
        lookup: Lookup | None = None,
        *,
        answer_within_s: float = ANSWER_WITHIN_S,
        max_under_way: int = MAX_UNDER_WAY,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        """`lookup` asks the system's name service unless it is given."""
        answer = lookup or account_of
        self.inquiries: Inquiries[int, Account | None] = Inquiries(
            "the name service", answer, within_s=answer_within_s, max_under_way=max_under_way
        )
        self._today = today

    async def find(self, uid: int) -> Account | None:
        """The user's account; None where there is none.

        Raises:
            InquiryError: no answer in time, or an error.
        """
        return await self.inquiries.ask(uid)

    def is_expired(self, account: Account) -> bool:
        return account.expired_on is not None and self._today() >= account.expired_on


def account_of(uid: int) -> Account | None:
    """What the system's name service says; blocks as long as that takes."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_dir, entry.pw_shell, expiry_of(entry.pw_name))


class _ShadowEntry(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("changed", ctypes.c_long),
        ("least_age", ctypes.c_long),
        ("greatest_age", ctypes.c_long),
        ("warning", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expire", ctypes.c_long),
        ("flags", ctypes.c_ulong),
    )


def expiry_of(name: str) -> date | None:
    """The day on which the account expires, as `chage -E` sets it; None without one, and where the shadow database is closed to us."""
    if os.geteuid() != 0:
        return None
    entry, buffer = _ShadowEntry(), ctypes.create_string_buffer(_SHADOW_BUFFER_BYTES)
    found = ctypes.c_void_p()
    # A library handle of this kind lets other threads run meanwhile.
    libc = ctypes.CDLL(None, use_errno=True)
    error = libc.getspnam_r(os.fsencode(name), ctypes.byref(entry), buffer, ctypes.c_size_t(len(buffer)), ctypes.byref(found))
    if error or found.value is None or entry.expire < 0:
        return None
    try:
        return _EPOCH + timedelta(days=entry.expire)
    except OverflowError:
        return None
