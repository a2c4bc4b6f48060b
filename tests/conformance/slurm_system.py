"""Slurm on loopback, in a directory of its own: munged, slurmctld and a slurmd for each node."""

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cranecli.hookctl.ward import Ward
from tests.conformance.system import (
    CPUS,
    NODES,
    PATIENCE_S,
    REQUEUE_DELAY_S,
    Configuration,
    JobFacts,
    NodeFacts,
    System,
    output_of,
    plain_environment,
)
from tests.support.eventually import eventually

PACKAGES = "slurm-wlm munge"
"""Of Debian and Ubuntu."""
_NEEDED_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "scancel")
_SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_CLUSTER = "conformance"
_STOP_GRACE_S = 8.0
_FIELD = re.compile(r"(\w+)=(\S*)")
_REASON = re.compile(r" Reason=(.*?) \[[^\]]*\]")
_ADDRESSES = ("SLURM_CONF", "SLURM_SRUN_COMM_HOST", "SLURM_LAUNCH_NODE_IPADDR")


def missing_programs() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in _NEEDED_PROGRAMS if _path_of(name) is None]


def version() -> str:
    """Of the Slurm that is installed."""
    return output_of([_program("slurmctld"), "-V"], plain_environment()).strip()


class SlurmSystem(System):
    """The real thing."""

    title = "Slurm"

    def __init__(self, directory: Path, configuration: Configuration) -> None:
        super().__init__(directory, configuration)
        self.programs = {name: _program(name) for name in ("srun", "sbatch", "salloc")}
        self._ward: Ward | None = None
        self._config = directory / "etc" / "slurm.conf"
        self._environment = plain_environment() | {"SLURM_CONF": str(self._config)}

    def start(self) -> None:
        for name in ("etc", "munge", "state", "spool", "log", "run"):
            (self.directory / name).mkdir()
        with ExitStack() as ports:
            self._write_configuration(tuple(_reserved_ports(ports, 1 + len(NODES))))
            self._ward = Ward()
            self._start_munged(self._ward)
        # The ports are free again for a moment: the daemons bind them without sharing.
        self._launch("slurmctld", "-D", "-c", "-f", str(self._config))
        for node in NODES:
            self._launch("slurmd", "-D", "-c", "-f", str(self._config), "-N", node, name=node)
        eventually(self._are_nodes_up, deadline_s=PATIENCE_S)

    def stop(self) -> None:
        if self._ward is not None:
            self._ward.close(_STOP_GRACE_S)
            self._ward = None

    def user_environment(self) -> dict[str, str]:
        return dict(self._environment)

    def jobs(self, name: str) -> list[JobFacts]:
        lines = self._scontrol("-o", "show", "jobs").splitlines()
        records = [dict(_FIELD.findall(line)) for line in lines]
        return [_job(record) for record in records if record.get("JobName") == name]

    def nodes(self) -> Mapping[str, NodeFacts]:
        result: dict[str, NodeFacts] = {}
        for line in self._scontrol("-o", "show", "nodes").splitlines():
            record = dict(_FIELD.findall(line))
            reason = _REASON.search(line)
            states = record["State"].split("+")
            drained = "DRAIN" in states
            busy = not {"COMPLETING", "ALLOCATED", "MIXED", "DRAINING"}.isdisjoint(states)
            result[record["NodeName"]] = NodeFacts(busy, (reason.group(1) if reason else "no reason") if drained else "")
        return result

    def cancel(self, job_id: int) -> None:
        output_of([_program("scancel"), str(job_id)], self._environment)

    def cancel_all(self) -> None:
        for line in self._scontrol("-o", "show", "jobs").splitlines():
            job = _job(dict(_FIELD.findall(line))) if line.startswith("JobId=") else None
            if job is not None and job.state in {"PENDING", "CONFIGURING", "RUNNING"}:
                self.cancel(job.job_id)

    def release(self, job_id: int) -> None:
        self._scontrol("release", str(job_id))

    def resume_nodes(self) -> None:
        for node, facts in self.nodes().items():
            if facts.drain_reason:
                self._scontrol("update", f"nodename={node}", "state=resume")

    def variables_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        found = {name: value for name, value in environment.items() if name.startswith("SLURM")}
        found.update({name: "<address>" for name in found if name in _ADDRESSES})
        return {name: value.replace(_CLUSTER, "<cluster>") for name, value in found.items()}

    def _launch(self, program: str, *arguments: str, name: str = "") -> None:
        assert self._ward is not None
        log = self.directory / "log" / f"{name or program}.out"
        self._ward.start(name or program, [_program(program), *arguments], self._environment, log)

    def _scontrol(self, *arguments: str) -> str:
        return output_of([_program("scontrol"), *arguments], self._environment)

    def _are_nodes_up(self) -> bool:
        assert self._ward is not None
        for name in ("slurmctld", *NODES):
            assert self._ward.status_of(name) is None, f"{name} ended early: {self._log_tail()}"
        try:
            lines = self._scontrol("-o", "show", "nodes").splitlines()
        except AssertionError:
            # slurmctld does not answer yet.
            time.sleep(0.2)
            return False
        return [dict(_FIELD.findall(line)).get("State") for line in lines] == ["IDLE"] * len(NODES)

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
        ward.start("munged", [_program("munged"), "-F", "-f", *files], self._environment, self.directory / "log" / "munged.out")
        eventually((directory / "socket").exists, deadline_s=PATIENCE_S)

    def _write_configuration(self, ports: Sequence[int]) -> None:
        scratch, chosen = self.directory, self.configuration
        scheduler = ["batch_sched_delay=0", "sched_min_interval=0", "sched_interval=1"]
        if not chosen.hold_on_prolog_fail:
            scheduler.append("nohold_on_prolog_fail")
        lines = [
            f"ClusterName={_CLUSTER}",
            "SlurmctldHost=localhost(127.0.0.1)",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={scratch}/munge/socket,cred_expire={REQUEUE_DELAY_S}",
            "CryptoType=crypto/munge",
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            f"SlurmctldPort={ports[0]}",
            f"StateSaveLocation={scratch}/state",
            f"SlurmdSpoolDir={scratch}/spool/%n",
            f"SlurmctldPidFile={scratch}/run/slurmctld.pid",
            f"SlurmdPidFile={scratch}/run/slurmd.%n.pid",
            f"SlurmctldLogFile={scratch}/log/slurmctld.log",
            f"SlurmdLogFile={scratch}/log/slurmd.%n.log",
            # Not cgroups: those of Slurm have one name on a machine, whoever started it.
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU",
            "AccountingStorageType=accounting_storage/none",
            "JobCompType=jobcomp/none",
            "JobAcctGatherType=jobacct_gather/none",
            "MpiDefault=none",
            "ReturnToService=2",
            "SlurmdParameters=config_overrides",
            "PropagateResourceLimits=NONE",
            "SchedulerType=sched/builtin",
            "PriorityType=priority/basic",
            "EpilogMsgTime=10",
            "KillWait=2",
            "MinJobAge=600",
            f"SchedulerParameters={','.join(scheduler)}",
            *(f"{point}={pattern}" for point in _CONFIGURED for pattern in self.hook_patterns(point)),
        ]
        if chosen.prolog_epilog_timeout_s is not None:
            lines.append(f"PrologEpilogTimeout={chosen.prolog_epilog_timeout_s}")
        if chosen.flags:
            lines.append(f"PrologFlags={chosen.flags}")
        lines += [
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Sockets=1 CoresPerSocket={CPUS} "
            "ThreadsPerCore=1 RealMemory=4096 State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        lines.append(f"PartitionName=local Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP")
        self._config.write_text("\n".join(lines) + "\n")
        (self._config.parent / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")


_CONFIGURED = ("PrologSlurmctld", "Prolog", "SrunProlog", "TaskProlog", "TaskEpilog", "SrunEpilog", "Epilog", "EpilogSlurmctld")


def _path_of(name: str) -> str | None:
    return shutil.which(name, path=_SEARCH_PATH)


def _program(name: str) -> str:
    path = _path_of(name)
    assert path is not None, f"{name} is not installed"
    return path


def _job(record: Mapping[str, str]) -> JobFacts:
    return JobFacts(
        job_id=int(record["JobId"]),
        state=record["JobState"],
        held=record["JobState"] == "PENDING" and record["Priority"] == "0",
        restarts=int(record["Restarts"]),
        exit=record["ExitCode"],
    )


def _reserved_ports(held: ExitStack, number: int) -> Iterator[int]:
    """Free ports, different ones, bound until `held` is closed."""
    for _ in range(number):
        reserved = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
