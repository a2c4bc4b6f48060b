"""The settings of a whole cluster, as the programs use them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, WithJsonSchema

from cranehooks.model.gres import NodeDevice
from cranehooks.model.ids import NodeName
from cranehooks.model.job import SOFT_LIMITS
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from cranehooks.profiles import DEFAULT_PROFILE, PROFILES, Profile, overridden, profile_named, with_implied
from cranehooks.settings.consistency import cautions_of
from cranehooks.settings.devices import counts_of, devices_of
from cranehooks.settings.document import OLDER_HOOK_KEYS, OLDER_TOP_KEYS, ConfigDocument
from cranehooks.settings.limits import JobLimitsSection
from cranehooks.settings.retention import RetentionSection
from cranehooks.settings.schema import (
    Containment,
    HookSection,
    LogLevel,
    MetricsSection,
    NodeGroup,
    PartitionSection,
    SchedulerSection,
    parse_profile,
    word_parser,
)
from cranehooks.settings.section import Section
from cranehooks.settings.timeouts import timeouts_of
from cranehooks.settings.users import MissingHome, MissingHomes, PropagatedLimits, UnknownUser, UnknownUsers
from cranehooks.settings.values import DEFAULT_CONFIG_DIR, Address, ConfigPath, Names, ScriptLimit, Seconds
from cranekit import hostlist
from cranekit.yaml_lines import Problem

IMPLICIT_PARTITION = "default"
"""Name of the partition with all nodes, where the file has no `Partitions`."""


def _as_tuple(value: object) -> object:
    """YAML sequences as tuples, which never change."""
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One node."""

    name: NodeName
    address: str
    """`host:port` or `unix:/path` of its craned, for those who call it."""
    cpus: float
    memory_bytes: int
    gres: str
    """Counts: `gpu:a100:4,nic:1`."""
    metrics_listen: str | None
    """None: no metrics are served."""
    devices: tuple[NodeDevice, ...] = ()
    """What `gres` counts, one by one."""
    listen: str | None = None
    """Where its craned listens; None: at its address."""


@dataclass(frozen=True, slots=True)
class PartitionSettings:
    """One partition."""

    name: str
    nodes: tuple[NodeName, ...]
    is_default: bool
    max_time_s: float | None
    """None: unlimited."""


