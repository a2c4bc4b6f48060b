"""What one comparison works with on one system: its hooks, its jobs, and the notes that its scripts leave."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.conformance.system import HOOK_FILES, NODES, PATIENCE_S, Finished, JobFacts, System
from tests.support.eventually import eventually

ENDS_TOGETHER: Final = frozenset({"SrunEpilog", "Epilog", "EpilogSlurmctld"})
"""Hooks that end a job side by side: their order among each other is chance."""
_FRONT_END_DEADLINE_S = 90.0
_RECORD = "/bin/cat /proc/$$/environ > {notes}/environment.{label}.$SLURMD_NODENAME"


class Stage:
    """A system that has been made ready for one comparison."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.name = name
        self._jobs = 0
        self._reset_notes()
        for directory in ("prolog.d", "epilog.d"):
            for path in (system.hooks / directory).iterdir():
                path.unlink()
        for label in HOOK_FILES:
            self.hook(label)

    @property
    def notes(self) -> Path:
        return self.system.notes

    def hook(self, label: str, *lines: str, records_environment: bool = False) -> None:
        """What a hook does after it has noted that it runs."""
        noted = (
            [f'echo "{label} $SLURMD_NODENAME" >> {self.notes}/trace']
            if label in HOOK_FILES and not label.endswith("-last")
            else []
        )
        if records_environment:
            noted.append(_RECORD.format(notes=self.notes, label=label))
        self.script(HOOK_FILES[label], *noted, *lines)

    def script(self, name: str, *lines: str, mode: int = 0o755, interpreter: str = "#!/bin/sh") -> None:
        """A file below the directory of the hooks, as it is; `@NOTES@` stands for where scripts may write."""
        text = "\n".join((*([interpreter] if interpreter else []), *lines, "")).replace("@NOTES@", str(self.notes))
        path = self.system.hooks / name
        # A new file: the old one may be running.
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def remove(self, name: str) -> None:
        (self.system.hooks / name).unlink()

    def srun(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        """To its end, as a job of its own."""
        return self._finish(self.start("srun", *arguments, env=env))

    def salloc(self, *arguments: str) -> Finished:
        return self._finish(self.start("salloc", *arguments))

    def start(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """srun or salloc in the background, as a job of its own; end it with `finish`."""
        self._jobs += 1
        return self.system.popen(program, "-J", self._job_name, *arguments, env=env)

    def finish(self, process: subprocess.Popen[str]) -> Finished:
        return self._finish(process)

    def submit(self, command: str, *options: str) -> Finished:
        """sbatch of a shell command; what it prints is in the notes, as `output`."""
        self._jobs += 1
        result = self._finish(
            self.system.popen("sbatch", "-J", self._job_name, "-o", f"{self.notes}/output", *options, "--wrap", command)
        )
        assert "--wait" in options or result.code == 0, f"sbatch: {result.stderr}"
        return result

    def task(self, then: str = "") -> Sequence[str]:
        """A command that notes that it runs."""
        return ("sh", "-c", f'echo "task $SLURMD_NODENAME" >> {self.notes}/trace; {then}')

    def job(self) -> JobFacts:
        """The last job, as soon as there is one."""
        return eventually(lambda: self.system.jobs(self._job_name), deadline_s=PATIENCE_S)[0]

    def settled(self) -> JobFacts:
        """The last job, once it has ended or waits after a requeue."""

        def found() -> JobFacts | None:
            jobs = self.system.jobs(self._job_name)
            return jobs[0] if jobs and jobs[0].is_settled else None

        job = eventually(found, deadline_s=PATIENCE_S)
        assert job is not None
        return job

    def settled_again(self) -> JobFacts:
        """The last job, which waits after a requeue, once it has ended."""
        return eventually(
            lambda: [job for job in self.system.jobs(self._job_name) if job.is_settled and job.state != "PENDING"],
            deadline_s=PATIENCE_S,
        )[0]

    def idle(self) -> None:
        """Returns when the nodes are: all Epilogs have ended."""
        self.system.await_idle()

    def trace(self) -> list[str]:
        """Who has noted that it runs: `Prolog cn01`, in order."""
        path = self.notes / "trace"
        return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []

    def points(self, node: str = "") -> list[str]:
        """The same without the nodes; of one node, where it is named."""
        return [line.split()[0] for line in self.trace() if not node or line.endswith(f" {node}")]

    def count(self, label: str) -> str:
        return str(self.points().count(label))

    def await_count(self, label: str, number: int) -> None:
        """Returns when a hook has run so often."""
        eventually(lambda: self.points().count(label) >= number, deadline_s=PATIENCE_S)

    def order(self, node: str = "") -> str:
        """Of hooks, for one row."""
        names = self.points(node)
        first = next((place for place, name in enumerate(names) if name in ENDS_TOGETHER), len(names))
        together = sorted(names[first:])
        return ", ".join([*names[:first], *([f"together: {' '.join(together)}"] if together else [])])

    def await_note(self, name: str) -> str:
        """What a script has written to a file of that name, as soon as it is there."""
        path = self.notes / name
        return eventually(lambda: path.exists() and path.read_text(), deadline_s=PATIENCE_S) or ""

    def note(self, name: str) -> str:
        """The same, at once; empty where it is not there."""
        path = self.notes / name
        return path.read_text() if path.exists() else ""

    def open_gate(self, name: str) -> None:
        (self.notes / name).touch()

    def drained(self) -> str:
        """Names of drained nodes, or `none`."""
        return ",".join(name for name, node in sorted(self.system.nodes().items()) if node.drain_reason) or "none"

    def await_drained(self) -> str:
        """The same, where something is bound to be drained."""
        return eventually(lambda: (self.drained() != "none") and self.drained(), deadline_s=PATIENCE_S) or ""

    def is_alive(self, pid_note: str) -> bool:
        """Whether a process whose pid a script has noted lives."""
        try:
            fields = Path(f"/proc/{int(self.await_note(pid_note))}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return False
        return fields[0] != "Z"

    def end(self, pid_note: str) -> None:
        """Ends a process that a script of this comparison has left behind."""
        if self.is_alive(pid_note):
            os.kill(int(self.note(pid_note)), signal.SIGKILL)

    def environment(self, label: str, node: str = NODES[0]) -> dict[str, str]:
        """What a hook has seen, as the kernel has it; of controller and launch hooks with no node."""
        words = self.await_note(f"environment.{label}.{node}").split("\0")
        return self.system.variables_of(dict(word.split("=", 1) for word in words if "=" in word))

    def clear(self) -> None:
        """Ends what is left, and makes the system as it was."""
        self.system.cancel_all()
        self.system.await_idle()
        self.system.resume_nodes()
        self._reset_notes()

    def again(self) -> None:
        """For the next job of the same comparison: idle, nothing drained, nothing noted."""
        self.clear()

    @property
    def _job_name(self) -> str:
        return f"{self.name}.{self._jobs}"

    def _reset_notes(self) -> None:
        for path in self.notes.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        (self.notes / "trace").touch()
        (self.notes / "trace").chmod(0o666)

    def _finish(self, process: subprocess.Popen[str]) -> Finished:
        try:
            output, errors = process.communicate(timeout=_FRONT_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            message = f"{process.args!r} has not ended within {_FRONT_END_DEADLINE_S:.0f} s: {output!r} {errors!r}"
            raise AssertionError(message) from None
        return Finished(process.returncode, output, errors)
