"""
Actions that wait for a person: parked by a handler, shown by whatever lists them, answered by whoever decides.

In memory, what is parked lives as long as the handler that waits for it. In a journal it outlives the process: another
one may answer, and a stream that comes back finds the answer there. Whoever answers first wins, and the others hear it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from attrs import evolve, field, frozen

from . import dialects
from ._aio.shield import run_shielded
from ._keeping.keys import first_request
from ._values import check, codec
from ._values.run import Action, Run, RunRef, ToolOutput
from .dialects.protocol import Resumes
from .errors import AgentRunsError, ConfigurationError, ToolError
from .tools import current_guard, current_key, current_run

if TYPE_CHECKING:  # imported with the first journal
    from ._keeping.journal import Journal
    from ._keeping.journal.parked import ParkedRow, Place, State

_LOOK_SECONDS: Final = 0.25
"""Seconds between two looks whether another process has written to the journal."""

_SURE_SECONDS: Final = 30.0
"""Seconds after which the journal is looked into in any case: somebody may have deleted its file."""

_GIVEN: Final = frozenset({"answered", "refused"})

_REMEMBERED: Final = 1000
"""How many actions that no longer wait are known by name in memory, to say what became of them."""


@frozen
class Parked:
    """
    One action that waits for a person.

    `run` is the paused state that asks for it, `key` the name of the work in the client's journal, if it has one.
    `asked` and `expires` are seconds since the epoch. `expires` is when the handler's own timeout ends the wait, None
    if it has none: no vendor documents an end. It may be past where the process that waited is gone.
    """

    run: Run
    action: Action
    asked: float
    expires: float | None = None
    key: str | None = None

    @property
    def vendor(self) -> str:
        """Return the name of the vendor."""
        return self.run.vendor

    def left(self, now: float | None = None) -> float | None:
        """Return the seconds left at *now*, by default at present; never below zero, None without an end."""
        return None if self.expires is None else max(self.expires - (time.time() if now is None else now), 0.0)

    @property
    def _place(self) -> Place:
        return self.run.vendor, self.run.id, self.action.id


@frozen
class _Known:
    """What is known of one action: `output` is the answer, or the reason why there is none."""

    parked: Parked
    state: State
    output: Any = field(default=None, repr=False)


class _Shelf(Protocol):
    """Where actions are parked."""

    async def park(self, parked: Parked) -> _Known:
        """Let an action wait, unless it has its answer; return what is there."""
        ...

    async def settle(self, place: Place, state: State, output: Any) -> bool:
        """End the wait of an action; return whether it did wait."""
        ...

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits, of all runs or of one, oldest first."""
        ...

    async def called(self, action_id: str, run_id: str | None) -> Sequence[_Known]:
        """Return what waits under that id; if nothing does, the last that did, if it is known."""
        ...


class NotPendingError(ConfigurationError):
    """Report an action that nobody waits for: it was answered, refused or withdrawn, or never asked for."""


