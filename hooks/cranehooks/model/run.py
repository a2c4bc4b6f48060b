"""What one run of a hook is asked to do, and the record of what it did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from cranehooks.model.ids import Attempt, JobId, NodeName, RunId, StepId, TaskId
from cranehooks.model.limits import LimitKind, Limits, words
from cranehooks.model.outcome import OK, Outcome
from cranehooks.model.points import HookPoint


@dataclass(frozen=True, slots=True)
class HookKey:
    """Which run this is. Equal keys mean the same run: it happens once, however often it is asked for."""

    point: HookPoint
    job_id: JobId
    attempt: Attempt
    node: NodeName | None = None
    """Where it runs; None on the controller."""
    step_id: StepId | None = None
    task_id: TaskId | None = None

    @property
    def run_id(self) -> RunId:
        """`42.1/prolog@cn01`, `42.1.0/task_prolog:3@cn01`: readable, unique in the cluster, safe in a file name once `/` is replaced."""
        step = "" if self.step_id is None else f".{self.step_id}"
        task = "" if self.task_id is None else f":{self.task_id}"
        node = "" if self.node is None else f"@{self.node}"
        return RunId(f"{self.job_id}.{self.attempt}{step}/{self.point.name.lower()}{task}{node}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a process runs as. `None` in a `RunSpec` keeps the daemon's own identity."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class TimeoutScope(Enum):
    """What a timeout covers (design §6)."""

    LIST = "list"
    SCRIPT = "script"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything an engine needs for one run. Plain data, so that it crosses a process boundary as JSON."""

    key: HookKey
    scripts: tuple[str, ...]
    """Absolute paths, in the order they run."""
    environment: Mapping[str, str]
    """Exactly what the scripts see, nothing is added."""
    timeout_s: float | None
    """None: no limit (crun hooks)."""
    timeout_scope: TimeoutScope = TimeoutScope.LIST
    continue_on_failure: bool = False
    credentials: Credentials | None = None
    user: str = ""
    """Name of that identity, for the record; empty: looked up where it runs."""
    cwd: str = "/"
    grace_s: float = 5.0
    """From TERM to KILL."""
    unkillable_after_s: float = 30.0
    """From KILL to giving up on what survives it."""
    output_limit_bytes: int = 1 << 20
    trusted_owner: bool = True
    """Whether scripts must be owned by root or the daemon's user and writable by nobody else (hooks of the configuration); a user's own hook needs only to be executable."""
    inherit_stdio: bool = False
    """crun hooks: the launch terminal instead of /dev/null and a captured pipe."""
    arguments: tuple[str, ...] = ()
    """After the path in argv (crun hooks get the application's argv)."""
    cgroup: str | None = None
    """Absolute directory of an existing cgroup to run in (task hooks); None: a cgroup of its own where the driver has one."""
    limits: Limits | None = None
    """Of the run's own cgroup; those that do not hold where it runs are told in its record."""
    notes: tuple[str, ...] = ()
    """For the record of the run: what was passed over when it was planned."""
    keeps: frozenset[str] = frozenset()
    """Those of the scripts, by path, whose processes live on when the script has ended with success."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that a script left behind, and that was killed, or kept where the hook may keep it."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class ScriptStarted:
    """One script of a run has begun: what a journal needs to find its process again."""

    run_id: RunId
    index: int
    """Place in the run's list, from 0."""
    path: str
    sha256: str
    pid: int
    start_time: int
    """Clock ticks since boot: with the pid, it names the process for good."""


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """One script of a run that was reached."""

    path: str
    outcome: Outcome
    started_at: float
    """Seconds since the epoch, for people."""
    duration_s: float
    """By the monotonic clock."""
    sha256: str = ""
    """Of what was run; empty when it could not be read."""
    output: str = ""
    """Head and tail of stdout and stderr together, decoded with replacement characters."""
    output_bytes: int = 0
    """How much was written in all."""
    leftovers: tuple[Leftover, ...] = ()
    """What it left behind and was killed."""
    kept: tuple[Leftover, ...] = ()
    """What it left behind and lives on (KeepProcesses)."""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def last_line(self) -> str:
        """The last line of output that is not blank; empty when there is none."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


@dataclass(frozen=True, slots=True)
class HookRun:
    """The record of one run: what `hookctl explain` tells and what the metrics count."""

    key: HookKey
    user: str
    """Whose identity it ran with, by name."""
    started_at: float
    duration_s: float
    outcome: Outcome = OK
    """Of the first failing script, or ok. `SPAWN` without scripts: the hook itself could not be planned (an empty pattern under `slurm`)."""
    scripts: tuple[ScriptRun, ...] = ()
    queue_wait_s: float = 0.0
    notes: tuple[str, ...] = ()
    """What a person should know besides: files of a directory that were passed over."""

    @property
    def failed_script(self) -> ScriptRun | None:
        """The script that decided a failing outcome."""
        return next((script for script in self.scripts if not script.outcome.ok), None)

    @property
    def output(self) -> str:
        return "".join(script.output for script in self.scripts)


@dataclass(frozen=True, slots=True)
class HookSettings:
    """The hooks one job runs with: taken when the job starts, kept until it ends (design §4)."""

    profile: str
    patterns: Mapping[HookPoint, tuple[str, ...]] = field(default_factory=dict)
    """Absolute patterns per point, in configuration order; a point that is missing has no hook."""
    timeouts_s: Mapping[HookPoint, float | None] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    continue_on_failure: frozenset[HookPoint] = frozenset()
    output_limit_bytes: int = 1 << 20
    slurm_compatible_env: bool = False
    config_dir: str = "/etc/crane"
    hold_on_prolog_fail: bool | None = None
    """Whether a job requeued by its Prolog waits for release; None: as the profile says."""
    grace_s: float = 5.0
    """From TERM to KILL for a script that exceeded its time."""
    unkillable_after_s: float = 30.0
    """From KILL to giving up on what survives it."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Cells of the profile that the site sets otherwise, by the name of the setting (`profiles.OVERRIDES`); `profiles.effective` joins both."""
    keep_processes: Mapping[HookPoint, tuple[str, ...]] = field(default_factory=dict)
    """Points whose scripts may leave processes behind, with the absolute patterns of those that may; no pattern: every script."""
    limits: Mapping[HookPoint, Limits] = field(default_factory=dict)
    """Of each run."""

    def unenforced(self, points: Iterable[HookPoint], enforced: frozenset[LimitKind]) -> dict[HookPoint, tuple[str, ...]]:
        """Limits of configured hooks among `points` that do not hold where only `enforced` ones do, by name."""
        wanted = {point: self.limits[point].kinds for point in points if point in self.limits and self.patterns.get(point)}
        return {point: words(kinds - enforced) for point, kinds in wanted.items() if kinds - enforced}
