"""How amounts, times and foreign text are written for people."""

import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

COLUMNS = 100
"""Width that every page of text fits in."""


def duration(seconds: float) -> str:
    """`8 ms`, `1.24 s`, `2 min 05 s`, `1 h 02 min`, `3 d 04 h`: three digits that matter, never more."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def offset(seconds: float) -> str:
    """Time since the start of a story: `+0.012`, `+12.3`, `+2:05`, `+1:02:05` (seconds, minutes, hours)."""
    sign = "-" if seconds < 0 else "+"
    amount = abs(seconds)
    if amount < 9.9995:
        return f"{sign}{amount:.3f}"
    if amount < 59.95:
        return f"{sign}{amount:.1f}"
    whole = round(amount)
    if whole < 3600:
        return f"{sign}{whole // 60}:{whole % 60:02d}"
    return f"{sign}{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def local_time(when: float | None) -> str:
    """`2026-11-21 09:40:11` in the reader's time zone; `-` for a time that has not come."""
    if when is None:
        return "-"
    return datetime.fromtimestamp(when, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def local_clock(when: float | None) -> str:
    """`09:40:11` in the reader's time zone."""
    return local_time(when).rsplit(" ", maxsplit=1)[-1]


def rfc3339(when: float | None) -> str | None:
    """`2026-11-21T09:40:11.123456Z`, for programs."""
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def memory(size_bytes: int) -> str:
    """`512 MiB`, `4 GiB`, `1.5 TiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def count(number: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sentence(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def number(value: float) -> str:
    """`4`, `0.5`: no trailing zeros."""
    return f"{value:g}"


def printable(text: str) -> str:
    """Foreign text in one line that cannot move the cursor or recolour the terminal of who reads it."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def wrapped(text: str, indent: str, following: str | None = None, columns: int = COLUMNS) -> list[str]:
    """Lines of `text` within `columns`, the first after `indent`, the others after `following` (or as many spaces)."""
    rest = " " * len(indent) if following is None else following
    lines = textwrap.wrap(
        printable(text), width=columns, initial_indent=indent, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return lines or [indent.rstrip()]


def last_lines(output: str, limit: int) -> list[str]:
    """The last `limit` lines of output that are not blank, printable."""
    lines = [printable(line.rstrip()) for line in output.splitlines() if line.strip()]
    return lines[-limit:]


def shortened(text: str, width: int) -> str:
    """At most `width` characters, with `…` where the end is missing."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def joined(parts: Iterable[str], separator: str = " · ") -> str:
    """The parts that say something, in one line."""
    return separator.join(part for part in parts if part)


def _escaped(character: str) -> str:
    if character == "\t":
        return "    "
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
