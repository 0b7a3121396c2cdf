"""What the lists of one client left out: rows that do not fit."""

from __future__ import annotations

import logging
from typing import Final

from agentruns._values.commands import SkippedRows
from agentruns._values.printable import printable

logger = logging.getLogger("agentruns")

_MOST_REMEMBERED: Final = 1000


class SkippedLog:
    """Count the rows that were skipped, and log each misfit once, though its list be read every second."""

    def __init__(self) -> None:
        self.rows = 0
        self._told: set[str] = set()

    def __call__(self, skipped: SkippedRows) -> None:
        """Take in what one list left out."""
        self.rows += len(skipped.misfits)
        new = [each for each in skipped.misfits if each not in self._told]
        if not new:
            return
        if len(self._told) < _MOST_REMEMBERED:
            self._told.update(new)
        more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        logger.warning("%d rows of %s were skipped: %s%s", len(skipped.misfits), skipped.line, printable(new[0]), more)
