"""The item of a batch for which something is done, told to whatever is called meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from agentruns._values.base import ConfigurationError

_item: Final[ContextVar[object]] = ContextVar("item of a batch")


def current_item() -> object:
    """
    Return the item of `client.batch` for which a handler or `prepare` is called, as it was given; sync ones included.

    In `agentruns batch` it is the row, a mapping of its columns by name. Raise `ConfigurationError` outside a batch,
    and in a worker of Ray, which has no items.
    """
    try:
        return _item.get()
    except LookupError:
        raise ConfigurationError(
            "there is no current item here: only what `client.batch` calls for an item has one, such as a handler"
        ) from None


def work_for(item: object) -> None:
    """Let `current_item` return *item* in the current task from now on, and in the tasks that it makes."""
    _item.set(item)
