"""What bounds the runs of hooks (`HookLimits`), as it stands in the configuration file."""

from typing import Annotated

from pydantic import AliasChoices, Field

from cranehooks.model.limits import Limits
from cranehooks.model.points import HookPoint
from cranehooks.settings.section import Section
from cranehooks.settings.values import Size

_Weight = Annotated[int, Field(ge=1, le=10_000)]


class PointLimitsSection(Section):
    """Limits of one point's runs, of all processes of a run together. What is left out is as `Default` has it, or not limited."""

    memory: Annotated[Size, Field(ge=1)] | None = None
    """Memory: bytes, or with K, M, G, T. A run that exceeds it is killed by the kernel, and its outcome says so."""
    swap: Size | None = None
    """Swap besides the memory; 0: none. Without it, what exceeds the memory may be swapped where the host has swap."""
    cpus: Annotated[float, Field(gt=0, le=65536)] | None = None
    """CPU seconds per second."""
    cpu_weight: _Weight | None = None
    """Share of the CPUs while there is not enough for all: 1 to 10000; 100 is what everybody has."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Processes and threads at a time."""
    io_weight: _Weight | None = None
    """Share of a disk while there is not enough for all: 1 to 10000; 100 is what everybody has."""


class HookLimitsSection(Section):
    """Section `HookLimits` of `JobLifecycleHook`: what bounds each run of a hook, by point.

    A limit needs a driver of containment that offers it: the daemons warn at their start of those that do not hold, and so does each run.
    Hooks of crun run where the user is and have the user's own limits.
    """

    default: Annotated[
        PointLimitsSection | None, Field(validation_alias=AliasChoices("Default", "default"), serialization_alias="Default")
    ] = None
    """Of all points below, as far as they have no own."""
    cranectld_prolog: PointLimitsSection | None = None
    """Of CranectldProlog."""
    cranectld_epilog: PointLimitsSection | None = None
    """Of CranectldEpilog."""
    prolog: PointLimitsSection | None = None
    """Of Prolog."""
    epilog: PointLimitsSection | None = None
    """Of Epilog."""
    task_prolog: PointLimitsSection | None = None
    """Of TaskProlog, within the limits of the job."""
    task_epilog: PointLimitsSection | None = None
    """Of TaskEpilog, within the limits of the job."""

    @property
    def by_point(self) -> dict[HookPoint, Limits]:
        """Of the points that have any."""
        own = {
            HookPoint.CRANECTLD_PROLOG: self.cranectld_prolog,
            HookPoint.PROLOG: self.prolog,
            HookPoint.TASK_PROLOG: self.task_prolog,
            HookPoint.TASK_EPILOG: self.task_epilog,
            HookPoint.EPILOG: self.epilog,
            HookPoint.CRANECTLD_EPILOG: self.cranectld_epilog,
        }
        merged = {point: _merged(section, self.default) for point, section in own.items()}
        return {point: limits for point, limits in merged.items() if limits.kinds}


def _merged(own: PointLimitsSection | None, default: PointLimitsSection | None) -> Limits:
    given = {**_given(default), **_given(own)}
    return Limits(
        memory_bytes=given.get("memory"),
        swap_bytes=given.get("swap"),
        cpu_cores=given.get("cpus"),
        cpu_weight=given.get("cpu_weight"),
        pids=given.get("pids"),
        io_weight=given.get("io_weight"),
    )


def _given(section: PointLimitsSection | None) -> dict[str, int]:
    return {} if section is None else section.model_dump(exclude_none=True)
