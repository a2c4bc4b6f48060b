"""A whole cluster on this machine: a controller, nodes and a launch host, as the real programs, from nothing to nothing."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from cranecli.hookctl.local_config import (
    CONTROLLER,
    LOGIN,
    LocalConfig,
    ReservedPorts,
    default_config,
    effective,
    own_cluster_name,
    site_config,
    write,
)
from cranecli.hookctl.local_daemons import Daemon, StartError, clean_environment, interrupts_ignored, planned, remove_cgroups
from cranecli.hookctl.ward import Ward, WardError

START_DEADLINE_S = 60.0
STOP_GRACE_S = 10.0
_STARTING_AT_ONCE = 4
_LOG_TAIL_LINES = 15
_LOCK_FILE = "lock"
_LONGEST_SOCKET_PATH = 107
_LONG_PARENT = 40
_POLL_S = 0.02


class LocalCluster:
    """Starts, restarts, kills and stops a cluster; leaves no process and, unless it is to be kept, no file.

    Use as a context manager, or call `start` and `stop`. Not for use by several threads at once.
    """

    def __init__(
        self,
        nodes: int | None = None,
        config: Path | LocalConfig | None = None,
        state_dir: Path | None = None,
        *,
        unix: bool = False,
        keep: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares; nothing is started yet.

        Args:
            nodes: How many; default 2, or those of the configuration.
            config: A site's file, or one made already; default: nodes without hooks.
            state_dir: Where everything is kept; default: a new directory below TMPDIR.
            unix: Daemons talk over Unix sockets in place of loopback TCP.
            keep: Whether a directory made here stays.
            progress: Told what is being done, in a few words.

        Raises:
            CommandError: The configuration has problems.
        """
        if isinstance(config, Path):
            self._config = site_config(config, nodes)
        else:
            self._config = config or default_config(2 if nodes is None else nodes)
        self._wanted_state_dir = state_dir
        self._unix = unix
        self._keep = keep
        self._progress = progress
        self._ports = ReservedPorts()
        self._ward: Ward | None = None
        self._made_state_dir = False
        self._lock: int | None = None
        self._cluster_name = ""
        self.state_dir = Path()
        self.daemons: dict[str, Daemon] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self._config.nodes)

    @property
    def config_file(self) -> Path:
        return self.state_dir / "config.yaml"

    @property
    def front_socket(self) -> Path:
        """Of the launch host's craned: how front ends reach the cluster."""
        return Path(str(self.daemons[LOGIN].ready["front_socket"]))

    @property
    def env(self) -> dict[str, str]:
        """This process's environment with what front ends need to find the cluster."""
        environment = clean_environment()
        environment |= {
            "CRANE_FRONT_SOCKET": str(self.front_socket),
            "CRANE_CONFIG_FILE": str(self.config_file),
            "CRANE_LOCAL_STATE_DIR": str(self.state_dir),
        }
        return environment

    def start(self) -> None:
        """Starts everything and returns when all nodes are up.

        Raises:
            StartError: A daemon ended early, or the deadline passed. Everything is stopped then.
        """
        try:
            self._prepare()
            self._ward = Ward()
            self._start_all(time.monotonic() + START_DEADLINE_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """Ends every process (TERM, a grace, KILL) and removes what was made. Returns how many had to be killed. Repeatable.

        It is bounded, so interrupts wait until nothing is left.
        """
        killed = 0
        with interrupts_ignored():
            if self._ward is not None:
                self._progress("stopping")
                killed = self._ward.close(STOP_GRACE_S)
                self._ward = None
                remove_cgroups(self._cluster_name)
            self._ports.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if self._made_state_dir and not self._keep:
                shutil.rmtree(self.state_dir)
                self._made_state_dir = False
        return killed

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal that ends a daemon, and waits until it has; returns its wait status."""
        ward = self._running_ward()
        ward.signal(name, number)
        status = ward.wait(name, STOP_GRACE_S + 20)
        if status is None:
            message = f"{name} did not end on signal {number}"
            raise WardError(message)
        self._write_control_file()
        return status

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a daemon (HUP: reload) and returns at once."""
        self._running_ward().signal(name, number)

    def restart(self, name: str, *, wait: bool = True, env: Mapping[str, str] | None = None) -> None:
        """Starts a daemon that has ended, with the same command line; waits until it serves. `env` is added to its environment."""
        daemon = self.daemons[name]
        self._launch(daemon, env or {})
        if wait:
            self._await_ready([daemon], time.monotonic() + START_DEADLINE_S)
        self._write_control_file()

    def wait_until_up(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Returns when all nodes are up.

        Raises:
            StartError: Not within the deadline.
        """
        self._await_nodes(time.monotonic() + deadline_s)

    def call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:  # JSON
        """One call through the launch host, as whoever runs this."""
        from cranecli.hookctl.front import front

        with front(self.front_socket) as controller:
            return controller.call(method, body)

    def log_tail(self, name: str, lines: int = _LOG_TAIL_LINES) -> list[str]:
        """The last lines of a daemon's log."""
        with contextlib.suppress(FileNotFoundError):
            return self.daemons[name].log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return []

    def supervise(self, timeout_s: float) -> str | None:
        """Listens for at most `timeout_s`; the name of a daemon that has ended unasked, if there is one."""
        ward = self._running_ward()
        ward.listen(timeout_s)
        return next((name for name in self.daemons if ward.status_of(name) is not None), None)

    def _running_ward(self) -> Ward:
        if self._ward is None:
            message = "the cluster is not running"
            raise WardError(message)
        return self._ward

    def _prepare(self) -> None:
        self._make_state_dir()
        for name in ("logs", "run", "ready"):
            (self.state_dir / name).mkdir(exist_ok=True)
        for name in ("state", "sockets"):
            (self.state_dir / name).mkdir(mode=0o700, exist_ok=True)
        secret = self.state_dir / "cluster.secret"
        secret.unlink(missing_ok=True)
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        addresses = {name: self._address(name) for name in (CONTROLLER, *self.node_names)}
        self._cluster_name = own_cluster_name(self._config)
        write(effective(self._config, self.state_dir, self._cluster_name, addresses), self.config_file)
        self.daemons = {daemon.name: daemon for daemon in planned(self.state_dir, self.config_file, self.node_names)}

    def _make_state_dir(self) -> None:
        if self._wanted_state_dir is None:
            # A short name: the paths of Unix sockets below it have 107 bytes.
            parent = tempfile.gettempdir()
            self.state_dir = Path(tempfile.mkdtemp(prefix="crane-", dir=parent if len(parent) < _LONG_PARENT else "/tmp"))  # noqa: S108 made anew
            self._made_state_dir = True
        else:
            self.state_dir = self._wanted_state_dir.absolute()
            self._made_state_dir = not self.state_dir.exists()
            _check_for_use(self.state_dir)
            self.state_dir.mkdir(parents=True, exist_ok=True)
        longest = max(
            (self.state_dir / "run" / name / "private" / "supervisors.sock" for name in (LOGIN, *self.node_names)), key=_bytes
        )
        if _bytes(longest) > _LONGEST_SOCKET_PATH:
            message = f"{self.state_dir} is too long: {longest} exceeds the {_LONGEST_SOCKET_PATH} bytes of a Unix socket's path"
            raise StartError(message)
        if os.geteuid() == 0 and self._made_state_dir:
            # Front ends of other users pass through it; what is secret is 0700 below.
            self.state_dir.chmod(0o755)
        self._lock = os.open(self.state_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{self.state_dir} belongs to a local cluster that is running"
            raise StartError(message) from error

    def _address(self, name: str) -> str:
        return f"unix:{self.state_dir}/sockets/{name}" if self._unix else self._ports.take()

    def _start_all(self, deadline: float) -> None:
        controller, *others = self.daemons.values()
        self._progress("starting the controller")
        self._launch(controller)
        self._await_ready([controller], deadline)
        for first in range(0, len(others), _STARTING_AT_ONCE):
            batch = others[first : first + _STARTING_AT_ONCE]
            self._progress(f"starting {', '.join(daemon.name for daemon in batch)}")
            for daemon in batch:
                self._launch(daemon)
            self._await_ready(batch, deadline)
        self._write_control_file()
        self._progress("waiting for the nodes")
        self._await_nodes(deadline)

    def _launch(self, daemon: Daemon, env: Mapping[str, str] = MappingProxyType({})) -> None:
        daemon.ready_file.unlink(missing_ok=True)
        daemon.ready = {}
        try:
            daemon.pid = self._running_ward().start(daemon.name, daemon.argv, {**clean_environment(), **env}, daemon.log)
        except WardError as error:
            raise StartError(str(error)) from error

    def _await_ready(self, daemons: Sequence[Daemon], deadline: float) -> None:
        """Polls for the ready files, woken at once when a daemon ends."""
        waiting = list(daemons)
        while waiting:
            daemon = waiting[0]
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                daemon.ready = json.loads(daemon.ready_file.read_text(encoding="utf-8"))
                waiting.pop(0)
                continue
            self._check_alive(daemons)
            if time.monotonic() > deadline:
                raise StartError(self._with_log(daemon, "did not become ready in time"))
            self._running_ward().listen(_POLL_S)

    def _await_nodes(self, deadline: float) -> None:
        from cranecli.hookctl.failure import CommandError

        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                nodes = self.call("ListNodes").get("nodes") or []
            except CommandError as error:
                # The launch host may not have reached the controller yet.
                problem = str(error)
            else:
                down = [str(node["name"]) for node in nodes if not node.get("up")]
                if nodes and not down:
                    return
                problem = f"not up: {', '.join(down)}"
            self._check_alive(list(self.daemons.values()))
            self._running_ward().listen(_POLL_S)
        raise StartError(self._with_log(self.daemons[CONTROLLER], f"does not see all nodes up: {problem}"))

    def _check_alive(self, daemons: Sequence[Daemon]) -> None:
        for daemon in daemons:
            status = self._running_ward().status_of(daemon.name)
            if status is not None:
                raise StartError(self._with_log(daemon, f"ended early with status {os.waitstatus_to_exitcode(status)}"))

    def _with_log(self, daemon: Daemon, problem: str) -> str:
        tail = "\n".join(f"    {line}" for line in self.log_tail(daemon.name))
        return f"{daemon.name} {problem}; the end of its log:\n{tail}"

    def _write_control_file(self) -> None:
        """For tests and tools: what runs, how it was started, and where it serves."""
        pids = self._running_ward().pids
        control = {
            "pid": os.getpid(),
            "config": str(self.config_file),
            "daemons": {
                daemon.name: {"pid": pids.get(daemon.name), "argv": daemon.argv, "log": str(daemon.log), "ready": daemon.ready}
                for daemon in self.daemons.values()
            },
        }
        temporary = self.state_dir / "cluster.json.new"
        temporary.write_text(json.dumps(control, indent=1), encoding="utf-8")
        temporary.replace(self.state_dir / "cluster.json")


def _check_for_use(directory: Path) -> None:
    """Raises StartError: what is there is no directory, or one with files of somebody else's, which a cluster would overwrite."""
    if directory.exists() and not directory.is_dir():
        message = f"{directory} is not a directory"
        raise StartError(message)
    if directory.is_dir() and not (directory / _LOCK_FILE).exists() and any(directory.iterdir()):
        message = f"{directory} holds files that are not a local cluster's: name a new or an empty directory"
        raise StartError(message)


def _bytes(path: Path) -> int:
    return len(os.fsencode(path))
