"""What the platform says of a token's owner."""

from __future__ import annotations

from attrs import frozen

from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects import reading, wire


@frozen
class Identity:
    """
    Whose token it is; None where the answer does not say.

    The company stands in `current_company_scope` in the OpenAPI document, and at the top on
    errors/conversation-not-found: both are read.
    """

    user_id: int | None = None
    company_id: int | None = None


def whoami() -> Flow[Identity]:
    """Read whose token this is: conversations and runs of anybody else are not found."""
    raw = wire.read_object((yield Request("GET", wire.path("whoami"))))
    scope = wire.mapping(raw.get("current_company_scope"))
    user = raw.get("user_id") if "user_id" in raw else raw.get("id")
    return Identity(reading.count(user), reading.count(scope.get("company_id", raw.get("company_id"))))
