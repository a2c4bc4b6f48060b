"""Generic resources: what a node offers, what is asked for, and which devices a job holds. Counts are texts, `gpu:a100:2,nic:1`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

GPU = "gpu"
"""The name whose devices are told in CUDA_VISIBLE_DEVICES and its like."""

MAX_COUNT = 65_536
"""Devices of one kind."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class GresCount:
    """So many devices of a name, and of a type if one is given."""

    name: str
    type: str
    count: int

    def __str__(self) -> str:
        return ":".join(filter(None, (self.name, self.type, str(self.count))))


@dataclass(frozen=True, slots=True)
class HeldDevices:
    """Devices of one name that a job holds on a node."""

    name: str
    indexes: tuple[int, ...]
    """Places among the node's devices of that name, from 0, in the order of its configuration."""


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """One device of a node."""

    name: str
    index: int
    """Its place among the node's devices of that name, from 0."""
    type: str = ""
    files: tuple[str, ...] = ()
    """Those that only who holds the device may open."""


def parse_gres(text: str) -> tuple[GresCount, ...]:
    """The entries of `name[:type][:count],…`; a missing count is 1, entries of equal name and type are added up.

    Raises:
        ValueError: an entry is something else; the message says what was expected.
    """
    counts: dict[tuple[str, str], int] = {}
    for entry in _entries(text):
        key = entry.name, entry.type
        counts[key] = counts.get(key, 0) + entry.count
    return tuple(GresCount(name, kind, count) for (name, kind), count in counts.items())


def _entries(text: str) -> Iterator[GresCount]:
    for entry in filter(None, (part.strip() for part in text.split(","))):
        fields = entry.split(":")
        count = 1
        if len(fields) > 1 and fields[-1].isascii() and fields[-1].isdecimal():
            count = int(fields.pop()[:9])
        if not 1 <= len(fields) <= 2 or not all(_WORD.fullmatch(field) for field in fields):
            raise ValueError(f"gres {entry!r}: expected name[:type][:count]")
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"gres {entry!r}: expected a count from 1 to {MAX_COUNT}")
        yield GresCount(fields[0], fields[1] if len(fields) == 2 else "", count)


def gres_text(counts: Iterable[GresCount]) -> str:
    """What `parse_gres` reads back."""
    return ",".join(map(str, counts))


def device_types(offered: str) -> dict[str, tuple[str, ...]]:
    """The type of each device of a node, by name and in order: `gpu:a100:1,gpu:v100:2` has three of the name gpu."""
    types: dict[str, tuple[str, ...]] = {}
    for entry in _entries(offered):
        types[entry.name] = types.get(entry.name, ()) + (entry.type,) * entry.count
    return types


def chosen_devices(
    types: Mapping[str, Sequence[str]], taken: Mapping[str, frozenset[int]], wanted: str
) -> tuple[HeldDevices, ...] | None:
    """Devices for `wanted` among those that nobody has taken, lowest first; None when there are too few.

    A request with a type is served from that type only, one without from whatever the others leave.
    """
    chosen: dict[str, set[int]] = {}
    for entry in sorted(parse_gres(wanted), key=lambda entry: not entry.type):
        mine = chosen.setdefault(entry.name, set())
        free = [
            index
            for index, kind in enumerate(types.get(entry.name, ()))
            if index not in taken.get(entry.name, ()) and index not in mine and (not entry.type or kind == entry.type)
        ]
        if len(free) < entry.count:
            return None
        mine.update(free[: entry.count])
    return tuple(HeldDevices(name, tuple(sorted(indexes))) for name, indexes in chosen.items())


def held_text(devices: Iterable[HeldDevices]) -> str:
    """For people: `gpu:0-1,4 nic:0`."""
    return " ".join(f"{held.name}:{_folded(held.indexes)}" for held in devices if held.indexes)


def _folded(indexes: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
