"""Events that Middesk posts to a webhook, and whether they are its own."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.generic import Json
from agentruns._values.run import RunRef
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, ProtocolError


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


def verify_webhook(body: bytes, signature: str, secret: str) -> WebhookEvent:
    """
    Return the event in the raw *body* of a webhook, if *signature*, its `X-Middesk-Signature-256`, is that of *secret*.

    The signature is the hex HMAC-SHA256 of the bytes as they came (build/secure-webhooks). Raise `ProtocolError` where
    it does not match, or the body is no event; `ConfigurationError` for a body that is no bytes.
    """
    check.non_empty_str("secret", secret)
    raw: Any = body
    if not isinstance(raw, bytes | bytearray):
        raise ConfigurationError(
            f"body is of the type {type(raw).__name__}; it must be the bytes that came, before anything decodes "
            "them: `await request.read()` in aiohttp, `await request.body()` in Starlette"
        )
    check.text_or_none("signature", signature)
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), (signature or "").strip().lower().encode("utf-8", "replace")):
        raise ProtocolError(
            "the webhook's signature does not match: it is not from Middesk, the secret is another, or the body is not "
            "the bytes that came"
        )
    try:
        return codec.structure(codec.decode(body), WebhookEvent)
    except codec.CodecError as error:
        raise ProtocolError(f"the webhook is not an event as the vendor documents it: {error}") from error
