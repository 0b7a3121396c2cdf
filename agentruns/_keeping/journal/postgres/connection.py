"""A connection to the database, set up so that one that is cut off is missed soon, on both sides."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

import psycopg

from .address import Database

_CONNECT_SECONDS: Final = 5
_IDLE_SECONDS: Final = 5
"""How long the database waits for the rest of a transaction: whoever is cut off keeps the others no longer."""

_LOCK_SECONDS: Final = 10
"""How long it waits for the transactions of others."""

ANSWER_SECONDS: Final = 20.0
"""How long an answer is waited for: something between here and the database may have fallen silent."""

_NETWORK: Final = {
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "application_name": "agentruns",
}


def connection_to(place: Database) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect; what the URL says of the network goes before what is set here."""
    given = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    options: dict[str, Any] = {name: value for name, value in _NETWORK.items() if name not in given}
    made: psycopg.Connection[tuple[Any, ...]] = _Connection.connect(
        place.conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor, **options
    )
    try:
        made.execute(
            f"SET search_path = {place.schema}; SET lock_timeout = '{_LOCK_SECONDS}s'; SET client_encoding = 'UTF8';"
            f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'; SET standard_conforming_strings = on;"
            "SELECT set_config('synchronous_commit', 'on', false)"  # what is told to be kept outlives a crash
            " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
    except BaseException:
        made.close()
        raise
    return made


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits for an answer no longer than `ANSWER_SECONDS`."""

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Do as the class above does, in time."""
        return super().wait(_in_time(gen), *args, **options)


def _in_time(gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do as *gen* does, which waits for the socket, and is asked now and then while nothing comes."""
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if time.monotonic() > deadline:
                raise psycopg.OperationalError(f"no answer for {ANSWER_SECONDS:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
