"""The script of a batch step as a file that its user may run."""

import contextlib
import os
import shutil
from pathlib import Path

from csupervisor.bootstrap import Bootstrap
from csupervisor.task_run import Batch

_FALLBACK_NAME = "the batch script"


def write_script(bootstrap: Bootstrap) -> Batch:
    """Write it below the state directory, readable and executable by the user alone.

    Raises:
        OSError: it cannot be written.
    """
    job, directory = bootstrap.job, _directory(bootstrap)
    # What a supervisor left that died.
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o711, parents=True)
    path = directory / "script"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o500)
    with os.fdopen(fd, "wb") as file:
        file.write((bootstrap.batch_script or job.script).encode("utf-8", "surrogateescape"))
        if os.geteuid() == 0:
            os.fchown(fd, job.uid, job.gid)
    return Batch(str(path), job.script_name or _FALLBACK_NAME, job.script_arguments)


def remove_script(bootstrap: Bootstrap) -> None:
    """Safe to repeat, and where none was written."""
    directory = _directory(bootstrap)
    with contextlib.suppress(FileNotFoundError):
        (directory / "script").unlink()
        directory.rmdir()


def _directory(bootstrap: Bootstrap) -> Path:
    return Path(bootstrap.state_dir) / f"job_{bootstrap.key.attempt_key}"
