"""The tables, and how a file comes to have them."""

from __future__ import annotations

import sqlite3
from typing import Final

from .problems import UnfitError

APPLICATION_ID: Final = 0x6152756E
"""Stands in the header of every journal of ours ("aRun"), so that no other program's file is taken for one."""

FAILED: Final = "CASE WHEN json_valid(run) THEN json_extract(run, '$.status') END = 'failed'"
"""Which work has failed: a query that says it so is answered by an index."""

_VERSION_1: Final = (
    # Long texts stand last: whatever stands behind them is slow to reach.
    """
    CREATE TABLE work (
        id INTEGER PRIMARY KEY,
        vendor TEXT NOT NULL,
        key TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('starting', 'open', 'done')),
        owner TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        origin TEXT NOT NULL,
        note TEXT,
        run TEXT,
        UNIQUE (vendor, key)
    )
    """,
    "CREATE INDEX unfinished ON work (vendor, id) WHERE state <> 'done'",
    """
    CREATE TABLE handling (
        id INTEGER PRIMARY KEY,
        work INTEGER NOT NULL REFERENCES work (id) ON DELETE CASCADE,
        run_id TEXT NOT NULL,
        action_id TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'answered', 'posted')),
        is_error INTEGER NOT NULL DEFAULT 0,
        owner TEXT NOT NULL,
        output TEXT,
        UNIQUE (work, run_id, action_id)
    )
    """,
)

_VERSION_2: Final = (
    """
    CREATE TABLE parked (
        id INTEGER PRIMARY KEY,
        vendor TEXT NOT NULL,
        run_id TEXT NOT NULL,
        action_id TEXT NOT NULL,
        key TEXT,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'answered', 'refused', 'withdrawn')),
        asked REAL NOT NULL,
        expires REAL,
        output TEXT,
        run TEXT NOT NULL,
        UNIQUE (vendor, run_id, action_id)
    )
    """,
    "CREATE INDEX changed ON work (vendor, updated)",
    "CREATE INDEX waiting ON parked (id, asked) WHERE state = 'waiting'",
)

_VERSION_3: Final = (
    # What is known of a start and of answers under way was one JSON text, `note`. A new table in the place of the old
    # one, since a column that is added stands last, behind the long texts.
    """
    CREATE TABLE work_3 (
        id INTEGER PRIMARY KEY,
        vendor TEXT NOT NULL,
        key TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('starting', 'open', 'done')),
        owner TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        group_name TEXT,
        visible_until REAL,
        recovers INTEGER NOT NULL DEFAULT 0 CHECK (recovers IN (0, 1)),
        found_run TEXT,
        posting_run TEXT,
        posting_at REAL,
        origin TEXT NOT NULL,
        start_note TEXT,
        run TEXT,
        UNIQUE (vendor, key)
    )
    """,
    """
    INSERT INTO work_3 SELECT id, vendor, key, state, owner, created, updated,
        json_extract(known, '$.among'),
        CASE WHEN json_extract(known, '$.among') IS NOT NULL
            THEN ifnull(json_extract(known, '$.at'), 0) + ifnull(json_extract(known, '$.shown'), 0) END,
        ifnull(json_extract(known, '$.recovers'), 0),
        json_extract(known, '$.found'),
        json_extract(known, '$.posting'),
        CASE WHEN json_extract(known, '$.posting') IS NOT NULL THEN json_extract(known, '$.at') END,
        origin,
        CASE WHEN known IS NOT note THEN note
            WHEN json_extract(known, '$.posting') IS NULL
            THEN json_remove(known, '$.among', '$.at', '$.shown', '$.recovers', '$.found') END,
        run
    FROM (SELECT *, CASE WHEN json_valid(note) THEN note ELSE '{}' END AS known FROM work)
    """,
    "DROP TABLE work",
    "ALTER TABLE work_3 RENAME TO work",
    "CREATE INDEX unfinished ON work (vendor, id) WHERE state <> 'done'",
    "CREATE INDEX changed ON work (vendor, updated)",
)

