"""The request bodies of Middesk, read: a field that is missing or does not fit becomes a refusal that names it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON

from .errors import NO_CONTEXT, RefusedError, invalid, not_found

_LONGEST_COMMENT = 5000
_ACTION_TYPES: Final = frozenset({"add_sources", "add_attributes", "verify_tin", "decision", "dismissal"})
_OBJECT_TYPES: Final = frozenset({"businesses", "watchlist_result"})


@frozen
class Context:
    """What a thread is about; `business` is the only kind that the pages show."""

    kind: str
    id: str


@frozen(kw_only=True)
class StartBody:
    """The body of POST /v1/runs and POST /v1/threads, whose fields are the same but for `thread_id`."""

    agent: str
    thread_id: str | None = None
    context: Context | None = None


@frozen(kw_only=True)
class ResumeBody:
    """The body of POST /v1/runs/{id}/resume."""

    interrupt_id: str
    answer: JSON


@frozen(kw_only=True)
class FeedbackBody:
    """The body of POST /v1/runs/{id}/feedback."""

    rating: Literal["POSITIVE", "NEGATIVE"]
    artifact_id: str
    comment: str | None


@frozen(kw_only=True)
class WebhookBody:
    """The body of POST /v1/webhooks."""

    url: str
    enabled_events: tuple[str, ...]
    secret: str | None
    include: str | None


@frozen(kw_only=True)
class ActionBody:
    """The body of POST /v1/actions."""

    type: str
    object_type: str
    object_id: str
    payload: Mapping[str, JSON]
    note: str | None
    thread_id: str | None
    run_id: str | None


def start_body(content: bytes, *, strict: bool) -> StartBody:
    """Read who runs where, about what; unknown fields, such as the `input` of earlier days, are ignored."""
    body = _object(content)
    agent = _text(body, "type")
    if agent is None:
        raise invalid("type is missing", "type")
    return StartBody(agent=agent, thread_id=_text(body, "thread_id"), context=_context(body, strict=strict))


def resume_body(content: bytes, keys: tuple[str, str], *, strict: bool) -> ResumeBody:
    """Read which interrupt is answered with what; any JSON value is an answer, null included."""
    body = _object(content, status=422)
    id_key, input_key = keys
    interrupt_id = _text(body, id_key)
    if interrupt_id is None and not strict:
        interrupt_id = _text(body, "id")
    if interrupt_id is None:
        raise invalid(f"{id_key} is missing", id_key)
    if strict and input_key not in body:
        raise invalid(f"{input_key} is missing", input_key)
    return ResumeBody(interrupt_id=interrupt_id, answer=body.get(input_key))


def feedback_body(content: bytes) -> FeedbackBody:
    """Read a rating; the comment is trimmed and, when blank, becomes null."""
    body = _object(content, status=422)
    rating = body.get("rating")
    if rating != "POSITIVE" and rating != "NEGATIVE":
        raise invalid("rating is POSITIVE or NEGATIVE", "rating")
    artifact_id = _text(body, "artifact_id")
    if artifact_id is None:
        raise invalid("artifact_id is missing", "artifact_id")
    comment = (_text(body, "comment") or "").strip() or None
    if comment is not None and len(comment) > _LONGEST_COMMENT:
        raise invalid(f"comment is longer than {_LONGEST_COMMENT} characters", "comment")
    return FeedbackBody(
        rating="POSITIVE" if rating == "POSITIVE" else "NEGATIVE", artifact_id=artifact_id, comment=comment
    )


def webhook_body(content: bytes) -> WebhookBody:
    """Read a subscription; both `url` and `enabled_events` are required."""
    body = _object(content, status=422)
    return WebhookBody(
        url=_address(body), enabled_events=_wanted(body), secret=_text(body, "secret"), include=_text(body, "include")
    )


def webhook_changes(content: bytes) -> Mapping[str, Any]:
    """Read what of a subscription is changed."""
    body = _object(content, status=422)
    read: Mapping[str, Callable[[Mapping[str, JSON]], object]] = {
        "url": _address,
        "enabled_events": _wanted,
        "secret": lambda body: _text(body, "secret"),
        "include": lambda body: _text(body, "include"),
        "disabled_at": lambda body: _text(body, "disabled_at"),
    }
    return {name: of(body) for name, of in read.items() if name in body}


def _address(body: Mapping[str, JSON]) -> str:
    url = _text(body, "url")
    if url is None or not url.startswith(("http://", "https://")):
        raise invalid("url is not an address", "url")
    return url


def _wanted(body: Mapping[str, JSON]) -> tuple[str, ...]:
    events = body.get("enabled_events")
    wanted = [event for event in events if isinstance(event, str)] if isinstance(events, list) else []
    if not isinstance(events, list) or not wanted or len(wanted) != len(events):
        raise invalid("enabled_events is a list of event types", "enabled_events")
    return tuple(wanted)


def action_body(content: bytes) -> ActionBody:
    """Read what is done to what; the shape of the payload depends on the type, and is not looked at."""
    body = _object(content)
    kind = _text(body, "type")
    if kind not in _ACTION_TYPES:
        raise RefusedError(400, f"Invalid action type {kind!r}", parameter="type")
    payload = body.get("payload")
    if not isinstance(payload, dict):
        raise invalid("payload is an object", "payload")
    object_type, object_id = object_of({name: _text(body, name) or "" for name in ("object_type", "object_id")})
    return ActionBody(
        type=kind or "",
        object_type=object_type,
        object_id=object_id,
        payload=payload,
        note=_text(body, "note"),
        thread_id=_text(body, "thread_id"),
        run_id=_text(body, "run_id"),
    )


def object_of(named: Mapping[str, str]) -> tuple[str, str]:
    """Read which object is meant, by its type and id."""
    object_type, object_id = named.get("object_type", ""), named.get("object_id", "")
    if object_type not in _OBJECT_TYPES:
        raise RefusedError(400, f"Invalid object_type {object_type!r}", parameter="object_type")
    if not _is_uuid(object_id):
        raise not_found("Object")
    return object_type, object_id


def page_of(query: Mapping[str, str], *, most: int, refuses: bool = False) -> tuple[int, int]:
    """Read `page` and `per_page`: from 1 on, and no more than `most` a page, whatever was asked for, or refused."""
    page, size = (_number(query, name, otherwise) for name, otherwise in (("page", 1), ("per_page", most)))
    if refuses and size > most:
        raise RefusedError(400, f"per_page is {most} at most", parameter="per_page")
    return page, min(size, most)


def _object(content: bytes, *, status: int = 400) -> Mapping[str, JSON]:
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(status, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusedError(status, "The body is not a JSON object")
    return body


def _context(body: Mapping[str, JSON], *, strict: bool) -> Context | None:
    """Take `business_id`, else the pair; half a pair is no context."""
    business, kind, key = (_text(body, name) for name in ("business_id", "context_type", "context_id"))
    if business is not None:
        kind, key, field = "business", business, "business_id"
    elif kind is None and key is None:
        return None
    elif kind is None or key is None:
        raise RefusedError(400, NO_CONTEXT)
    else:
        field = "context_id"
    if strict and kind != "business":
        raise invalid(f"context_type {kind!r} is not known", "context_type")
    if strict and not _is_uuid(key):
        raise invalid(f"{field} is not a UUID", field)
    return Context(kind, key)


def _text(body: Mapping[str, JSON], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{name} is not a string", name)
    return value or None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    text = query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise RefusedError(400, f"{name} is a whole number from 1 on", parameter=name)
    return int(text)
