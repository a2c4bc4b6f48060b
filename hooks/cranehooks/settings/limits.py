"""What of a job's request is enforced on its nodes, as it stands in the configuration file."""

from typing import Annotated

from pydantic import Field

from cranehooks.settings.section import Section


class JobLimitsSection(Section):
    """Section `JobLimits`: what of a job's request holds its processes on each node. The names are those of Slurm's cgroup.conf.

    A limit needs a driver of containment that offers it; craned warns at its start of what is asked for here and not offered. A job that
    asked for nothing is not limited, except by `MaxProcesses` and in the devices it may open.
    """

    constrain_ram_space: Annotated[bool, Field(alias="ConstrainRAMSpace")] = True
    """Whether a job that asked for memory (`--mem`, `--mem-per-cpu`) is held to it on each node: what exceeds it is killed, and the job
    says so. Default true."""
    constrain_swap_space: bool = True
    """Whether a job that is held to its memory may swap no more than `AllowedSwapSpace`. Default true: it is killed at its limit in place
    of slowing its node down."""
    allowed_swap_space: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    """Swap that such a job may use, in percent of its memory. Default 0."""
    constrain_cores: bool = True
    """Whether a job that asked for CPUs (`--cpus-per-task`) gets no more CPU time than they have: a quota of as many CPUs as it holds on
    the node. Nothing binds it to certain cores. Default true."""
    constrain_devices: bool = True
    """Whether a job can open only those of the node's device files (`gres` with `files`) that it holds; its visible devices are then
    numbered from 0. Default true. It needs version 1 control groups; without them all files stay open."""
    max_processes: Annotated[int | None, Field(ge=1, le=4_194_304)] = None
    """Processes and threads that any job may have on a node at a time. Default: no limit."""
