"""Which field of what starts a run is a new id with each value: said by the field itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MINTED: Final[Mapping[str, bool]] = {"agentruns.minted": True}
"""
The metadata of such a field: `field(factory=new_id, metadata=MINTED)`.

Where a start is repeated elsewhere, as Ray does, it is given an id that follows from what is asked for.
"""
