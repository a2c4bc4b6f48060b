"""Lists of host names in short: `cn[01-16,20]` stands for seventeen names. Pure; standard library only.

Grammar: names joined by commas; in a name, brackets hold numbers and ranges of numbers, joined by commas. Leading zeros are kept,
so that `[01-16]` has two digits throughout. Several brackets in one name give every combination, the last one varying fastest.
"""

import re
from collections.abc import Iterable
from itertools import product

from cranekit.errors import CraneError, ErrorCode

MAX_NAMES = 100_000
MAX_TEXT_CHARACTERS = 1 << 20

_NAME_CHARACTER = re.compile(r"[A-Za-z0-9._-]")
_DIGITS = re.compile(r"[0-9]+")
_MAX_DIGITS = 18
_WHOLE = -1
"""In place of a width: the name is taken as it is."""
_LAST_NUMBER = re.compile(r"([0-9]+)(?=[^0-9]*\Z)")


class HostlistError(CraneError, ValueError):
    """A text is no hostlist; the message says what is wrong at which column (from 1)."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, f"{message} at column {column}")
        self.column = column


def expand(text: str) -> list[str]:
    """The names that a hostlist stands for, in its order; a name that stands twice is given once. None for an empty text.

    Raises:
        HostlistError: it is no hostlist, or stands for more than `MAX_NAMES`.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise HostlistError(f"longer than {MAX_TEXT_CHARACTERS} characters", MAX_TEXT_CHARACTERS + 1)
    if not text.strip():
        return []
    names: dict[str, None] = {}
    reader = _Reader(text)
    count = 0
    while True:
        start = reader.skip_blanks()
        parts = reader.term()
        size = 1
        for part in parts:
            size *= len(part)
        count += size
        if count > MAX_NAMES:
            raise HostlistError(f"more than {MAX_NAMES} names", start + 1)
        names.update(dict.fromkeys("".join(choice) for choice in product(*parts)))
        if not reader.next_term():
            return list(names)


def fold(names: Iterable[str]) -> str:
    """A hostlist that stands for the names, each once: numbers in order and joined to ranges, by the last number of a name.

    The order of the groups is that of their first names. What `expand` makes of the result is the same set of names.
    """
    groups: dict[tuple[str, str, int], set[int] | None] = {}
    for name in names:
        match = _LAST_NUMBER.search(name)
        if match is None or len(match[1]) > _MAX_DIGITS:
            groups[name, "", _WHOLE] = None
            continue
        digits = match[1]
        # Padded numbers of one width share a group; numbers without a leading zero have width 0, which pads nothing.
        width = len(digits) if digits[0] == "0" and len(digits) > 1 else 0
        numbers = groups.setdefault((name[: match.start()], name[match.end() :], width), set())
        if numbers is not None:
            numbers.add(int(digits))
    for (before, after, width), padded in groups.items():
        plain = groups.get((before, after, 0))
        if width > 0 and padded and plain:
            # cn08, cn09 and cn10 are one range.
            fitting = {number for number in plain if len(str(number)) == width}
            padded.update(fitting)
            plain.difference_update(fitting)
    return ",".join(
        before if numbers is None else _term(before, after, width, numbers)
        for (before, after, width), numbers in groups.items()
        if numbers is None or numbers
    )


def fold_in_order(names: Iterable[str]) -> str:
    """A hostlist that stands for the names in their very order: what `expand` makes of it is the list again, if no name stands twice.

    Neighbours that differ in their last number share brackets, `cn[08-10,02],gpu1`: a list in order becomes as short as with `fold`.
    """
    terms: list[tuple[str, str, list[list[str]]]] = []
    """What stands before and after the brackets, and the ranges in them, by their first and last number."""
    for name in names:
        match = _LAST_NUMBER.search(name)
        if match is None or len(match[1]) > _MAX_DIGITS:
            terms.append((name, "", []))
            continue
        before, digits, after = name[: match.start()], match[1], name[match.end() :]
        if not terms or terms[-1][:2] != (before, after) or not terms[-1][2]:
            terms.append((before, after, [[digits, digits]]))
            continue
        ranges = terms[-1][2]
        first, last = ranges[-1]
        width = len(first) if first[0] == "0" else 0
        if digits == f"{int(last) + 1:0{width}}":
            ranges[-1][1] = digits
        else:
            ranges.append([digits, digits])
    return ",".join(_bracketed(*term) for term in terms)


