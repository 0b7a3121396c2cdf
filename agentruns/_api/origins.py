"""What started a run, for vendors whose answers must repeat it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from agentruns._values.run import Run, RunRef
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

_MOST: Final = 256
"""How many origins are remembered."""


class Origins:
    """Remember, for a while, what started the runs of a vendor, if it asks for that."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._known: OrderedDict[RunRef, Any] = OrderedDict()

    def of(self, run: Run, origin: Any = None) -> Any:
        """
        Return what started *run*: *origin* if that is known, else what this client remembers.

        None for a vendor whose answers need no origin. Raise `ConfigurationError` where it is needed and not known.
        """
        if not self._vendor.asks_origin():
            return None
        known = self._known.get(run.ref) if origin is None else origin
        if known is None:
            raise ConfigurationError(
                f"{self._vendor.NAME} wants each answer to repeat what started run {run.id}, and this client does not "
                "know that",
                field="origin",
                remedy="`client.resume(run, outputs, origin=...)` says it; a stream knows it that starts the run, and "
                "so does one whose `key` names it in a journal",
            )
        return known

    def keep(self, run: Run, origin: Any) -> None:
        """Remember, for a while, what started a run, if its answers need it: the caller may come back with the run."""
        if origin is None or not self._vendor.asks_origin():
            return
        self._known[run.ref] = origin
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
