"""What is wrong with a database, in words that say what to do."""

from __future__ import annotations

from typing import Final

import psycopg

from agentruns._keeping.journal.problems import reason
from agentruns._values.printable import printable

_OF_STATE: Final = {
    "25006": "it can only be read, as a replica can; use the address of the primary",
    "28000": "it does not let this user in; look at the user, the password and pg_hba.conf",
    "28P01": "it does not let this user in; look at the user and the password",
    "3D000": "there is no such database; create it, or use another one",
    "3F000": "there is no such schema; let a role that may create it open the journal once",
    "42501": "this user lacks a right; grant what the guide names, or let the owner of the schema open it once",
    "53100": "its disk is full; free some space, then make the same call again",
    "53300": "it has no connection left; raise max_connections, or run fewer processes",
    "55P03": "another program keeps it locked; end that program's transaction, then make the same call again",
    "57014": "another program keeps it locked; end that program's transaction, then make the same call again",
    "57P03": "it is starting or stopping; make the same call again",
}
_OF_TEXT: Final = {
    "authentication failed": "28P01",
    "no pg_hba.conf entry": "28000",
    "does not exist": "3D000",
    "too many clients": "53300",
    "connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
}
"""What a server says that lets nobody in, for which libpq tells no state."""

_UNREACHABLE: Final = "it cannot be reached; look at the database and the network, then make the same call again"


def reason_of(error: Exception) -> str:
    """Return what an error of the database means, and what helps; one line, safe to print."""
    if not isinstance(error, psycopg.Error):
        return reason(error)
    told = " ".join(str(error).split())
    known = _OF_STATE.get(error.sqlstate or _state_of(told))
    if known is None and is_lost(error):
        known = _UNREACHABLE
    return printable(f"{known} ({told})" if known else f"{type(error).__name__}: {told}")


def is_lost(error: Exception) -> bool:
    """Tell whether an error means that the connection is no more: shut down by the server, or cut off."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith(("08", "57P")) or state == "25P03"


def _state_of(told: str) -> str:
    return next((state for text, state in _OF_TEXT.items() if text in told), "")
