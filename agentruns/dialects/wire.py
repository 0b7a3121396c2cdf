"""What every dialect needs between a request and an answer: paths, bodies, Retry-After."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

from agentruns._values import codec
from agentruns._values.commands import AwaitSlot, Checkpoint, ClaimRun, Flow, Ownership
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, JsonText, Run, RunRef
from agentruns.errors import ConfigurationError, OutcomeUnknownError, ProtocolError

T = TypeVar("T")

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""What `quote` leaves as it is; it takes ten times as long to say so."""

_NO_NAMES: Final = frozenset({"", ".", ".."})
"""What stands for nothing, or for another place, in a path."""


def path(*parts: object) -> str:
    """
    Return the parts as a path, each escaped, so that an id can never climb out of its place.

    Raise `ConfigurationError` for a part that is empty, `.` or `..`, or no text that UTF-8 can carry.
    """
    return "/" + "/".join(map(_segment, parts))


def _segment(part: object) -> str:
    try:
        if isinstance(part, str) and part not in _NO_NAMES:
            if _PLAIN.fullmatch(part):
                return part
            return quote(part, safe="")
    except UnicodeEncodeError:
        pass
    raise ConfigurationError(f"{part!r} cannot stand in the path of a request; pass the id that the vendor gave")


def query(params: Mapping[str, str | Sequence[str]]) -> str:
    """Return `?a=1&a=2` for the end of a path: the way to repeat a parameter; empty where there is none."""
    encoded = urlencode({name: value for name, value in params.items() if value or value == ""}, doseq=True)
    return f"?{encoded}" if encoded else ""


def is_name(text: str) -> bool:
    """Tell whether an id that a vendor gave can stand in the path of a request."""
    return text not in _NO_NAMES


def link(url: Json, response: Response) -> str:
    """
    Return the path, below the base URL, of a link that a vendor gave in *response*: of the next page, say.

    Raise `ProtocolError` for what is no text, and for a link to another origin or out of the base URL: the token would
    go there.
    """
    base, asked = urlsplit(response.base_url), response.request
    root = base.path.rstrip("/")
    try:
        if not isinstance(url, str) or _UNSAFE.search(url):
            raise ValueError("it is no URL")
        to = urlsplit(urljoin(f"{base.scheme}://{base.netloc}{root}{asked.path}" if base.netloc else asked.path, url))
        if _origin(to) != _origin(base) or "@" in to.netloc:
            raise ValueError("it leads to another origin, where the token must not go")
        if not to.path.startswith(f"{root}/") or to.path.startswith(f"{root}//"):
            raise ValueError(f"it leads out of {root or '/'}, which the base URL stands for")
    except ValueError as error:
        shown = str(url)[:200]
        raise ProtocolError(
            f"the answer to {asked.line} has the link {shown!r}, which is not followed: {error}", response
        ) from None
    return to.path.removeprefix(root) + (f"?{to.query}" if to.query else "")


def location(response: Response) -> str:
    """Return the path of the `Location` that an answer such as 201 or 202 names, or raise `ProtocolError` as `link`."""
    return link(response.headers.get("location"), response)


_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\\]")
_PORTS: Final = {"http": 80, "https": 443}


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def ref(run_id: str, parent: str, *, owned: bool = False, response: Response | None = None) -> RunRef:
    """
    Return the name of a run as a vendor gave it; one that is *owned* is found by its parent only.

    Raise `ProtocolError` for one that no path can have.
    """
    if not is_name(run_id) or not is_name(parent or ("" if owned else "none")):
        raise ProtocolError(
            f"the vendor names a run {run_id!r} of {parent!r}, which no request can ask for @ $.id", response
        )
    return RunRef(run_id, parent)


def unique(actions: tuple[Action, ...], response: Response | None = None) -> tuple[Action, ...]:
    """
    Return the actions of one pause as they are; raise `ProtocolError` where two have one id.

    An answer names its action by the id alone: one approval would let both go on.
    """
    ids = [action.id for action in actions]
    if len(set(ids)) < len(ids):
        twice = sorted({each for each in ids if ids.count(each) > 1})
        raise ProtocolError(f"the vendor asks two things under one id: {', '.join(map(repr, twice))}", response)
    return actions


