"""What a table says of the product as a whole: its name, where it is, how the token travels, what it allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentruns._values.auth import Auth, Basic, Bearer, Header, NoAuth, Query
from agentruns._values.exchange import RateLimit
from agentruns.errors import ConfigurationError

from .source import Section


def constants(top: Section, name: str) -> Mapping[str, Any]:
    """Return the constants of the dialect by their names."""
    stem = "".join(each if each.isalnum() else "_" for each in name).upper()
    auth = _auth(top)
    budget = top.section("budget")
    limit = None
    if budget is not None:
        requests = budget.get("requests", int, "a whole number above zero")
        seconds = budget.seconds("seconds", 1.0)
        if requests <= 0:
            budget.wrong("requests", f"it is {requests!r}; it must be a whole number above zero")
        budget.done()
        limit = RateLimit(requests, seconds or 1.0)
    base_url = top.get("base_url", str, "a URL, or empty where each deployment has its own")
    if base_url and not base_url.startswith(("https://", "http://")):
        top.wrong("base_url", f"it is {base_url!r}; it must begin with https://")
    made: dict[str, Any] = {
        "NAME": name,
        "BASE_URL": base_url,
        "TOKEN_VARIABLE": top.text("token_variable", "" if isinstance(auth, NoAuth) else f"{stem}_TOKEN"),
        "BASE_URL_VARIABLE": top.text("base_url_variable", f"{stem}_BASE_URL"),
        "BUDGET": limit,
        "AUTH": auth,
        "DEFAULT_HEADERS": _texts(top, "headers"),
        "DEFAULT_PARAMS": _texts(top, "params"),
    }
    optional = {
        "POLL_SECONDS": top.numbers("poll_seconds", count=2),
        "RUN_SECONDS": top.seconds("run_seconds"),
        "KEY_SECONDS": top.seconds("key_seconds"),
    }
    return {**made, **{key: value for key, value in optional.items() if value is not None}}


def _texts(top: Section, name: str) -> Mapping[str, str]:
    given = top.get(name, dict, "a table of texts", {})
    for key, value in given.items():
        if not isinstance(value, str):
            top.wrong(name, f"{key} is {value!r}; it must be a text")
    return dict(given)


def _auth(top: Section) -> Auth:
    given = top.get("auth", (str, dict), '"bearer", "none", or a table such as {{ header = "x-api-key" }}', "bearer")
    if given == "bearer":
        return Bearer()
    if given == "none":
        return NoAuth()
    if isinstance(given, str):
        top.wrong("auth", f'it is {given!r}; it must be "bearer", "none", or such as {{ header = "x-api-key" }}')
    section = Section(top.source, (*top.key, "auth"), given)
    optional = section.flag("optional", default=False)
    kinds = [each for each in ("bearer", "header", "query", "basic") if section.has(each)]
    if len(kinds) != 1:
        section.has("prefix")
        section.done()
        top.wrong("auth", "it must have one of `bearer = true`, `header`, `query` and `basic`")
    try:
        made: Auth
        if kinds == ["header"]:
            made = Header(section.text("header"), prefix=section.text("prefix", ""), optional=optional)
        elif kinds == ["query"]:
            made = Query(section.text("query"), optional=optional)
        elif kinds == ["basic"]:
            made = Basic(
                section.get("basic", str, "the user, or empty: the token is user:password") or None, optional=optional
            )
        else:
            if not section.flag("bearer", default=True):
                section.wrong("bearer", "it can be `true` only")
            made = Bearer(optional=optional)
    except ConfigurationError as error:
        section.wrong(kinds[0], str(error))
    section.done()
    return made
