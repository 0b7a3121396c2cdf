"""Which clients of this process are of one account at a vendor, and so share its slots."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Hashable
from typing import Final
from weakref import WeakValueDictionary

from attrs import field, frozen

from agentruns._values.auth import TokenSource

from .limiter import RateLimiter
from .slots import Slots

_SALT: Final = os.urandom(16)
"""Of the digests of this process: none says anything elsewhere."""

_SLOTS: Final[WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Account], Slots]] = WeakValueDictionary()


@frozen
class Account:
    """
    What clients of one account have in common: the vendor, where it is, and who they are there.

    They are the same for whom they send the same token, or ask the same function for one, or who share a limiter. Of a
    token only a digest is kept.
    """

    vendor: str
    base_url: str
    who: Hashable = field(repr=False)


def account_of(
    vendor: str, base_url: str, token: str | TokenSource | None, limiter: RateLimiter | None
) -> Account | None:
    """Return the account of a client, None where nothing tells: then it has one of its own."""
    if limiter is not None:
        return Account(vendor, "", limiter)
    if isinstance(token, str):
        return Account(vendor, base_url, hashlib.blake2b(token.encode(), key=_SALT, digest_size=16).digest())
    who: object = token
    return Account(vendor, base_url, who) if who is not None and isinstance(who, Hashable) else None


def slots_of(account: Account | None) -> Slots:
    """Return the slots of an account as the clients in this event loop know them; for as long as one of them does."""
    if account is None:
        return Slots()
    return _SLOTS.setdefault((asyncio.get_running_loop(), account), Slots())
