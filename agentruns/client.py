"""The client: one vendor, one transport, and the calls that users make."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from contextvars import Context
from functools import partial
from itertools import islice
from threading import get_ident
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit
from weakref import WeakSet, WeakValueDictionary

from attrs import evolve

from ._aio.shield import run_shielded
from ._api.address import is_loopback
from ._api.flow import Keeper, perform
from ._api.limiter import RateLimiter, rate_limit
from ._api.retry import Retry, Schedule, is_schedule
from ._api.transport import MAX_BODY, Address, AiohttpTransport, Secret, Transport
from ._following.batch import Batch, ItemRunner, raise_unless_completed
from ._following.stream import FRESH_SECONDS, OnCancel, Options, RunStream, StreamOptions
from ._keeping.keys import Keys, Unfinished
from ._polling.poller import Poller
from ._polling.stats import Stats
from ._telemetry import DEFAULT_ROLES, Telemetry
from ._values import check, codec
from ._values.commands import Flow
from ._values.exchange import RateLimit, Request, Response
from ._values.run import Action, Origins, Run, RunRef, RunStatus, ToolOutput
from .dialects import load
from .dialects.protocol import (
    Cancels,
    ChecksToken,
    Dialect,
    FindsAnsweringRun,
    Lists,
    NamesTraceRoles,
    Resumes,
    StreamsEvents,
)
from .dialects.wire import retry_after
from .errors import ConfigurationError, ConflictError, TransportError, UnsupportedError, api_error
from .tools import Tools, ToolsLike

if TYPE_CHECKING:  # imported when they are first used: `import agentruns` stays light
    import aiohttp

    from ._keeping.journal import Journal

logger = logging.getLogger("agentruns")

T = TypeVar("T")

EXIT_SECONDS = 30.0
"""How long handlers may take to clean up after they were cancelled before the client is left without them."""


def connect(
    dialect: Dialect | ModuleType | str,
    *,
    token: str | None = None,
    base_url: str | None = None,
    session: aiohttp.ClientSession | None = None,
    timeout: float = 30.0,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    schedule: Schedule | None = None,
    budget: float | RateLimiter | None = None,
    insecure: bool = False,
    journal: str | os.PathLike[str] | None = None,
    connections: int = 100,
    max_body: int = MAX_BODY,
) -> Client:
    """
    Return a client of one vendor, to be opened with `async with`.

    *dialect* is a module such as `agentruns.narrative`, its name, or anything that satisfies the `Dialect` protocol.
    *token* and *base_url* are else read from the vendor's environment variables. A *session* is borrowed, never closed.
    *timeout* is in seconds, for one HTTP exchange; connecting may take no more than 10 of them. *schedule* says when to
    poll; by default that is learned from how long runs take. *budget* is how many requests per second may be sent, by
    default the vendor's documented limit with headroom.
    *journal* is the path of a file that keeps what is begun under a `key`, so that it outlives this process.
    *connections* bounds both the requests in flight and the connections; *max_body* the bytes of an answer.

    Raise `ConfigurationError` for what cannot work: no token, a token over plain http to another host (unless
    *insecure*), an unknown dialect, a URL that is none, a number that is out of range.
    """
    kind = type(token)
    token = Secret(token) if isinstance(token, str) else None  # what reports local variables shall not show it
    if not issubclass(kind, str | NoneType):
        raise ConfigurationError(f"token is of the type {kind.__name__}; it must be a text, such as that in a variable")
    known = load(dialect) if isinstance(dialect, str) else _checked(dialect)
    check.number("timeout", timeout)
    check.integer("connections", connections, 1)
    check.integer("max_body", max_body, 1)
    check.instance("retry", retry, Retry, "`Retry(attempts=4)`; with one attempt nothing is sent again")
    check.boolean("insecure", insecure)
    if session is not None:
        _check_session(session)
    if schedule is not None:
        is_schedule("schedule", schedule)
    if budget is not None and not isinstance(budget, RateLimiter):
        check.number("budget", budget)
    address = Address(_base_url(known, base_url, insecure=insecure), _token(known, token))
    if isinstance(known, ChecksToken):
        known.check_token(address.base_url, address.token)
    transport = AiohttpTransport(
        address,
        session=session,
        timeout=timeout,
        connections=connections,
        max_body=max_body,
    )
    limit = known.BUDGET if budget is None else budget if isinstance(budget, RateLimiter) else rate_limit(budget)
    kept = None if journal is None else _journal(journal, known)
    return Client(known, transport, retry=retry, schedule=schedule, limit=limit, connections=connections, journal=kept)


class Client:
    """
    Start, follow, answer and cancel runs of one vendor; made by `connect`.

    An async context manager: leaving it ends every stream, releases every connection and leaves no task behind.
    """

    def __init__(
        self,
        dialect: Dialect,
        transport: Transport,
        *,
        retry: Retry,
        schedule: Schedule | None = None,
        limit: RateLimit | RateLimiter | None = None,
        connections: int = 100,
        journal: Journal | None = None,
    ) -> None:
        self._dialect = dialect
        self._transport = transport
        self._retry = retry
        self._streams: WeakSet[RunStream] = WeakSet()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._work: set[asyncio.Task[Any]] = set()
        self._started: dict[RunRef, float] = {}
        self._open = False
        self._keys = None if journal is None else Keys(journal, dialect, self)
        self._thread = 0
        self._budget = limit if isinstance(limit, RateLimiter) else RateLimiter(limit)
        roles = dialect.TRACE_ROLES if isinstance(dialect, NamesTraceRoles) else DEFAULT_ROLES
        self._telemetry = Telemetry(dialect.NAME, roles)
        self._poller = Poller(
            dialect,
            transport,
            self._call,
            self._heed,
            self._budget,
            self._telemetry,
            self.spawn,
            self._locks,
            schedule=schedule,
            backoff=retry.backoff,
            at_once=max(connections - connections // 8, 1),  # a start finds a connection whatever is polled
        )

    def __repr__(self) -> str:
        return f"<Client of {self._dialect.NAME} over {self._transport!r}, {'open' if self._open else 'not open'}>"

    async def __aenter__(self) -> Self:
        if self._keys is not None:
            await self._keys.journal.open()
        try:
            await self._transport.open(partial(self._budget.rested, self._retry.longest))
        except BaseException:
            if self._keys is not None:
                await self._keys.journal.close()
            raise
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._poller.open(self._loop)
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._poller.close()
        self._budget.close()
        for stream in tuple(self._streams):
            stream.end("the client was closed while this stream was waited for")
        work = set(self._work)
        for task in work:
            task.cancel()
        await run_shielded(self._close(work))

    async def _close(self, work: AbstractSet[asyncio.Task[Any]]) -> None:
        """Wait for the *work* that was cancelled, and leave nothing open."""
        try:
            if work:
                _done, left = await asyncio.wait(work, timeout=EXIT_SECONDS)
                for task in left:
                    logger.warning("a handler does not end although it was cancelled: %r", task)
        finally:
            self._telemetry.close()
            try:
                await self._transport.close()
            finally:
                if self._keys is not None:
                    await self._keys.journal.close()

    # Runs -------------------------------------------------------------------------------------------------------------

    async def start(self, origin: Any) -> Run:
        """
        Start a run and return its first state.

        Raise `OutcomeUnknownError` where the vendor may or may not have started it, `ConflictError` where its state has
        moved, other `APIError`s where it refuses.
        """
        self._check_origin(origin)
        run = await self.begin(origin)
        self._telemetry.on_unwatched(run.ref)  # whoever follows it begins anew
        return run

    async def fetch(self, run: Run | RunRef, **params: str) -> Run:
        """Read a run once; *params* go to the vendor as query parameters."""
        return await self.perform(self._dialect.fetch(self._ref(run), params))

    def stream(
        self,
        origin: Any,
        *,
        tools: ToolsLike | None = None,
        timeout: float | None = 600.0,
        max_resumes: int = 10,
        progress: bool = False,
        patience: float = 60.0,
        stall: float | None = None,
        on_cancel: OnCancel = "leave",
        events: bool = False,
        key: str | None = None,
    ) -> RunStream:
        """
        Return the states of a run as an async iterator: of a new run, if *origin* is what starts one.

        A `Run` or `RunRef` is watched from where it is; a `Run` counts as the first state. *timeout*, *patience* and
        *stall* are in seconds: for the whole wait (handlers included; None for an `Inbox`), for lost contact while
        polling, and for a run in which nothing observable changes. *max_resumes* bounds how often handlers answer. With
        *progress*, states that differ in progress alone are shown too. *on_cancel* says what cancelling the local wait
        does to the remote run.
        *key* names the work in the client's journal: the same key attaches to the run that was started under it.
        With *events*, the vendor's stream of events is listened to between polls, and its end is a reason to poll.

        Nothing is sent before the first step. Raise `ConfigurationError` or `UnsupportedError` at once for what cannot
        work.
        """
        check.boolean("progress", progress)
        check.boolean("events", events)
        options = Options(
            timeout=timeout,
            max_resumes=max_resumes,
            progress=progress,
            patience=patience,
            stall=stall,
            on_cancel=on_cancel,
            events=events,
        )
        if key is not None and self._keys is None:
            raise ConfigurationError(
                "`key` names work in a journal, and this client has none: pass `connect(..., journal=path)`"
            )
        if isinstance(origin, Run | RunRef):
            self._ref(origin)
        else:
            self._check_origin(origin)
        if on_cancel != "leave":
            self._capable(Cancels, "cancel")
        if events:
            self._capable(StreamsEvents, "announce events of")
        keyed = self._keys.work(key) if self._keys is not None and key is not None else None
        stream = RunStream(self, self._poller, origin, None if tools is None else Tools.of(tools), options, keyed)
        self._streams.add(stream)
        return stream

    async def result(self, origin: Any, **options: Unpack[StreamOptions]) -> Run:
        """
        Follow a run to its end and return its last state; the options are those of `stream`.

        Raise `RunFailedError` if it failed, `ActionRequiredError` if it waits for an answer that *tools* does not give.
        """
        async with self.stream(origin, **options) as stream:
            async for _ in stream:
                pass
        return raise_unless_completed(stream.run)

    async def resume(self, run: Run, outputs: Sequence[ToolOutput]) -> Run:
        """
        Answer a paused run and return the state that follows: of the same run or of another, as the vendor has it.

        Raise `ConfigurationError`, before any request, for a run that does not wait, for an answer to something that is
        not pending, and for an output that JSON cannot carry.
        """
        self._capable(Resumes, "resume")
        if not isinstance(run, Run):
            raise ConfigurationError(f"{run!r} cannot be answered; pass a Run: `await client.fetch(ref)` reads one")
        self._ref(run)
        given: Any = outputs
        outputs = tuple(given) if isinstance(given, Iterable) else (given,)
        if not all(isinstance(each, ToolOutput) for each in outputs):
            raise ConfigurationError("outputs must be a sequence of ToolOutput(action, output)")
        if run.status is not RunStatus.REQUIRES_ACTION:
            raise ConfigurationError(f"run {run.id} is {run.status}; only one that requires action can be answered")
        pending = {action.id for action in run.actions}
        strange = [output.action.id for output in outputs if output.action.id not in pending]
        if strange:
            raise ConfigurationError(
                f"run {run.id} does not wait for {', '.join(strange)}; it waits for {', '.join(sorted(pending))}. Read "
                "it again with `client.fetch(run)` if it may have moved"
            )
        if self._keys is not None:
            await self._keys.decided(run, [evolve(each, output=_plain(each)) for each in outputs])
        resumed = await self.answer(run, outputs)
        if self._keys is not None:
            await self._keys.moved(run, resumed)
        self._telemetry.on_unwatched(run.ref)
        self._telemetry.on_unwatched(resumed.ref)
        return resumed

    async def cancel(self, run: Run | RunRef) -> Run | None:
        """Cancel a run and return what the vendor says of it; raise `UnsupportedError` where there is no cancel."""
        return await self.perform(self._capable(Cancels, "cancel").cancel(self._ref(run)))

    def runs(self, parent: str | None = None) -> AsyncGenerator[Run, None]:
        """Iterate over the runs of *parent*, page by page; raise `UnsupportedError` where the vendor has no list."""
        return self._pages(self._capable(Lists, "list"), parent or "")

    def batch(
        self,
        origins: Origins,
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: float | None = 600.0,
        key: Callable[[Any], str] | None = None,
        ordered: bool = False,
        prepare: Callable[[Any], Any] | None = None,
    ) -> Batch:
        """
        Run many origins, never more than *limit* at once, and iterate over each `Outcome` as it ends.

        *origins*, an iterable or async iterable, is taken lazily. One failure never stops the others. *timeout* is in
        seconds, for each run. With *ordered*, outcomes come in the order of the origins. *key* names an origin: in a
        client with a journal, a second batch over the same origins starts only what is not done. *prepare* makes the
        origin of an item, in the item's turn, and not again if the journal knows it; it may be async, and create a
        conversation for example.

        `batch.stop()` takes no more origins and lets the rest end. Leave the loop early within
        `async with client.batch(...) as outcomes:` to end the rest at once; a plain `break` ends it when the batch is
        let go of.
        """
        check.integer("limit", limit, 1)
        if timeout is not None:
            check.number("timeout", timeout)
        common = None if tools is None else Tools.of(tools)

        def follow(origin: Any, key: str | None) -> RunStream:
            return self.stream(origin, tools=common, timeout=timeout, key=key)

        return Batch(ItemRunner(follow, key, prepare, self._keys), origins, limit, ordered=ordered)

    async def perform(self, flow: Flow[T]) -> T:
        """Run a vendor's operation, such as `narrative.get_conversation(id)`, and return its result."""
        given: Any = flow
        if not isinstance(given, Generator) or inspect.getgeneratorstate(flow) != inspect.GEN_CREATED:
            raise ConfigurationError(
                f"{flow!r} cannot be performed: pass a new flow each time, such as narrative.get_conversation(id)"
            )
        return await self._perform(flow, None)

    async def _perform(self, flow: Flow[T], keeper: Keeper | None) -> T:
        if not self._open:
            flow.close()
            raise ConfigurationError("this client is not open; use it within `async with connect(...) as client:`")
        return await perform(flow, self._call, self._dialect.problem, self._retry, self._locks, keeper)

    def unfinished(self) -> AsyncIterator[Unfinished]:
        """
        Iterate over the work in the journal that is not done, oldest first.

        `client.stream(work.origin, key=work.key)` goes on with it. Raise `ConfigurationError` if there is no journal.
        """
        if self._keys is None:
            raise ConfigurationError("this client has no journal: pass `connect(..., journal=path)`")
        return self._keys.unfinished()

    def stats(self) -> Stats:
        """Return what this client watches and sends, in numbers."""
        return self._poller.stats()

    # What a stream needs ----------------------------------------------------------------------------------------------

    @property
    def keys(self) -> Keys | None:
        """Return what is known under keys, if there is a journal."""
        return self._keys

    async def begin(self, origin: Any, keeper: Keeper | None = None) -> Run:
        """Start a run that a stream follows; *keeper* keeps what the start finds out on its way."""
        return self._fresh(await self._looking_again(lambda: self._dialect.start(origin), keeper), None)

    async def settle(self, flow: Flow[Run], keeper: Keeper | None = None) -> Run:
        """Find out what became of a start, or go through with it."""
        return await self._perform(flow, keeper)

    async def answer(self, run: Run, outputs: Sequence[ToolOutput], *, again: bool = False) -> Run:
        """Answer a run that a stream follows; *again*, if that was tried before and its outcome is not clear."""
        dialect = self._capable(Resumes, "resume")
        found = await self.answered_by(run) if again else None
        if found is not None:
            return self._fresh(found, run)
        fit = [evolve(each, output=_plain(each)) for each in outputs]
        return self._fresh(await self._looking_again(lambda: dialect.resume(run, fit)), run)

    async def answered_by(self, run: Run) -> Run | None:
        """Return the run that followed a paused one, None if there is none, or the vendor does not tell."""
        if not isinstance(self._dialect, FindsAnsweringRun):
            return None
        return await self._perform(self._dialect.answered_by(run), None)

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """
        Begin work that outlives a step, but not this client; what it raises is for its stream to tell.

        It sees the context variables of the caller, or those of *context*.
        """
        task = asyncio.create_task(work, context=context)
        self._work.add(task)
        task.add_done_callback(self._settle)
        return task

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.debug("work of a stream ended with %r", task.exception())

    def started(self, ref: RunRef) -> float:
        """Return the time of the loop at which this client started the run, if that is not long ago."""
        return self._started.get(ref, -math.inf)

    def let_go(self, leave: Callable[[], None]) -> None:
        """Call *leave* for a stream that nobody holds any more, in whichever thread the collector found it."""
        if not self._open or self._loop.is_closed():
            return
        if get_ident() == self._thread:  # not at once: the collector may have come in the middle of the poller's work
            self._loop.call_soon(leave)
        else:
            self._loop.call_soon_threadsafe(leave)

    def _fresh(self, run: Run, paused: Run | None) -> Run:
        """Note that a run was started, or, if it is the one that was *paused*, that it goes on."""
        now = asyncio.get_running_loop().time()
        for ref in [ref for ref, began in islice(self._started.items(), 8) if began + FRESH_SECONDS < now]:
            del self._started[ref]
        self._started[run.ref] = now
        goes_on = paused is not None and paused.ref == run.ref
        self._telemetry.on_state(run, paused if goes_on else None, kind=self._poller.kind(run), started=not goes_on)
        return run

    async def _call(self, request: Request) -> Response:
        """Send a request that somebody waits for: before any poll, within the budget."""
        await self._budget.enter(self._retry.longest)
        try:
            response = await self._transport(request)
        finally:
            self._budget.leave()
        self._heed(response)
        return response

    def _heed(self, response: Response) -> None:
        """Give the vendor the rest that it asks for."""
        if response.status in {429, 503} and response.request.again_after_429:
            asked = retry_after(response.headers)
            if asked:
                self._budget.rest(asked, api_error(response, self._dialect.problem(response), asked))

    async def listen(self, ref: RunRef) -> None:
        """Return when the vendor ends the stream of events of *ref*: a reason to read it, not yet news."""
        request = self._capable(StreamsEvents, "announce events of").events(ref)
        await self._budget.enter(self._retry.longest)
        with ExitStack() as place:  # taken until the stream is open, or will not be
            place.callback(self._budget.leave)
            refusal = await self._transport.listen(request, place.close)
        if refusal is not None:
            self._heed(refusal)
            raise TransportError(request, f"the stream of events was answered {refusal.status}")

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler for *action* may be registered, best first."""
        return self._dialect.handler_names(action)

    async def _looking_again(self, make: Callable[[], Flow[Run]], keeper: Keeper | None = None) -> Run:
        """Perform a flow that reads a state and acts on it, anew as often as `Retry.conflicts` allows."""
        for _ in range(int(self._retry.conflicts)):
            try:
                return await self._perform(make(), keeper)
            except ConflictError as error:
                logger.debug("looking again: %s", error)
        return await self._perform(make(), keeper)

    async def _pages(self, dialect: Lists, parent: str) -> AsyncGenerator[Run, None]:
        cursor: str | None = None
        last: set[RunRef] = set()
        while True:
            page = await self.perform(dialect.page(parent, cursor))
            for run in page.runs:
                if run.ref not in last:  # new runs shift the pages of a vendor that numbers them
                    yield run
            if page.cursor is None:
                return
            cursor, last = page.cursor, {run.ref for run in page.runs}

    def _ref(self, run: Any) -> RunRef:
        if not isinstance(run, Run | RunRef):
            raise ConfigurationError(f"{run!r} is no run; pass a Run, or RunRef(id, parent)")
        if isinstance(run, RunRef):
            return run
        if run.vendor not in {"", self._dialect.NAME}:
            raise ConfigurationError(f"run {run.id} is of {run.vendor}, and this client is of {self._dialect.NAME}")
        return run.ref

    def _check_origin(self, origin: Any) -> None:
        if not isinstance(origin, self._dialect.Origin):
            raise ConfigurationError(
                f"{self._dialect.NAME} starts a run from {self._dialect.Origin.__name__}, not from "
                f"{type(origin).__name__}; to go on with one that exists, pass its Run or RunRef to `client.stream`"
            )

    def _capable(self, capability: type[T], operation: str) -> T:
        if not isinstance(self._dialect, capability):
            raise UnsupportedError(f"{self._dialect.NAME} has no way to {operation} runs")
        return self._dialect


def _plain(output: ToolOutput) -> Any:
    return codec.to_jsonable(output.output, f"the output for {output.action.name!r}")


def _journal(path: str | os.PathLike[str], dialect: Dialect) -> Journal:
    from ._keeping.journal import Journal

    return Journal(path, dialect.NAME)


def _checked(dialect: Any) -> Dialect:
    missing = [
        name for name in ("NAME", "BASE_URL", "Origin", "start", "fetch", "problem") if not hasattr(dialect, name)
    ]
    if missing:
        raise ConfigurationError(
            f"{dialect!r} is no dialect: it lacks {', '.join(missing)}. Pass a module such as `agentruns.narrative`, "
            "its name, or what satisfies `agentruns.Dialect`"
        )
    known: Dialect = dialect
    return known


def _check_session(session: object) -> None:
    import aiohttp  # which whoever has a session has imported before

    check.instance("session", session, aiohttp.ClientSession, "leave it out, and the client opens one of its own")


def _token(dialect: Dialect, token: str | None) -> str:
    found = Secret((os.environ.get(dialect.TOKEN_VARIABLE, "") if token is None else token).strip())
    if not found:
        raise ConfigurationError(
            f"there is no token for {dialect.NAME}; pass `token=`, or set the environment variable "
            f"{dialect.TOKEN_VARIABLE}"
        )
    if not found.isascii() or not found.isprintable() or " " in found:
        raise ConfigurationError(f"the token for {dialect.NAME} has characters that a header cannot carry")
    return found


def _base_url(dialect: Dialect, base_url: str | None, *, insecure: bool) -> str:
    check.text_or_none("base_url", base_url)
    url = base_url or os.environ.get(dialect.BASE_URL_VARIABLE) or dialect.BASE_URL
    check.utf8("base_url", url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"base_url is {url!r}, which is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(
            f"base_url is not one that requests can hang on; it must look like {dialect.BASE_URL}: http or https, a "
            "host, a path if need be, and no user, query or fragment"
        )
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise ConfigurationError(
            f"base_url {url!r} would send the token unencrypted to {host}; use https, or pass `insecure=True` if you "
            "accept that"
        )
    return url.rstrip("/")
