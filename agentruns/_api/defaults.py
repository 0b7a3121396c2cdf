"""What every request of one client has besides its own: headers and query parameters, checked beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from agentruns._values.auth import HEADER_NAME, Auth
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

_OURS: Final = frozenset({
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
})
"""Headers that the client sets itself."""


@frozen
class Defaults:
    """Headers and query parameters of every request; those of a request itself come first."""

    headers: Mapping[str, str] = field(factory=dict)
    params: Mapping[str, str] = field(factory=dict)


def defaults_of(dialect: Vendor, headers: Any, params: Any, auth: Auth | None = None) -> Defaults:
    """
    Return what a dialect wants with every request, and what a user adds to that.

    Raise `ConfigurationError`, naming the entry, for what no request can carry.
    """
    own = Defaults(dialect.DEFAULT_HEADERS, dialect.DEFAULT_PARAMS)
    taken = _OURS.union((dialect.AUTH if auth is None else auth).names())
    return Defaults(
        {**_lower(own.headers), **_lower(_checked("headers", headers, taken))},
        {**own.params, **_checked("params", params)},
    )


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _checked(what: str, given: Any, taken: frozenset[str] = _OURS) -> Mapping[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{what} is {given!r}; it must be a mapping of names to texts", field=what)
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise ConfigurationError(f"{what} has {name!r}: {value!r}; both must be texts", field=what)
        if what == "headers":
            _check_header(name, value, taken)
    return dict(given)


def _check_header(name: str, value: str, taken: frozenset[str]) -> None:
    if not HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"headers has {name!r}, whose name or value no header can carry", field="headers")
    if name.lower() in taken:
        raise ConfigurationError(f"headers has {name!r}, which the client sets itself", field="headers")
