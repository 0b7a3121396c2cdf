"""The tables in PostgreSQL, and how a schema comes to have them."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

from agentruns._keeping.journal.problems import UnfitError

from .address import Database

TABLES: Final = ("work", "work_run", "handling", "parked", "tended", "budget_part", "reading", "owner")

_VERSION_1: Final = (
    # A text that is no JSON, or has a NUL that no text of PostgreSQL can have, is no reason to fail.
    r"""
    CREATE FUNCTION {json_text} (document text, VARIADIC path text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
    BEGIN
        RETURN replace(document, '\u0000', '\ufffd')::json #>> path;
    EXCEPTION WHEN others THEN
        RETURN NULL;
    END
    $body$
    """,
    # `commits` counts what was written: so it is known what became of a commit that was not answered.
    "CREATE TABLE {owner} (id text PRIMARY KEY, expires timestamptz NOT NULL, commits bigint NOT NULL DEFAULT 0)",
    """
    CREATE TABLE {work} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        vendor text NOT NULL,
        key text NOT NULL,
        state text NOT NULL CHECK (state IN ('starting', 'open', 'done')),
        owner text NOT NULL,
        created double precision NOT NULL,
        updated double precision NOT NULL,
        group_name text,
        visible_until double precision,
        recovers smallint NOT NULL DEFAULT 0 CHECK (recovers IN (0, 1)),
        found_run text,
        posting_run text,
        posting_at double precision,
        origin text NOT NULL,
        start_note text,
        run text,
        digest text,
        ref_id text GENERATED ALWAYS AS ({json_text}(run, 'ref', 'id')) STORED,
        run_status text GENERATED ALWAYS AS ({json_text}(run, 'status')) STORED,
        UNIQUE (vendor, key)
    )
    """,
    "CREATE INDEX ON {work} (vendor, id) WHERE state <> 'done'",
    "CREATE INDEX ON {work} (vendor, updated)",
    "CREATE INDEX ON {work} (ref_id)",
    "CREATE INDEX ON {work} (id) WHERE run_status = 'failed'",
    # The runs that each piece of work is at, or was: an answer may bring another run.
    """
    CREATE TABLE {work_run} (
        run_id text NOT NULL,
        work bigint NOT NULL REFERENCES {work} (id) ON DELETE CASCADE,
        PRIMARY KEY (run_id, work)
    )
    """,
    "CREATE INDEX ON {work_run} (work)",
    # The work that a service brings to its end and tells of; entered before the work begins, so by its name.
    "CREATE TABLE {tended} (vendor text NOT NULL, key text NOT NULL, PRIMARY KEY (vendor, key))",
    # The permits of a rate limit that each owner holds, and when it said so last; once it is gone, they are free at
    # `returns`. Both are seconds since the epoch, by the clock of the database.
    """
    CREATE TABLE {budget_part} (
        pool text NOT NULL,
        owner text NOT NULL,
        held integer NOT NULL,
        wants smallint NOT NULL CHECK (wants IN (0, 1)),
        seen double precision NOT NULL,
        returns double precision,
        PRIMARY KEY (pool, owner)
    )
    """,
    """
    CREATE TABLE {handling} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        work bigint NOT NULL REFERENCES {work} (id) ON DELETE CASCADE,
        run_id text NOT NULL,
        action_id text NOT NULL,
        name text NOT NULL,
        state text NOT NULL CHECK (state IN ('running', 'answered', 'posted')),
        is_error smallint NOT NULL DEFAULT 0,
        owner text NOT NULL,
        output text,
        digest text,
        UNIQUE (work, run_id, action_id)
    )
    """,
    "CREATE INDEX ON {handling} (run_id, action_id)",
    """
    CREATE TABLE {parked} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        vendor text NOT NULL,
        run_id text NOT NULL,
        action_id text NOT NULL,
        key text,
        state text NOT NULL CHECK (state IN ('waiting', 'answered', 'refused', 'withdrawn')),
        asked double precision NOT NULL,
        expires double precision,
        output text,
        run text NOT NULL,
        digest text,
        changed smallint NOT NULL DEFAULT 0 CHECK (changed IN (0, 1)),
        UNIQUE (vendor, run_id, action_id)
    )
    """,
    "CREATE INDEX ON {parked} (id, asked) WHERE state = 'waiting'",
)

_VERSION_2: Final = (
    # The runs that nobody drives and somebody watches: who reads each, and the last state that was read. `is_done`
    # says that nobody needs to read it any more.
    """
    CREATE TABLE {reading} (
        vendor text NOT NULL,
        run_id text NOT NULL,
        owner text NOT NULL,
        is_done smallint NOT NULL CHECK (is_done IN (0, 1)),
        updated double precision NOT NULL,
        run text,
        PRIMARY KEY (vendor, run_id)
    )
    """,
)

STEPS: Final = (_VERSION_1, _VERSION_2)
"""What brings a schema from each version to the next, the first from nothing; a new version is one more entry."""


def establish(connection: psycopg.Connection[Any], place: Database) -> None:
    """
    Within a transaction, give a schema our tables, or bring older ones up to date.

    Raise `UnfitError` for tables of another version, or of somebody else.
    """
    if connection.execute("SELECT current_setting('server_encoding')").fetchone() != ("UTF8",):
        raise UnfitError("its encoding is not UTF8; create the database with ENCODING 'UTF8'")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (place.number,))
    version = _version(connection, place)
    if version == len(STEPS):
        return
    if version == 0:
        _make_room(connection, place)
    names = {name: _in(place, f"{place.prefix}{name}") for name in (*TABLES, "json_text")}
    for step in STEPS[version:]:
        for statement in step:
            connection.execute(sql.SQL(statement).format(**names))
    told = _in(place, f"{place.prefix}version")
    connection.execute(sql.SQL("UPDATE {} SET number = {}").format(told, sql.Literal(len(STEPS))))


def judge(connection: psycopg.Connection[Any], place: Database) -> None:
    """Raise `UnfitError` unless the tables are there, of this version."""
    version = _version(connection, place)
    if version == 0:
        raise UnfitError(f"its schema {place.schema!r} has none; `connect(..., journal=url)` makes one")
    if version < len(STEPS):
        raise UnfitError("an older agentruns made it; open it once by `connect(..., journal=url)`")


def _version(connection: psycopg.Connection[Any], place: Database) -> int:
    """Return the version of the tables that are there, 0 if there are none; raise `UnfitError` for a later one."""
    told = f"{place.prefix}version"
    if connection.execute("SELECT to_regclass(%s)", (f"{place.schema}.{told}",)).fetchone() == (None,):
        return 0
    found = connection.execute(sql.SQL("SELECT number FROM {}").format(_in(place, told))).fetchone()
    version = int(found[0]) if found else 0
    if version > len(STEPS):
        raise UnfitError(
            f"it has schema version {version}, and this agentruns knows versions up to {len(STEPS)}; "
            "upgrade agentruns, or use another schema"
        )
    return version


def _make_room(connection: psycopg.Connection[Any], place: Database) -> None:
    """Make the schema, unless there is one: whoever may not create schemas may be given one."""
    if connection.execute("SELECT to_regnamespace(%s)", (place.schema,)).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(place.schema)))
    for name in TABLES:
        found = connection.execute("SELECT to_regclass(%s)", (f"{place.schema}.{place.prefix}{name}",)).fetchone()
        if found != (None,):
            raise UnfitError(
                f"its schema {place.schema!r} has a table {place.prefix}{name} of another program; choose another "
                "schema, or a prefix, by `?schema=` or `?prefix=`"
            )
    told = _in(place, f"{place.prefix}version")
    connection.execute(sql.SQL("CREATE TABLE {} (number integer NOT NULL)").format(told))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (0)").format(told))


def _in(place: Database, name: str) -> sql.Identifier:
    return sql.Identifier(place.schema, name)
