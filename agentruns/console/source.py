"""Where runs come from: a journal with its inbox, and a client for each vendor that there is a token for."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from attrs import evolve, frozen

from agentruns._aio.changed import Changed
from agentruns._keeping.digest import digest
from agentruns._keeping.journal.changes import JournalChanges
from agentruns._keeping.journal.entries import Entry, Handled
from agentruns._keeping.journal.reader import JournalReader
from agentruns._values import codec
from agentruns._values.printable import printable
from agentruns._values.run import Action, Run, RunStatus, ToolOutput
from agentruns.client import Client
from agentruns.dialects import known
from agentruns.dialects.show import Answer, Step, Tool
from agentruns.dialects.vendor import MISTAKES, Vendor, mistake
from agentruns.errors import AgentRunsError, ConfigurationError, ConflictError
from agentruns.inbox import Inbox
from agentruns.web import Feeds, Watcher, told_in_full

from .asks import Ask, ask
from .timeline import AnswerRoute, Group, Pause, groups, trace_of

logger = logging.getLogger("agentruns")

SURE_SECONDS: Final = 5.0
"""Seconds after which the journal is looked into in any case: who dies does not write."""

LINGER_SECONDS: Final = 10.0
"""Seconds for which a run is still followed when the last page is closed: a page that is reloaded finds it again."""

_KNOWN_TOOLS: Final = 256


class AnsweredElsewhereError(Exception):
    """Report an action that was answered before, by someone else or by another program."""


@frozen
class Job:
    """Something that the console may start: a name for addresses, what it is called, and what will happen."""

    name: str
    title: str
    text: str


@frozen(kw_only=True)
class Jobs:
    """What may be started from the page: nothing, unless it is told how. `start` returns the key of the work."""

    offered: tuple[Job, ...] = ()
    start: Callable[[str], Awaitable[str]] | None = None


class Source:
    """
    The work of one journal, for looking at and for answering.

    *book*, *inbox* and *clients* (by vendor) are open already. *answers* are JSON Schemas of what tools answer, by the
    name of the tool. The clients follow runs while someone watches; without a client, a run is shown as the journal has
    it. Open it by `async with`.
    """

    def __init__(
        self,
        book: JournalReader,
        inbox: Inbox,
        clients: Mapping[str, Client] | None = None,
        *,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
        jobs: Jobs | None = None,
        place: str = "",
    ) -> None:
        self.book = book
        self.jobs = jobs or Jobs()
        self.place = place or book.name
        self._inbox = inbox
        self._clients = dict(clients or {})
        self._answers = dict(answers or {})
        self._feeds: dict[str, Feeds] = {}
        self._changed = Changed()
        self._others = JournalChanges(
            book.version, self._on_change, self._on_error, at_most=SURE_SECONDS, pause=book.pause
        )
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._answered: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._tools: OrderedDict[tuple[str, str], Mapping[str, Tool]] = OrderedDict()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for vendor, client in self._clients.items():
            feeds = Feeds(client, linger=LINGER_SECONDS, shown=_whole, progress=True, timeout=None, told=told_in_full)
            self._feeds[vendor] = await self._open.enter_async_context(feeds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._others.close()
        await self._open.aclose()

    def follows(self, vendor: str) -> bool:
        """Tell whether runs of *vendor* can be followed and answered from here."""
        return vendor in self._clients

    # Changes ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def change(self) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done when something may have changed; take it before you look."""
        with self._changed.waiter() as change, self._others.watching():
            yield change

    def notify(self) -> None:
        """Say that something has changed."""
        self._changed.notify()

    async def _on_change(self) -> None:
        self._changed.notify()

    def _on_error(self, error: AgentRunsError) -> None:
        """Go on looking: the next read of the journal raises the error."""

    # Following --------------------------------------------------------------------------------------------------------

    def watch(self, run: Run) -> Watcher | None:
        """Return the states of a run as they come, shared by all who watch; None where they cannot be had."""
        feeds = self._feeds.get(run.vendor)
        if feeds is None:
            return None
        feed = feeds.get(run.ref)  # one that lingers has states that are known here
        return feeds.watch(run.ref, None if feed is None else feed.before_last_state)

    # Pauses -----------------------------------------------------------------------------------------------------------

    async def pause(self, entry: Entry, run: Run | None) -> Pause | None:
        """Return what *run*, the last state known of *entry*, waits for, and who would take the answer."""
        if run is None or run.status is not RunStatus.REQUIRES_ACTION or not run.actions:
            return None
        pending = await self._inbox.pending(run)
        parked = {each.action.id for each in pending}
        handled = {each.action_id: each for each in await self.book.handled(entry) if each.run_id == run.id}
        routes = {
            action.id: self._route(entry, run, action, action.id in parked, handled.get(action.id))
            for action in run.actions
        }
        return Pause(run, groups(known(run.vendor), run, routes, {each.action.id for each in pending if each.changed}))

    def _route(self, entry: Entry, run: Run, action: Action, is_parked: bool, handled: Handled | None) -> AnswerRoute:
        if is_parked:
            return "inbox"
        if (run.id, action.id, digest(action)) in self._answered or (
            handled is not None and handled.state != "running"
        ):
            return "answered"
        if (handled is not None and handled.alive) or entry.alive:
            return "handler"
        if entry.id.startswith("p"):
            return "answered"  # it was parked, and is no more
        return "vendor" if self.follows(run.vendor) else "nobody"

    async def give(self, group: Group, answers: Sequence[Answer]) -> None:
        """
        Pass on the answers to a group, one for each of its actions, in their order.

        Raise `AnsweredElsewhereError` if it was answered before, and `AgentRunsError` if passing it on fails.
        """
        lock = self._locks.setdefault(group.run.id, asyncio.Lock())
        try:
            async with lock:
                await self._give(group, answers)
        finally:
            self.notify()

    async def _give(self, group: Group, answers: Sequence[Answer]) -> None:
        if any((group.run.id, action.id, digest(action)) in self._answered for action in group.actions):
            raise AnsweredElsewhereError
        if group.route == "inbox":
            for action, answer in zip(group.actions, answers, strict=True):
                await self._settle(group.run, action, answer)
        else:
            await self._resume(group, answers)
        for action in group.actions:
            self._answered[group.run.id, action.id, digest(action)] = None
        while len(self._answered) > 10_000:
            self._answered.popitem(last=False)

    async def _settle(self, run: Run, action: Action, answer: Answer) -> None:
        if action.id not in {each.action.id for each in await self._inbox.pending(run)}:
            raise AnsweredElsewhereError
        try:
            if answer.is_error:
                await self._inbox.refuse(action.id, str(answer.output), run_id=run.id, seen=action)
            else:
                await self._inbox.answer(action.id, answer.output, run_id=run.id, seen=action)
        except ConfigurationError as error:
            if action.id not in {each.action.id for each in await self._inbox.pending(run)}:
                raise AnsweredElsewhereError from error
            raise

    async def _resume(self, group: Group, answers: Sequence[Answer]) -> None:
        """Answer a run that no program follows, as it is at the vendor now."""
        client = self._clients[group.run.vendor]
        now = await client.fetch(group.run.ref)
        waiting = {action.id: digest(action) for action in now.actions}
        if now.status is not RunStatus.REQUIRES_ACTION or any(each.id not in waiting for each in group.actions):
            raise AnsweredElsewhereError
        if any(waiting[each.id] != digest(each) for each in group.actions):
            raise ConfigurationError("what is asked has changed since this page was made; look at it again")
        outputs = [
            ToolOutput(action, answer.output, answer.is_error)
            for action, answer in zip(group.actions, answers, strict=True)
        ]
        try:
            await client.resume(now, outputs)
        except ConflictError as error:
            raise AnsweredElsewhereError from error

    async def trace(self, run: Run) -> tuple[Step, ...]:
        """
        Return how a run came about, as the vendor tells it now: messages, steps, tool calls.

        Raise `AgentRunsError` if the vendor cannot be asked.
        """
        client = self._clients.get(run.vendor)
        vendor = known(run.vendor)
        if client is None:
            return trace_of(vendor, run)
        if vendor is not None and vendor.read_trace is not None:
            steps = await _performed(client, vendor, "read_trace", run)
            return tuple(each for each in steps if isinstance(each, Step))
        wanted = None if vendor is None else vendor.TRACE_INCLUDE
        return trace_of(vendor, await client.fetch(run.ref, **({"include": wanted} if wanted else {})))

    # Tools ------------------------------------------------------------------------------------------------------------

    async def asks(self, group: Group) -> tuple[Ask, ...]:
        """Return what the actions of a group ask for, each with the ways to answer it."""
        tools = await self.tools(group.run)
        vendor = known(group.run.vendor)
        return tuple(
            ask(vendor, action, f"{group.id}/{place}/", tools.get(action.name))
            for place, action in enumerate(group.actions)
        )

    async def tools(self, run: Run) -> Mapping[str, Tool]:
        """Return what is known of the tools that a run calls, by the names under which it calls them."""
        place = (run.vendor, run.ref.parent)
        declared = self._tools.get(place)
        if declared is None:
            declared = await self._declared(run)
            if declared is not None:
                self._tools[place] = declared
                if len(self._tools) > _KNOWN_TOOLS:
                    self._tools.popitem(last=False)
        return {action.name: self._tool(declared or {}, action.name) for action in run.actions}

    def _tool(self, declared: Mapping[str, Tool], name: str) -> Tool:
        tool = declared.get(name, Tool())
        short = name.partition("-")[2] or name
        return evolve(tool, answer=self._answers.get(name, self._answers.get(short, tool.answer)))

    async def _declared(self, run: Run) -> Mapping[str, Tool] | None:
        """Return the tools that are declared for a run; None if that cannot be known now."""
        vendor = known(run.vendor)
        if vendor is None or vendor.read_tools is None:
            return None
        client = self._clients.get(run.vendor)
        try:
            declared: Mapping[str, Tool] | None = await _performed(client, vendor, "read_tools", run)
        except AgentRunsError as error:
            logger.warning("the tools of run %s are not known: %s", printable(run.id), error)
            return None
        return declared


async def _performed(client: Client | None, vendor: Vendor, name: str, run: Run) -> Any:
    """
    Return what a flow of the dialect comes to; without a client, None if it needs a request.

    Raise `AgentRunsError` if the vendor cannot be asked, and for a mistake within the dialect.
    """
    flow = vendor.flow(name, run)
    try:
        if client is not None:
            return await client.perform(flow)
        next(flow)
    except StopIteration as ended:
        return ended.value
    except MISTAKES as error:
        raise mistake(f"{vendor.NAME}.{name}", error, None) from error
    flow.close()
    return None


def _whole(run: Run) -> Mapping[str, Any]:
    """Return a run as `Run.from_json` reads it: what is followed here does not leave this process."""
    whole: Mapping[str, Any] = codec.decode(run.to_json(), trusted=True)
    return whole
