"""The story: an interactive job whose hooks all run, and a batch job that a broken node sends to the other one."""

import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from cranecli.hookctl.failure import CommandError
from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import LocalConfig, default_config
from cranecli.hookctl.progress import progress_line
from cranecli.render.details import job_title
from cranecli.render.records import JobRecord, job_record, objects
from cranecli.render.style import Style, Tone, style_of
from cranecli.render.timeline import timeline
from cranecli.render.words import COLUMNS, wrapped

SCRIPTS = Path(__file__).with_name("scripts")
_BROKEN = "scratch file system is not mounted"
_DONE_DEADLINE_S = 30.0
_ENDED = frozenset({"Completed", "Failed", "Cancelled", "TimedOut", "NodeFail"})


def tell() -> int:
    """Runs the whole story; the exit status is 0 when it went as told."""
    place = Path(mkdtemp(prefix="crane-demo-"))
    try:
        # Passed by the daemons, which run as whoever runs this; 0755 lets other users' hooks be read.
        place.chmod(0o755)
        hooks = install_hooks(place)
        with progress_line() as progress:
            cluster = LocalCluster(config=demo_config(hooks), state_dir=place / "cluster", progress=progress)
            with cluster:
                progress("")
                return _Narrator(cluster, hooks, style_of(sys.stdout)).tell()
    finally:
        shutil.rmtree(place)


def install_hooks(place: Path) -> Path:
    """Copies the example scripts below the demo's directory, owned by us and executable; returns their directory."""
    hooks = place / "hooks"
    shutil.copytree(SCRIPTS, hooks)
    for path in [hooks, *hooks.rglob("*")]:
        # Whatever the installation's modes are: nobody else may write, everybody may run.
        path.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return hooks


def demo_config(hooks: Path) -> LocalConfig:
    """Two nodes with every configured hook point, and a retry after a second."""
    section = {
        "CranectldProlog": str(hooks / "controller_prolog.sh"),
        "Prolog": str(hooks / "prolog.d" / "*.sh"),
        "CrunProlog": str(hooks / "crun_prolog.sh"),
        "TaskProlog": str(hooks / "task_prolog.sh"),
        "TaskEpilog": str(hooks / "task_epilog.sh"),
        "CrunEpilog": str(hooks / "crun_epilog.sh"),
        "Epilog": str(hooks / "epilog.sh"),
        "CranectldEpilog": str(hooks / "controller_epilog.sh"),
    }
    document = {"RequeueDelay": 1.0, "HeartbeatInterval": 1.0, "NodeDownTimeout": 10.0, "JobLifecycleHook": section}
    return LocalConfig(default_config(2).nodes, document)


class _Narrator:
    """Tells the chapters, each with real programs."""

    def __init__(self, cluster: LocalCluster, hooks: Path, style: Style) -> None:
        self._cluster = cluster
        self._hooks = hooks
        self._style = style

    def tell(self) -> int:
        for line in wrapped(f"A controller and two nodes run on this machine, with hooks at all ten points ({self._hooks}).", ""):
            print(line)
        healthy = self._interactive_job()
        moved = self._batch_job()
        self._log()
        self._nodes()
        if not (healthy and moved):
            print("\nThis did not go as the story says.")
            return 1
        return 0

    def _interactive_job(self) -> bool:
        self._chapter("1. An interactive job: TaskProlog gives the task a variable")
        command = [
            "crun", "-J", "hello", "--task-prolog", str(self._hooks / "own_task_prolog.sh"),
            "--task-epilog", str(self._hooks / "own_task_epilog.sh"), "sh", "-c", 'echo "the task sees GREETING=$GREETING"',
        ]  # fmt: skip
        status, output = self._run(
            command, "crun --task-prolog … --task-epilog … sh -c 'echo \"the task sees GREETING=$GREETING\"'"
        )
        job = self._ended_job("hello")
        self._timeline(job)
        return status == 0 and "GREETING=HelloFromTaskProlog" in output and job.state == "Completed"

    def _batch_job(self) -> bool:
        self._chapter("2. A batch job: cn01 breaks, its Prolog notices, the job goes to cn02")
        (self._hooks.parent / "broken-cn01").write_text(f"{_BROKEN}\n")
        output = self._hooks.parent / "train.out"
        command = ["cbatch", "--wait", "-J", "train", "-o", str(output), "--wrap", 'echo "the model is trained"']
        status, _ = self._run(command, "cbatch --wait -J train --wrap 'echo \"the model is trained\"'")
        job = self._ended_job("train")
        self._timeline(job)
        written = output.read_text() if output.exists() else ""
        return status == 0 and job.attempt == 2 and job.nodes == ("cn02",) and "the model is trained" in written

    def _log(self) -> None:
        self._chapter("3. What the node-health Prolog wrote to its log for job 2")
        for line in (self._hooks.parent / "prolog.log").read_text().splitlines():
            if " job 2 " in line:
                print(f"  {line}"[:COLUMNS])

    def _nodes(self) -> None:
        self._chapter("4. The nodes: hookctl nodes")
        self._run(["hookctl", "nodes"], "")

    def _chapter(self, title: str) -> None:
        print(f"\n{self._style.paint(title, Tone.STRONG)}", flush=True)

    def _run(self, command: Sequence[str], shown: str) -> tuple[int, str]:
        """Runs a real program; prints and returns what it prints."""
        if shown:
            for line in wrapped(shown, "  $ ", "      "):
                print(line)
        result = subprocess.run(
            command, env={**self._cluster.env, "COLUMNS": str(COLUMNS - 2)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
        for line in result.stdout.splitlines():
            for part in [f"  {line}"] if len(line) <= COLUMNS - 2 else wrapped(line, "  ", "      "):
                print(part)
        if result.returncode != 0:
            print(f"  (exit status {result.returncode})")
        return result.returncode, result.stdout

    def _ended_job(self, name: str) -> JobRecord:
        """The job of that name, once its last Epilog is told."""
        deadline = time.monotonic() + _DONE_DEADLINE_S
        while True:
            found = [job_record(job) for job in objects(self._cluster.call("ListJobs"), "jobs")]
            job = next((job for job in found if job.name == name), None)
            if job is not None and job.state in _ENDED and not job.busy_nodes:
                return job_record(self._cluster.call("GetJob", {"job_id": str(job.job_id)})["job"])
            if time.monotonic() > deadline:
                message = f"job {name} has not ended within {_DONE_DEADLINE_S:.0f} s: {job.state if job else 'unknown'}"
                raise CommandError(message)
            self._cluster.supervise(0.05)

    def _timeline(self, job: JobRecord) -> None:
        print(f"\n  {job_title(job, self._style)}")
        for line in timeline(job, self._style):
            print(line)
