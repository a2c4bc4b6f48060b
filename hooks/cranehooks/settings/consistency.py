"""What values of the file must mean together: nodes, partitions, addresses, flags and times. Looks only at values of the right type."""

from collections.abc import Iterator, Mapping

from cranehooks.model.ids import is_node_name
from cranehooks.profiles import (
    DEFAULT_PROFILE,
    FLAG_EFFECTS,
    INCOMPATIBLE_FLAGS,
    PROFILES,
    Profile,
    PrologFlag,
    with_implied,
)
from cranehooks.settings.document import HOOK_SECTION, Finding
from cranehooks.settings.schema import parse_flags
from cranehooks.settings.values import parse_address
from cranekit import hostlist
from cranekit.yaml_lines import KeyPath

_DEFAULT_LISTEN = "127.0.0.1:10011"


def findings_of(data: Mapping[str, object]) -> list[Finding]:
    """All inconsistencies of the file's data. Values of a wrong type are passed over: the schema reports them."""
    nodes, node_findings = _nodes(data)
    return [
        *node_findings,
        *_address_findings(data, nodes),
        *_partition_findings(data, nodes),
        *_flag_findings(data),
        *_time_findings(data),
    ]


def cautions_of(data: Mapping[str, object]) -> list[Finding]:
    """What holds otherwise than the file may make believe. Of data without inconsistencies."""
    section = data.get(HOOK_SECTION)
    if not isinstance(section, Mapping) or PrologFlag.X11 not in parse_flags(section.get("PrologFlags", "")):
        return []
    return [Finding((HOOK_SECTION, "PrologFlags"), f"warning: {PrologFlag.X11} {FLAG_EFFECTS[PrologFlag.X11]}")]


class _Nodes:
    """Names of the nodes and the entry of each; `complete` while every entry could be read."""

    def __init__(self) -> None:
        self.entry_of: dict[str, int] = {}
        self.complete = True


def _nodes(data: Mapping[str, object]) -> tuple[_Nodes, list[Finding]]:
    nodes, findings = _Nodes(), list[Finding]()
    for index, entry in _mappings(data, "Nodes"):
        path = ("Nodes", index, "name")
        names = _expanded(entry.get("name"), path, findings)
        if names is None:
            nodes.complete = False
            continue
        for name in names:
            if not is_node_name(name):
                findings.append(Finding(path, f"{name!r} cannot name a node: letters, digits, `_ . -`, at most 64 characters"))
            elif name in nodes.entry_of:
                findings.append(Finding(path, f"node {name} is in entry {nodes.entry_of[name] + 1} of Nodes already"))
            else:
                nodes.entry_of[name] = index
    if not isinstance(data.get("Nodes"), list):
        nodes.complete = False
    elif not data["Nodes"]:
        findings.append(Finding(("Nodes",), "a cluster has at least one node"))
    return nodes, findings


def _address_findings(data: Mapping[str, object], nodes: _Nodes) -> Iterator[Finding]:
    listen = data.get("CranectldListen", _DEFAULT_LISTEN)
    used = {address: "cranectld" for value in (listen, data.get("ControlAddress")) if (address := _address(value)) is not None}
    control = data.get("ControlAddress")
    if (address := _address(control)) is not None and address.endswith(":0"):
        yield Finding(("ControlAddress",), "port 0 cannot be dialled: give the port that cranectld listens on")
    entries = data.get("Nodes")
    if not isinstance(entries, list):
        return
    reported: set[int] = set()
    for name, index in nodes.entry_of.items():
        address = _address(entries[index].get("address"))
        if address is None or index in reported:
            continue
        path: KeyPath = ("Nodes", index, "address")
        address = address.replace("{name}", name)
        if address.endswith(":0"):
            reported.add(index)
            yield Finding(path, "port 0 cannot be dialled: give each node a port, or a Unix socket with {name} in its path")
        elif address in used:
            reported.add(index)
            hint = "" if "{name}" in str(entries[index].get("address")) else "; use {name}, or one entry for each node"
            yield Finding(path, f"node {name} has the address of {used[address]}, {address}{hint}")
        else:
            used[address] = f"node {name}"


