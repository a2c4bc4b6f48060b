"""The configuration file, key by key: what each means, its unit, its default, and why. The reference page is generated from here."""

from collections.abc import Callable
from enum import Enum
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from cranehooks.model.points import CONTRACTS, HookPoint, Phase
from cranehooks.profiles import OVERRIDES, PROFILES, PrologFlag
from cranehooks.settings.devices import GresEntries
from cranehooks.settings.hook_limits import HookLimitsSection
from cranehooks.settings.keeping import KeepProcesses
from cranehooks.settings.section import Section
from cranehooks.settings.timeouts import HookTimeouts
from cranehooks.settings.values import (
    Address,
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
    HYBRID = "hybrid"
    CGROUP1 = "cgroup1"
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


def _override(key: str) -> tuple[BeforeValidator, WithJsonSchema]:
    """A validator that takes the words by which `key` overrides the profile, in any case, and what an editor is told."""
    words = tuple(OVERRIDES[key].words)

    def parse(value: object) -> str | None:
        if value is None or (isinstance(value, str) and value.lower() in words):
            return value if value is None else value.lower()
        msg = f"expected {', '.join(words)}, not {shown(value)}"
        raise ValueError(msg)

    return BeforeValidator(parse), WithJsonSchema({"enum": list(words)})


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


def _override_text(value: object) -> str:
    """A value as `profiles.OVERRIDES` reads it."""
    if isinstance(value, frozenset):
        return ",".join(sorted_words(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class NodeGroup(Section):
    """One entry of `Nodes`: nodes that are alike."""

    model_config = ConfigDict(alias_generator=None)

    name: str
    """Hostlist of the nodes' names, such as `cn[01-16]`."""
    address: Address
    """Where craned of each node listens: `127.0.0.1:10010`, or `unix:/run/crane/{name}/craned.sock` with `{name}` for the node's
    name. No two nodes may share an address."""
    listen: Address | None = None
    """Where craned of each node listens when others reach it elsewhere, at `address`: by way of a relay. Default: `address`."""
    cpu: Annotated[float, Field(gt=0, le=65536)] = 1.0
    """CPUs of each node that jobs may use. Default 1."""
    memory: Size = 1 << 30
    """Memory of each node that jobs may use: bytes, or with K, M, G, T (powers of 1024). Default 1G."""
    gres: GresEntries = ()
    """Devices of each node: counts, `gpu:4` or `gpu:a100:4,nic:1`, or a list of entries with their device files, as below. They are
    numbered from 0 in this order, those of each name by themselves. Default none."""
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
    """Scripts on the controller at a job's allocation, as CranectldUser. Other spellings: PrologCranectld, PrologCtld,
    CraneCtldProlog, PrologCraneCtld."""
    cranectld_epilog: Patterns = ()
    """Scripts on the controller when a job's attempt ends, as CranectldUser. Other spellings: EpilogCranectld, EpilogCtld,
    CraneCtldEpilog, EpilogCraneCtld."""
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
    for it), ForceRequeueOnFail (requeue even `--no-requeue` jobs), Serial (one Prolog or Epilog at a time on a node), DeferBatch (a
    batch script awaits the Prologs of all its nodes), Contain (Prolog runs in the job's cgroup), RunInJob (Prolog and Epilog do, run by
    the job's extern step), X11 (nothing but the flags it implies). Default none."""
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
    on_prolog_failure: Annotated[str | None, *_override("OnPrologFailure")] = None
    """What a failing Prolog does to the job, besides draining the node: `requeue` (a batch job; interactive and --no-requeue jobs are
    cancelled), `cancel` or `fail`. Default: the profile's."""
    on_cranectld_prolog_failure: Annotated[str | None, *_override("OnCranectldPrologFailure")] = None
    """What a failing CranectldProlog does to the job: `requeue` (a batch job; others are cancelled), `cancel` or `fail`. Default: the
    profile's."""
    on_task_prolog_failure: Annotated[str | None, *_override("OnTaskPrologFailure")] = None
    """What a failing TaskProlog or `--task-prolog` does to the task, which never starts: `cancel`, `fail`, or `exit-as-hook` (the task
    ends with the hook's exit code). Default: the profile's."""
    on_crun_prolog_failure: Annotated[str | None, *_override("OnCrunPrologFailure")] = None
    """What a failing CrunProlog does to the step, which is never sent: `cancel` or `fail`. Default: the profile's."""
    on_epilog_failure: Annotated[str | None, *_override("OnEpilogFailure")] = None
    """What a failing Epilog does to the node: `drain`, or `log`. A lost Epilog and processes that survive KILL drain it in any case.
    Default: the profile's (drain)."""
    on_task_epilog_failure: Annotated[str | None, *_override("OnTaskEpilogFailure")] = None
    """What a failing TaskEpilog does to the node: `log`, or `drain`. Default: the profile's (log)."""
    on_cranectld_epilog_failure: Annotated[str | None, *_override("OnCranectldEpilogFailure")] = None
    """What a failing CranectldEpilog does to all nodes of the attempt: `log`, or `drain` (within the drain budget of the script).
    Default: the profile's (log)."""
    on_crun_epilog_failure: Annotated[str | None, *_override("OnCrunEpilogFailure")] = None
    """What a failing CrunEpilog does to crun's exit code: `log` (nothing), or `fail` (1, where the step itself succeeded). Default: the
    profile's (log)."""
    cancel_during_prolog: Annotated[str | None, *_override("CancelDuringProlog")] = None
    """What a cancel does to a Prolog that runs: `stop` it, or `await` its end. Default: the profile's (slurm and sunk await)."""
    batch_script_start: Annotated[str | None, *_override("BatchScriptStart")] = None
    """When a batch script may start where PrologFlags has Alloc, or a flag that implies it: after the Prolog of its `own-node` (steps on
    other nodes wait for theirs; DeferBatch awaits all), or after those of `all-nodes`. Default: the profile's (Slurm: own-node)."""
    script_order: Annotated[str | None, *_override("ScriptOrder")] = None
    """In which byte order the scripts of a hook run: `reverse` (z to a, Z to A, 9 to 0, the whole list by full path),
    `reverse-within-pattern` (the same among the matches of each entry, entries in the order given), or `ascending` (the whole list, as
    run-parts). Default: the profile's."""
    empty_pattern: Annotated[str | None, *_override("EmptyPattern")] = None
    """What an entry that matches nothing means: `no-hook`, or the hook `fails`. Default: the profile's (slurm fails)."""
    directory_entry: Annotated[str | None, *_override("DirectoryEntry")] = None
    """What a directory among the scripts means: `no-script` (as an entry it fails the hook, matched by a pattern it is passed over),
    `fails` (the hook fails when it comes to it, however it was found), or `run-parts`: as an entry its executable files whose names are
    letters, digits, `_` and `-`, with or without `.sh` at the end, matched by a pattern passed over. What is passed over is reported.
    Default: the profile's (slurm: fails, sunk: run-parts)."""
    timeout_covers: Annotated[str | None, *_override("TimeoutCovers")] = None
    """What one timeout bounds: the whole `list` of a hook's scripts, or each `script`. Default: the profile's."""
    timeout_precedence: Annotated[str | None, *_override("TimeoutPrecedence")] = None
    """Which timeout counts where both are given: the `shared` PrologEpilogTimeout, or a hook's `own` PrologTimeout or EpilogTimeout.
    Default: the profile's (Crane: shared, Slurm: own)."""
    default_timeout: Seconds | None = None
    """Seconds where no timeout is given. Default: the profile's (60 or 300)."""
    timeouts_cover_task_hooks: bool | None = None
    """Whether PrologTimeout and EpilogTimeout bound the task hooks too; otherwise DefaultTimeout does. Default: the profile's (Crane: yes)."""
    task_epilog_environment: Annotated[str | None, *_override("TaskEpilogEnvironment")] = None
    """Which environment TaskEpilog and `--task-epilog` have: the `task`'s as it ended up, or the `step`'s, which is the task's before
    TaskProlog changed it. Default: the profile's (Crane: task, Slurm: step)."""
    task_epilog_stderr: Annotated[str | None, *_override("TaskEpilogStderr")] = None
    """What becomes of what TaskEpilog and `--task-epilog` write to standard error: `kept` with the job, or also `shown` in the standard
    error of the node's first task. Default: the profile's (Crane: kept, Slurm: shown)."""
    allowed_prolog_flags: Annotated[
        frozenset[PrologFlag] | None,
        BeforeValidator(lambda value: None if value is None else parse_flags(value)),
        PlainSerializer(lambda flags: None if flags is None else sorted_words(flags)),
        WithJsonSchema({"type": ["string", "array"]}),
    ] = None
    """The words that PrologFlags may name, in place of those the profile knows."""
    kill_grace: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """Seconds from TERM to KILL for a script that exceeded its time. Default 5: enough to write a last line."""
    unkillable_after: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """Seconds from KILL until what survives it is given up: the hook is `unkillable`, its node is drained and its slot is free. Default 30:
    a process that waits for a device or a file server may need so long to die, and nothing more can be done about it."""
    keep_processes: KeepProcesses = Field(default_factory=dict)
    """Which hooks may leave processes behind when a script of theirs has ended with success: a list of points (`Prolog, Epilog`), or a
    mapping of points to their scripts that may (`Prolog: prolog.d/50-exporter.sh`; paths and globs as for the hook itself, or `true` for
    all); `true` means all points. The points are Prolog, Epilog, CranectldProlog and CranectldEpilog; what task and crun hooks leave
    behind always ends with them. What a job's Prolog keeps is killed, and named, when the job's Epilog has ended; what the others keep
    lives on. Default: none, what a script leaves behind is killed and named in its run."""
    hook_limits: HookLimitsSection = HookLimitsSection()
    """Memory, processes and CPU of hook runs, by point. Default: none."""

    @property
    def overrides(self) -> dict[str, str]:
        """What the section sets in place of cells of the profile, by key (`profiles.OVERRIDES`)."""
        given: dict[str, object | None] = {
            "HoldOnPrologFail": self.hold_on_prolog_fail,
            "OnPrologFailure": self.on_prolog_failure,
            "OnCranectldPrologFailure": self.on_cranectld_prolog_failure,
            "OnTaskPrologFailure": self.on_task_prolog_failure,
            "OnCrunPrologFailure": self.on_crun_prolog_failure,
            "OnEpilogFailure": self.on_epilog_failure,
            "OnTaskEpilogFailure": self.on_task_epilog_failure,
            "OnCranectldEpilogFailure": self.on_cranectld_epilog_failure,
            "OnCrunEpilogFailure": self.on_crun_epilog_failure,
            "CancelDuringProlog": self.cancel_during_prolog,
            "BatchScriptStart": self.batch_script_start,
            "ScriptOrder": self.script_order,
            "EmptyPattern": self.empty_pattern,
            "DirectoryEntry": self.directory_entry,
            "TimeoutCovers": self.timeout_covers,
            "TimeoutPrecedence": self.timeout_precedence,
            "DefaultTimeout": self.default_timeout,
            "TimeoutsCoverTaskHooks": self.timeouts_cover_task_hooks,
            "TaskEpilogEnvironment": self.task_epilog_environment,
            "TaskEpilogStderr": self.task_epilog_stderr,
            "AllowedPrologFlags": self.allowed_prolog_flags,
        }
        return {key: _override_text(value) for key, value in given.items() if value is not None}

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
