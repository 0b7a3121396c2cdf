"""What can be done to a run, by the flows of a dialect. Callers check what users pass, and keep the journal."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any, Final

from attrs import evolve

from agentruns._telemetry import Telemetry
from agentruns._values import codec
from agentruns._values.exchange import NO_PARAMS, Request, ServerEvent
from agentruns._values.generic import Json
from agentruns._values.large import written
from agentruns._values.run import Action, Run, RunRef, ToolOutput
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ProtocolError, UnsupportedError

from .answering import Answering
from .api import Api
from .channel import Heard
from .flow import Attempts
from .noting import Keeper
from .origins import Origins
from .performing import Performing

FRESH_SECONDS: Final = 10.0
"""A 404 this soon after our own start is taken for a read that came before the write was visible."""


class Operations:
    """Start, read, answer and cancel runs; remember which were started lately."""

    def __init__(self, api: Api, vendor: Vendor, telemetry: Telemetry) -> None:
        self.vendor: Final = vendor
        self._api = api
        self._telemetry = telemetry
        self._started: dict[RunRef, float] = {}
        self._performing = Performing(api, vendor)
        self._origins = Origins(vendor)
        self._answering = Answering(self._performing, self._origins)

    def require(self, capability: str, operation: str) -> None:
        """Raise `UnsupportedError` for a vendor that has no such function: it has no way to *operation* runs."""
        if getattr(self.vendor, capability) is None:
            name = self.vendor.NAME
            raise UnsupportedError(
                f"{name} has no way to {operation} runs", remedy=f"`agentruns vendors {name}` lists what it has"
            )

    def check_open(self) -> None:
        """Raise `ConfigurationError` outside the life of the client, and outside its event loop."""
        self._api.check_open()

    async def start(self, origin: Any, keeper: Keeper | None = None, attempts: Attempts | None = None) -> Run:
        """Start a run; *keeper* keeps what the start finds out on its way."""
        run = await self._performing.repeat_conflicts("start", (origin,), keeper, attempts)
        self._origins.keep(run, origin)
        return self._note(run, None)

    async def recover(
        self,
        origin: Any,
        note: Mapping[str, Json],
        keeper: Keeper | None = None,
        attempts: Attempts | None = None,
    ) -> Run:
        """Return the run of a start that had got as far as *note*, or go through with it."""
        self.require("recover", "recover")
        run = await self._performing.perform("recover", (origin, note), keeper, attempts)
        self._origins.keep(run, origin)
        return run

    async def fetch(self, ref: RunRef, params: Mapping[str, str] = NO_PARAMS, attempts: Attempts | None = None) -> Run:
        """Read a run once; *params* go to the vendor as query parameters."""
        return await self._performing.fetch(ref, params, attempts)

    def origin_for(self, run: Run, origin: Any = None) -> Any:
        """
        Return what started *run*: *origin* if that is known, else what this client remembers.

        None for a vendor whose answers need no origin. Raise `ConfigurationError` where it is needed and not known.
        """
        return self._origins.of(run, origin)

    async def answer(
        self,
        run: Run,
        outputs: Sequence[ToolOutput],
        *,
        origin: Any = None,
        again: bool = False,
        attempts: Attempts | None = None,
    ) -> Run:
        """
        Answer a paused run; *again*, if that was tried before and its outcome is not clear.

        *origin* is what started it, if that is known: some vendors want to be told again.
        """
        self.require("resume", "resume")
        origin = self.origin_for(run, origin)
        found = await self.answered_by(run, attempts) if again else None
        if found is not None:
            return self._note(found, run)
        resumed = await self._answering.answer(run, await plain_outputs(outputs), origin, attempts)
        return self._note(resumed, run)

    @property
    def resumes_again(self) -> bool:
        """Tell whether an answer whose run failed can be given to another run."""
        return self.vendor.resume_again is not None

    async def answer_first(
        self, run: Run, outputs: Sequence[ToolOutput], *, origin: Any = None, again: bool = False
    ) -> Run:
        """
        Answer a paused run for a person; raise `AlreadyAnsweredError` where another answer stands.

        *outputs* are in plain JSON types, as `plain_outputs` returns them.
        *again*, once more, if the run that answered it has failed; where a run goes on in place, just answer it.
        """
        self.require("resume", "resume")
        resumed = await self._answering.answer_first(run, outputs, self.origin_for(run, origin), again=again)
        return self._note(resumed, run)

    async def answered_by(self, run: Run, attempts: Attempts | None = None) -> Run | None:
        """Return the run that followed a paused one, None if there is none, or the vendor does not tell."""
        return await self._performing.answered_by(run, attempts)

    async def cancel(self, ref: RunRef) -> Run | None:
        """Cancel a run; return what the vendor says of it, None if it says nothing."""
        self.require("cancel", "cancel")
        cancelled = await self._api.perform(self.vendor.flow("cancel", ref))
        return None if cancelled is None else self.vendor.run("cancel", cancelled)

    def runs(self, parent: str) -> AsyncGenerator[Run, None]:
        """Iterate over the runs of *parent*, page by page."""
        self.require("page", "list")
        return self._pages(parent)

    async def _pages(self, parent: str) -> AsyncGenerator[Run, None]:
        cursor: str | None = None
        last: set[RunRef] = set()
        while True:
            page = self.vendor.a_page(await self._api.perform(self.vendor.flow("page", parent, cursor)))
            for run in page.runs:
                if run.ref not in last:  # new runs shift the pages of a vendor that numbers them
                    yield run
            if page.cursor is None:
                return
            cursor, last = page.cursor, {run.ref for run in page.runs}

    async def listen(self, ref: RunRef, heard: Heard | None = None) -> None:
        """
        Return when the vendor ends the stream of events of a run: a reason to read it, not yet news.

        Await *heard* for each event.
        """
        self.require("events", "announce events of")
        request = self.vendor.call("events", ref)
        if not isinstance(request, Request):
            raise ProtocolError(f"{self.vendor.NAME}.events returned {request!r}, which is no Request")
        await self._api.listen(request, heard)

    def event_of(self, ref: RunRef, event: ServerEvent) -> Run | bool:
        """Return what an event of a run tells: its state, or whether to read it; any event does, unless it is said."""
        if self.vendor.event_of is None:
            return True
        said: Any = self.vendor.call("event_of", ref, event)
        if not isinstance(said, Run | bool):
            raise ProtocolError(
                f"{self.vendor.NAME}.event_of returned {said!r}; it must be a Run, True to have the run read, or False"
            )
        if isinstance(said, Run) and said.id != ref.id:
            raise ProtocolError(f"{self.vendor.NAME}.event_of returned run {said.id} for an event of run {ref.id}")
        return said

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler for *action* may be registered, best first."""
        names: Any = self.vendor.call("handler_names", action)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ProtocolError(
                f"{self.vendor.NAME}.handler_names returned {names!r}; it must be a sequence of names, such as "
                "`(action.name,)`"
            )
        return names

    def tool_spans(self, run: Run) -> Callable[[str, Action], AbstractContextManager[None]] | None:
        """Return what gives the context of a handler of *run*, by its name and its action; None without spans."""
        return self._telemetry.tool_of(run)

    def started_at(self, ref: RunRef) -> float:
        """Return the time of the loop at which this client started the run; minus infinity if it did not lately."""
        return self._started.get(ref, -math.inf)

    def _note(self, run: Run, paused: Run | None) -> Run:
        """Note that a run was started, or, if it is the one that was *paused*, that it goes on."""
        now = asyncio.get_running_loop().time()
        self._started.pop(run.ref, None)  # so that those that come first are the oldest
        for ref in [ref for ref, began in islice(self._started.items(), 2) if began + FRESH_SECONDS < now]:
            del self._started[ref]
        self._started[run.ref] = now
        goes_on = paused is not None and paused.ref == run.ref
        kind_of = partial(timing_group, self.vendor)
        if paused is not None and not goes_on:
            self._telemetry.on_passed_on(paused, kind_of)
        self._telemetry.on_state(run, paused if goes_on else None, kind_of=kind_of, started=not goes_on)
        return run


def timing_group(vendor: Vendor, run: Run | None) -> str:
    """Return what groups a run with others that take about as long; empty where nothing does."""
    if run is None or vendor.timing_group is None:
        return ""
    # Of a copy: what is parsed to answer is not kept with the run.
    group: str = vendor.call("timing_group", evolve(run))
    return group


async def plain_outputs(outputs: Iterable[ToolOutput]) -> list[ToolOutput]:
    """Return answers in plain JSON types; raise `ConfigurationError` for what JSON cannot carry."""
    return [
        evolve(
            each, output=await written(partial(codec.to_jsonable, each.output, f"the output for {each.action.name!r}"))
        )
        for each in outputs
    ]
