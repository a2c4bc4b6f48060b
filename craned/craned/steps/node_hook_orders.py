"""The node hooks that the supervisor of one extern step was asked for, and what is known of each."""

from collections.abc import Iterable

from craned.steps.supervisor_client import RunNodeHook, StopNodeHook
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun, RunSpec


class NodeHookOrders:
    """At most one per point. An order is repeated at every dial until the supervisor says that it has it."""

    def __init__(self) -> None:
        self.cgroup: str | None = None
        """Of the step; None until it has been told."""
        self.has_dialled = False
        self._orders: dict[HookPoint, RunSpec] = {}
        self._stops: set[HookPoint] = set()
        self._sent: set[HookPoint] = set()
        self._runs: dict[HookPoint, HookRun] = {}

    def order(self, spec: RunSpec, *, is_connected: bool) -> RunNodeHook:
        """Notes what is to run; to be sent now if there is a connection."""
        self._orders[spec.key.point] = spec
        if is_connected:
            self._sent.add(spec.key.point)
        return RunNodeHook(spec)

    def stop(self, point: HookPoint) -> StopNodeHook:
        """Notes that it is to end."""
        self._stops.add(point)
        return StopNodeHook(point)

    def dialled(self, known: Iterable[HookPoint]) -> list[RunNodeHook | StopNodeHook]:
        """What a supervisor must be told that has dialled and knows of these."""
        self.has_dialled = True
        self._sent.update(known)
        unknown = [spec for point, spec in self._orders.items() if point not in set(known)]
        self._sent.update(spec.key.point for spec in unknown)
        return [*map(RunNodeHook, unknown), *map(StopNodeHook, self._stops)]

    def may_have_begun(self, point: HookPoint) -> bool:
        """Whether the supervisor has, or may have, heard of it."""
        return point in self._sent

    def ended(self, run: HookRun) -> None:
        """The supervisor tells of its end, for the first time or again."""
        self._orders.pop(run.key.point, None)
        self._stops.discard(run.key.point)
        self._runs[run.key.point] = run

    def taken(self, point: HookPoint) -> HookRun | None:
        """The record of a run that has ended, once."""
        return self._runs.pop(point, None)
