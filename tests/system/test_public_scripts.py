"""Scripts that do what public ones do run unchanged, through jobs of cbatch and crun, under the profiles that stand in for Slurm."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.model.gres import NodeDevice
from cranehooks.model.points import HookPoint
from tests.support.reconfiguration import reconfigured
from tests.support.scripted_cluster import CONFIGURED, ScriptedCluster, runs_of

SCRIPTS = Path(__file__).with_name("hooks_like_public")

in_both = pytest.mark.parametrize("profile", ["slurm", "sunk"])


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ScriptedCluster]:
    """Two nodes with four GPUs each."""
    with ScriptedCluster(devices=[NodeDevice("gpu", index) for index in range(4)]) as cluster:
        yield cluster


def install(stage: ScriptedCluster, *names: str) -> dict[str, str]:
    """The scripts below the cluster's hooks, with the place for their notes put in; the path of each."""
    paths = {}
    for name in names:
        text = (SCRIPTS / name).read_bytes().decode()
        for word, value in (("@NOTES@", stage.work), ("@BIN@", stage.hooks), ("@PYTHON@", stage.interpreter)):
            text = text.replace(word, str(value))
        path = stage.hooks / name
        path.write_text(text, newline="")
        path.chmod(0o755)
        paths[name] = str(path)
    return paths


def only(**hooks: object) -> dict[str, object]:
    return {**dict.fromkeys(CONFIGURED), **hooks}


@in_both
def test_one_script_for_all_eight_hooks_tells_them_apart(stage: ScriptedCluster, profile: str) -> None:
    path = install(stage, "dispatch")["dispatch"]
    log = stage.work / "dispatched"
    log.touch()
    log.chmod(0o666)
    label = f"dispatch-{profile}"
    with reconfigured(stage, dict.fromkeys(CONFIGURED, path), Profile=profile):
        result = stage.run("crun", "-w", "cn01", "sh", "-c", "echo $SITE_SETUP", label=label)
        assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
        job = stage.ended(label)
        number = str(job.job_id)
        lines = [line.split() for line in log.read_text().splitlines() if line.split()[1] == number]
        # CranectldEpilog and Epilog run side by side, and CrunEpilog with them.
        assert [words[0] for words in lines[:5]] == [
            "prolog_slurmctld",
            "prolog_srun",
            "prolog_slurmd",
            "prolog_task",
            "epilog_task",
        ]
        assert sorted(words[0] for words in lines[5:]) == ["epilog_slurmctld", "epilog_slurmd", "epilog_srun"]
        by_context = {words[0]: words[2:] for words in lines}
        assert by_context["prolog_slurmd"] == by_context["epilog_slurmd"] == [job.user, "cn01", "no-reservation"]
        assert by_context["prolog_slurmctld"] == [job.user, "1"]
        assert by_context["prolog_srun"] == ["sh", "-c", "echo", "$SITE_SETUP"]
        assert by_context["prolog_task"] == by_context["epilog_task"] == ["0"]
    log.unlink()


@in_both
def test_gpu_map_follows_the_jobs(stage: ScriptedCluster, profile: str) -> None:
    path = install(stage, "gpu-map")["gpu-map"]
    held = stage.work / "gpu-map.cn01"
    with reconfigured(stage, only(Prolog=path, Epilog=path), Profile=profile):
        gates = {label: stage.gate(f"{label}-{profile}") for label in ("one", "two")}
        for label, number in (("one", 1), ("two", 2)):
            stage.submit(f"{label}-{profile}", gates[label].line, "-w", "cn01", "--gres", f"gpu:{number}")
        for gate in gates.values():
            gate.await_arrivals()
        holders = [path.read_text().strip() for path in sorted(held.iterdir())]
        one, two = (str(stage.job(f"{label}-{profile}").job_id) for label in ("one", "two"))
        assert sorted(holders) == sorted([one, two, two])
        assert {path.name for path in held.iterdir()} <= {"0", "1", "2", "3"}
        gates["two"].open()
        stage.ended(f"two-{profile}")
        assert [path.read_text().strip() for path in held.iterdir()] == [one]
        gates["one"].open()
        stage.ended(f"one-{profile}")
        assert list(held.iterdir()) == []
        # A GPU that a job left behind, by the map: the Prolog refuses the node, with its words as the reason.
        for number in range(4):
            (held / str(number)).write_text("4711\n")
        stage.submit(f"taken-{profile}", "true", "-w", "cn01", "--gres", "gpu:1")
        job = stage.await_state(f"taken-{profile}", "Held")
        assert job.reason.endswith("on cn01 is held by job 4711")
        for path_of_gpu in held.iterdir():
            path_of_gpu.unlink()


