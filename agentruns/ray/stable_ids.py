"""
Ids that stay the same when Ray repeats a task.

A task that Ray repeats remembers nothing, but gets the same arguments. So the id of a start is derived from the name of
the batch, the key of the item and what the item asks for. A repeated task sends the same request, and a vendor that
knows such ids (Narrative's `client_op_id`, Origami's `idempotency_key`) answers it with the run that exists.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from agentruns._keeping.digest import what_is_asked
from agentruns._values import codec
from agentruns._values.minted import idempotency_field

_BATCHES: Final = UUID("3f0a1c52-8d5b-5f7e-9c1a-6b2d4e8f7a90")


def stable_id(origin: Any, batch: str, key: str) -> Any:
    """
    Return *origin* with the id that follows from the name of its *batch* and its *key* there.

    The same item of the same batch that asks for the same gets the same id, on any machine. Fields that are at their
    defaults do not count, so a field that is new in a later version changes no id. An origin whose class has no such
    id, as Middesk's and Conduit's, is returned as it is.
    """
    kind = type(origin)
    name = idempotency_field(kind)
    if name is None:
        return origin
    words = codec.encode([kind.__name__, batch, key, sorted(what_is_asked(origin).items())])
    return attrs.evolve(origin, **{name: str(uuid5(_BATCHES, words.decode()))})
