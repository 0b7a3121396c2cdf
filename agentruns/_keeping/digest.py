"""What names what is asked: of a person, where an answer is bound to it and not to an id, and of a vendor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns._values.minted import minted
from agentruns._values.run import Action, Run
from agentruns.errors import ConfigurationError


def digest(action: Action) -> str:
    """Return a text that is the same for the same name and arguments, in whatever order these stand."""
    asked = json.dumps([action.name, action.arguments], sort_keys=True, default=repr)
    return sha256(asked.encode()).hexdigest()[:32]


def request_digest(asked: Any) -> str | None:
    """
    Return a text that is the same for what asks for the same; None for what JSON cannot carry.

    *asked* is an origin, an item of a batch that one is made of, or a run. Fields at their defaults do not count, so a
    field that is new in a later version changes no digest; nor do ids that are minted for each value.
    """
    try:
        plain = what_is_asked(asked.ref if isinstance(asked, Run) else asked)
    except ConfigurationError:
        return None
    return sha256(json.dumps(plain, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def what_is_asked(origin: Any) -> Json:
    """
    Return what an origin asks for, as JSON: without fields at their defaults, and without minted ids.

    Raise `ConfigurationError` for what JSON cannot carry.
    """
    ignored = minted(type(origin))
    plain = codec.to_jsonable(codec.unstructure(origin, defaults=False), "the origin")
    return {name: plain[name] for name in plain if name not in ignored} if isinstance(plain, Mapping) else plain
