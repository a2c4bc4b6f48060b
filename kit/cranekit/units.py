"""Times, memory sizes and counts as people type them. Standard library only: the front ends import it."""

import re

from cranekit.errors import CraneError, ErrorCode

MAX_DIGITS = 15
"""More digits than any real amount has; keeps numbers well below what JSON and 64 bits hold."""

_NUMBER = rf"[0-9]{{1,{MAX_DIGITS}}}"
_TIME = re.compile(rf"(?:(?P<days>{_NUMBER})-)?(?P<parts>{_NUMBER}(?::[0-9]{{1,2}}){{0,2}})")
_MEMORY = re.compile(rf"(?P<amount>{_NUMBER})(?P<unit>[KMGT]?)(?:I?B)?")
_COUNT = re.compile(rf"(?P<amount>{_NUMBER})(?P<unit>K?)")

_MEMORY_UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME_FORMS = "MINUTES, MM:SS, HH:MM:SS, DAYS-HH, DAYS-HH:MM or DAYS-HH:MM:SS"


class UnitError(CraneError, ValueError):
    """A text is no amount of its kind."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, message)


def parse_time_limit(text: str) -> int:
    """Seconds. A bare number means minutes, as for Slurm's `-t`.

    Raises:
        UnitError: the text is no time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is no time: expected {_TIME_FORMS}")
    parts = [int(part) for part in match["parts"].split(":")]
    if any(part > 59 for part in parts[1:]):
        raise UnitError(f"{text!r} is no time: expected minutes and seconds below 60")
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        if hours > 23:
            raise UnitError(f"{text!r} is no time: expected hours below 24 after the days")
        return int(match["days"]) * 86_400 + hours * 3_600 + minutes * 60 + seconds
    if len(parts) == 3:
        return parts[0] * 3_600 + parts[1] * 60 + parts[2]
    minutes, seconds = (*parts, 0)[:2]
    return minutes * 60 + seconds


def format_time_limit(seconds: int) -> str:
    """`[DAYS-]HH:MM:SS`, which `parse_time_limit` reads back.

    Raises:
        UnitError: below 0.
    """
    if seconds < 0:
        raise UnitError(f"{seconds} s is no time: expected 0 or more")
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3_600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def parse_memory(text: str) -> int:
    """Bytes. Units are powers of 1024 (`512M`, `4G`, `4GiB`); a bare number means MiB.

    Raises:
        UnitError: the text is no size.
    """
    match = _MEMORY.fullmatch(text.strip().upper())
    if match is None:
        raise UnitError(f"{text!r} is no memory size: expected a whole number of MiB, or one with K, M, G or T")
    return int(match["amount"]) * _MEMORY_UNITS[match["unit"]]


def format_memory(size_bytes: int) -> str:
    """The size in the largest unit that divides it, which `parse_memory` reads back; whole KiB, rounded up.

    Raises:
        UnitError: below 0.
    """
    if size_bytes < 0:
        raise UnitError(f"{size_bytes} bytes is no memory size: expected 0 or more")
    size = -(-size_bytes // 1024)
    for unit in "KMG":
        if size == 0 or size % 1024:
            return f"{size}{unit}"
        size //= 1024
    return f"{size}T"


def parse_count(text: str, *, least: int = 1) -> int:
    """A whole number of things; `k` stands for 1024, as in Slurm.

    Raises:
        UnitError: the text is no number, or one below `least`.
    """
    match = _COUNT.fullmatch(text.strip().upper())
    if match is None:
        raise UnitError(f"{text!r} is no count: expected a whole number")
    count = int(match["amount"]) * (1024 if match["unit"] else 1)
    if count < least:
        raise UnitError(f"{text!r} is too few: expected at least {least}")
    return count
