"""
Actions that wait for a person: parked by a handler, shown by whatever lists them, answered by whoever decides.

In memory, what is parked lives as long as the handler that waits for it. In a journal it outlives the process: another
one may answer, and a stream that comes back finds the answer there. Whoever answers first wins, and the others hear it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from ._aio.changed import Changed
from ._aio.shield import run_shielded
from ._keeping.digest import digest
from ._keeping.journal.changes import JournalChanges
from ._keeping.journal.moves import WaitAct, WaitState
from ._keeping.parking import JournalParking, MemoryParking, Parked, Parking, Standing, place_of
from ._values import check, codec
from ._values.large import written
from ._values.run import Action, Run, RunRef, ToolOutput
from .dialects import check_answers
from .errors import AgentRunsError, ConfigurationError, ToolError
from .tools import Ends, current_guard, current_key, current_origin, current_pause, current_pause_is_over, current_run

if TYPE_CHECKING:  # imported with the first journal
    from ._keeping.journal import Journal
    from ._keeping.journal.parked import Place

T = TypeVar("T")

logger = logging.getLogger("agentruns")

__all__ = [
    "AlreadyDecidedError",
    "Inbox",
    "NotAskedYetError",
    "NotPendingError",
    "Parked",
    "UnknownActionError",
]

_SURE_SECONDS: Final = 30.0
"""Seconds after which the journal is looked into in any case: somebody may have deleted its file."""

_LOOK_SECONDS: Final = 5.0
"""How long it is waited, before an answer is taken without a journal, for the vendor to say that it is asked for."""

_MOST_TOLD: Final = 200
"""How many characters of an answer that stands are told."""

_GIVEN: Final = frozenset({WaitState.ANSWERED, WaitState.REFUSED})


class NotPendingError(ConfigurationError, public=True):
    """
    Report an action that nobody waits for: by a class of its own why, else it was withdrawn, or asks something else.

    `status` is the HTTP status that says the same. `parked` is what was asked for under that id last, None where that
    is not known.
    """

    status: ClassVar[int] = 409

    parked: Parked | None = None


class AlreadyDecidedError(NotPendingError, public=True):
    """Report an action that was answered or refused before, by whomever: the first answer stands."""


class NotAskedYetError(NotPendingError, public=True):
    """Report an action that a run shows, and that no process has asked anybody for yet: try again in a moment."""

    status = 503


class UnknownActionError(NotPendingError, public=True):
    """Report an action that nobody was ever asked for, or a run of which nothing is known."""

    status = 404


class Inbox:
    """
    Park actions until a person answers; a handler for `tools=`, for `tools.default`, or for one name.

    `Inbox()` keeps them in memory, and is used in one event loop: before it takes an answer, the run is read, since
    somebody else may have answered it. `Inbox(journal=path)` keeps them in that journal, a file or a
    `postgresql://...`, which may be the client's: open it by `async with inbox:`, in each process that parks or
    answers. While its actions are parked, a run is looked at after half a minute and then ever more seldom, every
    ten minutes at last: one that goes on without them, answered elsewhere or cancelled, takes them back. The stream's
    `timeout` goes on: give it `timeout=None`.
    """

    repeatable = True
    """Asking a person again does no harm: after a crash, a stream under a key parks the action anew."""

    def __init__(self, *, journal: str | os.PathLike[str] | None = None) -> None:
        self._waiters: dict[tuple[Place, str], set[asyncio.Future[Standing]]] = {}
        self._origins: dict[tuple[Place, str], Any] = {}  # what started the runs of those, where that is known
        self._pauses: dict[tuple[Place, str], Ends] = {}  # what may end their waits, answered elsewhere
        self._changed = Changed()
        self._journal: Journal | None = None
        self._parking: Parking = MemoryParking()
        self._others: JournalChanges | None = None
        self._open = journal is None
        self._entered = False
        self._home: asyncio.AbstractEventLoop | None = None
        if journal is not None:
            from ._keeping.journal import Journal

            self._journal = Journal(journal, "inbox")
            self._parking = parking = JournalParking(self._journal)
            look = partial(self._look, parking)
            self._others = JournalChanges(
                self._journal.version, look, self._fail, at_most=_SURE_SECONDS, pause=self._journal.pause
            )

    def __repr__(self) -> str:
        return "Inbox()" if self._journal is None else f"Inbox(journal={self._journal.path!r})"

    async def __aenter__(self) -> Self:
        self._settle_down()
        if self._entered:
            raise ConfigurationError(
                "this inbox is entered already, and leaving it once would close it for both; enter it once and share it"
            )
        self._entered = True
        try:
            if self._journal is not None:
                await self._journal.open()
        except BaseException:
            self._entered = False
            raise
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
        self._entered = False
        self._fail(AgentRunsError("the inbox was closed while it was waited for"))
        try:
            if self._others is not None:
                await self._others.close()
        finally:
            if self._journal is not None:
                await self._journal.close()

    # As a handler -----------------------------------------------------------------------------------------------------

    async def __call__(self, action: Action) -> Any:
        """Ask a person, and wait for the answer."""
        self._check_open()
        self._settle_down()
        guard = current_guard()
        parked = _parked(action, guard)
        asked = (place_of(parked), digest(action))
        news: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(asked, set()).add(news)
        self._origins[asked] = current_origin()
        pause = current_pause()
        if pause is not None and self._journal is None:
            self._pauses[asked] = pause
        try:
            standing = await self._parking.park(parked)
            if standing.parked.changed:
                self._overtake(asked)
            if standing.state is WaitState.WAITING:
                self._changed.notify()
                with self._watching():
                    standing = await news
        except (asyncio.CancelledError, AgentRunsError):
            self._leave(asked, news)
            late = await self._given_up(asked, out_of_time=guard is not None and guard.expired())
            if late is None:
                raise
            standing = late
        finally:
            self._leave(asked, news)
        return _given(standing)

    def _overtake(self, asked: tuple[Place, str]) -> None:
        """Say that an action asks something else than before, and end the waits for an answer to that."""
        (_, run_id, action_id), _ = asked
        logger.warning(
            "action %r of run %s asks something else than before: an answer to that is not used", action_id, run_id
        )
        for (place, before), waiters in self._waiters.items():
            if place == asked[0] and before != asked[1]:
                error = AgentRunsError(f"action {action_id!r} of run {run_id} asks something else by now")
                _end(waiters, error)

    async def _given_up(self, asked: tuple[Place, str], *, out_of_time: bool) -> Standing | None:
        """
        Withdraw an action that is no longer waited for; return the answer if it came just in time.

        In a journal it stays parked if only the stream has ended, not the pause: another one may come back for it.
        """
        place, what = asked
        if self._waiters.get(asked) or not (out_of_time or self._journal is None or current_pause_is_over()):
            return None
        if await run_shielded(self._settle(place, WaitAct.WITHDRAW, None, what)) or not out_of_time:
            return None
        called = await run_shielded(self._called(place))
        return next((each for each in called if each.state in _GIVEN and digest(each.parked.action) == what), None)

    async def _called(self, place: Place) -> Sequence[Standing]:
        return [each for each in await self._parking.called(place[2], place[1]) if each.place == place]

    def _leave(self, asked: tuple[Place, str], news: asyncio.Future[Standing]) -> None:
        waiters = self._waiters.get(asked, set())
        waiters.discard(news)
        if not waiters:
            self._waiters.pop(asked, None)
            self._origins.pop(asked, None)
            self._pauses.pop(asked, None)
        if news.done() and not news.cancelled():
            news.exception()  # told, or overtaken by a cancellation: not forgotten

    # For whoever answers ----------------------------------------------------------------------------------------------

    async def pending(self, run: Run | RunRef | str | None = None) -> tuple[Parked, ...]:
        """Return what waits for an answer, oldest first; of one *run*, if it or its id is given."""
        return await self._at_home(partial(self._pending, run.id if isinstance(run, Run | RunRef) else run))

    async def _pending(self, run_id: str | None) -> tuple[Parked, ...]:
        self._check_open()
        return tuple(await self._parking.waiting(run_id))

    def changes(self) -> AsyncIterator[tuple[Parked, ...]]:
        """
        Iterate over what waits for an answer: as it is at once, then whenever that has changed, whoever changed it.

        Leaving the loop needs no clean-up; a step may time out and be asked for again with nothing lost. It is for the
        event loop in which the inbox is used.
        """
        self._check_open()
        self._settle_down()
        return _Changes(self.pending, self._change)

    async def answer(
        self, action_id: str, output: Any, *, run_id: str | None = None, seen: Action | None = None
    ) -> None:
        """
        Answer an action; *output* is whatever JSON the vendor takes. The first answer stands.

        Ids of actions may be mere positions: give *run_id* where several runs wait for an action of that id. Give
        *seen*, the action as the person saw it, where time passes between showing and answering: what asks something
        else by then is not answered. Where the inbox is used in another event loop, as that of a web framework's
        thread, the answer is handed over to it.

        Raise a `NotPendingError` for an action that does not wait: `AlreadyDecidedError` (it says what stands),
        `UnknownActionError`, or itself for one that was withdrawn or has changed. Raise `ConfigurationError` for an id
        that is not unique, or an output that JSON or the vendor cannot take; then it waits on.
        """
        plain = await written(partial(codec.to_jsonable, output, f"the answer to action {action_id!r}"))
        await self._at_home(partial(self._decide, action_id, run_id, seen, WaitAct.ANSWER, plain))

    async def refuse(self, action_id: str, why: str, *, run_id: str | None = None, seen: Action | None = None) -> None:
        """Give no answer, and tell the model *why*; for the rest as `answer`."""
        check.non_empty_str("why", why)
        plain = codec.to_jsonable(why, "why")
        await self._at_home(partial(self._decide, action_id, run_id, seen, WaitAct.REFUSE, plain))

    async def _decide(self, action_id: str, run_id: str | None, seen: Action | None, act: WaitAct, output: Any) -> None:
        parked = await self._find(action_id, run_id, seen)
        given = ToolOutput(parked.action, output, is_error=act is WaitAct.REFUSE)
        place, asked = place_of(parked), digest(parked.action)
        origin = self._origins.get((place, asked))
        check_answers(parked.run, [*await self._answered_beside(parked), given], origin=origin)
        if await self._is_answered_elsewhere((place, asked)):
            raise NotPendingError(
                f"action {action_id!r} of run {parked.run.id} is not pending: the run goes on without this answer; it "
                "was answered elsewhere, or cancelled"
            )
        if not await run_shielded(self._settle(place, act, output, asked)):
            raise _not_pending(parked.action, parked.run.id, await self._called(place))

    async def _is_answered_elsewhere(self, asked: tuple[Place, str]) -> bool:
        """
        Tell whether the vendor says that an action waits no more, as when another process has answered it.

        A journal tells that by itself; without one, each process knows only what it has asked.
        """
        pause = self._pauses.get(asked)
        if pause is None:
            return False
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await pause.look()
        except Exception as error:  # then the post of the answer tells
            logger.debug("whether an action waits still cannot be told: %s", error)
            return False

    async def _answered_beside(self, parked: Parked) -> Sequence[ToolOutput]:
        """Return the answers that the other actions of the same pause were given here."""
        return [
            ToolOutput(action, each.output, is_error=each.state is WaitState.REFUSED)
            for action in parked.run.actions
            if action.id != parked.action.id
            for each in await self._called((parked.run.vendor, parked.run.id, action.id))
            if each.state in _GIVEN and digest(each.parked.action) == digest(action)
        ]

    async def _find(self, action_id: str, run_id: str | None, seen: Action | None) -> Parked:
        """Return the one action of that id that waits, if it asks what was *seen*."""
        self._check_open()
        check.non_empty_str("action_id", action_id)
        if run_id is not None:
            check.non_empty_str("run_id", run_id)
        found = await self._parking.called(action_id, run_id)
        waiting = [each.parked for each in found if each.state is WaitState.WAITING]
        if not waiting:
            raise _not_pending(Action(action_id, ""), run_id, found)
        if len(waiting) > 1:
            runs = ", ".join(each.run.id for each in waiting)
            raise ConfigurationError(
                f"action {action_id!r} is pending for {len(waiting)} runs; say which by `run_id=`, one of {runs}"
            )
        if seen is not None and digest(seen) != digest(waiting[0].action):
            raise _not_pending(seen, waiting[0].run.id, found)
        return waiting[0]

    async def _settle(self, place: Place, act: WaitAct, output: Any, asked: str) -> bool:
        """End the wait of an action, and tell who waits for it; return whether it did wait."""
        settled = await self._parking.settle(place, act, output, asked)
        if settled:
            self._changed.notify()
            if self._waiters.get((place, asked)):
                self._tell(await self._called(place))
        return settled

    # Where it is used -------------------------------------------------------------------------------------------------

    def _settle_down(self) -> None:
        """Take this event loop for the one in which the inbox is used; raise `ConfigurationError` for a second one."""
        here = asyncio.get_running_loop()
        if self._home is not here and self._is_used():
            raise ConfigurationError(
                f"{self!r} is used in another event loop already; use one inbox in one loop: `answer`, `refuse` and "
                "`pending` may be called from others"
            )
        self._home = here

    def _is_used(self) -> bool:
        """Tell whether anything waits in the event loop of before, or a journal is open there."""
        if self._home is None or self._home.is_closed():
            return False
        return bool(self._waiters) or (self._journal is not None and self._open)

    async def _at_home(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call in the event loop in which the inbox is used: what waits there hears of an answer nowhere else."""
        if self._home is asyncio.get_running_loop() or not self._is_used():
            return await call()
        assert self._home is not None
        if not self._home.is_running():
            raise ConfigurationError(f"the event loop in which {self!r} is used does not run; nothing was answered")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._home))

    # Telling who waits ------------------------------------------------------------------------------------------------

    def _tell(self, over: Iterable[Standing]) -> None:
        for standing in over:
            for news in self._waiters.get((standing.place, digest(standing.parked.action)), ()):
                if not news.done():
                    news.set_result(standing)

    def _fail(self, error: Exception) -> None:
        self._changed.fail(error)
        _end([news for waiters in self._waiters.values() for news in waiters], error)

    @contextmanager
    def _change(self) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done when something may have changed, whoever changed it."""
        with self._changed.waiter() as change, self._watching():
            yield change

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Look at what other processes do, as long as somebody waits."""
        if self._others is None:
            yield
            return
        with self._others.watching():
            yield

    async def _look(self, parking: JournalParking) -> None:
        """Take in what other processes did to the journal."""
        has_changed, over = await parking.changes([place for place, _ in self._waiters])
        self._tell(over)
        if has_changed:
            self._changed.notify()

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigurationError(f"{self!r} is not open; use it within `async with inbox:`")