@in_both
def test_tmp_directory_is_made_exported_and_removed(stage: ScriptedCluster, profile: str) -> None:
    paths = install(stage, "tmp-prolog", "tmp-taskprolog", "tmp-epilog")
    hooks = {"Prolog": paths["tmp-prolog"], "TaskProlog": paths["tmp-taskprolog"], "Epilog": paths["tmp-epilog"]}
    with reconfigured(stage, only(**hooks), Profile=profile):
        label = f"tmp-{profile}"
        command = 'echo "$TMPDIR $OMP_NUM_THREADS ${UNWANTED-unset}"; touch $TMPDIR/mine && stat -c "%u %a" $TMPDIR'
        job_id = stage.submit(label, command, "-w", "cn02")
        assert stage.ended(label).state == "Completed"
        directory = stage.work / f"tmp.cn02/job_{job_id}"
        assert stage.output(label).splitlines() == [
            "temporary files go to the job's own directory",
            f"{directory} 1 unset",
            f"{stage.uid} 700",
        ]
        assert directory.parent.exists()
        assert not directory.exists()
        result = stage.run("crun", "-n2", "sh", "-c", "ls -d $TMPDIR; true", label=f"crun-{label}", env={"UNWANTED": "1"})
        assert result.returncode == 0
        number = stage.ended(f"crun-{label}").job_id
        assert result.stdout.count(f"job_{number}\n") == 2
        assert not list(stage.work.glob(f"tmp.*/job_{number}"))


@in_both
def test_run_parts_entry_runs_what_is_there_until_one_fails(stage: ScriptedCluster, profile: str) -> None:
    path = install(stage, "run-parts-entry")["run-parts-entry"]
    parts = stage.work / "parts.d"
    parts.mkdir(exist_ok=True)
    seen = stage.work / "parts.seen"
    seen.unlink(missing_ok=True)
    for name, code in (("10-a", 0), ("20-b", 0), ("30-c", 0)):
        script = parts / name
        script.write_text(f"#!/bin/sh\necho {name} $SLURM_JOB_ID >> {seen}\nexit {code}\n")
        script.chmod(0o755)
    (parts / "README").write_text("not a script\n")
    with reconfigured(stage, only(Prolog=path), Profile=profile):
        job_id = stage.submit(f"parts-{profile}", "true")
        assert stage.ended(f"parts-{profile}").state == "Completed"
        assert seen.read_text().splitlines() == [f"{name} {job_id}" for name in ("10-a", "20-b", "30-c")]
        (parts / "20-b").write_text("#!/bin/sh\necho disk is full\nexit 4\n")
        stage.submit(f"fails-{profile}", "true", "-w", "cn01")
        job = stage.await_state(f"fails-{profile}", "Held")
        assert job.reason == "Prolog run-parts-entry exit 4 on cn01: 20-b failed with 4"
        (run,) = runs_of(job, HookPoint.PROLOG)
        assert run.output == "disk is full\n20-b failed with 4\n"