def read_value(response: Response) -> Json:
    """Return the JSON value of an answer, whatever it is, or raise `ProtocolError`."""
    try:
        return response.value
    except codec.CodecError as error:
        raise ProtocolError(f"the answer to {response.request.line} is not JSON: {error}", response) from error


def read_object(response: Response, *envelope: str) -> Mapping[str, Json]:
    """Return the JSON object of an answer, taken out of its *envelope* keys, or raise `ProtocolError`."""
    value = read_value(response)
    where = "$"
    for key in envelope:
        value = value.get(key) if isinstance(value, dict) else None
        where += f".{key}"
    if not isinstance(value, dict):
        raise ProtocolError(f"the answer to {response.request.line} has no object @ {where}", response)
    return value


def read(response: Response, cls: type[T], *envelope: str) -> T:
    """Return what an answer has in its *envelope* keys as *cls*, or raise `ProtocolError` that names the JSON path."""
    path = ".".join(("$", *envelope))
    return structure(read_object(response, *envelope), cls, response, path)


def glance(response: Response, cls: type[T]) -> T | None:
    """
    Return what an answer has of *cls*, without a look at the rest: a poll of a run in flight needs no more.

    None where it does not fit to the letter: then read it by `read_object` and `structure`, which say what is wrong.
    Times without an offset stay without one.
    """
    return codec.glance(response.body, cls)


def look(run: Run[Any], cls: type[T]) -> T:
    """
    Return what the JSON object of a run has of *cls*, or raise `ProtocolError` that names the JSON path.

    Where the run has it as text, a glance at that is enough: times without an offset may stay without one.
    """
    seen = run._raw.glance(cls) if isinstance(run._raw, JsonText) else None
    return structure(run.raw, cls, f"run {run.id}") if seen is None else seen


def structure(value: Json, cls: type[T], source: Response | str, path: str = "$") -> T:
    """Return *value* as *cls*; *source* is what the error names: an answer, or in words where else it came from."""
    try:
        return codec.structure(value, cls, path)
    except codec.CodecError as error:
        response = None if isinstance(source, str) else source
        told = source if response is None else f"the answer to {response.request.line}"
        raise ProtocolError(f"{told} is not what the vendor documents for {cls.__name__}: {error}", response) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds of `retry-after-ms` or else `Retry-After`, None where there is none to obey.

    Seconds, or an HTTP-date measured against the answer's own Date (RFC 9110, section 10.2.3). Malformed is None, a
    date that has passed is 0.
    """
    exact = _milliseconds(headers.get("retry-after-ms"))
    if exact is not None:
        return exact
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        until = http_date(text)
        if until is None:
            return None
        seconds = (until - (http_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
        return max(seconds, 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def retry_after_refusal(response: Response) -> float | None:
    """
    Return the seconds to wait after a refusal: those of `Retry-After`, else of a 429 until its limit is reset.

    That is told by headers such as `X-RateLimit-Reset`, or `X-RateLimit-Reset-Global` beside
    `X-RateLimit-Remaining-Global`, as a Unix time; of several limits, by those that are used up.
    """
    asked = retry_after(response.headers)
    if asked is not None or response.status != HTTPStatus.TOO_MANY_REQUESTS:
        return asked
    now = (http_date(response.headers.get("date", "")) or datetime.now(UTC)).timestamp()
    resets = [
        float(value) - now
        for name, value in response.headers.items()
        if name.startswith(_RESET)
        and _UNIX_TIME.fullmatch(value)
        and response.headers.get(name.replace(_RESET, _REMAINING), "0") == "0"
    ]
    return max(max(resets), 0.0) if resets else None


_RESET: Final = "x-ratelimit-reset"
_REMAINING: Final = "x-ratelimit-remaining"
_UNIX_TIME: Final = re.compile(r"\d{10}")


def poll_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds that an answer asks to wait before the run is read again, None where it does not ask.

    Read of every answer whose run has no `poll_after` of its own: no dialect has to.
    """
    exact = _milliseconds(headers.get("openai-poll-after-ms"))
    return retry_after(headers) if exact is None else exact


