"""The client: the calls that users make, checked and passed on; nothing inside the package calls it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from attrs import evolve

from ._aio.shield import prepare_shield, run_shielded
from ._aio.tasks import Tasks
from ._api.accounts import Account
from ._api.admission import Entrance
from ._api.api import Api
from ._api.channel import Channel
from ._api.limiter import Permits, RateLimiter
from ._api.operations import Operations, plain_outputs
from ._api.retry import Retry, Schedule
from ._following.batch import Batch
from ._following.driving import RunDrive
from ._following.events import EventStream
from ._following.items import ItemRunner
from ._following.lifecycle import DirectLifecycle, FoundLifecycle, Lifecycle
from ._following.options import (
    OnCancel,
    OnEvent,
    Options,
    StreamOptions,
    Timeout,
    WatchOptions,
    item_options,
    options_of_watch,
    seconds_of,
)
from ._following.progress import BatchProgress
from ._following.stream import RunStream, close, share
from ._following.watching import RunWatch
from ._keeping.budget import SharedBudget
from ._keeping.keys import Keys
from ._keeping.lifecycle import JournaledLifecycle
from ._keeping.work import Changed, Unfinished, resolver
from ._polling.poller import Poller
from ._polling.stats import Stats
from ._telemetry import DEFAULT_ROLES, Telemetry
from ._values import check, codec
from ._values.commands import Flow
from ._values.exchange import NO_PARAMS, RateLimit
from ._values.generic import DetailT, OriginT
from ._values.run import Origins, Run, RunRef, RunStatus, ToolOutput
from .dialects import register
from .dialects.protocol import Dialect
from .dialects.vendor import Vendor
from .errors import ConfigurationError
from .tools import Tools, ToolsLike

if TYPE_CHECKING:  # imported when they are first used: `import agentruns` stays light
    from ._keeping.journal import Journal

T = TypeVar("T")
ItemT = TypeVar("ItemT")


class Client(Generic[OriginT, DetailT]):
    """
    Start, follow, answer and cancel runs of one vendor; made by `connect`.

    An async context manager: leaving it ends every stream, releases every connection and leaves no task behind. Its
    parameters are the class of what starts a run and that of `Run.detail`; both follow from the dialect.

    What every call that sends a request may raise: `APIError` where the vendor refuses, by its class (such as
    `NotFoundError`); `TransportError` where no answer came after all attempts; `ProtocolError` for an answer that is
    not what the vendor documents.
    """

    def __init__(
        self,
        dialect: Dialect[OriginT, DetailT],
        transport: Channel,
        *,
        retry: Retry,
        schedule: Schedule | None = None,
        limit: RateLimit | RateLimiter | SharedBudget | None = None,
        connections: int = 100,
        journal: Journal | None = None,
        base_url: str = "",
        account: Account | None = None,
    ) -> None:
        self._vendor = vendor = Vendor.of(dialect)
        register(vendor)
        self._transport = transport
        self._shared = limit if isinstance(limit, SharedBudget) else None
        limit = limit.limiter if isinstance(limit, SharedBudget) else limit
        limiter = limit if isinstance(limit, RateLimiter) else RateLimiter(limit)
        self._streams: WeakSet[RunStream[DetailT] | RunWatch[DetailT] | RunDrive[DetailT]] = WeakSet()
        self._tasks = Tasks()
        self._telemetry = Telemetry(vendor.NAME, vendor.TRACE_ROLES or DEFAULT_ROLES, base_url)
        status_of = vendor.error_status and partial(vendor.call, "error_status")
        self._telemetry.use_budget(limiter.used_at)
        self._api = Api(
            transport, Permits(limiter, vendor.NAME), vendor.read_problem, retry, status_of, self._telemetry, account
        )
        self._operations = Operations(self._api, vendor, self._telemetry)
        self._options = Options()
        self._lifecycle = DirectLifecycle(self._operations)
        self._keys = None if journal is None else Keys(journal, self._operations, self._tasks)
        self._poller = Poller(
            vendor=vendor,
            api=self._api,
            tasks=self._tasks,
            telemetry=self._telemetry,
            schedule=schedule,
            at_once=max(connections - connections // 8, 1),  # a start finds a connection whatever is polled
        )

    def __repr__(self) -> str:
        state = "open" if self._api.is_open else "not open"
        return f"<Client of {self._vendor.NAME} over {self._transport!r}, {state}>"

    async def __aenter__(self) -> Self:
        loop = self._api.enter()
        try:
            prepare_shield()
            codec.prepare()
            await self._open()
        except BaseException:
            self._api.leave()
            raise
        self._tasks.open(loop)
        self._telemetry.open(loop.time)
        self._poller.open(loop)
        return self

    async def _open(self) -> None:
        if self._keys is not None:
            await self._keys.journal.open()
        try:
            if self._shared is not None:
                await self._shared.open()
            await self._api.open()
        except BaseException:
            await run_shielded(self._close_journal())
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._api.is_open:
            self._api.check_open()
        self._poller.close()
        self._api.close()
        for stream in tuple(self._streams):
            close(stream, "the client was closed while this stream was waited for")
        self._tasks.close()
        await run_shielded(self._wait_closed())

    async def _wait_closed(self) -> None:
        """Wait for the tasks that were cancelled, and leave nothing open."""
        try:
            await self._tasks.wait_closed()
        finally:
            self._telemetry.close()
            try:
                await self._api.wait_closed()
            finally:
                self._api.leave()
                await self._close_journal()

    async def _close_journal(self) -> None:
        if self._shared is not None:
            await self._shared.leave()
        if self._keys is not None:
            await self._keys.close()

    # Runs -------------------------------------------------------------------------------------------------------------

    async def start(self, origin: OriginT) -> Run[DetailT]:
        """
        Start a run and return its first state.

        Raise `OutcomeUnknownError` where the vendor may or may not have started it, `ConflictError` where the state
        that the start was made for has moved, `ConfigurationError` for an origin of another class.
        """
        self._check_origin(origin)
        run = await self._operations.start(origin)
        self._telemetry.on_unwatched(run.ref)  # the next stream of it begins anew
        return run

    async def fetch(self, run: Run[DetailT] | RunRef, **params: str) -> Run[DetailT]:
        """
        Read a run once and return its state.

        *params* are sent as query parameters. They ask for more of the detail where the vendor documents it:
        `include="steps"` for Middesk, `include="stats,transcript"` for Origami. Raise `NotFoundError` for a run that
        the vendor does not show to this token, `ConfigurationError` for a run of another vendor, or for a `RunRef`
        without the parent that the vendor needs (Origami, Conduit: the agent).
        """
        return await self._operations.fetch(self._ref(run), params)

    def stream(
        self,
        origin: OriginT | Run[DetailT] | RunRef,
        *,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        max_resumes: int = 10,
        progress: bool = False,
        patience: float = 60.0,
        stall: float | None = None,
        on_cancel: OnCancel = "leave",
        events: bool | OnEvent = False,
        key: str | None = None,
        digest: str | None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> RunStream[DetailT]:
        """
        Return the states of a run as an async iterator: of a new run, if *origin* is what starts one.

        A `Run` or `RunRef` is followed from where it is; a `Run` counts as the first state.

        - *tools* answers what the run asks for: `Tools`, a mapping of names to functions, or one function of an
          `Action`. Without a handler for each action, the stream ends with the paused state.
        - *timeout* is the seconds of the whole wait, requests, retries and handlers included; None sets no end, as an
          `Inbox` needs. It begins with the first request of a new run: waiting in the client's own line, for the rate
          limit, a slot or another start, is no part of it. By default it fits the vendor: 21 minutes for Origami, 6
          hours for Middesk, else 600 seconds. After it, `DeadlineExceededError`.
        - *max_resumes* is how often handlers may answer; one pause more is `TooManyResumesError`.
        - *progress* also shows states that differ in progress alone.
        - *patience* is the seconds of lost contact that polling survives; after them it raises the last
          `TransportError` or `ServerError`.
        - *stall* is the seconds without any observable change after which `StalledError` is raised; None for never.
        - *on_cancel* says what cancelling the local wait does to the remote run: "leave" it, "cancel" it, or "confirm":
          cancel it and read it until it is over, for 10 seconds at most.
        - *events* listens to the vendor's stream of events beside the polls (Middesk): an event is a reason to read the
          run, once a second at most, or tells its state. A function is called with each `ServerEvent`, as for partial
          output. It must not block; what it raises, a step of the stream raises.
        - *key* names the work in the client's journal. A second stream of the same key, in this process or after a
          crash in another, goes on with the run that the first one started, and runs no handler twice.
        - *digest* names what is asked for under *key*, where that is more or less than what *origin* says: a key
          refuses what asks for something else than the work that it names.
        - *include* asks for more of the detail once the run is over, by one more read: "steps" for Middesk,
          "stats,transcript" for Origami.
        - *params* are query parameters of every read of the run, such as `workspace_id` for Conduit. Streams on one run
          share its reads: what one of them adds is there for all.

        Nothing is sent before the first step; `RunStream.__anext__` says what a step raises. Raise at once:
        `ConfigurationError` for an origin of another class, a run of another vendor, an option that is out of range, or
        a *key* without a journal; `UnsupportedError` for *on_cancel* or *events* where the vendor has no cancel or no
        stream of events.
        """
        options = Options(
            timeout=seconds_of(self._vendor, timeout),
            max_resumes=max_resumes,
            progress=progress,
            patience=patience,
            stall=stall,
            on_cancel=on_cancel,
            events=events,
            include=include,
            params=NO_PARAMS if params is None else params,
        )
        if on_cancel != "leave":
            self._operations.require("cancel", "cancel")
        if events:
            self._operations.require("events", "announce events of")
        if options == self._options:  # as nearly all streams of a client have: thousands share one value
            options = self._options
        self._options = options
        return self._stream(origin, None if tools is None else Tools.of(tools), options, key, digest)

    def _stream(
        self, origin: Any, tools: Tools | None, options: Options, key: str | None = None, digest: str | None = None
    ) -> RunStream[DetailT]:
        if key is not None and self._keys is None:
            raise ConfigurationError(
                "`key` names work in a journal, and this client has none: pass `connect(..., journal=path)`"
            )
        check.text_or_none("digest", digest)
        if isinstance(origin, Run | RunRef):
            self._ref(origin)
        else:
            self._check_origin(origin)
        stream: RunStream[DetailT] = RunStream(
            origin,
            lifecycle=self._lifecycle_of(origin, tools, key, digest),
            operations=self._operations,
            poller=self._poller,
            tasks=self._tasks,
            tools=tools,
            options=options,
            admission=self._api.admission,
        )
        self._streams.add(stream)
        return stream

    def _lifecycle_of(self, origin: Any, tools: Tools | None, key: str | None, digest: str | None) -> Lifecycle:
        keys = self._keys
        if keys is not None and key is not None:
            return JournaledLifecycle(keys, key, digest)
        if keys is not None and tools is not None and isinstance(origin, Run | RunRef):
            return FoundLifecycle(self._lifecycle, keys)
        return self._lifecycle

    def _drive(
        self, origin: OriginT | Run[DetailT] | RunRef, options: StreamOptions
    ) -> RunStream[DetailT] | RunDrive[DetailT]:
        stream = self.stream(origin, **options)
        keys, key = self._keys, options.get("key")
        if key is not None:
            find = partial(self._journaled().shared.of_key, key)
        elif isinstance(origin, Run | RunRef) and keys is not None:
            find = partial(keys.shared.of_run, origin.id)
        else:
            return stream
        share(stream)
        looks = options_of_watch({
            "progress": options.get("progress", False),
            "patience": options.get("patience", 60.0),
            "params": options.get("params"),
        })
        drive: RunDrive[DetailT] = RunDrive(
            stream,
            partial(self._watch, looks, until_free=True),
            self._journaled().shared,
            find,
            seconds_of(self._vendor, options.get("timeout", "vendor")),
        )
        self._streams.add(drive)
        return drive

    def _watch(self, options: Options, ref: RunRef, *, until_free: bool = False) -> RunWatch[DetailT]:
        if options.events:
            self._operations.require("events", "announce events of")
        watch: RunWatch[DetailT] = RunWatch(
            self._ref(ref),
            stream=lambda run: self._stream(run, None, evolve(options, timeout=None)),
            operations=self._operations,
            poller=self._poller,
            tasks=self._tasks,
            shared=None if self._keys is None else self._keys.shared,
            options=options,
            until_free=until_free,
        )
        self._streams.add(watch)
        return watch

    def events(self, run: Run[DetailT] | RunRef) -> EventStream:
        """
        Return the events of a run as an async iterator, until the vendor ends the stream; for `async with`.

        It yields `ServerEvent` values, and `middesk.RunEvent.of(event)` reads them. They are hints for a display: the
        state of a run is what `fetch` and `stream` say. Nothing is sent before the first step. Raise at once
        `UnsupportedError` for a vendor without such a stream, `ConfigurationError` for a run of another vendor.
        """
        ref = self._ref(run)
        self._operations.require("events", "announce events of")
        return EventStream(partial(self._operations.listen, ref), self._tasks)

    async def result(self, origin: OriginT | Run[DetailT] | RunRef, **options: Unpack[StreamOptions]) -> Run[DetailT]:
        """
        Follow a run until it has completed and return its last state; the options are those of `stream`.

        Raise `RunFailedError` if it failed, `ActionRequiredError` if it waits for an answer that *tools* does not give,
        and what `stream` and its steps raise. Each `RunError` has the last state as `error.run`.
        """
        async with self.stream(origin, **options) as stream:
            return await stream.result()

    async def resume(
        self,
        run: Run[DetailT],
        outputs: Sequence[ToolOutput],
        *,
        again: bool = False,
        origin: OriginT | None = None,
    ) -> Run[DetailT]:
        """
        Answer a paused run and return the state that follows: of the same run or of another, as the vendor has it.

        The first answer to an action stands, from any person, handler or process: another one is refused by
        `AlreadyAnsweredError`, a `ConflictError` that says what stands; the same one once more is no other. Where an
        answer begins another run, every call for the same pause leads to the same one; where only its end shows what
        another process answered (Narrative), that is waited for. If that run has failed, *again* starts a new one with
        these *outputs*, which replace what a journal keeps as answered and not taken.

        *origin* is what started the run. It is needed where the vendor wants each answer to repeat it, and this client
        has not started the run lately, nor has its journal the work (a run taken up by its id alone).

        Before any request, raise `ConfigurationError` for a run that does not wait, for an answer to something that is
        not pending, for an output that JSON cannot carry, and for an *origin* that is needed and not known;
        `UnsupportedError` where the vendor's runs cannot be answered (Conduit). Raise `ConflictError` where the
        vendor's state has moved, as when the pause was answered already; `OutcomeUnknownError` where the answer may or
        may not have arrived.
        """
        self._operations.require("resume", "resume")
        check.boolean("again", again)
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
        if origin is not None:
            self._check_origin(origin)
        elif self._keys is not None:
            origin = await self._keys.origin_at(run)
        origin = self._operations.origin_for(run, origin)
        outputs = await plain_outputs(outputs)
        post = partial(self._operations.answer_first, run, outputs, origin=origin, again=again)
        if self._keys is None:
            resumed = await post()
        else:
            async with self._keys.deciding(run, outputs, again=again):
                resumed = await post()
            await self._keys.moved(run, outputs, resumed)
        self._telemetry.on_unwatched(run.ref)
        self._telemetry.on_unwatched(resumed.ref)
        return resumed

    async def cancel(self, run: Run[DetailT] | RunRef) -> Run[DetailT] | None:
        """
        Cancel a run and return its state afterwards, which may still be in flight: cancelling can take a while.

        A run that is over already is returned as it is. None means that the vendor had nothing to cancel and says
        nothing of the run. Raise `UnsupportedError`, before any request, where the vendor has no cancel (all but
        Origami); `ConflictError` where another run of the same agent was cancelled instead.
        """
        self._operations.require("cancel", "cancel")
        return await self._operations.cancel(self._ref(run))

    def runs(self, parent: str | None = None) -> AsyncGenerator[Run[DetailT], None]:
        """
        Iterate over the runs of *parent*, in the vendor's order, newest first; one request per page, as it is needed.

        *parent* is an agent (Origami, Conduit: needed, else `ConfigurationError` at the first step), or a thread
        (Middesk, where None gives every run of the account). A run in a list has no `output` where the vendor leaves it
        out (Origami, Conduit): `fetch` reads it. Raise `UnsupportedError` at once where the vendor has no list
        (Narrative).
        """
        return self._operations.runs(parent or "")

    @overload
    def batch(
        self,
        origins: Origins[OriginT],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[OriginT], str] | None = None,
        ordered: bool = False,
        prepare: None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[OriginT], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[OriginT, DetailT, OriginT]: ...
    @overload
    def batch(
        self,
        origins: Origins[Run[DetailT] | RunRef],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[Run[DetailT] | RunRef], str] | None = None,
        ordered: bool = False,
        prepare: None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[Run[DetailT] | RunRef], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[Run[DetailT] | RunRef, DetailT, Run[DetailT] | RunRef]: ...
    @overload
    def batch(
        self,
        origins: Origins[ItemT],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[ItemT], str] | None = None,
        ordered: bool = False,
        prepare: Callable[[ItemT], OriginT | Awaitable[OriginT]],
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[ItemT], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[OriginT | ItemT, DetailT, ItemT]: ...
    def batch(
        self,
        origins: Origins[Any],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[Any], str] | None = None,
        ordered: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[Any], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[Any, DetailT, Any]:
        """
        Run many origins, never more than *limit* at once, and iterate over each `Outcome` as it ends.

        One failure never stops the others: it is the `error` of its outcome. Only after 401, 402 or 403, which every
        further start would meet, are no more origins taken, and once the rest is over, that error is raised. No origin
        is begun that cannot be served: the next waits until the rate limit leaves a request for it, beside those that
        read what has begun, until the vendor has a slot, and while the vendor does not answer. A 429 ends no run: it is
        waited out.

        - *origins* is an iterable or async iterable of what `stream` takes, taken lazily.
        - *tools* is as in `stream`, for all runs.
        - *timeout* is the seconds of each run, by default as in `stream`, and before it those of *prepare*; None sets
          no end. Waiting for the turn, for a slot, or for a vendor that does not answer is no part of it.
        - *patience* is the seconds for which it is waited for a vendor that does not answer. After them no more origins
          are taken, what is in flight ends with the last error, and then that error is raised.
        - *key* is a function that names an origin. In a client with a journal, a second batch over the same origins
          starts only what is not done.
        - *changed* says what becomes of an item whose key the journal knows for another request, by what the item
          itself says: it fails with `ConfigurationError` ("refuse"), starts a run of its own ("again"), or gets what
          there is ("keep").
        - *ordered* yields the outcomes in the order of the origins.
        - *include* and *params* are as in `stream`, for all runs.
        - *prepare* is a function, sync or async, that makes the origin of an item, in the item's turn: it may create a
          conversation first. It is not called for an item that the journal knows.
        - *options* is a function that gives what `stream` takes for an item of its own, in the place of what is said
          here: `lambda item: {"timeout": 30, "tools": item.tools}`.
        - *on_progress* is called with a `BatchProgress` when items are taken, and before an outcome is handed out;
          `agentruns.progress_bar()` gives one. What it raises, the batch raises.

        A handler, and *prepare*, learn by `agentruns.tools.current_item()` which item they are called for.

        `batch.stop()` takes no more origins and lets the rest end. Leave the loop early within
        `async with client.batch(...) as outcomes:` to end the rest at once; a plain `break` ends it when the batch is
        collected.

        Raise `ConfigurationError` at once for what is no iterable, and for options that are out of range. What
        *origins* itself raises ends the batch with that error, once all that was taken is over.
        """
        check.integer("limit", limit, 1)
        check.number("patience", patience, zero=True)
        seconds = seconds_of(self._vendor, timeout)
        tools = None if tools is None else Tools.of(tools)
        given = NO_PARAMS if params is None else params
        every = Options(timeout=seconds, patience=patience, include=include, params=given)
        common: StreamOptions = {
            "tools": tools,
            "timeout": seconds,
            "include": include,
            "params": params,
            "patience": patience,
        }

        def follow(origin: Any, key: str | None, digest: str | None, own: StreamOptions) -> RunStream:
            if own is common:
                return self._stream(origin, tools, every, key, digest)
            options: StreamOptions = {**own, "key": key, "digest": digest}
            return self.stream(origin, **options)

        resolve = resolver(self.work, changed)
        runner = ItemRunner(
            follow,
            key,
            prepare,
            None if self._keys is None else resolve,
            item_options(self._vendor, common, options),
            Entrance(self._api.admission, patience),
            keep=changed == "keep",
            check_open=self._operations.check_open,
        )
        return Batch(runner, origins, limit, ordered=ordered, on_progress=on_progress)

    async def perform(self, flow: Flow[T]) -> T:
        """
        Run a vendor's operation, such as `narrative.get_conversation(id)`, and return its result.

        A *flow* is used once: call the operation again to run it again.
        """
        return await self._api.perform(flow, guarded=False)

    def heard(self, run: Run[DetailT]) -> bool:
        """
        Take in a state of a run that came from elsewhere, such as a webhook, as if it had been polled.

        The streams of the run go on at once; a state older than what is known changes nothing. Return whether there
        are such streams here. It is the caller's to be sure that the state is the vendor's. Raise
        `ConfigurationError` for what is no `Run` of this vendor, and if the client is not open.
        """
        if not isinstance(run, Run):
            raise ConfigurationError(f"{run!r} is no state of a run; pass a Run, or read it by `client.fetch`")
        self._ref(run)
        return self._poller.heard(run)

    def unfinished(self) -> AsyncIterator[Unfinished[OriginT, DetailT]]:
        """
        Iterate over the work in the journal that is not done, oldest first.

        `client.stream(work.origin, key=work.key)` goes on with it. Raise `ConfigurationError` if there is no journal.
        """
        return self._journaled().unfinished()

    async def work(self, key: str) -> Unfinished[OriginT, DetailT] | None:
        """
        Return the work that *key* names in the journal, done or not, as `unfinished` does; None if there is none.

        Raise `ConfigurationError` if there is no journal.
        """
        return await self._journaled().find(key)

    async def prune(self, *, older_than: float) -> int:
        """
        Delete from the journal what was done more than *older_than* seconds ago, and return how many pieces of work.

        A key that is forgotten names nothing any more: who uses it again starts anew. Raise `ConfigurationError` if
        there is no journal, or for seconds that are none.
        """
        check.number("older_than", older_than, zero=True)
        return await self._journaled().prune(older_than)

    def stats(self) -> Stats:
        """Return what this client watches and sends, in numbers."""
        return self._poller.stats()

    def _ref(self, run: Any) -> RunRef:
        if not isinstance(run, Run | RunRef):
            raise ConfigurationError(f"{run!r} is no run; pass a Run, or RunRef(id, parent)")
        if isinstance(run, RunRef):
            return run
        if run.vendor not in {"", self._vendor.NAME}:
            raise ConfigurationError(f"run {run.id} is of {run.vendor}, and this client is of {self._vendor.NAME}")
        return run.ref

    def _check_origin(self, origin: Any) -> None:
        if not isinstance(origin, self._vendor.Origin):
            raise ConfigurationError(
                f"{self._vendor.NAME} starts a run from {self._vendor.Origin.__name__}, not from "
                f"{type(origin).__name__}; to go on with one that exists, pass its Run or RunRef to `client.stream`"
            )

    def _journaled(self) -> Keys:
        if self._keys is None:
            raise ConfigurationError("this client has no journal: pass `connect(..., journal=path)`")
        return self._keys


def drive(
    client: Client[OriginT, DetailT], origin: OriginT | Run[DetailT] | RunRef, **options: Unpack[StreamOptions]
) -> RunStream[DetailT] | RunDrive[DetailT]:
    """
    Return what `client.stream` does, for work that several processes would do: one is at it, the others look on.

    Where the journal says that a living process is at the work, of its `key` or of the run, its states come as `watch`
    has them, and nothing is done; when that process is gone, this one goes on with the work. States in flight are
    entered into the journal, too, for those who look on. Without a journal, and for a new run without a key, this is
    the stream. Raise as `client.stream` does.
    """
    return client._drive(origin, options)


def watch(
    client: Client[Any, DetailT], run: Run[DetailT] | RunRef, **options: Unpack[WatchOptions]
) -> RunWatch[DetailT]:
    """
    Return the states of a run as an async iterator for one who only looks: nothing is answered or cancelled.

    It goes on through every pause, to the end of the run, and shows what others answer; of an answer that brings
    another run, where the journal or the vendor tells which that is. What another process that is at the run enters
    into the journal is shown without a request. Else the run is read as a stream reads it, and while it waits for an
    answer, after 5 seconds, then ever more seldom, every 30 seconds at last; with a journal, by one of all processes
    that watch it, and the others see what that one sees.

    The *options* are those of `client.stream`, and there is no timeout by default. Nothing is sent before the first
    step. Raise at once `ConfigurationError` for a run of another vendor and for an option that is out of range,
    `UnsupportedError` for *events* where the vendor has no stream of them.
    """
    return client._watch(options_of_watch(options), client._ref(run))


def entrance_of(client: Client[Any, Any], patience: float, *, for_runs: bool = True) -> Entrance:
    """Return the way in for rows that this client serves, as `Entrance` says."""
    return Entrance(client._api.admission, patience, for_runs)


def keys_of(client: Client[Any, Any]) -> Keys:
    """Return the keys of a client, and with them its journal; raise `ConfigurationError` if there is none."""
    return client._journaled()
