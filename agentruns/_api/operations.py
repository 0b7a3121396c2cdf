"""What can be done to a run, by the flows of a dialect. Callers check what users pass, and keep the journal."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from attrs import evolve

from agentruns._telemetry import Telemetry
from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.generic import Json
from agentruns._values.run import Action, Run, RunRef, ToolOutput
from agentruns.dialects.protocol import (
    Cancels,
    Dialect,
    FindsAnsweringRun,
    GroupsRuns,
    Lists,
    Recovers,
    Resumes,
    ResumesAgain,
    ResumesFirst,
    StreamsEvents,
)
from agentruns.errors import AlreadyAnsweredError, ConflictError, UnsupportedError

from .api import Api
from .flow import Attempts, Keeper
from .transport import Heard

logger = logging.getLogger("agentruns")

T = TypeVar("T")

FRESH_SECONDS: Final = 10.0
"""A 404 this soon after our own start is taken for a read that came before the write was visible."""

_TAKEN: Final = 256
"""How many answers that were taken are remembered, so that the same one is known again."""

_NO_PARAMS: Final[Mapping[str, str]] = {}


class Operations:
    """Start, read, answer and cancel runs; remember which were started lately."""

    def __init__(self, api: Api, dialect: Dialect, telemetry: Telemetry) -> None:
        self.dialect: Final = dialect
        self._api = api
        self._telemetry = telemetry
        self._started: dict[RunRef, float] = {}
        self._answering: WeakValueDictionary[RunRef, asyncio.Lock] = WeakValueDictionary()
        self._taken: OrderedDict[RunRef, Sequence[ToolOutput]] = OrderedDict()

    def require(self, capability: type[T], operation: str) -> T:
        """Return the dialect as one that has *capability*; raise `UnsupportedError` if it has not."""
        if not isinstance(self.dialect, capability):
            raise UnsupportedError(f"{self.dialect.NAME} has no way to {operation} runs")
        return self.dialect

    def check_open(self) -> None:
        """Raise `ConfigurationError` outside the life of the client, and outside its event loop."""
        self._api.check_open()

    async def start(self, origin: Any, keeper: Keeper | None = None, attempts: Attempts | None = None) -> Run:
        """Start a run; *keeper* keeps what the start finds out on its way."""
        return self._note(await self._repeat_conflicts(lambda: self.dialect.start(origin), keeper, attempts), None)

    async def recover(
        self,
        origin: Any,
        note: Mapping[str, Json],
        keeper: Keeper | None = None,
        attempts: Attempts | None = None,
    ) -> Run:
        """Return the run of a start that had got as far as *note*, or go through with it."""
        return await self._api.perform(self.require(Recovers, "recover").recover(origin, note), keeper, attempts)

    async def fetch(self, ref: RunRef, params: Mapping[str, str] = _NO_PARAMS, attempts: Attempts | None = None) -> Run:
        """Read a run once; *params* go to the vendor as query parameters."""
        return await self._api.perform(self.dialect.fetch(ref, params), attempts=attempts)

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], *, again: bool = False, attempts: Attempts | None = None
    ) -> Run:
        """Answer a paused run; *again*, if that was tried before and its outcome is not clear."""
        dialect = self.require(Resumes, "resume")
        found = await self.answered_by(run, attempts) if again else None
        if found is not None:
            return self._note(found, run)
        fit = [plain_output(each) for each in outputs]
        return self._note(await self._repeat_conflicts(lambda: dialect.resume(run, fit), None, attempts), run)

    @property
    def resumes_again(self) -> bool:
        """Tell whether an answer whose run failed can be given to another run."""
        return isinstance(self.dialect, ResumesAgain)

    async def answer_first(self, run: Run, outputs: Sequence[ToolOutput], *, again: bool = False) -> Run:
        """
        Answer a paused run for a person; raise `AlreadyAnsweredError` where another answer stands.

        *again*, once more, if the run that answered it has failed; where a run goes on in place, just answer it.
        """
        dialect = self.require(Resumes, "resume")
        resume = dialect.resume
        if again and isinstance(dialect, ResumesAgain):
            resume = dialect.resume_again
        elif isinstance(dialect, ResumesFirst):
            resume = dialect.resume_first
        fit = [plain_output(each) for each in outputs]
        attempts = Attempts()
        async with self._answering.setdefault(run.ref, asyncio.Lock()):
            try:
                resumed = await self._repeat_conflicts(lambda: resume(run, fit), None, attempts)
            except AlreadyAnsweredError as error:
                # What was taken cannot be read yet: it is ours if we have heard so, or if our first try got no answer.
                if error.standing or not (attempts.doubt or self._taken.get(run.ref) == fit):
                    raise
                resumed = error.run
            self._taken[run.ref] = fit
            while len(self._taken) > _TAKEN:
                self._taken.popitem(last=False)
        return self._note(resumed, run)

    async def answered_by(self, run: Run, attempts: Attempts | None = None) -> Run | None:
        """Return the run that followed a paused one, None if there is none, or the vendor does not tell."""
        if not isinstance(self.dialect, FindsAnsweringRun):
            return None
        return await self._api.perform(self.dialect.answered_by(run), attempts=attempts)

    async def cancel(self, ref: RunRef) -> Run | None:
        """Cancel a run; return what the vendor says of it, None if it says nothing."""
        return await self._api.perform(self.require(Cancels, "cancel").cancel(ref))

    def runs(self, parent: str) -> AsyncGenerator[Run, None]:
        """Iterate over the runs of *parent*, page by page."""
        return self._pages(self.require(Lists, "list"), parent)

    async def _pages(self, dialect: Lists, parent: str) -> AsyncGenerator[Run, None]:
        cursor: str | None = None
        last: set[RunRef] = set()
        while True:
            page = await self._api.perform(dialect.page(parent, cursor))
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
        await self._api.listen(self.require(StreamsEvents, "announce events of").events(ref), heard)

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler for *action* may be registered, best first."""
        return self.dialect.handler_names(action)

    def started_at(self, ref: RunRef) -> float:
        """Return the time of the loop at which this client started the run; minus infinity if it did not lately."""
        return self._started.get(ref, -math.inf)

    def _note(self, run: Run, paused: Run | None) -> Run:
        """Note that a run was started, or, if it is the one that was *paused*, that it goes on."""
        now = asyncio.get_running_loop().time()
        for ref in [ref for ref, began in islice(self._started.items(), 8) if began + FRESH_SECONDS < now]:
            del self._started[ref]
        self._started[run.ref] = now
        goes_on = paused is not None and paused.ref == run.ref
        group = timing_group(self.dialect, run)
        self._telemetry.on_state(run, paused if goes_on else None, kind=group, started=not goes_on)
        return run

    async def _repeat_conflicts(
        self, make: Callable[[], Flow[Run]], keeper: Keeper | None = None, attempts: Attempts | None = None
    ) -> Run:
        """Perform a flow that reads a state and acts on it, anew as often as `Retry.conflicts` allows."""
        for _ in range(int(self._api.retry.conflicts)):
            try:
                return await self._api.perform(make(), keeper, attempts)
            except AlreadyAnsweredError:
                raise
            except ConflictError as error:
                logger.debug("looking again: %s", error)
        return await self._api.perform(make(), keeper, attempts)


def timing_group(dialect: Dialect, run: Run | None) -> str:
    """Return what groups a run with others that take about as long; empty where nothing does."""
    if run is None or not isinstance(dialect, GroupsRuns):
        return ""
    return dialect.timing_group(evolve(run))  # of a copy: what is parsed to answer is not kept with the run


def plain_output(output: ToolOutput) -> ToolOutput:
    """Return the answer in plain JSON types; raise `ConfigurationError` for what JSON cannot carry."""
    return evolve(output, output=codec.to_jsonable(output.output, f"the output for {output.action.name!r}"))
