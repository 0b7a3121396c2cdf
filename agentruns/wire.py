"""What every dialect needs between a request and an answer: paths, bodies, Retry-After."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

from . import codec
from .errors import ConfigurationError, ProtocolError
from .model import Response

T = TypeVar("T")


def path(*parts: Any) -> str:
    """
    Return the parts as a path, each escaped, so that an id can never climb out of its place.

    Raise `ConfigurationError` for a part that is empty, `.` or `..`.
    """
    for part in parts:
        if not isinstance(part, str) or part in {"", ".", ".."}:
            raise ConfigurationError(
                f"{part!r} cannot stand in the path of a request; pass the id that the vendor gave"
            )
    return "/" + "/".join(quote(part, safe="") for part in parts)


def read_object(response: Response, *envelope: str) -> Mapping[str, Any]:
    """Return the JSON object of an answer, taken out of its *envelope* keys, or raise `ProtocolError`."""
    try:
        value = codec.decode(response.body)
    except codec.CodecError as error:
        raise ProtocolError(f"the answer to {response.request.line} is not JSON: {error}") from error
    where = "$"
    for key in envelope:
        value = value.get(key) if isinstance(value, Mapping) else None
        where += f".{key}"
    if not isinstance(value, Mapping):
        raise ProtocolError(f"the answer to {response.request.line} has no object @ {where}")
    return value


def read(response: Response, cls: type[T], *envelope: str) -> T:
    """Return the answer as *cls*, or raise `ProtocolError` that names the JSON path."""
    return structure(read_object(response, *envelope), cls, response.request.line)


def structure(value: Any, cls: type[T], source: str) -> T:
    """Return *value* as *cls*; *source* is what the error names: a request line, or where else it came from."""
    try:
        return codec.structure(value, cls)
    except codec.CodecError as error:
        raise ProtocolError(
            f"the answer to {source} is not what the vendor documents for {cls.__name__}: {error}"
        ) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds of a `Retry-After` header, None where there is none to obey.

    Seconds, or an HTTP-date measured against the answer's own Date (RFC 9110, section 10.2.3). Malformed is None, a
    date that has passed is 0.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        until = _http_date(text)
        if until is None:
            return None
        seconds = (until - (_http_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
        return max(seconds, 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
