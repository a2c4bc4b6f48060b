"""The tables, and how those of each older version become those of this one."""

import sqlite3

from cranekit.errors import CraneError, ErrorCode

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (job_id INTEGER PRIMARY KEY, final INTEGER NOT NULL, user TEXT NOT NULL, body TEXT NOT NULL);
    CREATE INDEX jobs_open ON jobs (job_id) WHERE final = 0;
    CREATE TABLE nodes (name TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE owed (node TEXT NOT NULL, job_id INTEGER NOT NULL, attempt INTEGER NOT NULL, body TEXT NOT NULL,
                       PRIMARY KEY (node, job_id, attempt));
    CREATE TABLE events (cursor INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, job_id INTEGER NOT NULL,
                         attempt INTEGER NOT NULL, node TEXT NOT NULL, run_id TEXT UNIQUE, run TEXT);
    CREATE INDEX events_job ON events (job_id, cursor);
    CREATE INDEX events_node ON events (node, cursor) WHERE node <> '';
    CREATE TABLE decisions (cursor INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE breakers (digest TEXT PRIMARY KEY, body TEXT NOT NULL);
    """,
    # What retention needs: when a job ended, when a request came, and counters that outlive the rows they were counted by.
    """
    ALTER TABLE jobs ADD COLUMN state TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN ended_at REAL NOT NULL DEFAULT 0;
    UPDATE jobs SET state = json_extract(body, '$.state'), ended_at = coalesce(json_extract(body, '$.ended_at'), 0);
    CREATE INDEX jobs_ended ON jobs (ended_at) WHERE final = 1;
    CREATE INDEX jobs_of_user ON jobs (user, job_id) WHERE final = 1;
    CREATE INDEX jobs_by_state ON jobs (state, job_id) WHERE final = 1;
    CREATE INDEX events_at ON events (at);
    ALTER TABLE requests RENAME TO requests_1;
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, at REAL NOT NULL, body TEXT NOT NULL);
    INSERT INTO requests SELECT request_id, CAST(strftime('%s', 'now') AS REAL), body FROM requests_1 ORDER BY rowid;
    DROP TABLE requests_1;
    CREATE INDEX requests_at ON requests (at);
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    """,
)
"""Applied in order; PRAGMA user_version counts them. Never edited once released: a change of the tables is one more of them."""


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Brings the tables to this version, each step whole or not at all.

    Raises:
        CraneError: FAILED_PRECONDITION, a newer version of the program has made them.
        sqlite3.Error: they cannot be written, or are damaged.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        message = (
            f"{name}: made by a newer version of cranectld: its tables are of version {version}, this one knows up to {len(MIGRATIONS)}; "
            "start the newer cranectld, or restore a backup of this version"
        )
        raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
    for number in range(version, len(MIGRATIONS)):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
