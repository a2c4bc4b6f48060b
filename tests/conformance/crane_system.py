"""Our cluster with the profile `slurm`, as the real programs on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import LocalConfig, LocalNode
from cranecli.render.records import JobRecord, job_record, node_record, objects
from tests.conformance import front_ends
from tests.conformance.system import (
    CPUS,
    NODES,
    REQUEUE_DELAY_S,
    Configuration,
    JobFacts,
    NodeFacts,
    System,
)
from tests.support.commands import plain_environment

_POINTS = {
    "CranectldProlog": "PrologSlurmctld",
    "Prolog": "Prolog",
    "CrunProlog": "SrunProlog",
    "TaskProlog": "TaskProlog",
    "TaskEpilog": "TaskEpilog",
    "CrunEpilog": "SrunEpilog",
    "Epilog": "Epilog",
    "CranectldEpilog": "EpilogSlurmctld",
}
"""Our names of Slurm's hooks."""
_STATES = {"Held": "PENDING", "TimedOut": "TIMEOUT", "NodeFail": "NODE_FAIL"}


class CraneSystem(System):
    """Ours."""

    title = "here"

    def __init__(self, directory: Path, configuration: Configuration) -> None:
        super().__init__(directory, configuration)
        self.programs = front_ends.install(directory / "bin")
        nodes = tuple(LocalNode(name, CPUS) for name in NODES)
        self._cluster = LocalCluster(config=LocalConfig(nodes, self._document()))

    def start(self) -> None:
        self._cluster.start()

    def stop(self) -> None:
        self._cluster.stop()

    def user_environment(self) -> dict[str, str]:
        found = {name: value for name, value in self._cluster.env.items() if name.startswith("CRANE_")}
        return plain_environment() | found

    def jobs(self, name: str) -> list[JobFacts]:
        records = [job_record(job) for job in objects(self._cluster.call("ListJobs"), "jobs")]
        return [_facts(record) for record in records if record.name == name]

    def nodes(self) -> Mapping[str, NodeFacts]:
        records = [node_record(node) for node in objects(self._cluster.call("ListNodes"), "nodes")]
        return {
            record.name: NodeFacts(
                record.use != "idle" or bool(record.owed_epilogs), "; ".join(drain.reason for drain in record.drains)
            )
            for record in records
        }

    def cancel(self, job_id: int) -> None:
        self._cluster.call("CancelJob", {"job_ids": [str(job_id)]})

    def cancel_all(self) -> None:
        records = [job_record(job) for job in objects(self._cluster.call("ListJobs"), "jobs")]
        if active := [str(record.job_id) for record in records if not record.has_ended]:
            self._cluster.call("CancelJob", {"job_ids": active})

    def release(self, job_id: int) -> None:
        self._cluster.call("ReleaseHold", {"job_ids": [str(job_id)]})

    def resume_nodes(self) -> None:
        self._cluster.call("ResumeNodes", {"nodes": ",".join(NODES), "owner": "DRAIN_OWNER_UNSPECIFIED"})

    def variables_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        cluster = environment.get("SLURM_CLUSTER_NAME", "<cluster>")
        return {name: value.replace(cluster, "<cluster>") for name, value in environment.items() if name.startswith("SLURM")}

    def _document(self) -> dict[str, Any]:  # YAML
        chosen = self.configuration
        hooks: dict[str, Any] = {point: self.hook_patterns(slurm) for point, slurm in _POINTS.items()}
        hooks["KillGrace"] = 0.2
        if chosen.prolog_epilog_timeout_s is not None:
            hooks["PrologEpilogTimeout"] = chosen.prolog_epilog_timeout_s
        if chosen.flags:
            hooks["PrologFlags"] = chosen.flags
        if not chosen.hold_on_prolog_fail:
            hooks["HoldOnPrologFail"] = False
        return {
            "Profile": "slurm",
            "EnableSlurmCompatibleEnv": True,
            "JobLifecycleHook": hooks,
            "RequeueDelay": REQUEUE_DELAY_S,
            "KillGrace": 2.0,
            "HeartbeatInterval": 1.0,
            # Comparisons drain the nodes over and over.
            "MaxDrainsPerScript": 1000,
        }


def _facts(record: JobRecord) -> JobFacts:
    # A job is settled when its nodes are.
    state = "COMPLETING" if record.has_ended and record.busy_nodes else _STATES.get(record.state, record.state.upper())
    # The attempts before the one that runs, or that will; what the record counts begins anew at a release.
    waits_again = record.state == "Held" or (state == "PENDING" and record.requeue_count > 0)
    restarts = record.attempt - (0 if waits_again else 1)
    return JobFacts(record.job_id, state, record.state == "Held", max(restarts, 0), str(record.exit))
