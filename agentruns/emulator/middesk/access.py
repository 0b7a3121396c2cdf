"""Who may come in, and how often: API keys in two forms, and requests per second (build/api-keys)."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections import deque
from typing import Literal, TypeAlias

from attrs import define, field

from agentruns.emulator.vendor import Request

from .rows import Caller, Object

Requester: TypeAlias = Literal["account", "user", "system"]
"""Who starts runs: the account of an API key, a user in a session, or the system itself."""

_NAMES = uuid.UUID("5f0c7b52-6f0e-4c8e-9d3c-0c9a4bb6a1de")


def key_of(request: Request) -> str | None:
    """Take the key from `Bearer <key>`, or from `Basic` where it is the user name, without a password."""
    if request.bearer is not None:
        return request.bearer
    scheme, _, packed = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(packed.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name if name and not password else None


def caller(account: str, requester: Requester) -> Caller:
    """Say who stands behind a key; the ids follow from the account's name."""
    account_id = str(uuid.uuid5(_NAMES, account))
    user_id = str(uuid.uuid5(_NAMES, f"user of {account}"))
    by_requester: dict[Requester, Object | None] = {
        "account": {"id": account_id, "name": account, "email": None},
        "user": {"id": user_id, "name": "Ada Lin", "email": "ada.lin@example.com"},
        "system": None,
    }
    reviewer: Object = {"type": "User", "id": user_id} if requester == "user" else {"type": "Account", "id": account_id}
    return Caller(account=account, requester=by_requester[requester], reviewer=reviewer)


@define
class Limiter:
    """Count the requests of each key in the second that has passed; those refused do not count."""

    limit: int | None
    _seen: dict[str, deque[float]] = field(factory=dict, repr=False)

    def admits(self, key: str, now: float) -> bool:
        """Count one request, unless there were too many."""
        if self.limit is None:
            return True
        seen = self._seen.setdefault(key, deque())
        while seen and seen[0] <= now - 1:
            seen.popleft()
        if len(seen) >= self.limit:
            return False
        seen.append(now)
        return True
