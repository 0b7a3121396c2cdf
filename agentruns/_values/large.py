"""Writing values as JSON without keeping the event loop: small ones at once, large ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

from .jsonable import TooLargeError

T = TypeVar("T")

_MOST_AT_ONCE: Final = 5_000
"""How many parts of a value are written in the loop: a few milliseconds."""


async def written(write: Callable[[float], T]) -> T:
    """
    Return what *write* returns: it is given how many parts it may write, and raises `TooLargeError` for more.

    What is larger than is written in a few milliseconds is written in a thread, from its beginning.
    """
    try:
        return write(_MOST_AT_ONCE)
    except TooLargeError:
        return await asyncio.to_thread(write, inf)
