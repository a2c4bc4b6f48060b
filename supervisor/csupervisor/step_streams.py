"""The standard streams of all tasks of a step, and the end of the last of them."""

import os
from collections.abc import Callable

from cranehooks.model.ids import TaskId
from cranehooks.model.job import StdioMode
from csupervisor.bootstrap import Bootstrap
from csupervisor.identity import acting_as
from csupervisor.output_files import output_path
from csupervisor.stdio import FileOutput, OutputWindow, PipeOutput, StdinPipe, StreamName, TaskStreams


class OutputFileError(Exception):
    """An output file of the job cannot be opened."""


class StepStreams:
    """Pipes to the launcher, or the job's output files, as the step asks."""

    def __init__(self, bootstrap: Bootstrap, window: OutputWindow, grant_stdin: Callable[[int], None]) -> None:
        self._bootstrap = bootstrap
        self._window = window
        self._credentials = bootstrap.job.credentials
        self.goes_to_files = bootstrap.step.stdio is StdioMode.FILES
        self.stdin: StdinPipe | None = None
        """Of task 0, where it is on this node and has a launcher."""
        if not self.goes_to_files and any(task.task_id == 0 for task in bootstrap.tasks):
            self.stdin = StdinPipe(grant_stdin, self._credentials)
        self._pipes: list[PipeOutput] = []
        self._files: tuple[FileOutput, FileOutput] | None = None

    def open_files(self) -> None:
        """Open the output files as the user, once for all tasks.

        Raises:
            OutputFileError: says which and why.
        """
        if not self.goes_to_files:
            return
        job = self._bootstrap.job
        stdout_path = output_path(job.stdout_path, self._bootstrap)
        stderr_path = output_path(job.stderr_path, self._bootstrap) if job.stderr_path else stdout_path
        with acting_as(self._credentials):
            stdout = FileOutput(_open_output(stdout_path))
            try:
                stderr = stdout if stderr_path == stdout_path else FileOutput(_open_output(stderr_path))
            except OutputFileError:
                stdout.close()
                raise
        self._files = stdout, stderr

    def of_task(self, task_id: TaskId) -> TaskStreams:
        if self._files is not None:
            return TaskStreams(None, *self._files)
        stdout, stderr = (PipeOutput(task_id, name, self._window, self._credentials) for name in StreamName)
        self._pipes += (stdout, stderr)
        return TaskStreams(self.stdin if task_id == 0 else None, stdout, stderr)

    def tell(self, text: str) -> None:
        """A line of ours for the owner of the job, in its error file; launchers are told by a notice instead."""
        if self._files is not None:
            self._files[1].write(f"crane: {text}\n".encode("utf-8", "surrogateescape"))

    def finish(self, on_end: Callable[[], None]) -> None:
        """No task is left: call `on_end` once everything they wrote has been sent."""
        self.close_files()
        open_pipes = set(self._pipes)
        if not open_pipes:
            on_end()
            return

        def ended(pipe: PipeOutput) -> None:
            open_pipes.discard(pipe)
            if not open_pipes:
                on_end()

        for pipe in tuple(open_pipes):
            pipe.finish(lambda pipe=pipe: ended(pipe))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def drop(self) -> None:
        """Nobody will take the rest."""
        self._window.drop()
        for pipe in self._pipes:
            pipe.drop()

    def close_files(self) -> None:
        for file in self._files or ():
            file.close()
        self._files = None


def _open_output(path: str) -> int:
    # A FIFO without a reader is an error rather than a reason to wait for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666)
    except (OSError, ValueError) as error:
        message = f"cannot open output file {path}: {error.strerror if isinstance(error, OSError) else error}"
        raise OutputFileError(message) from error
    os.set_blocking(fd, True)
    return fd
