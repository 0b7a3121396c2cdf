"""A connection to the database, set up so that one that is cut off is missed soon, on both sides."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from .address import Database

_CONNECT_SECONDS: Final = 5
_IDLE_SECONDS: Final = 5
"""How long the database waits for the rest of a transaction: whoever is cut off keeps the others no longer."""

_LOCK_SECONDS: Final = 10
"""How long it waits for the transactions of others."""

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
    made = psycopg.connect(place.conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor, **options)
    try:
        made.execute(
            f"SET search_path = {place.schema}; SET lock_timeout = '{_LOCK_SECONDS}s'; SET client_encoding = 'UTF8';"
            f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'; SET standard_conforming_strings = on"
        )
    except BaseException:
        made.close()
        raise
    return made
