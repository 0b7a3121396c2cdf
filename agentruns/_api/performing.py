"""A vendor's functions that come to a run, performed: read, acted, and read again where its state was another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from agentruns._values.exchange import NO_PARAMS
from agentruns._values.run import Run, RunRef
from agentruns.dialects.vendor import Vendor
from agentruns.errors import AlreadyAnsweredError, ConflictError

from .api import Api
from .flow import Attempts
from .noting import Keeper

logger = logging.getLogger("agentruns")

_NOTHING: Final[Mapping[str, Any]] = {}


class Performing:
    """Perform the flows of one vendor; what they return is checked."""

    def __init__(self, api: Api, vendor: Vendor) -> None:
        self.vendor: Final = vendor
        self._api = api

    async def perform(
        self,
        name: str,
        args: tuple[Any, ...],
        keeper: Keeper | None = None,
        attempts: Attempts | None = None,
        given: Mapping[str, Any] = _NOTHING,
    ) -> Run:
        """Return the run that a function of the dialect comes to."""
        return self.vendor.run(name, await self._api.perform(self.vendor.flow(name, *args, **given), keeper, attempts))

    async def repeat_conflicts(
        self,
        name: str,
        args: tuple[Any, ...],
        keeper: Keeper | None = None,
        attempts: Attempts | None = None,
        given: Mapping[str, Any] = _NOTHING,
    ) -> Run:
        """Perform a flow that reads a state and acts on it, anew as often as `Retry.conflicts` allows."""
        for _ in range(int(self._api.retry.conflicts)):
            try:
                return await self.perform(name, args, keeper, attempts, given)
            except AlreadyAnsweredError:
                raise
            except ConflictError as error:
                logger.debug("looking again: %s", error)
        return await self.perform(name, args, keeper, attempts, given)

    async def fetch(self, ref: RunRef, params: Mapping[str, str] = NO_PARAMS, attempts: Attempts | None = None) -> Run:
        """Read a run once; *params* go to the vendor as query parameters."""
        return await self.perform("fetch", (ref, params), attempts=attempts)

    async def answered_by(self, run: Run, attempts: Attempts | None = None) -> Run | None:
        """Return the run that followed a paused one, None if there is none, or the vendor does not tell."""
        if self.vendor.answered_by is None:
            return None
        found = await self._api.perform(self.vendor.flow("answered_by", run), attempts=attempts)
        return None if found is None else self.vendor.run("answered_by", found)
