"""Where this process stands in each control group hierarchy of the machine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

DAEMON_LEAF = "crane-daemon"
"""The leaf a daemon moves into where its cgroup must be empty to pass controllers on: what it makes is beside, not below."""
HOOKS = "hooks"
"""Below it are the cgroups of hook runs; they have no common limits."""
_OURS = "crane"
_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "devices", "freezer")
"""Of version 1: those of use. Named hierarchies belong to others."""


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The directories of this process's own cgroups, wherever the hierarchies are mounted."""

    unified: Path | None = None
    """Of version 2; None where it is not mounted, or our place in it cannot be seen."""
    controllers: Mapping[str, Path] = field(default_factory=dict)
    """Of version 1, by controller; those mounted together have the same directory."""

    @classmethod
    def of_this_process(cls) -> "Hierarchies":
        return parse(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))

    def bases(self) -> tuple[Path, ...]:
        """Each hierarchy once, version 2 first."""
        return tuple(dict.fromkeys(([self.unified] if self.unified else []) + list(self.controllers.values())))

    def places(self, root_name: str, *parts: str) -> tuple[Path, ...]:
        """Where an instance has its cgroups, or one place below that, in each hierarchy; whether they exist is another matter."""
        return tuple(base.joinpath(_OURS, root_name, *parts) for base in self.bases())


def of_instances(pattern: str) -> Iterator[Path]:
    """The directories of instances that match a pattern, in each hierarchy."""
    for base in Hierarchies.of_this_process().bases():
        yield from (base / _OURS).glob(pattern)


def root_below(base: Path, root_name: str) -> Path:
    """The directory of one instance below a cgroup."""
    return base / _OURS / root_name


def parse(mountinfo: str, membership: str) -> Hierarchies:
    """From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`."""
    own = dict(_memberships(membership))
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        root, mount_point = (_unescaped(part) for part in front.split(" ")[3:5])
        kind, _, options = back.split(" ", 2)
        if kind == "cgroup2" and unified is None:
            unified = _visible(root, mount_point, own.get(""))
        elif kind == "cgroup":
            for controller in {*options.split(" ")[-1].split(",")}.intersection(_CONTROLLERS):
                if (found := _visible(root, mount_point, own.get(controller))) is not None:
                    controllers.setdefault(controller, found)
    if unified is not None and unified.name == DAEMON_LEAF:
        unified = unified.parent
    return Hierarchies(unified, {name: controllers[name] for name in _CONTROLLERS if name in controllers})


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """(controller, path) pairs; the controller of version 2 is empty."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _visible(root: str, mount_point: str, own: str | None) -> Path | None:
    """Our directory below a mount, which in a container may show a part of the hierarchy only."""
    if own is None or ".." in own.split("/"):
        return None
    if root == "/":
        return Path(mount_point + own.rstrip("/"))
    if own == root or own.startswith(f"{root}/"):
        return Path(mount_point + own[len(root) :])
    return None


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape") if "\\" in text else text


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
