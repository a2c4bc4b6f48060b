"""The accounts of users on this node: asked of the name service in threads of their own, because it may take its time, or never answer."""

import asyncio
import ctypes
import os
import pwd
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

ANSWER_WITHIN_S: Final = 30.0
"""A name service that has not answered by then is taken for broken; the job is told so."""

MAX_UNDER_WAY: Final = 16
"""Users asked about at a time, each in a thread; those of a name service that hangs stay."""

_EPOCH: Final = date(1970, 1, 1)
_SHADOW_BUFFER_BYTES: Final = 1 << 16


class NameServiceError(Exception):
    """Nobody can say who the user is: says why."""


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
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        """`lookup` asks the system's name service unless it is given."""
        self._lookup = lookup or account_of
        self._answer_within_s = answer_within_s
        self._today = today
        self._under_way: dict[int, asyncio.Future[Account | None]] = {}

    async def find(self, uid: int) -> Account | None:
        """The user's account; None where there is none.

        Raises:
            NameServiceError: no answer in time, or an error.
        """
        asked = self._under_way.get(uid)
        if asked is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                text = f"the name service does not answer: {MAX_UNDER_WAY} questions wait"
                raise NameServiceError(text)
            asked = self._ask(uid)
        try:
            async with asyncio.timeout(self._answer_within_s):
                return await asyncio.shield(asked)
        except TimeoutError:
            text = f"the name service did not answer within {self._answer_within_s:g} s"
            raise NameServiceError(text) from None
        except OSError as error:
            text = f"the name service failed: {error.strerror or error}"
            raise NameServiceError(text) from error

    def is_expired(self, account: Account) -> bool:
        return account.expired_on is not None and self._today() >= account.expired_on

    def _ask(self, uid: int) -> asyncio.Future[Account | None]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Account | None] = loop.create_future()
        self._under_way[uid] = answer

        def ended(account: Account | None, error: OSError | None) -> None:
            del self._under_way[uid]
            if error is None:
                answer.set_result(account)
            else:
                answer.set_exception(error)
                # Whoever asked may have gone.
                answer.exception()

        def ask() -> None:
            account, failure = None, None
            try:
                account = self._lookup(uid)
            except OSError as error:
                failure = error
            try:
                loop.call_soon_threadsafe(ended, account, failure)
            except RuntimeError:
                # The daemon has ended meanwhile.
                return

        # A daemon thread: one that hangs for ever must not keep craned from ending.
        threading.Thread(target=ask, name=f"account {uid}", daemon=True).start()
        return answer


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
