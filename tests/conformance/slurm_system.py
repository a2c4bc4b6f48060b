"""The real Slurm, as a system to compare with."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.conformance.system import CPUS, NODES, REQUEUE_DELAY_S, Configuration, JobFacts, NodeFacts, System
from tests.support.commands import output_of
from tests.support.slurm_daemons import CLUSTER, SlurmDaemons, fields_of, program

_REASON = re.compile(r" Reason=(.*?) \[[^\]]*\]")
_ADDRESSES = ("SLURM_CONF", "SLURM_SRUN_COMM_HOST", "SLURM_LAUNCH_NODE_IPADDR")
_CONFIGURED = ("PrologSlurmctld", "Prolog", "SrunProlog", "TaskProlog", "TaskEpilog", "SrunEpilog", "Epilog", "EpilogSlurmctld")


class SlurmSystem(System):
    """The real thing."""

    title = "Slurm"

    def __init__(self, directory: Path, configuration: Configuration) -> None:
        super().__init__(directory, configuration)
        self.programs = {name: program(name) for name in ("srun", "sbatch", "salloc")}
        self._daemons = SlurmDaemons(directory, self._lines(), nodes=NODES, cpus=CPUS, cred_expire_s=REQUEUE_DELAY_S)

    def start(self) -> None:
        self._daemons.start()

    def stop(self) -> None:
        self._daemons.stop()

    def user_environment(self) -> dict[str, str]:
        return dict(self._daemons.environment)

    def jobs(self, name: str) -> list[JobFacts]:
        lines = self._daemons.scontrol("-o", "show", "jobs").splitlines()
        records = [fields_of(line) for line in lines]
        return [_job(record) for record in records if record.get("JobName") == name]

    def nodes(self) -> Mapping[str, NodeFacts]:
        result: dict[str, NodeFacts] = {}
        for line in self._daemons.scontrol("-o", "show", "nodes").splitlines():
            record = fields_of(line)
            reason = _REASON.search(line)
            states = record["State"].split("+")
            drained = "DRAIN" in states
            busy = not {"COMPLETING", "ALLOCATED", "MIXED", "DRAINING"}.isdisjoint(states)
            result[record["NodeName"]] = NodeFacts(busy, (reason.group(1) if reason else "no reason") if drained else "")
        return result

    def cancel(self, job_id: int) -> None:
        output_of([program("scancel"), str(job_id)], self._daemons.environment)

    def cancel_all(self) -> None:
        for line in self._daemons.scontrol("-o", "show", "jobs").splitlines():
            job = _job(fields_of(line)) if line.startswith("JobId=") else None
            if job is not None and job.state in {"PENDING", "CONFIGURING", "RUNNING"}:
                self.cancel(job.job_id)

    def release(self, job_id: int) -> None:
        self._daemons.scontrol("release", str(job_id))

    def resume_nodes(self) -> None:
        for node, facts in self.nodes().items():
            if facts.drain_reason:
                self._daemons.scontrol("update", f"nodename={node}", "state=resume")

    def variables_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        found = {name: value for name, value in environment.items() if name.startswith("SLURM")}
        found.update({name: "<address>" for name in found if name in _ADDRESSES})
        return {name: value.replace(CLUSTER, "<cluster>") for name, value in found.items()}

    def _lines(self) -> list[str]:
        chosen = self.configuration
        scheduler = ["batch_sched_delay=0", "sched_min_interval=0", "sched_interval=1"]
        if not chosen.hold_on_prolog_fail:
            scheduler.append("nohold_on_prolog_fail")
        lines = [
            # Not cgroups: those of Slurm have one name on a machine, whoever started it.
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SchedulerType=sched/builtin",
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
        return lines


def _job(record: Mapping[str, str]) -> JobFacts:
    return JobFacts(
        job_id=int(record["JobId"]),
        state=record["JobState"],
        held=record["JobState"] == "PENDING" and record["Priority"] == "0",
        restarts=int(record["Restarts"]),
        exit=record["ExitCode"],
    )
