"""Slurm's own daemons on loopback, in a directory of their own: munged, slurmctld and a slurmd for each node."""

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from cranecli.hookctl.ward import Ward
from tests.support.commands import output_of, plain_environment
from tests.support.eventually import eventually

PACKAGES = "slurm-wlm munge"
"""Of Debian and Ubuntu."""
CLUSTER = "conformance"
_NEEDED_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "scancel")
_SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_START_PATIENCE_S = 60.0
_STOP_GRACE_S = 8.0
_FIELD = re.compile(r"(\w+)=(\S*)")


def missing_programs() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in _NEEDED_PROGRAMS if _path_of(name) is None]


def version() -> str:
    """Of the Slurm that is installed."""
    return output_of([program("slurmctld"), "-V"], plain_environment()).strip()


def program(name: str) -> str:
    """The path of one of Slurm's programs."""
    path = _path_of(name)
    assert path is not None, f"{name} is not installed"
    return path


def fields_of(line: str) -> dict[str, str]:
    """The fields of a line that `scontrol -o show` printed."""
    return dict(_FIELD.findall(line))


class SlurmDaemons:
    """Start and stop them; nothing is left running."""

    def __init__(self, directory: Path, lines: Sequence[str], *, nodes: Sequence[str], cpus: int, cred_expire_s: int) -> None:
        """Prepares.

        Args:
            directory: Theirs alone.
            lines: Of slurm.conf, besides those that every cluster on loopback needs.
            nodes: Their names.
            cpus: What each claims to have.
            cred_expire_s: Also how long a requeued job waits.
        """
        self.directory = directory
        self.config = directory / "etc" / "slurm.conf"
        self.environment = plain_environment() | {"SLURM_CONF": str(self.config)}
        self._lines = lines
        self._nodes = nodes
        self._cpus = cpus
        self._cred_expire_s = cred_expire_s
        self._ward: Ward | None = None

    def start(self) -> None:
        """Returns when all nodes are idle."""
        for name in ("etc", "munge", "state", "spool", "log", "run"):
            (self.directory / name).mkdir()
        with ExitStack() as ports:
            self._write_configuration(tuple(_reserved_ports(ports, 1 + len(self._nodes))))
            self._ward = Ward()
            self._start_munged(self._ward)
        # The ports are free again for a moment: the daemons bind them without sharing.
        self._launch("slurmctld", "-D", "-c", "-f", str(self.config))
        for node in self._nodes:
            self._launch("slurmd", "-D", "-c", "-f", str(self.config), "-N", node, name=node)
        eventually(self._are_nodes_up, deadline_s=_START_PATIENCE_S)

    def stop(self) -> None:
        """Safe to repeat."""
        if self._ward is not None:
            self._ward.close(_STOP_GRACE_S)
            self._ward = None

    def scontrol(self, *arguments: str) -> str:
        """What it prints."""
        return output_of([program("scontrol"), *arguments], self.environment)

    def _launch(self, executable: str, *arguments: str, name: str = "") -> None:
        assert self._ward is not None
        log = self.directory / "log" / f"{name or executable}.out"
        self._ward.start(name or executable, [program(executable), *arguments], self.environment, log)

    def _are_nodes_up(self) -> bool:
        assert self._ward is not None
        for name in ("slurmctld", *self._nodes):
            assert self._ward.status_of(name) is None, f"{name} ended early: {self._log_tail()}"
        try:
            lines = self.scontrol("-o", "show", "nodes").splitlines()
        except AssertionError:
            # slurmctld does not answer yet.
            time.sleep(0.2)
            return False
        return [fields_of(line).get("State") for line in lines] == ["IDLE"] * len(self._nodes)

    def _log_tail(self) -> str:
        return "\n".join(
            line
            for log in sorted((self.directory / "log").iterdir())
            for line in log.read_text(errors="replace").splitlines()[-5:]
        )

    def _start_munged(self, ward: Ward) -> None:
        directory = self.directory / "munge"
        # The socket is for every user; munged insists that nobody else may write where its files are.
        directory.chmod(0o755)
        key = directory / "munge.key"
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(128))
        files = [f"--{option}={directory}/{name}" for option, name in (
            ("key-file", "munge.key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"),
        )]  # fmt: skip
        # The scratch directory may be below one that everybody may write to.
        ward.start("munged", [program("munged"), "-F", "-f", *files], self.environment, self.directory / "log" / "munged.out")
        eventually((directory / "socket").exists, deadline_s=_START_PATIENCE_S)

    def _write_configuration(self, ports: Sequence[int]) -> None:
        scratch = self.directory
        lines = [
            f"ClusterName={CLUSTER}",
            "SlurmctldHost=localhost(127.0.0.1)",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={scratch}/munge/socket,cred_expire={self._cred_expire_s}",
            "CryptoType=crypto/munge",
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            f"SlurmctldPort={ports[0]}",
            f"StateSaveLocation={scratch}/state",
            f"SlurmdSpoolDir={scratch}/spool/%n",
            f"SlurmctldPidFile={scratch}/run/slurmctld.pid",
            f"SlurmdPidFile={scratch}/run/slurmd.%n.pid",
            f"SlurmctldLogFile={scratch}/log/slurmctld.log",
            f"SlurmdLogFile={scratch}/log/slurmd.%n.log",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU",
            "AccountingStorageType=accounting_storage/none",
            "JobCompType=jobcomp/none",
            "JobAcctGatherType=jobacct_gather/none",
            "MpiDefault=none",
            "ReturnToService=2",
            "SlurmdParameters=config_overrides",
            "PropagateResourceLimits=NONE",
            "PriorityType=priority/basic",
            *self._lines,
            *(
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} Sockets=1 "
                f"CoresPerSocket={self._cpus} ThreadsPerCore=1 RealMemory=4096 State=UNKNOWN"
                for node, port in zip(self._nodes, ports[1:], strict=True)
            ),
            f"PartitionName=local Nodes={','.join(self._nodes)} Default=YES MaxTime=INFINITE State=UP",
        ]
        self.config.write_text("\n".join(lines) + "\n")
        (self.config.parent / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")


def _path_of(name: str) -> str | None:
    return shutil.which(name, path=_SEARCH_PATH)


def _reserved_ports(held: ExitStack, number: int) -> Iterator[int]:
    """Free ports, different ones, bound until `held` is closed."""
    for _ in range(number):
        reserved = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