class _Changes(AsyncIterator[tuple[Parked, ...]]):
    """What waits, each time that it is not what it was."""

    def __init__(
        self,
        pending: Callable[[], Awaitable[tuple[Parked, ...]]],
        change: Callable[[], AbstractContextManager[asyncio.Future[None]]],
    ) -> None:
        self._pending = pending
        self._change = change
        self._seen: tuple[Parked, ...] | None = None

    async def __anext__(self) -> tuple[Parked, ...]:
        while True:
            with self._change() as change:  # taken before the look, so that nothing is missed
                pending = await self._pending()
                if pending != self._seen:
                    self._seen = pending
                    return pending
                await change


def _parked(action: Action, guard: asyncio.Timeout | None) -> Parked:
    """Return what the running handler is asked for."""
    now = time.time()
    end = None if guard is None else guard.when()
    expires = None if end is None else now + end - asyncio.get_running_loop().time()
    return Parked(current_run(), action, now, expires, current_key())


def _given(standing: Standing) -> Any:
    """Return what a handler returns, or raise what it raises."""
    if standing.state is WaitState.REFUSED:
        raise ToolError(standing.output)
    if standing.state is not WaitState.ANSWERED:
        parked = standing.parked
        raise AgentRunsError(
            f"action {parked.action.id!r} of run {parked.run.id} was withdrawn while it was parked: the run has moved "
            "on. Follow it again"
        )
    return standing.output


