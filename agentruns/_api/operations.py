"""What can be done to a run, by the flows of a dialect. Callers check what users pass, and keep the journal."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any, Final
from weakref import WeakValueDictionary

from attrs import evolve

from agentruns._telemetry import Telemetry
from agentruns._values import codec
from agentruns._values.exchange import NO_PARAMS, Request, ServerEvent
from agentruns._values.generic import Json
from agentruns._values.large import written
from agentruns._values.run import Action, Run, RunRef, RunStatus, ToolOutput
from agentruns.dialects.vendor import Vendor
from agentruns.errors import (
    AgentRunsError,
    AlreadyAnsweredError,
    APIError,
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    ProtocolError,
    TransportError,
    UnsupportedError,
)

from .api import Api
from .channel import Heard
from .flow import Attempts, Keeper

logger = logging.getLogger("agentruns")

FRESH_SECONDS: Final = 10.0
"""A 404 this soon after our own start is taken for a read that came before the write was visible."""

_TAKEN: Final = 256
"""How many answers that were taken are remembered, so that the same one is known again; and how many origins."""

_MOST_WAITED: Final = 600.0
"""How long a run that came of another answer is waited for where the vendor does not say how long runs take."""

_PACE: Final = (2.0, 8.0)
"""The first and the longest gap between two reads of it, where the vendor advises none."""

_NOTHING: Final[Mapping[str, Any]] = {}


class Operations:
    """Start, read, answer and cancel runs; remember which were started lately."""

    def __init__(self, api: Api, vendor: Vendor, telemetry: Telemetry) -> None:
        self.vendor: Final = vendor
        self._api = api
        self._telemetry = telemetry
        self._started: dict[RunRef, float] = {}
        self._answering: WeakValueDictionary[RunRef, asyncio.Lock] = WeakValueDictionary()
        self._taken: OrderedDict[RunRef, Sequence[ToolOutput]] = OrderedDict()
        self._origins: OrderedDict[RunRef, Any] = OrderedDict()

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
        run = await self._repeat_conflicts("start", (origin,), keeper, attempts)
        self._keep_origin(run, origin)
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
        run = await self._perform("recover", (origin, note), keeper, attempts)
        self._keep_origin(run, origin)
        return run

    async def fetch(self, ref: RunRef, params: Mapping[str, str] = NO_PARAMS, attempts: Attempts | None = None) -> Run:
        """Read a run once; *params* go to the vendor as query parameters."""
        return await self._perform("fetch", (ref, params), attempts=attempts)

    def origin_for(self, run: Run, origin: Any = None) -> Any:
        """
        Return what started *run*: *origin* if that is known, else what this client remembers.

        None for a vendor whose answers need no origin. Raise `ConfigurationError` where it is needed and not known.
        """
        if not self.vendor.asks_origin():
            return None
        known = self._origins.get(run.ref) if origin is None else origin
        if known is None:
            raise ConfigurationError(
                f"{self.vendor.NAME} wants each answer to repeat what started run {run.id}, and this client does not "
                "know that",
                field="origin",
                remedy="`client.resume(run, outputs, origin=...)` says it; a stream knows it that starts the run, and "
                "so does one whose `key` names it in a journal",
            )
        return known

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
        fit = await plain_outputs(outputs)
        async with self._answering.setdefault(run.ref, asyncio.Lock()):
            resumed = await self._resumed("resume", run, fit, attempts, origin)
            self._take(run, fit)
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
        origin = self.origin_for(run, origin)
        resume = "resume"
        if again and self.vendor.resume_again is not None:
            resume = "resume_again"
        elif self.vendor.resume_first is not None:
            resume = "resume_first"
        attempts = Attempts()
        async with self._answering.setdefault(run.ref, asyncio.Lock()):
            # Asked first: where a reply gets lost, some vendors cannot be asked whose answer they took.
            standing = () if again else self._other_answers(run, outputs)
            if standing:
                raise AlreadyAnsweredError(run, standing)
            try:
                resumed = await self._resumed(resume, run, outputs, attempts, origin)
            except AlreadyAnsweredError as error:
                # What was taken cannot be read yet: it is ours if we have heard so, or if our first try got no answer.
                if error.standing:
                    raise
                if attempts.doubt or self._taken.get(run.ref) == outputs:
                    resumed = error.run
                elif error.run.ref != run.ref and await self._stops_moving(error.run):
                    resumed = await self._resumed(resume, run, outputs, Attempts(), origin)
                else:
                    raise
            except (ConflictError, InvalidRequestError) as error:
                if not again and not error.after_doubt:
                    await self._check_answered(run, outputs, error)
                raise
            self._take(run, outputs)
        return self._note(resumed, run)

    async def _check_answered(self, run: Run, outputs: Sequence[ToolOutput], refusal: APIError) -> None:
        """
        Raise `AlreadyAnsweredError` if it can be seen that a refusal comes of another answer, which was first.

        That is a run that came of it, or one that goes on in place. A dialect with `resume_first` has looked at the run
        itself: what it says of a refusal is more than could be seen here, but for a run that came meanwhile.
        """
        looks_itself = self.vendor.resume_first is not None
        if looks_itself and not isinstance(refusal, ConflictError):
            return
        try:
            followed = await self.answered_by(run)
            if followed is not None:
                why = f"run {run.id} was answered before, and run {followed.id} has come of it"
            elif looks_itself or self.vendor.answered_by is not None:
                return
            else:
                followed, why = await self.fetch(run.ref), f"run {run.id} does not ask for this any more"
                asked = {action.id for action in followed.actions}
                if followed.status is RunStatus.FAILED or not asked.isdisjoint(each.action.id for each in outputs):
                    return  # it ended without an answer, or asks still
        except AgentRunsError:
            return  # the refusal says what there is to say
        raise AlreadyAnsweredError(followed, (), why, response=refusal.response) from refusal

    async def _resumed(
        self, name: str, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts | None, origin: Any
    ) -> Run:
        """Post answers; what refuses them, or loses them, says what can be done next."""
        given = {"origin": origin} if self.vendor.asks_origin(name) else {}
        try:
            resumed = await self._repeat_conflicts(name, (run, outputs), None, attempts, given)
        except AlreadyAnsweredError:
            raise
        except (APIError, TransportError) as error:
            error.remedy = error.remedy or (
                f"`client.resume(run, outputs)` answers run {run.id} once that is put right, if `client.fetch(run)` "
                "shows that it still waits"
            )
            raise
        self._keep_origin(resumed, origin)
        return resumed

    async def _stops_moving(self, run: Run) -> bool:
        """Read a run until it moves no more, as long as runs of the vendor may take; tell whether it came to that."""
        if not run.status.in_flight:
            return False
        clock = asyncio.get_running_loop().time
        until = clock() + (self.vendor.RUN_SECONDS or _MOST_WAITED)
        wait, longest = self.vendor.POLL_SECONDS or _PACE
        while clock() < until:
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)
            try:
                run = await self.fetch(run.ref)
            except (APIError, ProtocolError, TransportError) as error:
                logger.debug("looking again: %s", error)
            if not run.status.in_flight:
                return True
        return False

    def _take(self, run: Run, outputs: Sequence[ToolOutput]) -> None:
        """Remember, for a while, what the vendor has taken."""
        self._taken[run.ref] = outputs
        while len(self._taken) > _TAKEN:
            self._taken.popitem(last=False)

    def _keep_origin(self, run: Run, origin: Any) -> None:
        """Remember, for a while, what started a run, if its answers need it: the caller may come back with the run."""
        if origin is None or not self.vendor.asks_origin():
            return
        self._origins[run.ref] = origin
        while len(self._origins) > _TAKEN:
            self._origins.popitem(last=False)

    def _other_answers(self, run: Run, outputs: Sequence[ToolOutput]) -> tuple[ToolOutput, ...]:
        """Return those answers that this client has had taken for the same actions of *run*, and that differ."""
        given = {each.action.id: (each.output, each.is_error) for each in outputs}
        return tuple(
            each
            for each in self._taken.get(run.ref, ())
            if given.get(each.action.id, (each.output, each.is_error)) != (each.output, each.is_error)
        )

    async def answered_by(self, run: Run, attempts: Attempts | None = None) -> Run | None:
        """Return the run that followed a paused one, None if there is none, or the vendor does not tell."""
        if self.vendor.answered_by is None:
            return None
        found = await self._api.perform(self.vendor.flow("answered_by", run), attempts=attempts)
        return None if found is None else self.vendor.run("answered_by", found)

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
        for ref in [ref for ref, began in islice(self._started.items(), 8) if began + FRESH_SECONDS < now]:
            del self._started[ref]
        self._started[run.ref] = now
        goes_on = paused is not None and paused.ref == run.ref
        group = timing_group(self.vendor, run)
        if paused is not None and not goes_on:
            self._telemetry.on_passed_on(paused, timing_group(self.vendor, paused))
        self._telemetry.on_state(run, paused if goes_on else None, kind=group, started=not goes_on)
        return run

    async def _repeat_conflicts(
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
                return await self._perform(name, args, keeper, attempts, given)
            except AlreadyAnsweredError:
                raise
            except ConflictError as error:
                logger.debug("looking again: %s", error)
        return await self._perform(name, args, keeper, attempts, given)

    async def _perform(
        self,
        name: str,
        args: tuple[Any, ...],
        keeper: Keeper | None = None,
        attempts: Attempts | None = None,
        given: Mapping[str, Any] = _NOTHING,
    ) -> Run:
        """Return the run that a function of the dialect comes to."""
        return self.vendor.run(name, await self._api.perform(self.vendor.flow(name, *args, **given), keeper, attempts))


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
