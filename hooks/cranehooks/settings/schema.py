"""The configuration file, key by key: what each means, its unit, its default, and why. The reference page is generated from here."""

from collections.abc import Callable
from enum import Enum
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_pascal

from cranehooks.model.points import CONTRACTS, HookPoint, Phase
from cranehooks.profiles import PROFILES, PrologFlag
from cranehooks.settings.timeouts import HookTimeouts
from cranehooks.settings.values import (
    Address,
    Gres,
    Listen,
    Patterns,
    Seconds,
    Size,
    TimeLimit,
    parse_names,
    shown,
)

AFTER_POINTS = tuple(point for point, contract in CONTRACTS.items() if contract.phase is Phase.AFTER)
CONFIGURED_POINTS = tuple(point for point in HookPoint if not point.value.startswith("--"))
"""The points that have a key in the file; the other two are options of crun."""


class SchedulerKind(Enum):
    """Who places jobs."""

    EMBEDDED = "embedded"
    """The controller's own first in, first out scheduler."""
    EXTERNAL = "external"
    """A program that speaks SchedulerService."""


class Containment(Enum):
    """What holds the processes of hooks and jobs together."""

    AUTO = "auto"
    CGROUP2 = "cgroup2"
    NONE = "none"


class LogLevel(Enum):
    """Least important events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_E = TypeVar("_E", bound=Enum)


def word_parser(words: type[_E]) -> Callable[[object], _E]:
    """A validator that takes the enum's values as words, in any case."""

    def parse(value: object) -> _E:
        if isinstance(value, words):
            return value
        for member in words:
            if isinstance(value, str) and value.lower() == member.value:
                return member
        # YAML reads a bare `none` as text but `off` as false: name the words, whatever came.
        msg = f"expected {', '.join(member.value for member in words)}, not {shown(value)}"
        raise ValueError(msg)

    return parse


def parse_profile(value: object) -> str:
    if isinstance(value, str) and value.lower() in PROFILES:
        return value.lower()
    msg = f"expected {', '.join(PROFILES)}, not {shown(value)}"
    raise ValueError(msg)


def parse_flags(value: object) -> frozenset[PrologFlag]:
    """Words, whatever their case; whether the profile knows them is checked with the profile at hand."""
    if isinstance(value, frozenset):
        value = sorted(value)
    by_word = {flag.value.lower(): flag for flag in PrologFlag}
    words = [] if value == "" else parse_names(value)
    unknown = [word for word in words if word.lower() not in by_word]
    if unknown:
        msg = f"unknown flag {', '.join(unknown)}: the flags are {', '.join(sorted(PrologFlag))}"
        raise ValueError(msg)
    return frozenset(by_word[word.lower()] for word in words)


def _parse_after_points(value: object) -> frozenset[HookPoint]:
    if isinstance(value, bool):
        return frozenset(AFTER_POINTS) if value else frozenset()
    if isinstance(value, frozenset):
        return value
    by_name = {point.value: point for point in AFTER_POINTS if point in CONFIGURED_POINTS}
    names = parse_names(value)
    wrong = [name for name in names if name not in by_name]
    if wrong:
        msg = f"expected true, false, or some of {', '.join(by_name)}, not {', '.join(wrong)}: a before-point stops at its first failure"
        raise ValueError(msg)
    return frozenset(by_name[name] for name in names)


def sorted_words(members: frozenset[Enum]) -> list[str]:
    """Sets in a fixed order, so that equal settings have equal digests."""
    return sorted(str(member.value) for member in members)


class Section(BaseModel):
    """A mapping of the file: strict types, no key unknown, never changed after loading."""

    model_config = ConfigDict(  # type: ignore[pydantic-alias]  # made by validation only, never by keyword arguments
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        alias_generator=to_pascal,
        populate_by_name=False,
        hide_input_in_errors=True,
    )


class NodeGroup(Section):
    """One entry of `Nodes`: nodes that are alike."""

    model_config = ConfigDict(alias_generator=None)

    name: str
    """Hostlist of the nodes' names, such as `cn[01-16]`."""
    address: Address
    """Where craned of each node listens: `127.0.0.1:10010`, or `unix:/run/crane/{name}/craned.sock` with `{name}` for the node's
    name. No two nodes may share an address."""
    cpu: Annotated[float, Field(gt=0, le=65536)] = 1.0
    """CPUs of each node that jobs may use. Default 1."""
    memory: Size = 1 << 30
    """Memory of each node that jobs may use: bytes, or with K, M, G, T (powers of 1024). Default 1G."""
    gres: Gres = ""
    """Devices of each node: `gpu:4`, or `gpu:a100:4,nic:1`. Default none."""
    metrics: Listen = None
    """Where craned of this node serves metrics; takes the place of `MetricsListen: Craned`. For nodes that share a host."""


class PartitionSection(Section):
    """One entry of `Partitions`."""

    model_config = ConfigDict(alias_generator=None)

    name: str
    """What jobs name with `--partition`."""
    nodes: str
    """Hostlist of nodes, each of them an entry of `Nodes`; a node may be in several partitions."""
    default: bool = False
    """Whether jobs that name no partition go here. `DefaultPartition` says the same; a single partition is the default by itself."""
    max_time: TimeLimit = None
    """Longest time limit a job may ask for, and the limit of those that ask for none: seconds, `[days-]hours:minutes:seconds`,
    or `UNLIMITED`. Default UNLIMITED."""


