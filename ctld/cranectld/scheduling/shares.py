"""What a job holds on each of its nodes: tasks, CPUs, memory and devices. Pure.

Tasks, and GPUs asked for in all, go to the nodes in blocks: the first node's part is the largest.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from cranectld.nodes.model import Node, NodeConfig
from cranehooks.model.gres import GPU, gres_text, parse_gres
from cranehooks.model.ids import NodeName
from cranehooks.model.job import JobSpec, NodeShare

_MIB = 1 << 20


def demand(spec: JobSpec, index: int = 0) -> NodeShare:
    """What the job asks of the `index`-th of its nodes, whichever that is. No node must give more than the first."""
    count = _part(spec.ntasks, spec.num_nodes, index, spec.ntasks_per_node)
    cpus = max(count, 1) * spec.cpus_per_task
    gres = parse_gres(spec.gres)
    if spec.gpus:
        [gpus] = parse_gres(f"{GPU}:{spec.gpus}")
        gres = (*gres, replace(gpus, count=_part(gpus.count, spec.num_nodes, index)))
    return NodeShare(NodeName(""), count, cpus, _memory_bytes(spec, cpus), gres_text(gres))


def share_on(spec: JobSpec, index: int, node: Node) -> NodeShare | None:
    """What the job holds there as the `index`-th of its nodes; None: that is not free."""
    share = replace(demand(spec, index), node=node.name)
    if spec.exclusive:
        if node.shares or node.config.cpus < share.cpus or node.free_devices(share.gres) is None:
            return None
        share = _whole(spec, share, node.config)
    devices = node.free_devices(share.gres)
    if node.cpus_free < share.cpus or node.memory_free_bytes < share.memory_bytes or devices is None:
        return None
    return replace(share, devices=devices)


def shares_on(spec: JobSpec, nodes: Sequence[Node]) -> tuple[NodeShare, ...] | NodeName:
    """What the job holds on each of its nodes, in order, or the first that has not enough free."""
    shares = []
    for index, node in enumerate(nodes):
        share = share_on(spec, index, node)
        if share is None:
            return node.name
        shares.append(share)
    return tuple(shares)


def demand_text(spec: JobSpec) -> str:
    """What one node must have, for a person: `2 CPUs, 512 MiB, gres gpu:2`."""
    share = demand(spec)
    words = [f"{share.cpus:.12g} CPUs"]
    if share.memory_bytes:
        words.append(f"{share.memory_bytes / (1 << 20):.12g} MiB")
    if share.gres:
        words.append(f"gres {share.gres}")
    return ", ".join(words)


def _part(total: int, num_nodes: int, index: int, most: int = 0) -> int:
    """The part of the `index`-th of so many nodes, in blocks; `most` > 0 bounds each."""
    left = total
    for position in range(index):
        left -= min(most or left, ceil(left / (num_nodes - position)))
    return min(most or left, ceil(left / (num_nodes - index)))


def _memory_bytes(spec: JobSpec, cpus: float) -> int:
    """In whole MiB: nothing runs in less than one."""
    asked = spec.memory_per_cpu_bytes * cpus if spec.memory_per_cpu_bytes else spec.memory_per_node_bytes
    return ceil(asked / _MIB) * _MIB


def _whole(spec: JobSpec, share: NodeShare, config: NodeConfig) -> NodeShare:
    """All CPUs and gres of a node, and as much memory as was asked for."""
    return replace(
        share, cpus=config.cpus, memory_bytes=_memory_bytes(spec, config.cpus), gres=gres_text(parse_gres(config.gres))
    )
