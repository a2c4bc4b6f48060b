"""`hookctl backup`: a copy of the controller's store in a file of this host, while the controller works."""

import base64
import binascii
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from cranecli.hookctl.failure import CommandError
from cranecli.hookctl.page import note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cranecli.front.client import Body


def backup(
    file: Annotated[Path, typer.Argument(help="Where to, on this host; must not exist yet.", show_default=False)],
) -> None:
    """Save the controller's store in FILE while it works: jobs, history, nodes and their drains. For administrators.

    The file holds the environments of jobs: only its owner can read it. To restore: stop cranectld, put the file in the place of
    cranectld.db in its StateDir (and remove cranectld.db-wal and cranectld.db-shm), start cranectld.
    """
    from cranecli.hookctl.front import front

    if file.exists() or file.is_symlink():
        message = f"{file} exists: a backup goes to a new file"
        raise CommandError(message)
    with _new_file(file) as (written, name):
        with front() as controller, controller.stream("BackupStore") as pieces:
            size = _receive(pieces, written)
        _check(name)
    note(f"{file}: {size} bytes, checked")


@contextmanager
def _new_file(file: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file beside `file` that only we can read, and that has its name in the end: whole and on disk, or not at all."""
    descriptor, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as written:
            yield written, temporary
            written.flush()
            os.fsync(written.fileno())
        temporary.rename(file)
        _sync(file.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


def _receive(pieces: "Iterable[Body]", written: IO[bytes]) -> int:
    digest, size, promised, expected = hashlib.sha256(), 0, 0, ""
    for message in pieces:
        try:
            piece = base64.b64decode(message.get("piece") or "", validate=True)
        except binascii.Error as error:
            raise CommandError(f"the controller's answer is not understood: {error}") from error
        promised = promised or int(message.get("size_bytes") or 0)
        expected = str(message.get("sha256") or "")
        digest.update(piece)
        size += len(piece)
        written.write(piece)
    if size != promised or digest.hexdigest() != expected:
        problem = f"the backup broke off: {size} of {promised} bytes came; nothing was saved"
        raise CommandError(problem)
    written.flush()
    return size


def _check(path: Path) -> None:
    """Raises CommandError: what came is no sound database."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    except sqlite3.Error as error:
        problems = [str(error)]
    if problems != ["ok"]:
        message = f"the backup is damaged: {problems[0]}; nothing was saved"
        raise CommandError(message)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
