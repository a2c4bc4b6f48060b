"""An append-only file of JSON records that survives a crash at any instruction: what was asked, intended and done.

A record is one line: length and CRC-32 of its JSON in hexadecimal, the JSON (compact, ASCII, so without a line feed), a line feed. A reader
therefore finds its way back after damage. A crash may leave an incomplete last record: it is cut off and its length reported. Anything else that
does not check is damage: it is kept aside, reported with its position, and never passes for a record.

Appends of many tasks that come together share one write and one fsync. A failed write (a full disk) is taken back and raised to all whose
records it held; the file stays as it was and the next append may succeed.
"""

import asyncio
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cranekit import crash_points

Record = dict[str, Any]  # JSON; its owner parses it
"""One journal entry."""

_HEADER_LENGTH: Final = 18  # 8 hexadecimal digits, a blank, 8 digits, a blank
_NEW_SUFFIX: Final = ".new"
_DAMAGED_SUFFIX: Final = ".damaged"


class JournalError(Exception):
    """The journal's file cannot be used as asked."""


class JournalBusyError(JournalError):
    """Another process has it open."""


class JournalWriteError(JournalError):
    """Records could not be made durable; none of them is in the file."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes in the middle of the file that are no record."""

    offset: int
    length_bytes: int
    reason: str

    def __str__(self) -> str:
        return f"{self.length_bytes} bytes at offset {self.offset}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file holds."""

    records: tuple[Record, ...] = ()
    torn_bytes: int = 0
    """Length of an incomplete last record."""
    damage: tuple[Damage, ...] = ()
    end: int = 0
    """Offset behind the last whole line: where the next record belongs."""


def encode(record: Record) -> bytes:
    """The record's line."""
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %08x %s\n" % (len(body), zlib.crc32(body), body)


def decode(data: bytes) -> Reading:
    """All records of a file's bytes, with what is wrong with it."""
    records: list[Record] = []
    damage: list[Damage] = []
    offset = 0
    while offset < len(data):
        newline = data.find(b"\n", offset)
        if newline < 0:
            return Reading(tuple(records), len(data) - offset, tuple(damage), offset)
        record = _decode_line(data[offset:newline])
        if isinstance(record, str):
            damage.append(Damage(offset, newline + 1 - offset, record))
        else:
            records.append(record)
        offset = newline + 1
    return Reading(tuple(records), 0, tuple(damage), offset)


def _decode_line(line: bytes) -> Record | str:
    """The record, or what is wrong with it."""
    header, body = line[:_HEADER_LENGTH], line[_HEADER_LENGTH:]
    if len(header) < _HEADER_LENGTH or header[8:9] != b" " or header[17:18] != b" ":
        return "no record header"
    if header[:8] != b"%08x" % len(body):
        return f"length {len(body)} is not the header's {header[:8].decode(errors='replace')}"
    if header[9:17] != b"%08x" % zlib.crc32(body):
        return "checksum mismatch"
    parsed = json.loads(body)
    return parsed if isinstance(parsed, dict) else "not a JSON object"


@dataclass(eq=False, slots=True)
class _Append:
    """Lines that go into the file together, or not at all."""

    lines: bytes
    error: OSError | None = None


@dataclass(eq=False, slots=True)
class _Pending:
    lock: threading.Lock = field(default_factory=threading.Lock)
    appends: list[_Append] = field(default_factory=list)


