"""From a URL to an open journal, or to an error that says what is wrong."""

from __future__ import annotations

import psycopg

from agentruns._keeping.journal.problems import UnfitError
from agentruns.errors import ConfigurationError

from .address import Database
from .ledger import PostgresLedger
from .problems import reason_of


def opened(place: Database, vendor: str) -> PostgresLedger:
    """Open the journal, made if there is none; raise `ConfigurationError`."""
    ledger = PostgresLedger(place, vendor)
    try:
        ledger.prepare()
    except BaseException as error:
        ledger.abandon()
        if isinstance(error, psycopg.Error | UnfitError):
            raise ConfigurationError(f"cannot open the journal {place.name}: {reason_of(error)}") from error
        raise
    return ledger