class Inbox:
    """
    Park actions until a person answers; a handler for `tools=`, for `tools.default`, or for one name.

    `Inbox()` keeps them in memory, for use within one event loop. `Inbox(journal=path)` keeps them in that journal,
    which may be the client's: open it by `async with inbox:`, in each process that parks or answers. A run is not
    polled while its actions are parked, but the stream's `timeout` goes on: give it `timeout=None`.
    """

    repeatable = True
    """Asking a person again does no harm: after a crash, a stream under a key parks the action anew."""

    def __init__(self, *, journal: str | os.PathLike[str] | None = None) -> None:
        self._waiters: dict[Place, set[asyncio.Future[_Known]]] = {}
        self._bells: set[asyncio.Future[None]] = set()
        self._journal: Journal | None = None
        self._shelf: _Shelf = _Memory()
        self._watch: asyncio.Task[None] | None = None
        self._watchers = 0
        self._open = journal is None
        if journal is not None:
            from ._keeping.journal import Journal

            self._journal = Journal(journal, "inbox")
            self._shelf = _Kept(self._journal)

    def __repr__(self) -> str:
        return "Inbox()" if self._journal is None else f"Inbox(journal={self._journal.path!r})"

    async def __aenter__(self) -> Self:
        if self._journal is not None:
            await self._journal.open()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Close the journal; what is parked there stays.

        Whoever still waits, for an answer or for changes, gets an `AgentRunsError`.
        """
        self._open = self._journal is None
        self._fail(AgentRunsError("the inbox was closed while it was waited for"))
        watch = self._end_watch()
        try:
            if watch is not None:
                await asyncio.wait([watch])
        finally:
            if self._journal is not None:
                await self._journal.close()

    # As a handler -----------------------------------------------------------------------------------------------------

    async def __call__(self, action: Action) -> Any:
        """Ask a person, and wait for the answer."""
        self._check_open()
        guard = current_guard()
        parked = _parked(action, guard)
        place = parked._place
        news: asyncio.Future[_Known] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(place, set()).add(news)
        try:
            known = await self._shelf.park(parked)
            if known.state == "waiting":
                self._ring()
                with self._watching():
                    known = await news
        except (asyncio.CancelledError, AgentRunsError):
            self._leave(place, news)
            late = await self._given_up(place, out_of_time=guard is not None and guard.expired())
            if late is None:
                raise
            known = late
        finally:
            self._leave(place, news)
        return _given(known)

    async def _given_up(self, place: Place, *, out_of_time: bool) -> _Known | None:
        """
        Withdraw an action that is no longer waited for; return the answer if it came just in time.

        In a journal it stays parked if only the stream has ended: another one may come back for it.
        """
        if self._waiters.get(place) or not (out_of_time or self._journal is None):
            return None
        if await run_shielded(self._settle(place, "withdrawn", None)) or not out_of_time:
            return None
        return next((each for each in await run_shielded(self._called(place)) if each.state in _GIVEN), None)

    async def _called(self, place: Place) -> Sequence[_Known]:
        return [known for known in await self._shelf.called(place[2], place[1]) if known.parked._place == place]

    def _leave(self, place: Place, news: asyncio.Future[_Known]) -> None:
        waiters = self._waiters.get(place, set())
        waiters.discard(news)
        if not waiters:
            self._waiters.pop(place, None)
        if news.done() and not news.cancelled():
            news.exception()  # told, or overtaken by a cancellation: not forgotten

    # For whoever answers ----------------------------------------------------------------------------------------------

    async def pending(self, run: Run | RunRef | str | None = None) -> tuple[Parked, ...]:
        """Return what waits for an answer, oldest first; of one *run*, if it or its id is given."""
        self._check_open()
        return tuple(await self._shelf.waiting(run.id if isinstance(run, Run | RunRef) else run))

    def changes(self) -> AsyncIterator[tuple[Parked, ...]]:
        """
        Iterate over what waits for an answer: as it is at once, then whenever that has changed, whoever changed it.

        Leaving the loop needs no clean-up; a step may time out and be asked for again with nothing lost.
        """
        self._check_open()
        return _Changes(self)

    async def answer(self, action_id: str, output: Any, *, run_id: str | None = None) -> None:
        """
        Answer an action; *output* is whatever JSON the vendor takes.

        Ids of actions may be mere positions: give *run_id* where several runs wait for an action of that id. Raise
        `NotPendingError` for an action that does not wait, because it was answered, withdrawn or never asked for, and
        `ConfigurationError` for an id that is not unique, or an output that JSON or the vendor cannot take; then it
        waits on.
        """
        parked = await self._find(action_id, run_id)
        plain = codec.to_jsonable(output, f"the answer to action {action_id!r}")
        await self._decide(parked, "answered", plain)

    async def refuse(self, action_id: str, why: str, *, run_id: str | None = None) -> None:
        """Give no answer, and tell the model *why*; for the rest as `answer`."""
        check.non_empty_str("why", why)
        await self._decide(await self._find(action_id, run_id), "refused", codec.to_jsonable(why, "why"))

    async def _decide(self, parked: Parked, state: State, output: Any) -> None:
        _check_answer(parked, ToolOutput(parked.action, output, is_error=state == "refused"))
        if not await run_shielded(self._settle(parked._place, state, output)):
            known = await self._called(parked._place)
            raise _not_pending(parked.action.id, parked.run.id, known)

    async def _find(self, action_id: str, run_id: str | None) -> Parked:
        """Return the one action of that id that waits."""
        self._check_open()
        check.non_empty_str("action_id", action_id)
        if run_id is not None:
            check.non_empty_str("run_id", run_id)
        found = await self._shelf.called(action_id, run_id)
        waiting = [each.parked for each in found if each.state == "waiting"]
        if not waiting:
            raise _not_pending(action_id, run_id, found)
        if len(waiting) > 1:
            runs = ", ".join(each.run.id for each in waiting)
            raise ConfigurationError(
                f"action {action_id!r} is pending for {len(waiting)} runs; say which by `run_id=`, one of {runs}"
            )
        return waiting[0]

    async def _settle(self, place: Place, state: State, output: Any) -> bool:
        """End the wait of an action, and tell who waits for it; return whether it did wait."""
        settled = await self._shelf.settle(place, state, output)
        if settled:
            self._ring()
            if self._waiters.get(place):
                self._tell(await self._called(place))
        return settled

    # Telling who waits ------------------------------------------------------------------------------------------------

    def _tell(self, over: Iterable[_Known]) -> None:
        for known in over:
            for news in self._waiters.get(known.parked._place, ()):
                if not news.done():
                    news.set_result(known)

    def _ring(self) -> None:
        for bell in self._bells:
            if not bell.done():
                bell.set_result(None)

    def _fail(self, error: Exception) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._bells]
        waiting += [news for waiters in self._waiters.values() for news in waiters]
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    @contextmanager
    def _bell(self) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done when something may have changed."""
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bells.add(bell)
        try:
            with self._watching():
                yield bell
        finally:
            self._bells.discard(bell)
            if bell.done() and not bell.cancelled():
                bell.exception()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Look at what other processes do, as long as somebody waits; one task does so for all."""
        self._watchers += 1
        if self._journal is not None and self._watch is None:
            self._watch = asyncio.create_task(self._look(self._journal), name="agentruns: look into the inbox")
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._end_watch()

    def _end_watch(self) -> asyncio.Task[None] | None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        return watch

    async def _look(self, journal: Journal) -> None:
        loop = asyncio.get_running_loop()
        seen: object = None
        version, looked = -1, 0.0
        try:
            while True:
                now = await journal.version()  # read before the look: what is written in between shows in the next
                if now != version or loop.time() > looked + _SURE_SECONDS:
                    version, looked = now, loop.time()
                    look = await journal.look(tuple(self._waiters))
                    self._tell([_known(row) for row in look.over])
                    if look.waiting != seen:
                        seen = look.waiting
                        self._ring()
                await asyncio.sleep(_LOOK_SECONDS)
        except AgentRunsError as error:
            self._watch = None
            self._fail(error)

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigurationError(f"{self!r} is not open; use it within `async with inbox:`")


class _Changes(AsyncIterator[tuple[Parked, ...]]):
    """What waits, each time that it is not what it was."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._seen: tuple[Parked, ...] | None = None

    async def __anext__(self) -> tuple[Parked, ...]:
        while True:
            with self._inbox._bell() as bell:  # hung up first, so that nothing is missed
                pending = await self._inbox.pending()
                if pending != self._seen:
                    self._seen = pending
                    return pending
                await bell


