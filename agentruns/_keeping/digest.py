"""What names the thing that an action asks: an answer is bound to it, not to an id that may come again."""

from __future__ import annotations

import json
from hashlib import sha256

from agentruns._values.run import Action


def digest(action: Action) -> str:
    """Return a text that is the same for the same name and arguments, in whatever order these stand."""
    asked = json.dumps([action.name, action.arguments], sort_keys=True, default=repr)
    return sha256(asked.encode()).hexdigest()[:32]
