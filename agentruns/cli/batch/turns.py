"""Which rows this call takes up, under which key, and which it leaves as they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import frozen

from agentruns._values.run import RunRef
from agentruns.errors import NotFoundError, OutcomeUnknownError

from .output import Known
from .templates import Item


@frozen(eq=False)
class Turn(Mapping[str, Any]):
    """
    One row as this call takes it up; a mapping of its columns, as `agentruns.tools.current_item()` shows it.

    `key` is its key of this attempt, `run` what to go on with, if known. `earlier` is what its other attempts used.
    """

    item: Item
    key: str
    attempt: int
    run: RunRef | None
    earlier: Mapping[str, Any] | None
    began: float

    def __getitem__(self, column: str) -> Any:
        return self.item.values[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.item.values)

    def __len__(self) -> int:
        return len(self.item.values)


@frozen(kw_only=True)
class Choice:
    """
    What is taken up beside rows that are new: those that failed, and those that ask for something else by now.

    *journal* says whether there is one. With *keep*, a row that has changed counts as it was.
    """

    retry_failed: bool = False
    again: bool = False
    keep: bool = False
    journal: bool = True

    def turn(self, item: Item, known: Known | None, open_keys: AbstractSet[str]) -> Turn | Known:
        """Return how an item is taken up, or what is known of it if it is not; *open_keys* are those of the journal."""
        if known is None:
            return Turn(item, item.key, 1, None, None, time.time())
        after = known.attempts + 1
        if attempt_key(item.key, after) in open_keys or self._begins_anew(item, known):
            return Turn(item, attempt_key(item.key, after), after, None, known.spent, time.time())
        if self._is_done(known) or self.has_changed(item, known):
            return known
        key = attempt_key(item.key, known.attempts)
        return Turn(item, key, known.attempts, known.run, known.earlier, time.time())

    def has_changed(self, item: Item, known: Known) -> bool:
        """Tell whether an item asks for something else than it did, and nobody has said that this does not matter."""
        return not self.keep and known.digest not in {None, item.digest}

    def _begins_anew(self, item: Item, known: Known) -> bool:
        if self.has_changed(item, known):
            return self.again
        return self.retry_failed and (is_gone(known) or (self._is_done(known) and known.status != "completed"))

    def _is_done(self, known: Known) -> bool:
        """Tell whether an item is over, or must not be begun again blindly."""
        blind = not self.journal and known.run is None and known.reason == OutcomeUnknownError.__name__
        return known.status in {"completed", "failed"} or blind


def is_gone(known: Known) -> bool:
    """Tell whether the vendor knows the run of an item no more."""
    return known.status == "error" and known.reason == NotFoundError.__name__


def attempt_key(key: str, attempt: int) -> str:
    """Return the key in the journal of an attempt at an item; attempts count from 1."""
    return key if attempt == 1 else f"{key} (attempt {attempt})"