def _milliseconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text) / 1000
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def http_date(text: str) -> datetime | None:
    """Return the moment that an HTTP-date names, None if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return codec.utc(moment)


def drop_none(fields: Mapping[str, Json]) -> dict[str, Json]:
    """Return the fields that are set: what is None is left out of a request."""
    return {name: value for name, value in fields.items() if value is not None}


def error_body(response: Response) -> Mapping[str, Json]:
    """Return the JSON object of an error answer; empty for anything else, such as a proxy's HTML."""
    try:
        body = response.value
    except codec.CodecError:
        return {}
    return body if isinstance(body, Mapping) else {}


def mapping(value: Json) -> Mapping[str, Json]:
    """Return *value* if it is a JSON object, else an empty one: for what is read without being checked."""
    return value if value.__class__ is dict or isinstance(value, Mapping) else {}  # the latter takes ten times as long


def objects(value: Json) -> list[Mapping[str, Json]]:
    """Return the objects of a list, and none of what is no list: for what is read without being checked."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def first_text(body: Mapping[str, Json], *keys: str) -> str | None:
    """Return the first of the *keys* that holds a text with something in it."""
    return next((body[key] for key in keys if isinstance(body.get(key), str) and body[key]), None)


def body_excerpt(response: Response) -> str:
    """Return the beginning of an error body, for what is not in the vendor's form."""
    return response.body[:200].decode("utf-8", "replace").strip()


def checkpoint(data: Mapping[str, Json], group: str = "", visible_after: float = 0.0) -> Flow[bool]:
    """
    Have *data* kept before the next request that is not idempotent, as `Checkpoint` tells; return whether it is.

    It is not where another start of the *group* had to be waited for: look again, then, at what was there before, and
    ask again. Without a group it always is.
    """
    return (yield Checkpoint(data, group, visible_after)).status != Ownership.OTHERS


def await_slot(seconds: float, longest: float) -> Flow[bool]:
    """
    Wait until the vendor may have a slot for a start that it refused, as `AwaitSlot` tells; return if to ask again.

    It asks to be left alone for *seconds*; where nobody is more patient, no more than *longest* are waited.
    """
    return (yield AwaitSlot(seconds, longest)).status != Ownership.OTHERS


def never_found(origin: object, note: Mapping[str, Json]) -> Flow[NoReturn]:  # noqa: ARG001
    """
    Be the `recover` of a vendor whose starts can be neither repeated nor found.

    Its `start` says `yield from checkpoint({"path": "/runs"})` before it posts. A start that was cut off after that has
    an outcome that nobody knows, and its key is told so by `OutcomeUnknownError`.
    """
    yield from ()
    raise OutcomeUnknownError(
        Request("POST", str(note.get("path", "/"))),
        "the process that sent this start died before it had the answer, and the vendor cannot be asked for it",
    )


def never_answered(run: Run) -> Flow[NoReturn]:
    """
    Be the `answered_by` of a vendor whose answers begin another run, and can be neither repeated nor found.

    An answer whose reply got lost, or that a crash cut off, is not sent again: what became of it, nobody knows.
    """
    yield from ()
    raise OutcomeUnknownError(
        Request("POST", f"/ (the answers to run {quote(run.id, errors='replace')})"),
        "they were sent before, and the vendor cannot be asked what became of them",
        remedy="if you know that they did not arrive, `client.resume(run, outputs, again=True)` sends them",
    )


def claim_run(run_id: str) -> Flow[Ownership]:
    """Return whose run that is: ours from now on, that of another start, or perhaps that of one which has died."""
    answer = yield ClaimRun(run_id)
    return Ownership(answer.status) if answer.status in {Ownership.UNCLEAR, Ownership.OTHERS} else Ownership.MINE