class Journal:
    """The open file. One process holds it; its methods may be called from one event loop only."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int, *, sync: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._sync = sync
        self._is_dirty = False
        self._pending = _Pending()
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @classmethod
    def open(cls, path: Path, *, sync: bool = True) -> tuple[Self, Reading]:
        """Opens or makes the file, and reads it. Blocks on the disk.

        A torn tail is cut off; a damaged file is copied beside it first. With `sync` false nothing is fsynced (for tests).

        Raises:
            JournalBusyError: another process has it open.
            JournalError: the file cannot be opened or read.
        """
        try:
            descriptor = _open_locked(path)
        except OSError as error:
            message = f"opening the journal {path}: {error.strerror}"
            raise JournalError(message) from error
        try:
            data = _read_all(descriptor)
            reading = decode(data)
            if reading.damage:
                _write_file(path.with_name(path.name + _DAMAGED_SUFFIX), data)
            if reading.torn_bytes:
                os.ftruncate(descriptor, reading.end)
                os.fsync(descriptor)
            os.lseek(descriptor, reading.end, os.SEEK_SET)
            path.with_name(path.name + _NEW_SUFFIX).unlink(missing_ok=True)
            _fsync_directory(path.parent)
        except OSError as error:
            os.close(descriptor)
            message = f"reading the journal {path}: {error.strerror}"
            raise JournalError(message) from error
        return cls(path, descriptor, reading.end, sync=sync), reading

    @property
    def size_bytes(self) -> int:
        """Of the file, as far as it is durable."""
        return self._size_bytes

    async def append(self, records: Sequence[Record]) -> None:
        """Returns when all records are durable, in order; the order between calls is the order of the calls.

        Cancelling stops the waiting, not the write.

        Raises:
            JournalWriteError: none of them is; the caller may try again.
        """
        if not records:
            return
        append = _Append(b"".join(map(encode, records)))
        with self._pending.lock:
            self._pending.appends.append(append)
        await asyncio.get_running_loop().run_in_executor(self._disk, self._flush)
        if append.error is not None:
            message = f"writing the journal {self._path}: {append.error.strerror}"
            raise JournalWriteError(message) from append.error

    async def rewrite(self, records: Iterable[Record]) -> None:
        """Replaces the file by `records`, atomically: after a crash it holds either all that was there or all of these.

        Appends that were called before are done before, and so belong into `records`.

        Raises:
            JournalWriteError: the file is as it was.
        """
        lines = b"".join(map(encode, records))
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._replace, lines)
        except OSError as error:
            message = f"rewriting the journal {self._path}: {error.strerror}"
            raise JournalWriteError(message) from error

    def close(self) -> None:
        """Writes what was asked for and closes the file. Blocks on the disk; a repeat does nothing."""
        self._disk.shutdown(wait=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush(self) -> None:
        """In the journal's own thread: writes everything that is pending, which later calls then find done."""
        with self._pending.lock:
            appends, self._pending.appends = self._pending.appends, []
        if not appends:
            return
        try:
            self._write(b"".join(append.lines for append in appends))
        except OSError as error:
            for append in appends:
                append.error = error

    def _write(self, lines: bytes) -> None:
        if self._is_dirty:
            self._take_back()
        self._is_dirty = True
        try:
            _write_all(self._descriptor, lines)
            crash_points.reached("journal: wrote, not synced")
            if self._sync:
                os.fdatasync(self._descriptor)
        except OSError:
            self._take_back()
            raise
        self._is_dirty = False
        self._size_bytes += len(lines)

    def _take_back(self) -> None:
        """Cuts off what a failed write left behind the last durable record; where that fails too, the next write tries again first."""
        os.ftruncate(self._descriptor, self._size_bytes)
        os.lseek(self._descriptor, self._size_bytes, os.SEEK_SET)
        self._is_dirty = False

    def _replace(self, lines: bytes) -> None:
        self._flush()
        fresh = self._path.with_name(self._path.name + _NEW_SUFFIX)
        fresh.unlink(missing_ok=True)
        descriptor = _open_locked(fresh)
        try:
            _write_all(descriptor, lines)
            if self._sync:
                os.fsync(descriptor)
            crash_points.reached("journal: replaces its file")
            fresh.rename(self._path)
            crash_points.reached("journal: replaced its file")
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._descriptor)
        self._descriptor, self._size_bytes, self._is_dirty = descriptor, len(lines), False
        if self._sync:
            _fsync_directory(self._path.parent)


def _open_locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        message = f"the journal {path} is in use by another process"
        raise JournalBusyError(message) from error
    return descriptor


def _read_all(descriptor: int) -> bytes:
    chunks: list[bytes] = []
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
