"""The settings in force, and taking over new ones: a reload that fails changes nothing."""

import asyncio
import os
from functools import partial
from pathlib import Path

import structlog

from cranectld.admission import Admission, Partition
from cranectld.nodes.breaker import DrainBudget
from cranectld.nodes.model import Node, NodeConfig
from cranectld.retention import RetentionTimes
from cranehooks.execution import scripts
from cranehooks.model.points import Runner, points_of
from cranehooks.model.run import HookSettings
from cranehooks.policy import RequeuePolicy
from cranehooks.settings import ClusterSettings, load
from cranekit.rpc.credentials import Identity
from cranekit.yaml_lines import SettingsError

_log = structlog.get_logger()


def checked(path: Path) -> ClusterSettings:
    """The settings of a file whose controller scripts can run.

    Raises:
        SettingsError: everything that is wrong with them, each with its place.
    """
    settings = load(path)
    problems = settings.check_scripts(points_of(Runner.CRANECTLD), partial(scripts.problem_of, settings.profile))
    if problems:
        raise SettingsError(problems)
    return settings


class Configuration:
    """What the other parts ask for at the moment they need it."""

    def __init__(self, path: Path, settings: ClusterSettings) -> None:
        self._path = path
        self.settings = settings

    @staticmethod
    def tell_cautions(settings: ClusterSettings) -> None:
        """Logs what holds otherwise than the file may make believe."""
        for caution in settings.cautions:
            _log.warning("config.caution", caution=str(caution))

    async def reload(self) -> None:
        """Reads the file again; when it is refused, the problems go to the log and the old settings stay in force.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            settings = await asyncio.to_thread(checked, self._path)
        except SettingsError as error:
            for problem in error.problems:
                _log.error("config.refused", problem=str(problem))
            return
        if set(settings.nodes) != set(self.settings.nodes) or settings.cranectld_listen != self.settings.cranectld_listen:
            _log.warning("config.restart_needed", what="Nodes or CranectldListen changed")
        self.tell_cautions(settings)
        self.settings = settings
        _log.info("config.reloaded", digest=settings.digest)

    @property
    def admission(self) -> Admission:
        settings = self.settings
        return Admission(
            partitions={
                partition.name: Partition(partition.name, partition.nodes, partition.max_time_s)
                for partition in settings.partitions.values()
            },
            default_partition=settings.default_partition or "",
            allow_root_jobs=settings.allow_root_jobs,
        )

    def hook_settings(self) -> HookSettings:
        """The hooks of a job that is allocated now."""
        return self.settings.hook_settings()

    @property
    def requeue(self) -> RequeuePolicy:
        settings = self.settings
        return RequeuePolicy(settings.requeue_delay, settings.max_requeue_delay, settings.max_requeue_count)

    @property
    def retention(self) -> RetentionTimes:
        kept = self.settings.retention
        return RetentionTimes(kept.jobs, kept.events, kept.requests)

    def drain_budget(self) -> DrainBudget:
        return DrainBudget(self.settings.drains_per_script, self.settings.drain_window)

    def nodes(self) -> list[Node]:
        settings = self.settings
        return [
            Node(
                NodeConfig(
                    name=node.name,
                    cpus=node.cpus,
                    memory_bytes=node.memory_bytes,
                    gres=node.gres,
                    address=node.address,
                    partitions=tuple(part.name for part in settings.partitions.values() if node.name in part.nodes),
                )
            )
            for node in settings.nodes.values()
        ]

    def is_administrator(self, who: Identity) -> bool:
        """Root, the controller's own user, and those the settings name (by name or uid)."""
        return (
            who.uid in (0, os.geteuid())
            or who.user in self.settings.administrators
            or str(who.uid) in self.settings.administrators
        )