def _end(waiters: Iterable[asyncio.Future[Standing]], error: Exception) -> None:
    for news in waiters:
        if not news.done():
            news.set_exception(error)


def _not_pending(action: Action, run_id: str | None, found: Sequence[Standing]) -> NotPendingError:
    if not found:
        of = "" if run_id is None else f" of run {run_id}"
        return UnknownActionError(
            f"action {action.id!r}{of} is not pending: this inbox knows no such action. Take ids from `pending()`"
        )
    standing = found[0]
    why = {
        WaitState.ANSWERED: f"it was answered already: {_told(standing.output)}",
        WaitState.REFUSED: f"it was refused already: {_told(standing.output)}",
        WaitState.WITHDRAWN: "it was withdrawn, since nobody waits for it any more",
        WaitState.WAITING: "it has just been asked for again, or asks something else by now",
    }[standing.state]
    kind = AlreadyDecidedError if standing.state in _GIVEN else NotPendingError
    error = kind(f"action {action.id!r} of run {standing.parked.run.id} is not pending: {why}")
    error.parked = standing.parked
    return error


def _told(output: Any) -> str:
    """Return the answer that stands, as far as a line has room for it."""
    text = codec.encode(output).decode()
    return text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}..."


def journal_of(inbox: Inbox) -> str | None:
    """Return what the journal is called in which an inbox parks, so that any process may answer; None without one."""
    return None if inbox._journal is None else inbox._journal.path