_VERSION_4: Final = (
    # What an answer was given to: the digest of the action's name and arguments, NULL where it is not known.
    "ALTER TABLE handling ADD COLUMN digest TEXT",
    "ALTER TABLE parked ADD COLUMN digest TEXT",
    "ALTER TABLE parked ADD COLUMN changed INTEGER NOT NULL DEFAULT 0 CHECK (changed IN (0, 1))",
    "CREATE INDEX answers_to ON handling (run_id, action_id)",
)

_VERSION_5: Final = (
    # What was asked for under the key: the digest of the request, NULL where it is not known.
    "ALTER TABLE work ADD COLUMN digest TEXT",
    f"CREATE INDEX failed ON work (id) WHERE {FAILED}",
)

_VERSION_6: Final = (
    # The runs that each piece of work is at, or was: an answer may bring another run.
    """
    CREATE TABLE work_run (
        run_id TEXT NOT NULL,
        work INTEGER NOT NULL REFERENCES work (id) ON DELETE CASCADE,
        PRIMARY KEY (run_id, work)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX runs_of ON work_run (work)",
    """
    INSERT OR IGNORE INTO work_run SELECT * FROM (
        SELECT CASE WHEN json_valid(run) THEN json_extract(run, '$.ref.id') END AS run_id, id FROM work
    ) WHERE typeof(run_id) = 'text'
    """,
    "INSERT OR IGNORE INTO work_run SELECT run_id, work FROM handling",
    # The work that a service brings to its end and tells of; entered before the work begins, so by its name.
    "CREATE TABLE tended (vendor TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (vendor, key)) WITHOUT ROWID",
)

_VERSION_7: Final = (
    # The permits of a rate limit that each owner holds, and when it said so last; once it is gone, they are free at
    # `returns`. Both are seconds since the epoch.
    """
    CREATE TABLE budget_part (
        pool TEXT NOT NULL,
        owner TEXT NOT NULL,
        held INTEGER NOT NULL,
        wants INTEGER NOT NULL CHECK (wants IN (0, 1)),
        seen REAL NOT NULL,
        returns REAL,
        PRIMARY KEY (pool, owner)
    ) WITHOUT ROWID
    """,
)

_VERSION_8: Final = (
    # The runs that nobody drives and somebody watches: who reads each, and the last state that was read. `is_done`
    # says that nobody needs to read it any more.
    """
    CREATE TABLE reading (
        vendor TEXT NOT NULL,
        run_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        is_done INTEGER NOT NULL CHECK (is_done IN (0, 1)),
        updated REAL NOT NULL,
        run TEXT,
        PRIMARY KEY (vendor, run_id)
    )
    """,
)

STEPS: Final = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7, _VERSION_8)
"""What brings a file from each version to the next, the first from nothing; a new version is one more entry."""


def judge(connection: sqlite3.Connection) -> int:
    """Return the schema version of a file that has one of ours; raise `UnfitError` for any other."""
    found = _pragma(connection, "application_id")
    if found != APPLICATION_ID:
        raise UnfitError(f"it is an SQLite file of another program (application id {found:#x}); use another path")
    version = _pragma(connection, "user_version")
    if not 1 <= version <= len(STEPS):
        raise UnfitError(
            f"it has schema version {version}, and this agentruns knows versions up to {len(STEPS)}; "
            "upgrade agentruns, or use another path"
        )
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')"):
        raise UnfitError(f"it has a {kind}, {name!r}, which agentruns never makes: it would run what others wrote")
    return version


def establish(connection: sqlite3.Connection) -> bool:
    """
    Within a transaction, give an empty file our tables, bring an older one up to date; tell whether that was needed.

    Writes in any case: a file that cannot be written is opened all the same, and says no only when it is written.
    Foreign keys must be off meanwhile: a table that is dropped for its successor must not take other rows with it.
    """
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and not _pragma(
        connection, "application_id"
    )
    version = 0 if is_new else judge(connection)
    for step in STEPS[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    return version < len(STEPS)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
