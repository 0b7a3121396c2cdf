"""The URL of a database: what of it is libpq's, what is ours, and what of it may be shown."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import field, frozen

from agentruns._values.secret import Secret
from agentruns.errors import ConfigurationError

SCHEMES: Final = ("postgresql://", "postgres://")
SCHEMA: Final = "agentruns"
LEASE_SECONDS: Final = 15.0

_NAME: Final = re.compile("[a-z_][a-z0-9_]*")
_PERCENT: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_LONGEST_NAME: Final = 40
_SHORTEST_LEASE: Final = 1.0
_LONGEST_LEASE: Final = 3600.0


@frozen
class Database:
    """
    Where the tables are: a database, a schema of it, and what the names of the tables begin with.

    `name` is what texts and errors call it, without user, password and options. `lease_seconds` is for how long an
    owner that is not heard of counts as alive.
    """

    name: str
    conninfo: str = field(repr=False)
    schema: str = SCHEMA
    prefix: str = ""
    lease_seconds: float = LEASE_SECONDS

    @property
    def number(self) -> int:
        """Return the number of the lock under which these tables are written: one of 64 bits."""
        place = hashlib.sha256(f"agentruns {self.schema} {self.prefix}".encode()).digest()
        return int.from_bytes(place[:8], signed=True)

    @property
    def channel(self) -> str:
        """Return the name of the channel on which writes to these tables are told."""
        return f"agentruns_{self.number & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def database(url: str) -> Database:
    """
    Return what a URL means; raise `ConfigurationError` for one that means nothing.

    `schema`, `prefix` and `lease` among its options are ours, everything else goes to libpq.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # it quotes what it was given
        raise _refused("its host is none; write a `[` or `]` of the password as %5B and %5D") from None
    if "@" in parts.path or "@" in parts.query or "@" in parts.netloc.rpartition("@")[0]:
        raise _refused("the user or the password has an `@`, a `/` or a `?`; write them as %40, %2F and %3F")
    if _PERCENT.search(url):
        raise _refused("a `%` of it stands for itself; write it as %25")
    if "\0" in url or parts.fragment:
        raise _refused("it has a `#` or a NUL; write a `#` of the password as %23")
    ours = {"schema": SCHEMA, "prefix": "", "lease": f"{LEASE_SECONDS:g}"}
    theirs: list[tuple[str, str]] = []
    for option, value in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True):
        if option in ours:
            ours[option] = value
        else:
            theirs.append((option, value))
    schema, prefix = _name("schema", ours["schema"]), _name("prefix", ours["prefix"]) if ours["prefix"] else ""
    chosen = {name: value for name, value in (("schema", schema), ("prefix", prefix)) if value not in {"", SCHEMA}}
    shown = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Database(
        name=f"{shown}?{urlencode(chosen)}" if chosen else shown,
        conninfo=Secret(f"postgresql://{parts.netloc}{parts.path}?{urlencode(theirs, quote_via=quote)}".rstrip("?")),
        schema=schema,
        prefix=prefix,
        lease_seconds=_lease(ours["lease"]),
    )


def _name(option: str, value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > _LONGEST_NAME or value.startswith("pg_"):
        raise _refused(
            f"{option} is {value!r}; it must be lower-case letters, digits and _, at most {_LONGEST_NAME}, and "
            "must not begin with a digit or pg_"
        )
    return value


def _lease(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_LEASE <= seconds <= _LONGEST_LEASE:
        raise _refused(f"lease is {value!r}; it must be {_SHORTEST_LEASE:g} to {_LONGEST_LEASE:g} seconds")
    return seconds


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"journal is no URL of a PostgreSQL database: {why}", field="journal")
