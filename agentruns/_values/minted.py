"""Which fields of what starts a run are new ids with each value: said by the field itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

_MARK: Final = "agentruns.minted"

MINTED: Final[Mapping[str, bool]] = {_MARK: True}
"""
The metadata of an id under which the vendor knows a repeated start again: `field(factory=new_id, metadata=MINTED)`.

It does not count where two origins are compared, and where a start is repeated elsewhere, as Ray does, it is given an
id that follows from what is asked for.
"""

MINTED_LABEL: Final[Mapping[str, bool]] = {_MARK: False}
"""The metadata of an id that is as new, but under which a repeated start is another run: it only does not count."""


def minted(kind: type[Any]) -> frozenset[str]:
    """Return the fields of a class that say that they are new ids with each value."""
    return (
        frozenset(each.name for each in attrs.fields(kind) if _MARK in each.metadata)
        if attrs.has(kind)
        else frozenset()
    )


def idempotency_field(kind: type[Any]) -> str | None:
    """Return the field under which the vendor knows a repeated start again; None if there is no such field."""
    return (
        next((each.name for each in attrs.fields(kind) if each.metadata.get(_MARK)), None) if attrs.has(kind) else None
    )
