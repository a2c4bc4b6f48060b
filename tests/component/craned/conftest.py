"""A node: the real daemon as a process, with real hooks and supervisors, and a controller that the test plays."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from craned.places import cgroup_instance
from cranekit.rpc.credentials import create_secret, read_secret
from tests.support.control_groups import removed_control_groups
from tests.support.eventually import eventually_async
from tests.support.fake_controller import FakeController, NodeCommands, commands_to, fake_controller
from tests.support.programs import Program, running

NODE = "cn01"


@dataclass
class Site:
    """The directory of one node, short enough for sockets."""

    directory: Path
    hooks: str = ""
    """Lines of the section JobLifecycleHook."""
    options: str = ""
    """Lines at the top of the file."""

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def log(self) -> Path:
        """What the scripts write, one line per run."""
        return self.directory / "hooks.log"

    @property
    def controller_address(self) -> str:
        return f"unix:{self.directory}/ctld/ctld.sock"

    @property
    def node_address(self) -> str:
        return f"unix:{self.directory}/node/craned.sock"

    @property
    def front_socket(self) -> Path:
        return self.directory / "run" / "front.sock"

    @property
    def journal(self) -> Path:
        return self.directory / "state" / "journal"

    def script(self, name: str, body: str) -> Path:
        """A hook script; it notes itself in the log first."""
        path = self.directory / "scripts" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $CRANE_JOB_ID.$CRANE_JOB_ATTEMPT" >> {self.log}\n{body}\n')
        path.chmod(0o755)
        return path

    def hook(self, point: str, name: str, body: str = "exit 0") -> Path:
        """A script that the configuration names for a point."""
        path = self.script(name, body)
        self.hooks += f"  {point}: {path}\n"
        return path

    def write_config(self) -> None:
        hooks = f"JobLifecycleHook:\n{self.hooks}" if self.hooks else ""
        self.config.write_text(
            f"ClusterName: test\nCranectldListen: {self.controller_address}\n"
            f"StateDir: {self.directory}/states\nRunDir: {self.directory}/run\nClusterSecretFile: {self.directory}/cluster.secret\n"
            f"AllowRootJobs: true\nLauncherGrace: 2\nKillGrace: 2\nHeartbeatInterval: 0.2\n{self.options}"
            f"Nodes:\n  - {{name: {NODE}, address: 'unix:{self.directory}/node/craned.sock', cpu: 4, memory: 1G}}\n{hooks}"
        )

    def runs(self) -> list[str]:
        """What ran, in order."""
        return self.log.read_text().split("\n")[:-1] if self.log.exists() else []

    async def ran(self, line: str) -> None:
        """Waits until a script has noted itself."""
        await eventually_async(lambda: line in self.runs())

    @asynccontextmanager
    async def daemon(self, **environment: str) -> AsyncIterator[Program]:
        """The daemon, until the block ends."""
        arguments = ["--config", str(self.config), "--node", NODE, "--state-dir", str(self.journal.parent)]
        async with running("craned", arguments, self.directory, environment) as program:
            yield program


@dataclass
class Node:
    """What a test plays with."""

    site: Site
    controller: FakeController
    commands: NodeCommands


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="craned-", dir="/tmp"))
    directory.chmod(0o755)
    (directory / "ctld").mkdir(mode=0o700)
    create_secret(directory / "cluster.secret")
    site = Site(directory)
    with removed_control_groups(cgroup_instance("test", NODE, site.journal.parent)):
        yield site
    shutil.rmtree(directory)


@asynccontextmanager
async def controlled(site: Site) -> AsyncIterator[Node]:
    """The controller's side of a node; the daemon is the test's to start."""
    site.write_config()
    secret = read_secret(site.directory / "cluster.secret")
    async with AsyncExitStack() as stack:
        controller = await stack.enter_async_context(fake_controller(secret, site.controller_address))
        commands = await stack.enter_async_context(commands_to(secret, site.node_address))
        yield Node(site, controller, commands)


@asynccontextmanager
async def node_of(site: Site) -> AsyncIterator[Node]:
    """A node that runs."""
    async with controlled(site) as node, site.daemon():
        yield node
