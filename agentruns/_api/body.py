"""What is sent of a request: its headers and its body."""

from __future__ import annotations

from collections.abc import Container, Mapping
from urllib.parse import unquote_plus, urlencode

from agentruns._values import codec
from agentruns._values.exchange import Request


def merged(headers: Mapping[str, str], first: Mapping[str, str]) -> dict[str, str]:
    """Return all headers; of those whose names differ at most in case, that of *first*."""
    if not first:
        return dict(headers)
    names = {name.lower() for name in first}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **first}


def encoded(request: Request) -> tuple[bytes, str]:
    """Return the body of a request and the type of it."""
    match request.data:
        case None:
            return codec.encode(request.json), "application/json"
        case bytes(content):
            return content, "application/octet-stream"
        case str(text):
            return text.encode(), "text/plain; charset=utf-8"
        case fields:
            return urlencode(fields).encode(), "application/x-www-form-urlencoded"


def without_params(path: str, names: Container[str]) -> str:
    """Return a path without the query parameters of these names."""
    bare, _, query = path.partition("?")
    kept = [each for each in query.split("&") if unquote_plus(each.partition("=")[0]) not in names]
    return f"{bare}?{'&'.join(kept)}" if kept else bare


def plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as aiohttp, and those who record what it sends, are to have them: of plain texts."""
    return {name: str(value) for name, value in headers.items()}
