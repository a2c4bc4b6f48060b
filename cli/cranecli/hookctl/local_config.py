"""The configuration of a local cluster: a site's own, with everything replaced that ties it to the site's machines."""

import getpass
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cranecli.hookctl.failure import CommandError, ExitCode
from cranehooks.execution.scripts import problem_of
from cranehooks.model.gres import NodeDevice
from cranehooks.model.points import CONTRACTS, Runner
from cranehooks.settings import ClusterSettings, load
from cranehooks.settings.cluster import NodeSettings
from cranehooks.settings.document import OLDER_HOOK_KEYS
from cranekit.yaml_lines import SettingsError

MOST_NODES = 32
"""Of a local cluster: each is a process, and two cores are to carry them."""
CONTROLLER = "cranectld"
LOGIN = "login"

_CPUS = 4
_MEMORY_BYTES = 4 << 30
_LONGEST_SITE_NAME = 24
_HOOK_SECTIONS = ("JobLifecycleHook", "JobLogHook")
_TIED_TO_THE_SITE = ("ControlMachine", "ControlAddress", "CranectldUser", "CranedUser", "DefaultPartition")
_DAEMONS_POINTS = tuple(point for point, contract in CONTRACTS.items() if contract.runner is not Runner.CRUN)

Document = dict[str, Any]  # the values of a YAML mapping are of any YAML type


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A node of the local cluster; CPUs and memory are what it claims, not what is there."""

    name: str
    cpus: float = _CPUS
    memory_bytes: int = _MEMORY_BYTES
    gres: str = ""
    devices: tuple[NodeDevice, ...] = ()
    """With their files; empty where `gres` says all."""


@dataclass(frozen=True, slots=True)
class LocalPartition:
    """What is left of a partition of the site's."""

    name: str
    nodes: tuple[str, ...]
    is_default: bool
    max_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """What the local cluster takes from the site's file (or from nowhere)."""

    nodes: tuple[LocalNode, ...]
    document: Document
    """The keys of the file that stay."""
    partitions: tuple[LocalPartition, ...] = ()
    """Empty: one with all nodes."""
    site_name: str = ""
    """Name of the site's cluster, which the local one's begins with."""


def default_config(nodes: int) -> LocalConfig:
    """Nodes `cn01` … without any hook."""
    return LocalConfig(tuple(LocalNode(f"cn{number:02d}") for number in range(1, nodes + 1)), {})


def site_config(path: Path, nodes: int | None) -> LocalConfig:
    """A site's file, validated first.

    Args:
        path: The file.
        nodes: Only the first so many of its nodes; None: all.

    Raises:
        CommandError: The file has problems (all of them are named), or too many nodes.
    """
    settings = settings_of(path)
    chosen = list(settings.nodes.values())[:nodes]
    if len(chosen) > MOST_NODES:
        message = (
            f"{path} has {len(chosen)} nodes, a local cluster at most {MOST_NODES}: --nodes {MOST_NODES} takes the first of them"
        )
        raise CommandError(message, ExitCode.USAGE)
    names = {node.name for node in chosen}
    reserved = names & {CONTROLLER, LOGIN}
    if reserved:
        message = f"a node of a local cluster cannot be called {', '.join(sorted(reserved))}: that is another daemon's name there"
        raise CommandError(message, ExitCode.USAGE)
    partitions = tuple(
        LocalPartition(partition.name, kept, partition.is_default, partition.max_time_s)
        for partition in settings.partitions.values()
        if (kept := tuple(name for name in partition.nodes if name in names))
    )
    return LocalConfig(
        nodes=tuple(_local_node(node) for node in chosen),
        document=_kept(path, settings),
        partitions=partitions,
        site_name=settings.cluster_name,
    )


def settings_of(path: Path) -> ClusterSettings:
    """The settings of a file.

    Raises:
        CommandError: With every problem of the file, one per line.
    """
    try:
        return load(path)
    except SettingsError as error:
        raise CommandError(f"{path} cannot be used:\n{error}", ExitCode.USAGE) from error


def check_hooks(path: Path) -> None:
    """Looks at the scripts that a local cluster's daemons would run, as they do when they start.

    Raises:
        CommandError: With every script that cannot run, and its place in the file.
    """
    settings = settings_of(path)
    problems = settings.check_scripts(_DAEMONS_POINTS, partial(problem_of, settings.profile))
    if problems:
        raise CommandError(f"{path} cannot be used:\n{SettingsError(problems)}", ExitCode.USAGE)


