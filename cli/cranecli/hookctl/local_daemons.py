"""The programs of a local cluster: how each is started, and what must be cleaned up after those that were killed."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cranecli.hookctl.local_config import CONTROLLER, LOGIN
from cranehooks.execution.containment.hierarchies import of_instances

Ready = Mapping[str, Any]  # JSON: what a daemon wrote when it served


class StartError(Exception):
    """The cluster did not come up; says which daemon failed, with the end of its log."""


@dataclass(slots=True)
class Daemon:
    """One program of the cluster: how it is started, and what it said when it served."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready_file: Path
    pid: int = 0
    ready: Ready = field(default_factory=dict)


def planned(state_dir: Path, config_file: Path, node_names: Sequence[str]) -> Iterator[Daemon]:
    """All programs of a cluster, the controller first; none is started."""

    def daemon(name: str, program: str, *arguments: str) -> Daemon:
        ready_file = state_dir / "ready" / f"{name}.json"
        argv = (program_path(program), "--config", str(config_file), *arguments, "--ready-file", str(ready_file))
        return Daemon(name, argv, state_dir / "logs" / f"{name}.log", ready_file)

    yield daemon(CONTROLLER, "cranectld")
    for name in (LOGIN, *node_names):
        who = ("--login",) if name == LOGIN else ("--node", name)
        directories = ("--run-dir", str(state_dir / "run" / name), "--state-dir", str(state_dir / "state" / name))
        yield daemon(name, "craned", *who, *directories)


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Interrupts and requests to end have no effect inside."""
    if threading.current_thread() is not threading.main_thread():
        # Signals go to the main thread only.
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def remove_cgroups(cluster_name: str) -> None:
    """Removes the cgroups that killed daemons could not: empty ones, once the cluster's processes are gone."""
    if not cluster_name:
        return
    for root in of_instances(f"{cluster_name}.*"):
        for directory in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            _remove_cgroup(directory)
        _remove_cgroup(root)


def _remove_cgroup(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # Its daemon has removed it.
        directory.rmdir()


def program_path(name: str) -> str:
    """The program that is installed beside this interpreter, else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed beside {sys.executable}, and not on PATH"
        raise StartError(message)
    return found


def clean_environment() -> dict[str, str]:
    """This process's environment without what points to another cluster or job, this installation's programs first on PATH."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CRANE_", "SLURM_"))}
    own = str(Path(sys.executable).parent)
    path = environment.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != own:
        environment["PATH"] = f"{own}{os.pathsep}{path}"
    return environment
