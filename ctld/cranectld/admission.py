"""Whether a job that is asked for can be accepted, and completing what was left open. Pure: configuration in, spec or a refusal out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cranectld.nodes.model import Node
from cranectld.scheduling.shares import demand_text, share_on
from cranehooks.model.gres import GPU, gres_text, parse_gres
from cranehooks.model.ids import NodeName
from cranehooks.model.job import JobKind, JobSpec
from cranekit.errors import CraneError, ErrorCode

MAX_ARRAY = 10_000
"""Elements of one array."""

MAX_SCRIPT_BYTES = 4 << 20
MAX_NAME = 200
_ARRAY_PART = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


@dataclass(frozen=True, slots=True)
class Partition:
    name: str
    nodes: tuple[NodeName, ...]
    max_time_s: float | None = None


def refuse(message: str) -> CraneError:
    return CraneError(ErrorCode.INVALID_ARGUMENT, message)


@dataclass(frozen=True, slots=True)
class Admission:
    """What the configuration allows."""

    partitions: Mapping[str, Partition]
    default_partition: str
    allow_root_jobs: bool

    def admit(self, spec: JobSpec, nodes: Mapping[NodeName, Node], *, needs_script: bool = True) -> JobSpec:
        """The spec with defaults filled in. A batch job without a script is one whose steps its scheduler starts.

        Raises:
            CraneError: INVALID_ARGUMENT, it can never run, with what would be possible; PERMISSION_DENIED, a job of root.
        """
        if spec.uid == 0 and not self.allow_root_jobs:
            raise CraneError(ErrorCode.PERMISSION_DENIED, "jobs of root are refused: AllowRootJobs is false")
        partition = self._partition(spec.partition)
        spec = replace(spec, partition=partition.name)
        if len(spec.name) > MAX_NAME or not spec.name.isprintable():
            raise refuse(f"job name: expected at most {MAX_NAME} printable characters")
        if spec.kind is JobKind.BATCH and (needs_script or spec.script):
            _check_script(spec.script)
        spec = _checked_devices(_sized(spec))
        _check_nodes(spec, partition)
        _check_user(spec, partition, nodes)
        self._check_time(spec, partition)
        limit = spec.time_limit_s if spec.time_limit_s is not None else partition.max_time_s
        spec = replace(spec, time_limit_s=limit)
        _check_fit(spec, partition, nodes)
        return spec

    def _partition(self, name: str) -> Partition:
        wanted = name or self.default_partition
        try:
            return self.partitions[wanted]
        except KeyError:
            known = ", ".join(self.partitions)
            raise refuse(f"partition {wanted!r} does not exist; expected one of: {known}") from None

    @staticmethod
    def _check_time(spec: JobSpec, partition: Partition) -> None:
        limit = spec.time_limit_s
        if limit is None:
            return
        if limit <= 0:
            raise refuse(f"time limit {limit:g} s: expected more than 0")
        if partition.max_time_s is not None and limit > partition.max_time_s:
            raise refuse(f"time limit {limit:g} s exceeds the {partition.max_time_s:g} s of partition {partition.name}")


def _check_script(script: str) -> None:
    if not script:
        raise refuse("the batch script is empty")
    if not script.startswith("#!"):
        raise refuse("the batch script must start with #! and the path of an interpreter, e.g. #!/bin/sh")
    if "\0" in script:
        raise refuse("the batch script contains a NUL byte: expected text")
    if len(script.encode()) > MAX_SCRIPT_BYTES:
        raise refuse(f"the batch script exceeds {MAX_SCRIPT_BYTES >> 20} MiB")


def _sized(spec: JobSpec) -> JobSpec:
    """Nodes and tasks from what was given: each follows from the others where it was left open."""
    per_node = spec.ntasks_per_node
    num_nodes = max(spec.num_nodes, len(spec.nodelist), 1)
    ntasks = spec.ntasks or (per_node or 1) * num_nodes
    if per_node and ntasks > per_node * num_nodes:
        raise refuse(f"{ntasks} tasks do not fit on {num_nodes} nodes with {per_node} tasks per node")
    cpus = spec.cpus_per_task or 1.0
    if cpus < 0:
        raise refuse(f"cpus per task {cpus:g}: expected more than 0")
    if spec.memory_per_node_bytes and spec.memory_per_cpu_bytes:
        raise refuse("memory is asked for per node and per CPU: expected one of them")
    return replace(spec, num_nodes=num_nodes, ntasks=max(ntasks, num_nodes), cpus_per_task=cpus)


def _check_nodes(spec: JobSpec, partition: Partition) -> None:
    strangers = [name for name in (*spec.nodelist, *spec.exclude) if name not in partition.nodes]
    if strangers:
        raise refuse(f"node {strangers[0]} is not in partition {partition.name}")
    both = set(spec.nodelist) & set(spec.exclude)
    if both:
        raise refuse(f"node {min(both)} is both asked for and excluded")
    available = len(partition.nodes) - len(set(spec.exclude))
    if spec.num_nodes > available:
        raise refuse(f"{spec.num_nodes} nodes are more than the {available} that partition {partition.name} can give")


def _check_user(spec: JobSpec, partition: Partition, nodes: Mapping[NodeName, Node]) -> None:
    refusals = {name: nodes[name].refusal_of(spec) for name in partition.nodes if name not in spec.exclude}
    wanted = [refusals[name] for name in spec.nodelist if refusals[name]]
    able = [name for name, refusal in refusals.items() if not refusal]
    if not wanted and len(able) >= spec.num_nodes:
        return
    first = next(filter(None, [*wanted, *refusals.values()]))
    many = f"; {len(able)} of the {spec.num_nodes} nodes wanted can run it" if able and not wanted else ""
    raise CraneError(ErrorCode.PERMISSION_DENIED, first + many)


def _checked_devices(spec: JobSpec) -> JobSpec:
    """Counts of devices in one form: `gpu` is `gpu:1`."""
    try:
        gres = parse_gres(spec.gres)
        gpus = parse_gres(f"{GPU}:{spec.gpus}") if spec.gpus else ()
    except ValueError as error:
        raise refuse(str(error)) from None
    if not gpus:
        return replace(spec, gres=gres_text(gres))
    if len(gpus) != 1:
        raise refuse(f"gpus {spec.gpus!r}: expected [type:]count")
    if any(entry.name == GPU for entry in gres):
        raise refuse(f"gpus {spec.gpus} and gres {spec.gres} both ask for GPUs: expected one of them")
    if gpus[0].count < spec.num_nodes:
        raise refuse(f"{gpus[0].count} GPUs for {spec.num_nodes} nodes: expected at least one each")
    return replace(spec, gres=gres_text(gres), gpus=str(gpus[0]).removeprefix(f"{GPU}:"))


def _check_fit(spec: JobSpec, partition: Partition, nodes: Mapping[NodeName, Node]) -> None:
    def fits(name: NodeName) -> bool:
        return share_on(spec, 0, Node(nodes[name].config)) is not None

    able = [name for name in partition.nodes if name not in spec.exclude and fits(name)]
    unable = [name for name in spec.nodelist if name not in able]
    if unable or len(able) < spec.num_nodes:
        if unable:
            where = f"node {unable[0]} does not have that"
        elif able:
            where = f"only {len(able)} of the {spec.num_nodes} nodes wanted from partition {partition.name} have that"
        else:
            where = f"no node of partition {partition.name} has that"
        raise refuse(f"the job asks for {demand_text(spec)} per node: {where}")


def array_indexes(expression: str) -> Sequence[int]:
    """`0-9:2,20` as 0, 2, 4, 6, 8, 20.

    Raises:
        CraneError: INVALID_ARGUMENT, not such an expression, or too many.
    """
    indexes: dict[int, None] = {}
    for part in expression.split(","):
        match = _ARRAY_PART.fullmatch(part.strip())
        if match is None or len(part) > 30:
            raise refuse(f"array {expression!r}: {part!r} is not an index or a range such as 0-9 or 0-9:2")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        step = int(match[3]) if match[3] else 1
        if last < first or step < 1:
            raise refuse(f"array {expression!r}: range {part!r} is empty")
        if (last - first) // step >= MAX_ARRAY or len(indexes) > MAX_ARRAY:
            raise refuse(f"array {expression!r}: more than {MAX_ARRAY} elements")
        indexes |= dict.fromkeys(range(first, last + 1, step))
    if len(indexes) > MAX_ARRAY:
        raise refuse(f"array {expression!r}: more than {MAX_ARRAY} elements")
    return tuple(indexes)