class ClusterSettings(Section):
    """The keys at the top of the file. Made by `cranehooks.settings.load`; equal files give equal digests."""

    cluster_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
    """Name of the cluster, in CRANE_CLUSTER_NAME and in paths of cgroups: letters, digits, `_ . -`, at most 40. Required."""
    control_machine: str = "localhost"
    """Host name of the controller, for messages to people. Default localhost. The programs dial `ControlAddress`."""
    cranectld_listen: Address = "127.0.0.1:10011"
    """Where cranectld listens: `127.0.0.1:port`, or `unix:/path` in a directory that only its user may enter. Without TLS nothing
    but loopback and Unix sockets is taken. Default 127.0.0.1:10011, CraneSched's port."""
    control_address_given: Annotated[Address | None, Field(alias="ControlAddress")] = None
    """Where the other programs reach cranectld. Default: `CranectldListen`."""
    cranectld_user: str | None = None
    """User whose identity cranectld and the controller's hooks have; cranectld refuses to start as another. Default: whoever starts it."""
    craned_user: str | None = None
    """User whose identity craned and the node hooks have, usually root; craned refuses to start as another. Default: whoever
    starts it."""
    state_dir: ConfigPath = "/var/lib/crane"
    """Directory of what must survive a restart: the controller's database, the nodes' journals. Default /var/lib/crane."""
    run_dir: ConfigPath = "/run/crane"
    """Directory of sockets. Default /run/crane."""
    cluster_secret_file_given: Annotated[ConfigPath | None, Field(alias="ClusterSecretFile")] = None
    """File with the secret by which the daemons of the cluster know one another; mode 0600. Default: `cluster.secret` beside this
    file."""
    node_groups: Annotated[tuple[NodeGroup, ...], Field(alias="Nodes"), BeforeValidator(_as_tuple)]
    """The nodes. Required."""
    partition_sections: Annotated[tuple[PartitionSection, ...], Field(alias="Partitions"), BeforeValidator(_as_tuple)] = ()
    """The partitions. Default: one named `default` with all nodes."""
    default_partition_given: Annotated[str | None, Field(alias="DefaultPartition")] = None
    """Partition of jobs that name none. Default: the one marked `default: true`, or the only one."""
    scheduler: SchedulerSection = SchedulerSection()
    """Who places jobs."""
    max_queued_jobs: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Jobs that may wait; further ones are refused with a clear message, which loses nothing. Default 50000: some 200 MB of the
    controller's memory."""
    retention: RetentionSection = RetentionSection()
    """How long the controller keeps what is over."""
    max_requeue_count: Annotated[int, Field(ge=0, le=1000)] = 5
    """Requeues after failing before-hooks or lost nodes before a job is held with the reason. Default 5, as Slurm."""
    requeue_delay: Seconds = 5.0
    """Seconds before the first retry of a requeued job; doubled with every further one. Default 5: time to look, short enough for a
    single bad node."""
    max_requeue_delay: Seconds = 600.0
    """Longest delay of a retry in seconds. Default 600."""
    max_drains_per_script: ScriptLimit = None
    """Nodes that may be drained because of one script (by its content) within `DrainWindow`: a count, or `auto` for the larger of 2 and
    5 % of the nodes. Beyond it the script itself is suspected: no more nodes are drained and jobs that would run it are held. Default auto."""
    drain_window: Seconds = 3600.0
    """Seconds over which drains are counted for `MaxDrainsPerScript`. Default 3600."""
    heartbeat_interval: Seconds = 5.0
    """Seconds between the heartbeats of a node. After twice as long a silent connection between daemons is asked whether it lives, and
    given up when it does not answer for as long. Default 5."""
    node_down_timeout: Seconds = 60.0
    """Seconds of silence after which a node is Down and its jobs end there. At least three times `HeartbeatInterval`, so that one lost
    heartbeat changes nothing. Default 60."""
    launcher_grace: Annotated[float, Field(ge=0, le=86400)] = 30.0
    """Seconds that a step lives on when its crun is gone, for crun to come back. Default 30."""
    kill_grace: Annotated[float, Field(ge=0, le=86400)] = 30.0
    """Seconds from TERM to KILL for a job's tasks at cancel or time limit. Default 30, as Slurm's KillWait. For hook scripts the section
    JobLifecycleHook has its own."""
    allow_root_jobs: bool = False
    """Whether jobs may run as uid 0. Default false."""
    allow_setuid_programs: bool = False
    """Whether set-uid programs and programs with file capabilities (sudo, fusermount, newuidmap, ping) have their powers in tasks and task
    hooks. Default false: the capability bounding set of a user's processes is empty, so that nothing they start gains a capability."""
    unknown_users: UnknownUsers = UnknownUser.REFUSE
    """What a node does with a job whose user it has no account of: `refuse` it, which fails the job and says so, or `run` it with the uid,
    gid and groups that its submission had, and without a home. Default refuse."""
    missing_home: MissingHomes = MissingHome.FAIL
    """What a home directory means that the job's user cannot enter on the node: the job `fail`s, or `ignore`. Accounts that are meant to
    have none (`/nonexistent` and the like) run in any case. Default fail."""
    propagate_resource_limits: PropagatedLimits = frozenset(SOFT_LIMITS)
    """Soft resource limits that tasks take over from the shell they were asked from: `all`, `none`, or some of AS, CORE, CPU, DATA, FSIZE,
    MEMLOCK, NOFILE, NPROC, RSS, STACK. The hard limits are craned's, and bound them. Default all, as Slurm."""
    administrators: Names = ("root",)
    """Users who may drain, resume, release and cancel for others: names or uids. Default root."""
    job_limits: JobLimitsSection = JobLimitsSection()
    """What of a job's request is enforced on its nodes."""
    metrics_listen: MetricsSection = MetricsSection()
    """Where Prometheus metrics are served."""
    enable_reflection: bool = False
    """Whether the gRPC servers answer reflection, for grpcurl and the like. Default false."""
    enable_slurm_compatible_env: bool | None = None
    """Whether hooks and tasks get SLURM_* variables beside the CRANE_* ones. Default: the profile's (slurm and sunk give them)."""
    log_level: Annotated[
        LogLevel, BeforeValidator(word_parser(LogLevel)), WithJsonSchema({"enum": [level.value for level in LogLevel]})
    ] = LogLevel.INFO
    """debug, info, warning or error. Default info."""
    containment: Annotated[
        Containment, BeforeValidator(word_parser(Containment)), WithJsonSchema({"enum": [driver.value for driver in Containment]})
    ] = Containment.AUTO
    """How processes of hooks and jobs are held together: `cgroup2` (version 2 control groups), `hybrid` (killed by version 2, limited by
    version 1 controllers), `cgroup1` (version 1 alone), `none` (session and child subreaper, for users without delegated cgroups), or
    `auto`: hybrid where version 1 controllers may be used beside version 2, else cgroup2, cgroup1, none. Default auto."""
    profile_name: Annotated[
        str, Field(alias="Profile"), BeforeValidator(parse_profile), WithJsonSchema({"enum": list(PROFILES)})
    ] = DEFAULT_PROFILE
    """Whose behaviour the hooks have: crane-requeue, crane-fail, slurm or sunk; see the page of profiles. Default crane-requeue."""
    hooks: Annotated[HookSection, Field(alias="JobLifecycleHook")] = HookSection()
    """The hooks. Older spelling: JobLogHook."""

    _document: ConfigDocument | None = PrivateAttr(default=None)

    @property
    def config_dir(self) -> str:
        """Directory of the file: what relative paths in it start from."""
        return DEFAULT_CONFIG_DIR if self._document is None else self._document.directory

    @property
    def control_address(self) -> str:
        """Where daemons and front ends dial the controller."""
        return self.control_address_given or self.cranectld_listen

    @property
    def keepalive_s(self) -> float:
        """How long a silent connection between daemons is trusted, and then waited for: together well below NodeDownTimeout."""
        return 2 * self.heartbeat_interval

    @property
    def cluster_secret_file(self) -> str:
        return self.cluster_secret_file_given or f"{self.config_dir}/cluster.secret"

    @property
    def profile(self) -> Profile:
        """The profile of that name, with the cells that the file overrides."""
        slurm = self.enable_slurm_compatible_env
        top = {} if slurm is None else {"EnableSlurmCompatibleEnv": str(slurm).lower()}
        return overridden(profile_named(self.profile_name), {**self.hooks.overrides, **top})

    @cached_property
    def nodes(self) -> Mapping[NodeName, NodeSettings]:
        """Every node by name, in the order of the file."""
        return {
            node.name: node
            for group in self.node_groups
            for node in (
                NodeSettings(
                    name=NodeName(name),
                    address=group.address.replace("{name}", name),
                    listen=None if group.listen is None else group.listen.replace("{name}", name),
                    cpus=group.cpu,
                    memory_bytes=group.memory,
                    gres=counts_of(group.gres),
                    devices=devices_of(group.gres),
                    metrics_listen=group.metrics if "metrics" in group.model_fields_set else self.metrics_listen.craned,
                )
                for name in hostlist.expand(group.name)
            )
        }

    @cached_property
    def partitions(self) -> Mapping[str, PartitionSettings]:
        """Every partition by name, in the order of the file."""
        if not self.partition_sections:
            return {
                IMPLICIT_PARTITION: PartitionSettings(IMPLICIT_PARTITION, tuple(self.nodes), is_default=True, max_time_s=None)
            }
        return {
            section.name: PartitionSettings(
                name=section.name,
                nodes=tuple(NodeName(name) for name in hostlist.expand(section.nodes)),
                is_default=section.name == self.default_partition,
                max_time_s=section.max_time,
            )
            for section in self.partition_sections
        }

    @property
    def default_partition(self) -> str | None:
        """Partition of jobs that name none; None: every job must name one."""
        if not self.partition_sections:
            return IMPLICIT_PARTITION
        if self.default_partition_given is not None:
            return self.default_partition_given
        marked = [section.name for section in self.partition_sections if section.default]
        if marked:
            return marked[0]
        return self.partition_sections[0].name if len(self.partition_sections) == 1 else None

    @property
    def drains_per_script(self) -> int:
        """How many nodes one script may drain within the window (the drain budget)."""
        if self.max_drains_per_script is not None:
            return self.max_drains_per_script
        return max(2, len(self.nodes) * 5 // 100)

    def hook_settings(self) -> HookSettings:
        """The hooks a job that starts now keeps until it ends, timeouts and flags resolved by the profile."""
        profile, hooks = self.profile, self.hooks
        return HookSettings(
            profile=profile.name,
            patterns=hooks.patterns,
            timeouts_s=timeouts_of(profile, hooks.timeouts),
            flags=frozenset(flag.value for flag in with_implied(hooks.prolog_flags)),
            continue_on_failure=hooks.continue_on_failure,
            output_limit_bytes=hooks.max_output_size,
            slurm_compatible_env=profile.slurm_environment,
            config_dir=self.config_dir,
            hold_on_prolog_fail=profile.hold_on_prolog_fail,
            grace_s=hooks.kill_grace,
            unkillable_after_s=hooks.unkillable_after,
            overrides=hooks.overrides,
            keep_processes=hooks.keep_processes,
            limits=hooks.hook_limits.by_point,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the settings in a canonical form: equal on hosts whose files mean the same."""
        canonical = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_document(self, source: ConfigDocument) -> "ClusterSettings":
        """The same settings, knowing the file they came from."""
        copy = self.model_copy()
        copy._document = source  # noqa: SLF001 our own class
        return copy

    @property
    def cautions(self) -> list[Problem]:
        """What holds otherwise than the file may make believe, each with its place; nothing is refused for it."""
        return [] if self._document is None else self._document.problems(cautions_of(self._document.data))

    def check_scripts(self, points: Iterable[HookPoint], check: Callable[[str], str | None]) -> list[Problem]:
        """What is wrong with the literal script paths of `points`, each with its place in the file.

        Args:
            points: Those that the calling program runs: `points_of(Runner.…)`.
            check: Looks at one absolute path and says what is wrong, or None (`cranehooks.execution.scripts`).
        """
        return [] if self._document is None else self._document.check_scripts(points, check)


def json_schema() -> dict[str, Any]:  # Any: JSON
    """JSON Schema of the file, for editors; the older spellings are in it as deprecated keys."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ClusterSettings.model_json_schema(by_alias=True)}
    for properties, older in (
        (schema["properties"], OLDER_TOP_KEYS),
        (schema["$defs"][HookSection.__name__]["properties"], OLDER_HOOK_KEYS),
    ):
        properties |= {old: {**properties[new], "deprecated": True} for old, new in older.items()}
    return schema