def effective(config: LocalConfig, state_dir: Path, cluster_name: str, addresses: Mapping[str, str]) -> Document:
    """The configuration that the daemons of a local cluster start with.

    Args:
        config: What stays of the site's.
        state_dir: Of the local cluster; everything it writes is below.
        cluster_name: Of its own: daemons know the processes and cgroups of their cluster by its name, so it is never the site's.
        addresses: Of the controller and of each node.
    """
    document: Document = {key: value for key, value in config.document.items() if key not in _TIED_TO_THE_SITE}
    partitions = config.partitions or (LocalPartition("local", tuple(node.name for node in config.nodes), is_default=True),)
    document |= {
        "ClusterName": cluster_name,
        "CranectldListen": addresses[CONTROLLER],
        "StateDir": str(state_dir / "state"),
        "RunDir": str(state_dir / "run"),
        "ClusterSecretFile": str(state_dir / "cluster.secret"),
        "MetricsListen": {"Cranectld": "127.0.0.1:0", "Craned": "127.0.0.1:0"},
        "Nodes": [_node_entry(node, addresses[node.name]) for node in config.nodes],
        "Partitions": [_partition_entry(partition) for partition in partitions],
        "Administrators": _administrators(document.get("Administrators")),
    }
    if os.geteuid() == 0:
        document.setdefault("AllowRootJobs", True)
    return document


def write(document: Document, path: Path) -> None:
    """Writes a configuration file."""
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    path.chmod(0o644)


def own_cluster_name(config: LocalConfig) -> str:
    """A name that no other cluster on this machine has: `local-1a2b3c4d`, or `site-local-1a2b3c4d`."""
    unique = f"local-{secrets.token_hex(4)}"
    return f"{config.site_name[:_LONGEST_SITE_NAME]}-{unique}" if config.site_name else unique


class ReservedPorts:
    """Loopback ports that stay ours: bound without listening, so that the daemons, which share ports as gRPC does, may listen on them."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self) -> str:
        """One more, as `127.0.0.1:PORT`."""
        reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sockets.append(reserved)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{reserved.getsockname()[1]}"

    def close(self) -> None:
        """Gives all of them back."""
        while self._sockets:
            self._sockets.pop().close()


def _kept(path: Path, settings: ClusterSettings) -> Document:
    """The file's own mapping, its hooks in canonical spelling and with absolute paths."""
    document: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    hooks: Document = {}
    for section in _HOOK_SECTIONS:
        hooks |= document.pop(section, None) or {}
    for old in OLDER_HOOK_KEYS:
        hooks.pop(old, None)
    for point, patterns in settings.hooks.patterns.items():
        hooks[point.value] = _absolute(patterns, path.resolve().parent)
    if hooks:
        document[_HOOK_SECTIONS[0]] = hooks
    return document


def _absolute(patterns: Iterable[str], directory: Path) -> list[str]:
    # Not resolved: links in a hook's path are the hook's own business.
    return [str(directory / pattern) for pattern in patterns]


def _node_entry(node: LocalNode, address: str) -> Document:
    entry: Document = {"name": node.name, "address": address, "cpu": node.cpus, "memory": node.memory_bytes}
    if node.devices:
        entry["gres"] = [
            {"name": device.name, "type": device.type} | ({"files": [list(device.files)]} if device.files else {})
            for device in node.devices
        ]
    elif node.gres:
        entry["gres"] = node.gres
    return entry


def _local_node(node: NodeSettings) -> LocalNode:
    has_files = any(device.files for device in node.devices)
    return LocalNode(node.name, node.cpus, node.memory_bytes, node.gres, node.devices if has_files else ())


def _partition_entry(partition: LocalPartition) -> Document:
    entry: Document = {"name": partition.name, "nodes": ",".join(partition.nodes), "default": partition.is_default}
    if partition.max_time_s is not None:
        entry["max_time"] = partition.max_time_s
    return entry


def _administrators(given: object) -> list[str]:
    """Those of the file, and whoever tries it."""
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else [str(name) for name in given or ["root"]]  # type: ignore[attr-defined]  # validated: a text or a list
    me = _user_name()
    return names if me in names else [*names, me]


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # An uid without a name (a container): administrators may be given by uid, too.
        return str(os.getuid())
