"""A copy of a store that is in use: consistent, checked, in one file, ready for a controller to start from."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cranekit.errors import CraneError, ErrorCode

PAGES_PER_STEP = 256
"""Copied at a time: 1 MiB; between steps the writer and other readers have the disk."""

PAUSE_S = 0.005
"""Between steps."""

NUMBERS_SKIPPED = 1_000_000
"""By which a controller that starts from a copy goes on counting jobs, events and decisions: what was numbered after the copy was made is known to nodes,
users and schedulers, and its numbers must not come again."""

ATTEMPTS_SKIPPED = 100
"""The same for the attempts of jobs that wait in the copy."""

_READY_TO_START = f"""
    BEGIN;
    INSERT INTO counters SELECT 'job', max(coalesce((SELECT max(job_id) FROM jobs), 0), coalesce((SELECT value FROM counters WHERE name = 'job'), 0))
        + {NUMBERS_SKIPPED} WHERE true ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    INSERT INTO counters SELECT 'event', max(coalesce((SELECT max(cursor) FROM events), 0),
        coalesce((SELECT value FROM counters WHERE name = 'event'), 0))
        + {NUMBERS_SKIPPED} WHERE true ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    INSERT INTO counters SELECT 'decision', max(coalesce((SELECT max(cursor) FROM decisions), 0),
        coalesce((SELECT value FROM counters WHERE name = 'decision'), 0))
        + {NUMBERS_SKIPPED} WHERE true ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    UPDATE jobs SET body = json_set(body, '$.attempt', json_extract(body, '$.attempt') + {ATTEMPTS_SKIPPED})
        WHERE final = 0 AND json_extract(body, '$.state') IN ('pending', 'held');
    COMMIT;
"""


class AbandonedError(Exception):
    """Nobody waits for the copy any more."""


def copy_store(connect: Callable[[], sqlite3.Connection], target: Path, abandoned: threading.Event) -> None:
    """Copies what is committed now into `target`, an empty file. Blocking, in small steps; the writer goes on meanwhile.

    Args:
        connect: opens a connection to the store, for reading.
        target: where to; the caller removes it when this fails.
        abandoned: set by whoever gives up; the copy then ends at the next step.

    Raises:
        CraneError: UNAVAILABLE, it cannot be read or written; INTERNAL, the copy is damaged, and so is the store then.
        AbandonedError: `abandoned` was set.
    """

    def step(_status: int, _remaining: int, _total: int) -> None:
        if abandoned.is_set():
            raise AbandonedError

    try:
        with closing(connect()) as source, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # All steps see one moment: without this, every commit meanwhile would start the copy anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=PAGES_PER_STEP, progress=step, sleep=PAUSE_S)
            source.execute("ROLLBACK")
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("PRAGMA synchronous = FULL")
            copy.executescript(_READY_TO_START)
            problems = integrity_problems(copy)
    except sqlite3.Error as error:
        raise CraneError(ErrorCode.UNAVAILABLE, f"cannot copy the store to {target}: {error}") from error
    if problems:
        raise CraneError(ErrorCode.INTERNAL, f"the store is damaged: {problems[0]}")


def integrity_problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with a database; empty when nothing is.

    Raises:
        sqlite3.Error: it cannot even be looked at.
    """
    lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
    return [] if lines == ["ok"] else lines
