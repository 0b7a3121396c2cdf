"""Webhooks: which events a run has caused, and the signed requests that tell of them (work-with-agents/webhooks)."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from attrs import field, frozen

from .rows import Caller, Object, Run, Style

EVENTS: Final = ("run.created", "run.interrupted", "run.completed")
_LEFT_OUT: Final = frozenset({"thread_id", "agent", "requester", "output"})  # not in the sample of the page


@frozen(kw_only=True)
class Event:
    """Something that happened to a run, with the run as it stood; `run.completed` tells of failures too."""

    id: str
    type: str
    at: float
    run: Run

    def body(self, style: Style) -> bytes:
        """Write the event."""
        told: Object = {name: value for name, value in self.run.json(style).items() if name not in _LEFT_OUT}
        return msgspec.json.encode({
            "object": "event",
            "id": self.id,
            "type": self.type,
            "data": {"object": {**told, "steps": []}},
            "created_at": style.stamp(self.at),
        })


@frozen(kw_only=True)
class Subscription:
    """An endpoint that wants to hear of events; `*` stands for all."""

    id: str
    url: str
    enabled_events: tuple[str, ...]
    secret: str | None = field(repr=False)
    caller: Caller
    created: float
    updated: float
    include: str | None = None
    disabled_at: str | None = None

    def wants(self, event: Event) -> bool:
        """Tell whether an event is to be sent here."""
        named = event.type in self.enabled_events or "*" in self.enabled_events
        return (
            named
            and self.disabled_at is None
            and event.run.caller.account == self.caller.account
            and event.at >= self.created
        )

    def json(self, style: Style) -> Object:
        """Write the subscription, without its secret."""
        return {
            "object": "webhook",
            "id": self.id,
            "url": self.url,
            "enabled_events": self.enabled_events,
            "include": self.include,
            "disabled_at": self.disabled_at,
            "created_at": style.stamp(self.created),
            "updated_at": style.stamp(self.updated),
        }


@frozen(kw_only=True)
class Delivery:
    """One request the vendor would send: POST `body` with `headers` to `url`, as often and in what order you like."""

    url: str
    type: str
    run_id: str
    headers: Mapping[str, str]
    body: bytes


def events_of(run: Run) -> Iterator[Event]:
    """List what has happened to a run so far, oldest first; asked again, the same events have the same ids."""

    def event(kind: str, number: int, then: Run) -> Event:
        return Event(id=str(uuid.uuid5(uuid.UUID(run.id), f"{kind} {number}")), type=kind, at=then.now, run=then)

    yield event("run.created", 0, run.as_of(0, run.created, accepted=True))
    for number, segment in enumerate(run.segments):
        if segment.ends <= run.now:
            then = run.as_of(number, segment.ends)
            if then.interrupts:
                yield event("run.interrupted", number, then)
            elif then.ended is not None:
                yield event("run.completed", number, then)


def signed(run_id: str, body: bytes, secret: str | None) -> dict[str, str]:
    """Make the headers; the signature is over the raw body (build/secure-webhooks)."""
    headers = {"Content-Type": "application/json", "X-Correlation-Id": run_id}
    if secret is not None:
        headers["X-Middesk-Signature-256"] = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return headers