class SchedulerSection(Section):
    """Section `Scheduler`."""

    kind: Annotated[
        SchedulerKind,
        BeforeValidator(word_parser(SchedulerKind)),
        WithJsonSchema({"enum": [kind.value for kind in SchedulerKind]}),
    ] = SchedulerKind.EMBEDDED
    """`embedded`: the controller starts jobs first in, first out. `external`: a program that speaks SchedulerService places them.
    Default embedded, so that a small cluster needs nothing else."""


class MetricsSection(Section):
    """Section `MetricsListen`. Port 0 takes a free port, which the log and the ready file name; an empty text serves no metrics."""

    cranectld: Listen = "127.0.0.1:0"
    """`host:port` of the controller's Prometheus metrics. Default 127.0.0.1:0."""
    craned: Listen = "127.0.0.1:0"
    """`host:port` of each node's Prometheus metrics. Default 127.0.0.1:0, because nodes may share a host in trials."""


class HookSection(Section):
    """Section `JobLifecycleHook`: scripts, their time, and what their failure means.

    Scripts are given as a comma separated text or a YAML list of paths and globs, absolute or relative to the directory of this file.
    """

    cranectld_prolog: Patterns = ()
    """Scripts on the controller at a job's allocation, as CranectldUser. Older spelling: PrologCranectld."""
    cranectld_epilog: Patterns = ()
    """Scripts on the controller when a job's attempt ends, as CranectldUser. Older spelling: EpilogCranectld."""
    prolog: Patterns = ()
    """Scripts on each node before a job's first step there, as CranedUser."""
    epilog: Patterns = ()
    """Scripts on each node after a job's last process there, as CranedUser."""
    task_prolog: Patterns = ()
    """Scripts before each task, as the user. Their `export`, `unset` and `print` lines act on the task."""
    task_epilog: Patterns = ()
    """Scripts after each task, as the user."""
    crun_prolog: Patterns = ()
    """Scripts where crun runs, before a step is sent, as the user; `crun --prolog` takes their place."""
    crun_epilog: Patterns = ()
    """Scripts where crun runs, after a step ended, as the user; `crun --epilog` takes their place."""
    prolog_timeout: Seconds | None = None
    """Seconds for Prolog, CranectldProlog and, in the Crane profiles, the task prologs. Default: the profile's (60, or 300), never
    without end: a hook that hangs would keep its node from working."""
    epilog_timeout: Seconds | None = None
    """Seconds for Epilog, CranectldEpilog and, in the Crane profiles, the task epilogs. Default: the profile's."""
    prolog_epilog_timeout: Seconds | None = None
    """Seconds in place of both PrologTimeout and EpilogTimeout (Crane profiles), or the default of both (slurm, sunk)."""
    crun_prolog_timeout: Seconds | None = None
    """Seconds for CrunProlog. Default: no limit, because the user waits for it and can interrupt it."""
    crun_epilog_timeout: Seconds | None = None
    """Seconds for CrunEpilog. Default: no limit."""
    max_output_size: Size = 1 << 20
    """Bytes kept of what the scripts of one run print: the first and the last half; what is beyond is read and dropped, so that no
    script blocks. Default 1M."""
    prolog_flags: Annotated[
        frozenset[PrologFlag],
        BeforeValidator(parse_flags),
        PlainSerializer(sorted_words),
        WithJsonSchema({"type": ["string", "array"]}),
    ] = frozenset()
    """Comma separated words, in any case, of those the profile knows: Alloc (Prolog at allocation), NoHold (and the job does not wait
    for it), ForceRequeueOnFail (requeue even `--no-requeue` jobs), Serial (one Prolog or Epilog at a time on a node). Contain,
    RunInJob, X11 and DeferBatch are refused by this version. Default none."""
    continue_on_failure: Annotated[
        frozenset[HookPoint],
        BeforeValidator(_parse_after_points),
        PlainSerializer(sorted_words),
        WithJsonSchema({"type": ["boolean", "string", "array"]}),
    ] = frozenset()
    """Whether the remaining scripts of an after-point run when one has failed: `true` for all after-points, or a list of them.
    Default false, as Crane and Slurm do. Before-points always stop at the first failure."""
    hold_on_prolog_fail: bool | None = None
    """Whether a job that its Prolog requeued waits for `hookctl release`. Default: the profile's (slurm and sunk hold)."""
    kill_grace: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """Seconds from TERM to KILL for a script that exceeded its time. Default 5: enough to write a last line."""

    @property
    def timeouts(self) -> HookTimeouts:
        return HookTimeouts(
            self.prolog_timeout,
            self.epilog_timeout,
            self.prolog_epilog_timeout,
            self.crun_prolog_timeout,
            self.crun_epilog_timeout,
        )

    @property
    def patterns(self) -> dict[HookPoint, tuple[str, ...]]:
        """As written, of the points that have any."""
        by_point = {
            HookPoint.CRANECTLD_PROLOG: self.cranectld_prolog,
            HookPoint.PROLOG: self.prolog,
            HookPoint.CRUN_PROLOG: self.crun_prolog,
            HookPoint.TASK_PROLOG: self.task_prolog,
            HookPoint.TASK_EPILOG: self.task_epilog,
            HookPoint.CRUN_EPILOG: self.crun_epilog,
            HookPoint.EPILOG: self.epilog,
            HookPoint.CRANECTLD_EPILOG: self.cranectld_epilog,
        }
        return {point: patterns for point, patterns in by_point.items() if patterns}
