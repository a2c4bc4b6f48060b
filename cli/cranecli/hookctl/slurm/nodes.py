"""NodeName and PartitionName lines as entries of `Nodes` and `Partitions`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cranecli.hookctl.slurm.conf import Line
from cranecli.hookctl.slurm.leftovers import Leftover
from cranehooks.model.ids import is_node_name
from cranekit import hostlist

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_GRES = re.compile(r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?:[0-9]{1,6}")
_COUNTLESS_GRES = re.compile(r"[A-Za-z0-9_.-]+")
_NODE_KEYS = frozenset(
    {
        "nodename",
        "cpus",
        "procs",
        "boards",
        "sockets",
        "socketsperboard",
        "corespersocket",
        "threadspercore",
        "realmemory",
        "gres",
    }
)
_PARTITION_KEYS = frozenset({"partitionname", "nodes", "default", "maxtime"})
_NO_TLS = "without TLS the programs talk over Unix sockets and loopback only"
_WHY_NOT = {
    "nodeaddr": _NO_TLS,
    "nodehostname": _NO_TLS,
    "port": _NO_TLS,
    "bcastaddr": _NO_TLS,
    "state": "nodes start Up; hookctl drain takes one out of service",
    "reason": "hookctl drain --reason says why a node is out of service",
    "defaulttime": "a job that asks for no time limit gets MaxTime",
    "allowaccounts": "partitions are open to every user",
    "allowgroups": "partitions are open to every user",
}
_NOT_KNOWN = "there is no such property here"


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """Nodes that are alike."""

    names: tuple[str, ...]
    cpus: int
    memory_mib: int | None
    """None: not told."""
    gres: str
    place: str


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """One partition."""

    name: str
    nodes: tuple[str, ...]
    is_default: bool
    max_time_s: int | None
    place: str


def node_entries(lines: Iterable[Line], leftovers: list[Leftover]) -> list[NodeEntry]:
    """The nodes in the order of the file; each name once."""
    entries: list[NodeEntry] = []
    defaults: dict[str, str] = {}
    seen: set[str] = set()
    for line in lines:
        written = line.get("nodename")
        if written is None:
            continue
        _leave_behind(line, _NODE_KEYS, leftovers)
        given = {**defaults, **{pair.name: pair.value for pair in line.pairs}}
        if written.upper() == "DEFAULT":
            defaults = given
            continue
        names = [name for name in _names(written, line, leftovers) if is_node_name(name) and name not in seen]
        if names:
            seen.update(names)
            entries.append(
                NodeEntry(
                    tuple(names), _cpus(given), _memory_mib(given), _gres(given.get("gres", ""), line, leftovers), line.place
                )
            )
    return entries


def partition_entries(lines: Iterable[Line], known: Iterable[str], leftovers: list[Leftover]) -> list[PartitionEntry]:
    """The partitions in the order of the file; of nodes that are `known`."""
    entries: dict[str, PartitionEntry] = {}
    defaults: dict[str, str] = {}
    everything = tuple(known)
    for line in lines:
        name = line.get("partitionname")
        if name is None:
            continue
        _leave_behind(line, _PARTITION_KEYS, leftovers)
        given = {**defaults, **{pair.name: pair.value for pair in line.pairs}}
        if name.upper() == "DEFAULT":
            defaults = given
            continue
        nodes = _members(given.get("nodes", ""), everything, line, leftovers)
        if not nodes or not is_node_name(name):
            leftovers.append(
                Leftover(line.place, f"PartitionName={name}", "no node of it came along" if not nodes else "not a name here")
            )
            continue
        is_default = given.get("default", "").upper() == "YES"
        entries[name] = PartitionEntry(name, nodes, is_default, _seconds(given.get("maxtime", ""), line, leftovers), line.place)
    marked = [entry.name for entry in entries.values() if entry.is_default]
    return [
        PartitionEntry(entry.name, entry.nodes, entry.name == marked[-1] if marked else False, entry.max_time_s, entry.place)
        for entry in entries.values()
    ]


def _leave_behind(line: Line, taken: frozenset[str], leftovers: list[Leftover]) -> None:
    leftovers += [
        Leftover(line.place, str(pair), _WHY_NOT.get(pair.name, _NOT_KNOWN)) for pair in line.pairs if pair.name not in taken
    ]


def _names(text: str, line: Line, leftovers: list[Leftover]) -> list[str]:
    try:
        return hostlist.expand(text)
    except hostlist.HostlistError as error:
        leftovers.append(Leftover(line.place, text, f"no hostlist: {error}"))
        return []


def _members(text: str, everything: tuple[str, ...], line: Line, leftovers: list[Leftover]) -> tuple[str, ...]:
    if text.upper() == "ALL":
        return everything
    names = _names(text, line, leftovers)
    unknown = [name for name in names if name not in everything]
    if unknown:
        leftovers.append(Leftover(line.place, hostlist.fold(unknown), "no NodeName line gives it (node sets are not known here)"))
    return tuple(name for name in names if name in everything)


def _cpus(given: Mapping[str, str]) -> int:
    for key in ("cpus", "procs"):
        if (count := _whole(given.get(key))) is not None:
            return min(max(count, 1), 65536)
    sockets = _whole(given.get("sockets")) or (_whole(given.get("boards")) or 1) * (_whole(given.get("socketsperboard")) or 1)
    cores = _whole(given.get("corespersocket")) or 1
    threads = _whole(given.get("threadspercore")) or 1
    return min(max(sockets * cores * threads, 1), 65536)


def _memory_mib(given: Mapping[str, str]) -> int | None:
    return _whole(given.get("realmemory"))


def _gres(text: str, line: Line, leftovers: list[Leftover]) -> str:
    taken: list[str] = []
    for device in (part.strip() for part in text.split(",") if part.strip()):
        plain = re.sub(r"\(.*?\)", "", device)
        if _COUNTLESS_GRES.fullmatch(plain):
            plain = f"{plain}:1"
        if _GRES.fullmatch(plain):
            taken.append(plain)
        else:
            leftovers.append(Leftover(line.place, f"Gres={device}", "devices are name:count or name:type:count here"))
    return ",".join(taken)


def _seconds(text: str, line: Line, leftovers: list[Leftover]) -> int | None:
    """Slurm's time: minutes, minutes:seconds, hours:minutes:seconds, days-hours and what follows it; None: no limit."""
    if text.upper() in {"", "UNLIMITED", "INFINITE", "-1"}:
        return None
    found = _CLOCK.fullmatch(text)
    if found is None:
        leftovers.append(Leftover(line.place, f"MaxTime={text}", "no time: the partition has no limit"))
        return None
    days, *clock = (None if part is None else int(part) for part in found.groups())
    parts = [part for part in clock if part is not None]
    if days is not None:
        parts += [0] * (3 - len(parts))
    elif len(parts) < 3:
        parts = [0, parts[0], parts[1] if len(parts) == 2 else 0]
    return ((days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]) or None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
