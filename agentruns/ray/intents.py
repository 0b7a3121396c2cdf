"""
The id of an intent, derived from a batch and an item of it.

A task that Ray repeats has no memory, but it has its arguments. So the id under which a vendor is asked is made of the
name of the batch, the key of the item and what the item asks for. A repeated task sends the same request, and a vendor
that knows such ids (Narrative's `client_op_id`, Origami's `idempotency_key`) answers it with the run that exists.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from agentruns._values import codec

_BATCHES: Final = UUID("3f0a1c52-8d5b-5f7e-9c1a-6b2d4e8f7a90")


def intent(origin: Any, batch: str, key: str) -> Any:
    """
    Return *origin* with the id that the item *key* of *batch* has.

    The same item of the same batch that asks for the same has the same id, on any machine. An origin whose class has no
    such id, as Middesk's and Conduit's, is returned as it is.
    """
    kind = type(origin)
    name = minted(kind)
    if name is None:
        return origin
    asked = codec.to_jsonable(codec.unstructure(origin), "the origin")
    asked.pop(name)
    words = codec.encode([kind.__name__, batch, key, sorted(asked.items())])
    return attrs.evolve(origin, **{name: str(uuid5(_BATCHES, words.decode()))})


def minted(kind: type[Any]) -> str | None:
    """Return the field of an origin's class whose value is minted anew for each intent, if there is one."""
    if not attrs.has(kind):
        return None
    texts = {str, "str"}
    found = [each.name for each in attrs.fields(kind) if isinstance(each.default, attrs.Factory) and each.type in texts]  # type: ignore[arg-type]
    return found[0] if len(found) == 1 else None
