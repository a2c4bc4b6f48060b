"""A local cluster whose hooks note every call and do what a test has planned for a job: the stage of the system tests."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import LocalConfig, LocalNode
from cranecli.hookctl.warden import descendants
from cranecli.render.records import JobRecord, NodeRecord, job_record, node_record, objects
from cranehooks.execution.containment.hierarchies import of_instances
from cranehooks.model.gres import NodeDevice
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookRun
from tests.support.eventually import eventually

ORDINARY_UID = 65534
"""Who runs the jobs when root runs the tests."""
PATIENCE_S = 40.0
"""For whatever takes a moment on an idle machine."""
CONFIGURED = (
    "CranectldProlog", "Prolog", "CrunProlog", "TaskProlog", "TaskEpilog", "CrunEpilog", "Epilog", "CranectldEpilog",
)  # fmt: skip
TASK_PROLOG, TASK_EPILOG = "own-task-prolog", "own-task-epilog"
"""Scripts for crun's options, beside the configured ones."""
_ROOT = Path(__file__).parents[2]
_PACKAGES = [str(_ROOT / component) for component in ("kit", "hooks", "cli")]
_PROGRAMS = {"crun": "cranecli.crun", "cbatch": "cranecli.cbatch", "calloc": "cranecli.calloc"}
_TRACER = Path(__file__).with_name("hook_tracer.py")
_BRIEF_TRACER = Path(__file__).with_name("brief_tracer.sh")
_QUICK: Mapping[str, object] = {
    "RequeueDelay": 0.05,
    "MaxRequeueDelay": 0.2,
    "HeartbeatInterval": 1.0,
    "KillGrace": 1.0,
    "LauncherGrace": 1.0,
    "MaxDrainsPerScript": 1000,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a hook, or of a traced task."""

    point: str
    label: str
    pid: int
    uid: int
    gid: int
    groups: list[int]
    cwd: str
    argv: list[str]
    session: int
    descriptors: list[int]
    environment: Mapping[str, str]

    @property
    def node(self) -> str:
        return self.environment.get("CRANE_NODENAME", "")

    @property
    def attempt(self) -> int:
        return int(self.environment["CRANE_JOB_ATTEMPT"])


@dataclass(frozen=True, slots=True)
class Gate:
    """Where a hook or a task stops until the test lets it pass."""

    path: Path
    pause_s: float = 0.02
    """Between looks; many who stand at gates at once look less often."""

    @property
    def line(self) -> str:
        """Of a shell script: says that it is here, and waits."""
        return f"echo $$ >> {self.path}.reached; while [ ! -e {self.path} ]; do sleep {self.pause_s}; done"

    @property
    def pids(self) -> list[int]:
        """Who has come so far."""
        reached = Path(f"{self.path}.reached")
        return [int(word) for word in reached.read_text().split()] if reached.exists() else []

    def await_arrivals(self, number: int = 1) -> list[int]:
        return eventually(lambda: self.pids if len(self.pids) >= number else [], deadline_s=PATIENCE_S)

    def open(self) -> None:
        self.path.touch()


class ScriptedCluster:
    """A running cluster, the front ends as an ordinary user's, and what its hooks have noted. Use as a context manager."""

    def __init__(
        self,
        nodes: int = 2,
        *,
        cpus: float = 4,
        devices: Sequence[NodeDevice] = (),
        points: Sequence[str] = CONFIGURED,
        lists: Mapping[str, Sequence[str]] | None = None,
        hooks: Mapping[str, object] | None = None,
        is_brief: bool = False,
        make_cluster: Callable[[LocalConfig], LocalCluster] = lambda config: LocalCluster(config=config),
        **settings: object,
    ) -> None:
        """Prepares; nothing is started yet.

        Args:
            nodes: How many.
            cpus: Of each.
            devices: Of each.
            points: Where the tracing script is installed.
            lists: Points that have several scripts, with their names; the pattern `<point>.d/*` finds them.
            hooks: More keys of JobLifecycleHook.
            is_brief: Whether calls are noted with no more than where and when they were: by a shell, for very many of them.
            make_cluster: What runs it.
            **settings: More keys at the top of the configuration.
        """
        self.directory = Path(mkdtemp(prefix="crane-trial-", dir="/tmp"))
        self.interpreter = _interpreter_for_all()
        self._tracer_text = _BRIEF_TRACER.read_text() if is_brief else f"#!{self.interpreter} -IS\n{_TRACER.read_text()}"
        self.user = ORDINARY_UID if os.geteuid() == 0 else None
        """None: whoever runs the tests."""
        self.hooks = self.directory / "hooks"
        self.bin = self.directory / "bin"
        self.work = self.directory / "work"
        self._prepare_directories()
        self.tracer = self._install("task")
        for point in (*points, TASK_PROLOG, TASK_EPILOG):
            self._install(point)
        section: dict[str, object] = {point: str(self.hooks / point) for point in points}
        for point, names in (lists or {}).items():
            section[point] = f"{self.hooks / point}.d/*"
            for name in names:
                self._install(f"{point}.d/{name}")
        section |= {"KillGrace": 0.5, **(hooks or {})}
        node_list = tuple(LocalNode(f"cn{number:02d}", cpus, devices=tuple(devices)) for number in range(1, nodes + 1))
        self.cluster = make_cluster(LocalConfig(node_list, {**_QUICK, **settings, "JobLifecycleHook": section}))
        self._idle_processes: set[int] = set()

    def __enter__(self) -> Self:
        try:
            self.cluster.start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise
        self.note_idle_processes()
        return self

    def __exit__(self, *_: object) -> None:
        state_dir, cgroups = self.cluster.state_dir, self._cgroups()
        killed = self.cluster.stop()
        shutil.rmtree(self.directory)
        assert killed == 0, f"{killed} processes had to be killed at the end"
        assert not state_dir.exists()
        assert not [path for path in cgroups if path.exists()]

    @property
    def uid(self) -> int:
        """Of the user who runs the jobs."""
        return os.geteuid() if self.user is None else self.user

    @property
    def env(self) -> dict[str, str]:
        """Of front ends, those for every user first on PATH."""
        environment = self.cluster.env
        return {**environment, "PATH": f"{self.bin}:{environment['PATH']}"}

    def plan(self, label: str, point: str, *lines: str, node: str = "") -> None:
        """What the hook of that point does for jobs of that name, as a shell script; it has a PATH."""
        path = self.directory / "plans" / label / (f"{point}@{node}" if node else point)
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text("\n".join(("PATH=/usr/local/bin:/usr/bin:/bin", *lines)) + "\n")
        path.chmod(0o644)

    def gate(self, name: str, pause_s: float = 0.02) -> Gate:
        return Gate(self.work / f"gate-{name}", pause_s)

    def hook(self, name: str) -> str:
        """Path of an installed script."""
        return str(self.hooks / name)

    def script(self, name: str, *lines: str, mode: int = 0o755, interpreter: str = "#!/bin/sh") -> Path:
        """A file in the user's working directory, owned by the user."""
        path = self.work / name
        path.write_text("\n".join((*([interpreter] if interpreter else []), *lines)) + "\n")
        path.chmod(mode)
        if self.user is not None:
            os.chown(path, self.user, self.user)
        return path

    def calls(self, label: str, *points: str) -> list[Call]:
        """What has been noted for jobs of that name, in order; of these points, or of all."""
        lines = (self.directory / "trace").read_text().splitlines()
        found = [Call(**json.loads(line)) for line in lines]
        return [call for call in found if call.label == label and (not points or call.point in points)]

    def run(
        self,
        *argv: str,
        label: str = "",
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        as_admin: bool = False,
        timeout_s: float = 80,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a front end to its end, as the user; `label` names the job."""
        with self.start(*argv, label=label, env=env, as_admin=as_admin, has_stdin=stdin is not None) as process:
            try:
                output, errors = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                raise AssertionError(f"{argv} has not ended within {timeout_s} s: {output!r} {errors!r}") from None
        return subprocess.CompletedProcess(
            argv, process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
        )

    def run_shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell command as the user; front ends are on its PATH."""
        user = self.user
        return subprocess.run(
            ["/bin/sh", "-c", command],
            env=self.env,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def run_python(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program as the user, with the front ends' packages."""
        return subprocess.run(
            [self.interpreter, "-IS", "-c", f"import sys; sys.path[:0] = {_PACKAGES}\n{program}", *arguments],
            env=self.env,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else (),
            capture_output=True,
            text=True,
            check=False,
        )

    @contextlib.contextmanager
    def start(
        self,
        *argv: str,
        label: str = "",
        env: Mapping[str, str] | None = None,
        as_admin: bool = False,
        has_stdin: bool = False,
        stdout: int = subprocess.PIPE,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The same, in the background; killed at the end of the block where it still runs."""
        program, *arguments = argv
        name = ["-J", label] if label and program in _PROGRAMS else []
        user = None if as_admin else self.user
        process = subprocess.Popen(
            [str(self.bin / program if program in _PROGRAMS else Path(sys.executable).with_name(program)), *name, *arguments],
            env={**self.env, "TRIAL": label, "SECRET_OF_USER": "leaked", **(env or {})},
            stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.work,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def submit(self, label: str, command: str, *options: str) -> int:
        """`cbatch --wrap` as the user; the job's number. Its output goes to `<label>.out` in the working directory."""
        result = self.run("cbatch", "--parsable", "-o", f"{label}.out", *options, "--wrap", command, label=label)
        assert result.returncode == 0, result.stderr
        return int(result.stdout)

    def output(self, label: str) -> str:
        """What a submitted job has printed."""
        path = self.work / f"{label}.out"
        return path.read_text() if path.exists() else ""

    def hookctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As an administrator."""
        return self.run("hookctl", *arguments, as_admin=True)

    def hookctl_json(self, *arguments: str) -> Any:  # Any: JSON
        """The document that a command prints for programs."""
        result = self.hookctl(*arguments, "-o", "json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def jobs(self, label: str) -> list[JobRecord]:
        """All of that name, complete."""
        known = [job_record(job) for job in objects(self.cluster.call("ListJobs"), "jobs")]
        return [self.job_by_id(job.job_id) for job in known if job.name == label]

    def job_ids(self) -> dict[str, int]:
        """By their names; of several with one name the newest."""
        known = [job_record(job) for job in objects(self.cluster.call("ListJobs"), "jobs")]
        return {job.name: job.job_id for job in known}

    def job_by_id(self, job_id: int) -> JobRecord:
        return job_record(self.cluster.call("GetJob", {"job_id": str(job_id)})["job"])

    def job(self, label: str) -> JobRecord:
        (found,) = self.jobs(label)
        return found

    def nodes(self) -> dict[str, NodeRecord]:
        records = [node_record(node) for node in objects(self.cluster.call("ListNodes"), "nodes")]
        return {record.name: record for record in records}

    def await_state(self, label: str, *states: str) -> JobRecord:
        """The job, once it is in one of these states (and, where it has ended, its nodes are free)."""

        def found() -> JobRecord | None:
            jobs = self.jobs(label)
            return jobs[0] if jobs and jobs[0].state in states and not (jobs[0].has_ended and jobs[0].busy_nodes) else None

        try:
            job = eventually(found, deadline_s=PATIENCE_S)
        except AssertionError:
            raise AssertionError(f"{label} is not {states}: {self.jobs(label)}") from None
        assert job is not None
        return job

    def ended(self, label: str) -> JobRecord:
        return self.await_state(label, "Completed", "Failed", "Cancelled", "TimedOut", "NodeFail")

    def settle(self) -> None:
        """Ends what runs, waits until all is idle, and puts drained nodes back: the next test finds the cluster as this one did.

        Raises:
            AssertionError: A process of a job or a hook, or a cgroup of a job, is left.
        """
        self.cancel_all()
        eventually(
            lambda: all(node.use == "idle" and not node.owed_epilogs for node in self.nodes().values()), deadline_s=PATIENCE_S
        )
        self.cluster.call("ResumeNodes", {"nodes": ",".join(self.nodes()), "owner": "DRAIN_OWNER_UNSPECIFIED"})
        try:
            eventually(lambda: not self.processes_of_jobs())
        except AssertionError:
            raise AssertionError(f"processes are left: {self.processes_of_jobs()}") from None
        eventually(lambda: not self.cgroups_of_jobs())

    def cancel_all(self) -> None:
        """Whatever the test has left waiting or running."""
        self.cancel_all_but()

    def cancel_all_but(self, *labels: str) -> None:
        """Ends what waits or runs, except jobs of these names."""
        known = [job_record(job) for job in objects(self.cluster.call("ListJobs"), "jobs")]
        unfinished = [str(job.job_id) for job in known if not job.has_ended and job.name not in labels]
        if unfinished:
            self.cluster.call("CancelJob", {"job_ids": unfinished, "reason": "the test is over"})

    def note_idle_processes(self) -> None:
        """What runs now is the daemons' own."""
        self._idle_processes = self._processes()

    def processes_of_jobs(self) -> dict[int, str]:
        """Processes below the cluster that were not there when it was idle."""
        return {pid: _command(pid) for pid in self._processes() - self._idle_processes if _command(pid)}

    def cgroups_of_jobs(self) -> list[Path]:
        """Directories of jobs, steps and hook runs below the daemons' own."""
        return [path for path in self._cgroups() if any(part.startswith("job_") for part in path.parts)]

    def _processes(self) -> set[int]:
        return set().union(*({daemon.pid} | descendants(daemon.pid) for daemon in self.cluster.daemons.values()))

    def _cgroups(self) -> list[Path]:
        return list(of_instances(f"{self.cluster._cluster_name}.*/**"))

    def _prepare_directories(self) -> None:
        for path in (self.directory, self.hooks, self.bin, self.directory / "plans", self.work):
            path.mkdir(exist_ok=True)
            path.chmod(0o777 if path == self.work else 0o755)
        for program, module in _PROGRAMS.items():
            start = f"import sys\nsys.path[:0] = {_PACKAGES}\nfrom {module} import main\nsys.exit(main())\n"
            (self.bin / program).write_text(f"#!{self.interpreter}\n{start}")
            (self.bin / program).chmod(0o755)
        trace = self.directory / "trace"
        trace.touch()
        trace.chmod(0o666)

    def _install(self, name: str) -> Path:
        path = self.hooks / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(self._tracer_text)
        path.chmod(0o755)
        return path


def runs_of(job: JobRecord, point: HookPoint) -> list[HookRun]:
    """The records of one point, in the order they were told."""
    return [run for run in job.runs if run.key.point is point]


def texts_of(job: JobRecord) -> str:
    """The job's history as lines: `kind: text`."""
    return "\n".join(f"{event.kind}: {event.text}" for event in job.history)


@functools.cache
def _interpreter_for_all() -> str:
    """One that the ordinary user reaches too; the virtual environment's may be below a home directory.

    Raises:
        AssertionError: There is none.
    """
    user = ORDINARY_UID if os.geteuid() == 0 else None
    test = f"import sys; sys.path[:0] = {_PACKAGES}; import cranecli.crun, cranecli.calloc"
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            result = subprocess.run(
                [candidate, "-IS", "-c", test],
                user=user,
                group=user,
                extra_groups=None if user is None else (),
                cwd="/",
                capture_output=True,
                check=False,
            )
            if result.returncode == 0:
                return candidate
    message = f"uid {user} can run no Python that loads {_PACKAGES}"
    raise AssertionError(message)


def _command(pid: int) -> str:
    """Empty where it has ended, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
