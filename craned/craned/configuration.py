"""The settings in force on a node, and taking over new ones: a reload that fails changes nothing."""

import asyncio
import os
import pwd
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from cranehooks.execution import scripts
from cranehooks.model.ids import NodeName
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from cranehooks.settings import ClusterSettings, NodeSettings, load
from cranekit.errors import CraneError, ErrorCode
from cranekit.yaml_lines import SettingsError

CHECKED_POINTS = (HookPoint.PROLOG, HookPoint.EPILOG, HookPoint.TASK_PROLOG, HookPoint.TASK_EPILOG)
"""Whose scripts run on this host by this program or its supervisors."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.configuration")


def checked(path: Path, *, is_login: bool = False) -> ClusterSettings:
    """The settings of a file whose node scripts can run here (on a login host none do).

    Raises:
        SettingsError: everything that is wrong with them, each with its place.
    """
    settings = load(path)
    problems = [] if is_login else settings.check_scripts(CHECKED_POINTS, partial(scripts.problem_of, settings.profile))
    if problems:
        raise SettingsError(problems)
    return settings


def own_user() -> str:
    """The name of whoever this process runs as; the number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


class Configuration:
    """What the other parts ask for at the moment they need it."""

    def __init__(self, path: Path, settings: ClusterSettings, node: NodeName | None) -> None:
        """`node`: None on a login host.

        Raises:
            CraneError: FAILED_PRECONDITION, this process is not the one that the settings want here.
        """
        self._path = path
        self.node_name = node
        self.settings = settings
        self._changed: list[Callable[[], None]] = []
        if node is not None and node not in settings.nodes:
            raise CraneError(ErrorCode.FAILED_PRECONDITION, f"{path}: there is no node {node} in it")
        if node is not None and settings.craned_user not in (None, own_user()):
            message = f"craned runs as {own_user()}, {path} wants CranedUser {settings.craned_user}"
            raise CraneError(ErrorCode.FAILED_PRECONDITION, message)

    @property
    def node(self) -> NodeSettings:
        """This node."""
        assert self.node_name is not None, "a login host is no node"
        return self.settings.nodes[self.node_name]

    def hook_settings(self) -> HookSettings:
        """The hooks of a job that comes here now."""
        return self.settings.hook_settings()

    def when_changed(self, call: Callable[[], None]) -> None:
        """Calls it after each reload that changed something."""
        self._changed.append(call)

    @staticmethod
    def tell_cautions(settings: ClusterSettings) -> None:
        """Logs what holds otherwise than the file may make believe."""
        for caution in settings.cautions:
            log.warning("configuration_caution", caution=str(caution))

    async def reload(self) -> None:
        """Reads the file again; when it is refused, the problems are logged and the old settings stay in force."""
        try:
            settings = await asyncio.to_thread(checked, self._path, is_login=self.node_name is None)
        except SettingsError as error:
            for problem in error.problems:
                log.error("configuration_refused", problem=str(problem))  # noqa: TRY400 - the problem says all
            return
        if self.node_name is not None and settings.nodes.get(self.node_name) != self.node:
            log.warning("restart_needed", what="this node's entry in Nodes changed")
            if self.node_name not in settings.nodes:
                return
        self.tell_cautions(settings)
        is_new = settings.digest != self.settings.digest
        self.settings = settings
        log.info("configuration_reloaded", digest=settings.digest, changed=is_new)
        if is_new:
            for call in self._changed:
                call()