def _partition_findings(data: Mapping[str, object], nodes: _Nodes) -> list[Finding]:
    findings: list[Finding] = []
    names: dict[str, int] = {}
    default: str | None = None
    for index, entry in _mappings(data, "Partitions"):
        path = ("Partitions", index, "nodes")
        members = _expanded(entry.get("nodes"), path, findings)
        unknown = [] if members is None or not nodes.complete else [name for name in members if name not in nodes.entry_of]
        if unknown:
            verb = "is" if len(unknown) == 1 else "are"
            findings.append(Finding(path, f"{hostlist.fold(unknown)} {verb} not in Nodes"))
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        if not is_node_name(name):
            findings.append(Finding(("Partitions", index, "name"), "a partition's name has letters, digits, `_ . -`, at most 64"))
        if name in names:
            findings.append(Finding(("Partitions", index, "name"), f"partition {name} is entry {names[name] + 1} already"))
        names.setdefault(name, index)
        if entry.get("default") is True:
            if default is not None:
                findings.append(Finding(("Partitions", index, "default"), f"partition {default} is the default already"))
            default = name
    findings.extend(_default_findings(data.get("DefaultPartition"), names, default))
    return findings


def _default_findings(chosen: object, names: Mapping[str, int], marked: str | None) -> Iterator[Finding]:
    if not isinstance(chosen, str):
        return
    if chosen not in names:
        yield Finding(("DefaultPartition",), f"there is no partition {chosen} (Partitions: {', '.join(names) or 'none'})")
    elif marked is not None and marked != chosen:
        yield Finding(
            ("DefaultPartition",), f"partition {marked} is marked `default: true`, this names {chosen}: keep one of them"
        )


def _flag_findings(data: Mapping[str, object]) -> Iterator[Finding]:
    section = data.get(HOOK_SECTION)
    name = data.get("Profile", DEFAULT_PROFILE)
    profile = PROFILES.get(name.lower()) if isinstance(name, str) else None
    if not isinstance(section, Mapping) or profile is None or "PrologFlags" not in section:
        return
    try:
        flags = parse_flags(section["PrologFlags"])
    except ValueError:
        return  # the schema reports it
    path = (HOOK_SECTION, "PrologFlags")
    allowed = _allowed_flags(section, profile)
    foreign = flags - allowed
    if foreign:
        usable = ", ".join(sorted(allowed)) or "none"
        yield Finding(path, f"{', '.join(sorted(foreign))} is no flag of profile {profile.name}, whose flags are {usable}")
    direct = [pair for pair in INCOMPATIBLE_FLAGS if {pair[0], pair[1]} <= flags]
    for one, other, why in direct or [pair for pair in INCOMPATIBLE_FLAGS if {pair[0], pair[1]} <= with_implied(flags)]:
        yield Finding(path, f"{_origin(one, flags)} and {_origin(other, flags)} exclude each other: {why}")


def _allowed_flags(section: Mapping[str, object], profile: Profile) -> frozenset[PrologFlag]:
    """Those of the profile, or those the site names in their place."""
    if section.get("AllowedPrologFlags") is None:
        return profile.flags
    try:
        return parse_flags(section["AllowedPrologFlags"])
    except ValueError:
        return frozenset(PrologFlag)  # the schema reports it


def _origin(flag: PrologFlag, given: frozenset[PrologFlag]) -> str:
    if flag in given:
        return flag.value
    implying = sorted(other for other in given if flag in with_implied(frozenset({other})))
    return f"{flag} (implied by {', '.join(implying)})"


def _time_findings(data: Mapping[str, object]) -> Iterator[Finding]:
    heartbeat, down = _number(data, "HeartbeatInterval", 5.0), _number(data, "NodeDownTimeout", 60.0)
    if heartbeat is not None and down is not None and down < 3 * heartbeat:
        key = "NodeDownTimeout" if "NodeDownTimeout" in data else "HeartbeatInterval"
        yield Finding((key,), f"NodeDownTimeout ({down:g} s) must be at least three times HeartbeatInterval ({heartbeat:g} s)")
    delay, cap = _number(data, "RequeueDelay", 5.0), _number(data, "MaxRequeueDelay", 600.0)
    if delay is not None and cap is not None and cap < delay:
        key = "MaxRequeueDelay" if "MaxRequeueDelay" in data else "RequeueDelay"
        yield Finding((key,), f"MaxRequeueDelay ({cap:g} s) is less than RequeueDelay ({delay:g} s)")


def _number(data: Mapping[str, object], key: str, default: float) -> float | None:
    value = data.get(key, default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _address(value: object) -> str | None:
    try:
        return parse_address(value)
    except ValueError:
        return None


def _mappings(data: Mapping[str, object], key: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    entries = data.get(key)
    if isinstance(entries, list):
        yield from ((index, entry) for index, entry in enumerate(entries) if isinstance(entry, Mapping))


def _expanded(value: object, path: KeyPath, findings: list[Finding]) -> list[str] | None:
    """The names of a hostlist, or None with a finding; None alone where it is no text."""
    if not isinstance(value, str):
        return None
    try:
        names = list(hostlist.expand(value))
    except ValueError as error:
        findings.append(Finding(path, str(error)))
        return None
    if not names:
        findings.append(Finding(path, "an empty hostlist"))
        return None
    return names