class _Memory:
    """What is parked in this process."""

    def __init__(self) -> None:
        self._waiting: dict[Place, Parked] = {}
        self._over: OrderedDict[Place, _Known] = OrderedDict()

    async def park(self, parked: Parked) -> _Known:
        """Let an action wait."""
        self._over.pop(parked._place, None)
        return _Known(self._waiting.setdefault(parked._place, parked), "waiting")

    async def settle(self, place: Place, state: State, output: Any) -> bool:
        """End the wait of an action."""
        parked = self._waiting.pop(place, None)
        if parked is None:
            return False
        self._over[place] = _Known(parked, state, output)
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        return True

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits."""
        return [each for each in self._waiting.values() if run_id in {None, each.run.id}]

    async def called(self, action_id: str, run_id: str | None) -> Sequence[_Known]:
        """Return what waits under that id, else the last that did."""

        def fits(place: Place) -> bool:
            return place[2] == action_id and run_id in {None, place[1]}

        waiting = [_Known(parked, "waiting") for place, parked in self._waiting.items() if fits(place)]
        return waiting or [known for place, known in self._over.items() if fits(place)][-1:]


class _Kept:
    """What is parked in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def park(self, parked: Parked) -> _Known:
        """Let an action wait, or return the answer that it was given."""
        from ._keeping.journal.parked import ParkedRow

        run = parked.run
        return _known(
            await self._journal.park(
                ParkedRow(
                    *parked._place, parked.key, "waiting", parked.asked, parked.expires, output=None, run=run.to_json()
                )
            )
        )

    async def settle(self, place: Place, state: State, output: Any) -> bool:
        """End the wait of an action."""
        text = None if state == "withdrawn" else codec.encode(output).decode()
        return await self._journal.settle(place, state, text)

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits."""
        return [_known(row).parked for row in await self._journal.waiting(run_id)]

    async def called(self, action_id: str, run_id: str | None) -> Sequence[_Known]:
        """Return what waits under that id, else the last that did."""
        return [_known(row) for row in await self._journal.called(action_id, run_id)]


def _known(row: ParkedRow) -> _Known:
    run = Run.from_json(row.run)
    action = next((each for each in run.actions if each.id == row.action_id), Action(row.action_id, ""))
    parked = Parked(run, action, row.asked, row.expires, row.key)
    return _Known(parked, row.state, None if row.output is None else codec.decode(row.output))


def _parked(action: Action, guard: asyncio.Timeout | None) -> Parked:
    """Return what the running handler is asked for."""
    now = time.time()
    end = None if guard is None else guard.when()
    expires = None if end is None else now + end - asyncio.get_running_loop().time()
    return Parked(current_run(), action, now, expires, current_key())


def _given(known: _Known) -> Any:
    """Return what a handler returns, or raise what it raises."""
    if known.state == "refused":
        raise ToolError(known.output)
    if known.state != "answered":
        raise AgentRunsError(
            f"action {known.parked.action.id!r} of run {known.parked.run.id} was withdrawn while it was parked: the "
            "run has moved on. Follow it again"
        )
    return known.output


def _check_answer(parked: Parked, output: ToolOutput) -> None:
    """Raise `ConfigurationError` for an answer that the vendor's dialect would not send."""
    dialect: object = None
    with suppress(ConfigurationError):  # a dialect of the caller's own
        dialect = dialects.load(parked.vendor)
    if isinstance(dialect, Resumes):
        first_request(dialect.resume(evolve(parked.run, actions=(parked.action,)), [output]))


def _not_pending(action_id: str, run_id: str | None, found: Sequence[_Known]) -> NotPendingError:
    if not found:
        of = "" if run_id is None else f" of run {run_id}"
        return NotPendingError(
            f"action {action_id!r}{of} is not pending: this inbox knows no such action. Take ids from `pending()`"
        )
    (known, *_) = found
    why = {
        "answered": "it was answered already",
        "refused": "it was refused already",
        "withdrawn": "it was withdrawn, since nobody waits for it any more",
        "waiting": "it has just been asked for again",
    }[known.state]
    return NotPendingError(f"action {action_id!r} of run {known.parked.run.id} is not pending: {why}")
