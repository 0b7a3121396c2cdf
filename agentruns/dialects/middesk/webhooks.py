"""Webhooks: subscribing to events, the events that Middesk posts, and whether they are its own."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from attrs import evolve, frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import RunRef
from agentruns._values.secret import Secret
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError, NotFoundError, ProtocolError

from .objects import Webhook, WebhookPage
from .reading import MOST_PER_PAGE


@frozen
class WebhookEvent:
    """
    What Middesk posts to a webhook (work-with-agents/webhooks); `data` is as received.

    Events may come twice and in any order, and their runs lack fields: take one as a reason to read the run that `ref`
    names. `run.completed` is sent for failed runs too.
    """

    id: str
    type: str
    data: Mapping[str, Json]
    object: str | None = None
    created_at: datetime | None = None
    account_id: str | None = None

    @property
    def ref(self) -> RunRef | None:
        """Return the run that this is about; None for an event about something else."""
        about = self.data.get("object")
        if not isinstance(about, Mapping) or about.get("object") != "run":
            return None
        run_id = wire.first_text(about, "id")
        return RunRef(run_id, wire.first_text(about, "thread_id") or "") if run_id else None


class WebhookFields(TypedDict, total=False):
    """
    What can be set of a subscription besides its address and its events (create-webhook, update-webhook).

    `include` names, with commas, what events have besides the plain fields; `*` is all, `identifiers` is nothing. With
    `oidc_auth_method`, `private_key_jwt` or `client_secret`, Middesk fetches a token before it delivers.
    """

    secret: str
    include: str
    oidc_auth_method: str
    oidc_client_id: str
    oidc_client_secret: str
    oidc_token_endpoint: str
    oidc_resource_uri: str
    oidc_scope: str
    oidc_access_token_ttl_seconds: int


def create_webhook(url: str, enabled_events: Sequence[str], **fields: Unpack[WebhookFields]) -> Flow[Webhook]:
    """
    Subscribe the endpoint *url* to types of events, and return the subscription (create-webhook).

    *enabled_events* are such as `run.created`, `run.completed`, `run.interrupted`, or `["*"]` for all. Keep the
    `secret` that you give: `verify_webhook` takes it, and no answer shows it. Sending it twice makes two subscriptions,
    so it is never sent twice. Raise `InvalidRequestError` for what Middesk cannot take.
    """
    body = {"url": check.non_empty_str("url", url), "enabled_events": _events(enabled_events), **_fields(fields)}
    return _webhook((yield Request("POST", wire.path("webhooks"), json=body)))


def list_webhooks(*, page: int = 1, per_page: int = MOST_PER_PAGE) -> Flow[WebhookPage]:
    """Return one page of the subscriptions; pages start at 1 (list-webhooks)."""
    check.integer("page", page, 1)
    check.integer("per_page", per_page, 1)
    response = yield Request("GET", wire.path("webhooks"), params={"page": str(page), "per_page": str(per_page)})
    raw = wire.read_object(response)
    data = raw.get("data") or []
    items = yield from reading.rows(response, data, "$.data", lambda row, at: _read(row, response, at))
    return WebhookPage(items, raw.get("has_more") is True and bool(data))


def get_webhook(id: str) -> Flow[Webhook]:  # noqa: A002
    """Return a subscription; raise `NotFoundError` where there is none (get-webhook)."""
    return _webhook((yield Request("GET", wire.path("webhooks", id))))


def update_webhook(
    id: str,  # noqa: A002
    *,
    url: str | None = None,
    enabled_events: Sequence[str] | None = None,
    disabled_at: datetime | None = None,
    **fields: Unpack[WebhookFields],
) -> Flow[Webhook]:
    """Change what is given of a subscription, and return it; *disabled_at* turns it off (update-webhook)."""
    body = {
        **wire.drop_none({"url": url, "disabled_at": disabled_at and disabled_at.isoformat()}),
        **({} if enabled_events is None else {"enabled_events": _events(enabled_events)}),
        **_fields(fields),
    }
    if not body:
        raise ConfigurationError("update_webhook changes nothing; pass at least one field of the subscription")
    # The same change again changes nothing: safe to repeat.
    return _webhook((yield Request("PUT", wire.path("webhooks", id), json=body, idempotent=True)))


def delete_webhook(id: str) -> Flow[None]:  # noqa: A002
    """End a subscription; raise `NotFoundError` where there is none (delete-webhook)."""
    try:
        yield Request("DELETE", wire.path("webhooks", id), idempotent=True)
    except NotFoundError as error:
        if not error.after_doubt:  # else it is our own first try, whose answer was lost
            raise


def _webhook(response: Response) -> Webhook:
    return _read(wire.read_object(response), response, "$")


def _read(raw: Any, response: Response, at: str) -> Webhook:
    return evolve(wire.structure(raw, Webhook, response, at), raw=raw)


def _events(value: Sequence[str]) -> list[str]:
    if isinstance(value, str) or not value or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(
            f'enabled_events is {value!r}; it must be a list of types of events, such as ["run.completed"], or ["*"]'
        )
    return list(value)


def _fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown = sorted(set(fields) - set(WebhookFields.__annotations__))
    if unknown:
        raise ConfigurationError(
            f"a subscription has no field {', '.join(unknown)}; it has {', '.join(WebhookFields.__annotations__)}"
        )
    return fields


def verify_webhook(body: bytes, signature: str, secret: str) -> WebhookEvent:
    """
    Return the event in the raw *body* of a webhook, if *signature*, its `X-Middesk-Signature-256`, is that of *secret*.

    The signature is the hex HMAC-SHA256 of the bytes as they came (build/secure-webhooks). Raise `ProtocolError` where
    it does not match, or the body is no event; `ConfigurationError` for a body that is no bytes.
    """
    kind, secret = type(secret), Secret(secret)  # what reports local variables shall not show it
    if not issubclass(kind, str):
        raise ConfigurationError(f"secret is of the type {kind.__name__}; it must be a text", field="secret")
    check.non_empty_str("secret", secret or "")
    raw: Any = body
    if not isinstance(raw, bytes | bytearray):
        raise ConfigurationError(
            f"body is of the type {type(raw).__name__}; it must be the bytes that came, before anything decodes "
            "them: `await request.read()` in aiohttp, `await request.body()` in Starlette"
        )
    check.text_or_none("signature", signature)
    if not _is_signed(body, signature or "", secret):
        raise ProtocolError(
            "the webhook's signature does not match: it is not from Middesk, the secret is another, or the body is not "
            "the bytes that came"
        )
    try:
        return codec.structure(codec.decode(body, received=True), WebhookEvent)
    except codec.CodecError as error:
        raise ProtocolError(f"the webhook is not an event as the vendor documents it: {error}") from error


def _is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Tell whether *signature* is that of *secret*; the right one stands in no frame that an error passes through."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.strip().lower().encode("utf-8", "replace"))