def _bracketed(before: str, after: str, ranges: list[list[str]]) -> str:
    inside = ",".join(first if first == last else f"{first}-{last}" for first, last in ranges)
    return f"{before}{inside if inside.isdigit() or not inside else f'[{inside}]'}{after}"


def _term(before: str, after: str, width: int, numbers: set[int]) -> str:
    ordered = sorted(numbers)
    ranges: list[str] = []
    first = last = ordered[0]
    for number in [*ordered[1:], -1]:
        if number == last + 1:
            last = number
            continue
        ranges.append(f"{first:0{width}}" if first == last else f"{first:0{width}}-{last:0{width}}")
        first = last = number
    if len(ordered) == 1:
        return f"{before}{ranges[0]}{after}"
    return f"{before}[{','.join(ranges)}]{after}"


class _Reader:
    """Where in a hostlist the reading is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def skip_blanks(self) -> int:
        while self._peek().isspace():
            self._at += 1
        return self._at

    def next_term(self) -> bool:
        """Goes past a comma; False at the end."""
        self.skip_blanks()
        if not self._peek():
            return False
        if self._peek() != ",":
            raise self._unexpected("a comma or the end")
        self._at += 1
        return True

    def term(self) -> list[list[str]]:
        """One name in its parts, each with all that may stand there."""
        parts: list[list[str]] = []
        start = self._at
        while True:
            if self._peek() == "[":
                parts.append(self._brackets())
            elif _NAME_CHARACTER.match(self._peek()):
                begin = self._at
                while _NAME_CHARACTER.match(self._peek()):
                    self._at += 1
                parts.append([self._text[begin : self._at]])
            elif self._at == start:
                raise self._unexpected("a name")
            else:
                return parts

    def _brackets(self) -> list[str]:
        opening = self._at
        self._at += 1
        numbers: list[str] = []
        while True:
            start = self._at
            first = self._number(opening)
            last = first
            if self._peek() == "-":
                self._at += 1
                last = self._number(opening)
            numbers.extend(_range(first, last, start, len(numbers)))
            character = self._peek()
            if character not in {",", "]"} or not character:
                raise self._unclosed(opening) if not character else self._unexpected("a comma, a dash or ]")
            self._at += 1
            if character == "]":
                return numbers

    def _number(self, opening: int) -> str:
        match = _DIGITS.match(self._text, self._at)
        if match is None:
            raise self._unexpected("a number") if self._peek() else self._unclosed(opening)
        if len(match[0]) > _MAX_DIGITS:
            raise HostlistError(f"a number of more than {_MAX_DIGITS} digits", self._at + 1)
        self._at = match.end()
        return match[0]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _unexpected(self, expected: str) -> HostlistError:
        character = self._peek()
        return HostlistError(f"expected {expected}, not {repr(character) if character else 'the end'}", self._at + 1)

    @staticmethod
    def _unclosed(opening: int) -> HostlistError:
        return HostlistError("[ without ]", opening + 1)


def _range(first: str, last: str, start: int, already: int) -> list[str]:
    low, high = int(first), int(last)
    if high < low:
        raise HostlistError(f"the range {first}-{last} ends before it begins", start + 1)
    if already + high - low + 1 > MAX_NAMES:
        raise HostlistError(f"more than {MAX_NAMES} names", start + 1)
    width = len(first) if first[0] == "0" else 0
    if width and len(last) != width and last[0] == "0":
        raise HostlistError(f"the ends of the range {first}-{last} are padded differently", start + 1)
    return [f"{number:0{width}}" for number in range(low, high + 1)]
