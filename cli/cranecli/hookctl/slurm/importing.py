"""Turns a slurm.conf into the text of a configuration of ours, and tells what did not come along."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cranecli.hookctl.slurm import conf, hooks, nodes
from cranecli.hookctl.slurm.conf import Line
from cranecli.hookctl.slurm.hooks import HookKeys
from cranecli.hookctl.slurm.leftovers import Leftover
from cranecli.hookctl.slurm.nodes import NodeEntry, PartitionEntry
from cranekit import hostlist

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_SOCKET = "unix:/run/crane/{name}/craned.sock"
_NUMBERS = {"killwait": "KillGrace", "maxbatchrequeue": "MaxRequeueCount"}
_MOST = {"killwait": 86400, "maxbatchrequeue": 1000}
_USERS = {"slurmuser": "CranectldUser", "slurmduser": "CranedUser"}
_CONTROLLER = frozenset({"slurmctldhost", "controlmachine"})
_RELATED = {
    "prepplugins": "there are no plugins: hooks are scripts",
    "resvprolog": "there are no reservations",
    "resvepilog": "there are no reservations",
    "healthcheckprogram": "there is no periodic check: call it from Prolog or Epilog",
    "healthcheckinterval": "there is no periodic check",
    "unkillablestepprogram": "what survives KILL drains its node; no program is called",
    "unkillablesteptimeout": "what survives KILL for 30 s drains its node",
    "batchstarttimeout": "a batch job waits for its Prolog, which has a timeout of its own",
    "jobrequeue": "whether a batch job may be requeued is said by cbatch --no-requeue",
    "plugstackconfig": "there are no SPANK plugins",
    "nodeset": "partitions name their nodes",
    "jobcontainertype": "there are no job containers",
}
_TAKEN = hooks.TAKEN | _NUMBERS.keys() | _USERS.keys() | _CONTROLLER | {"clustername"}


@dataclass(frozen=True, slots=True)
class Imported:
    """The text, and what a person should know."""

    text: str
    leftovers: tuple[Leftover, ...]
    passed_by: tuple[str, ...]
    """Keys that have nothing to do with hooks."""


def import_conf(path: Path) -> Imported:
    """The configuration that does with hooks what the slurm.conf does.

    Raises:
        SlurmConfError: The file or one that it includes cannot be read.
    """
    lines = conf.read(path)
    leftovers = [Leftover(line.place, line.rest, "not understood") for line in lines if line.rest]
    node_entries = nodes.node_entries(lines, leftovers)
    names = [name for entry in node_entries for name in entry.names]
    partitions = nodes.partition_entries(lines, names, leftovers)
    keys = hooks.hook_keys(lines, path.absolute().parent, leftovers)
    top = list(_top(path, lines, leftovers))
    passed_by = _pass_by(lines, leftovers)
    if not node_entries:
        leftovers.append(Leftover(str(path), "NodeName", "there is none: the file gets the one node localhost"))
        node_entries = [NodeEntry(("localhost",), 1, None, "", str(path))]
    parts = [
        f"# From {path}, by `hookctl import`. Read what it said on stderr, and then:",
        "# hookctl check-config FILE; hookctl check-scripts --config FILE; hookctl plan --config FILE",
        *top,
        "",
        "Profile: slurm",
        "",
        "# Without TLS the programs talk over Unix sockets and loopback only.",
        "Nodes:",
        *(line for entry in node_entries for line in _node(entry)),
    ]
    if partitions:
        parts += ["", "Partitions:", *(line for entry in partitions for line in _partition(entry))]
    section = list(_section(keys))
    if section:
        parts += ["", "JobLifecycleHook:", *section]
    order = {line.place: index for index, line in enumerate(lines)}
    told = sorted(dict.fromkeys(leftovers), key=lambda leftover: order.get(leftover.place, len(order)))
    return Imported("\n".join(parts) + "\n", tuple(told), passed_by)


def _top(path: Path, lines: list[Line], leftovers: list[Leftover]) -> Iterator[str]:
    name, place = _last(lines, "clustername")
    if name is None or _CLUSTER_NAME.fullmatch(name) is None:
        why = "it is missing" if name is None else "a name has letters, digits, `_ . -`, at most 40"
        leftovers.append(Leftover(place or str(path), f"ClusterName={name or ''}", f"{why}: the file says `imported`"))
        yield "ClusterName: imported"
    else:
        yield f"ClusterName: {_text(name)}  # {place}"
    hosts = [(pair.value, line.place) for line in lines for pair in line.pairs if pair.name in _CONTROLLER]
    if hosts:
        host = hosts[0][0].split("(", 1)[0]
        yield f"ControlMachine: {_text(host)}  # {hosts[0][1]}"
        leftovers += [Leftover(place, f"SlurmctldHost={value}", "there is one controller") for value, place in hosts[1:]]
        if host != hosts[0][0]:
            leftovers.append(
                Leftover(hosts[0][1], f"SlurmctldHost={hosts[0][0]}", "its address: without TLS, loopback and Unix sockets")
            )
    for slurm_key, key in _USERS.items():
        user, place = _last(lines, slurm_key)
        if user is not None:
            yield f"# {key}: {_text(user.split('(', 1)[0])}  # {place}: the program refuses to start as another user"
            why = f"left as a comment: with {key} the program refuses to start as another user"
            leftovers.append(Leftover(place, f"{'SlurmUser' if slurm_key == 'slurmuser' else 'SlurmdUser'}={user}", why))
    for slurm_key, key in _NUMBERS.items():
        number, place = _last(lines, slurm_key)
        if number is None:
            continue
        if number.isdecimal() and int(number) <= _MOST[slurm_key]:
            yield f"{key}: {int(number)}  # {place}"
        else:
            leftovers.append(Leftover(place, f"{key}, from {number}", f"a number, at most {_MOST[slurm_key]}"))


def _last(lines: list[Line], name: str) -> tuple[str | None, str]:
    return next(((value, line.place) for line in reversed(lines) if (value := line.get(name)) is not None), (None, ""))


def _pass_by(lines: list[Line], leftovers: list[Leftover]) -> tuple[str, ...]:
    """Keys that nothing here means; those that touch hooks become leftovers with a reason."""
    others: dict[str, None] = {}
    for line in lines:
        if line.get("nodename") is not None or line.get("partitionname") is not None:
            continue
        for pair in line.pairs:
            if pair.name in _RELATED:
                leftovers.append(Leftover(line.place, str(pair), _RELATED[pair.name]))
            elif pair.name not in _TAKEN:
                others[pair.key] = None
    return tuple(others)


def _node(entry: NodeEntry) -> Iterator[str]:
    yield f"  - name: {_text(hostlist.fold(entry.names))}  # {entry.place}"
    yield f"    address: {_text(_SOCKET)}"
    yield f"    cpu: {entry.cpus}"
    if entry.memory_mib:
        yield f"    memory: {entry.memory_mib}M"
    if entry.gres:
        yield f"    gres: {_text(entry.gres)}"


def _partition(entry: PartitionEntry) -> Iterator[str]:
    yield f"  - name: {_text(entry.name)}  # {entry.place}"
    yield f"    nodes: {_text(hostlist.fold(entry.nodes))}"
    if entry.is_default:
        yield "    default: true"
    if entry.max_time_s is not None:
        yield f"    max_time: {entry.max_time_s}  # seconds"


def _section(keys: HookKeys) -> Iterator[str]:
    for point in hooks.POINTS.values():
        scripts = keys.scripts.get(point, [])
        if scripts:
            yield f"  {point}:"
            yield from (f"    - {_text(script.value)}  # {script.place}" for script in scripts)
    for key, setting in keys.timeouts.items():
        yield f"  {key}: {setting.value}  # {setting.place}"
    if keys.flags is not None:
        yield f"  PrologFlags: {keys.flags.value}  # {keys.flags.place}"
    if keys.no_hold is not None:
        yield f"  HoldOnPrologFail: false  # {keys.no_hold.place}: {keys.no_hold.value}"


def _text(value: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    return value if re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", value) and value.lower() not in _WORDS else json.dumps(value)


_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""Texts that YAML takes for something else."""