@in_both
def test_strict_script_guards_what_may_be_missing(stage: ScriptedCluster, profile: str) -> None:
    path = install(stage, "strict")["strict"]
    with reconfigured(stage, only(Prolog=path, Epilog=path, CranectldProlog=None), Profile=profile):
        job_id = stage.submit(f"strict-{profile}", "true", "--gres", "gpu:2")
        assert stage.ended(f"strict-{profile}").state == "Completed"
        told = dict(line.split("=") for line in (stage.work / f"strict.{job_id}").read_text().splitlines())
        assert told["SLURM_JOB_GPUS"] == "0,1"
        assert (told["SLURM_ARRAY_TASK_ID"], told["SLURM_JOB_COMMENT"]) == ("unset", "unset")


@in_both
def test_daemon_that_leaves_the_session_ends_with_its_hook(stage: ScriptedCluster, profile: str) -> None:
    path = install(stage, "daemon")["daemon"]
    with reconfigured(stage, only(Prolog=path), Profile=profile):
        gate = stage.gate(f"daemon-{profile}")
        job_id = stage.submit(f"daemon-{profile}", gate.line)
        gate.await_arrivals()
        # The script runs, and its Prolog's daemon is gone already.
        pid = int((stage.work / f"daemon.{job_id}").read_text())
        assert not Path(f"/proc/{pid}").exists()
        gate.open()
        job = stage.ended(f"daemon-{profile}")
        assert job.state == "Completed"
        (run,) = runs_of(job, HookPoint.PROLOG)
        assert [(left.pid, left.command) for left in run.scripts[0].leftovers] == [(pid, "/bin/sleep 36000")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-shebang", "no-shebang spawn failed: ENOEXEC"),
        ("crlf", "crlf spawn failed: ENOENT"),
    ],
)
@in_both
def test_script_that_the_kernel_cannot_run_fails_with_the_reason(
    stage: ScriptedCluster, profile: str, name: str, words: str
) -> None:
    path = install(stage, name)[name]
    label = f"{name}-{profile}"
    with reconfigured(stage, only(Prolog=path), Profile=profile):
        result = stage.run("crun", "-w", "cn01", "true", label=label)
        assert result.returncode == 1
        job = stage.ended(label)
        assert job.state == "Cancelled"
        (cause,) = stage.nodes()["cn01"].drains
        assert cause.reason.startswith(f"prolog {words} (job {job.job_id}, attempt 1): ")
        told = {"no-shebang": "#!", "crlf": "has Windows line ends"}[name]
        assert told in cause.reason
        assert told in job.reason
        # Before any job comes, check-scripts says so too.
        checked = stage.hookctl("check-scripts", "--config", str(stage.cluster.config_file))
        assert told in checked.stdout


@in_both
def test_tools_are_found_by_path_and_not_by_name(stage: ScriptedCluster, profile: str) -> None:
    paths = install(stage, "asks-scontrol", "asks-scontrol-by-name", "scontrol-of-the-site")
    label = f"scontrol-{profile}"
    with reconfigured(stage, only(Prolog=paths["asks-scontrol"]), Profile=profile):
        job_id = stage.submit(label, "true", "-w", "cn01")
        assert stage.ended(label).state == "Completed"
        told = (stage.work / f"scontrol.{job_id}").read_text()
        assert told == "asked for show node cn01\nby name: not found\n"
    with reconfigured(stage, only(Epilog=paths["asks-scontrol-by-name"]), Profile=profile):
        stage.submit(f"by-name-{label}", "true", "-w", "cn01")
        job = stage.ended(f"by-name-{label}")
        assert job.state == "Completed"
        (cause,) = stage.nodes()["cn01"].drains
        assert cause.reason.startswith("epilog asks-scontrol-by-name exit 127 ")
        assert "not found" in cause.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to the job's user")
@in_both
def test_a_prolog_as_root_gives_the_job_what_it_may_not_take(stage: ScriptedCluster, profile: str) -> None:
    paths = install(stage, "tmp-prolog")
    with reconfigured(stage, only(Prolog=paths["tmp-prolog"]), Profile=profile):
        job_id = stage.submit(f"chown-{profile}", "true", "-w", "cn01")
        assert stage.ended(f"chown-{profile}").state == "Completed"
        assert (stage.work / f"tmp.cn01/job_{job_id}").stat().st_uid == stage.uid
