"""
The history of one piece of work, from its beginning to now, shared by all who watch it and kept while anyone does.

It has three sources: the journal, which outlives processes but knows only the states that matter; the vendor, polled
while the run moves; and the inbox. Each change gets a number. A browser that comes back says which number it has seen,
and is sent what is new.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, Self

from attrs import evolve

from agentruns._aio.changed import Changed
from agentruns._keeping.journal.entries import Entry, Handled
from agentruns._values import codec
from agentruns._values.news import Novelty, compare
from agentruns._values.run import Run
from agentruns.dialects.show import text_of
from agentruns.errors import AgentRunsError

from .source import Source
from .timeline import Group, HistoryEntry, Pause, title_of

logger = logging.getLogger("agentruns")

MOST_ENTRIES: Final = 500
"""How many entries are kept; of a longer history, the first and the last."""

RETRY_SECONDS: Final = 15.0
"""When a run is followed again that could not be followed."""


class WorkHistory:
    """
    The history of one entry of the journal, with the last state and the pause of its run; open it by `async with`.

    `count` grows with each change. The `number` of a history entry, `panel_count` and the numbers in `group_counts` say
    with which change each came.
    """

    def __init__(self, source: Source, entry: Entry, *, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self.entry = entry
        self.epoch = secrets.token_hex(4)
        self.entries: list[HistoryEntry] = []
        self.run: Run | None = None
        self.pause: Pause | None = None
        self.count = 0
        self.panel_count = 0
        self.group_counts: dict[str, int] = {}
        self.is_followed = False
        self.trouble = ""
        self.watching = 0
        self._clock = clock
        self._is_live = False  # what happens from now on happens now
        self._news = Changed()
        self._to_follow: asyncio.Queue[Run] = asyncio.Queue()
        self._is_queued = False
        self._followed: set[str] = set()
        self._told: dict[str, Run] = {}  # by run, the last state that stands in the history
        self._by_feed: dict[str, float] = {}  # by run, when the vendor was last heard
        self._handled: dict[tuple[str, str], Handled] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._tell(evolve(_BEGUN, at=self.entry.created))
        await self.refresh()
        self._is_live = True
        self._tasks = [
            asyncio.create_task(self._keep(), name="agentruns: keep a history"),
            asyncio.create_task(self._follow(), name="agentruns: follow a run for the console"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def can_follow(self) -> bool:
        """Tell whether the vendor can be asked from here."""
        return self.source.follows(self.entry.vendor)

    @property
    def is_done(self) -> bool:
        """Tell whether the run has ended, so that nothing more can come."""
        return self.run is not None and self.run.status.is_over

    @property
    def id(self) -> str:
        """Return the id that a browser has seen last if it has seen everything so far."""
        return f"{self.epoch}-{self.count}"

    def changes_seen(self, seen: str | None) -> int:
        """Return how many changes a browser has seen that says so; 0 if that was another history."""
        epoch, _, number = (seen or "").rpartition("-")
        known = epoch == self.epoch and number.isascii() and number.isdigit() and len(number) < 12
        return int(number) if known and int(number) <= self.count else 0

    async def news(self, seen: int) -> None:
        """Wait until there is more than *seen* changes."""
        while self.count <= seen:
            await self._news.wait()

    # ------------------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Look again whenever something may have changed."""
        while True:
            with self.source.change() as change:
                try:
                    await self.refresh()
                except AgentRunsError as error:
                    logger.warning("the journal could not be read: %s", error)
                except Exception:
                    logger.exception("the journal could not be read")
                await change

    async def refresh(self) -> None:
        """Read the journal and the inbox; raise `JournalError` if the journal cannot be read."""
        async with self._lock:
            await self._refresh()

    async def _refresh(self) -> None:
        entry = await self.source.book.entry(self.entry.id)
        if entry is None:
            return
        for handled in await self.source.book.handled(entry):
            self._handle(handled)
        run = await self.source.book.run(entry.id)
        changed = entry != self.entry
        moved = entry.updated != self.entry.updated
        self.entry = entry
        if run is not None:
            self._from_journal(run, entry, moved=moved)
        await self._look_at_pause()
        if changed:
            self._change()

    def _from_journal(self, run: Run, entry: Entry, *, moved: bool) -> None:
        """Take in the state in the journal, unless the vendor has said more since."""
        heard = self._by_feed.get(run.id)
        if heard is None or (moved and not self.is_followed and entry.updated > heard):
            self._take(run, entry.updated)
        if self.is_followed or self._is_queued or entry.state == "done" or run.status.is_over:
            return
        if run.id not in self._followed or (moved and run.status.in_flight):
            self._followed.add(run.id)
            self._is_queued = True
            self._to_follow.put_nowait(run)

    async def _follow(self) -> None:
        """Follow one run after the other, as they appear, without answering."""
        while True:
            run = await self._to_follow.get()
            self._is_queued = False
            watcher = self.source.watch(run)
            if watcher is None:
                continue
            self._set_followed(True)
            try:
                async with aclosing(watcher):
                    async for event in watcher:
                        if event.name == "run":
                            await self._from_vendor(event.data)
                        elif event.name == "error":
                            self._trouble(run, codec.decode(event.data)["message"])
            except AgentRunsError as error:
                self._trouble(run, str(error))
            except Exception as error:
                logger.exception("a run is followed no more")
                self._trouble(run, f"{type(error).__name__}; the log of the console says more")
            finally:
                self._set_followed(False)
            self.source.notify()  # the journal may have moved on meanwhile

    async def _from_vendor(self, data: str) -> None:
        run = Run.from_json(data)
        now = self._clock()
        self._by_feed[run.id] = now
        self.trouble = ""
        self._take(run, now)
        async with self._lock:
            await self._look_at_pause()

    def _set_followed(self, followed: bool) -> None:
        self.is_followed = followed
        self._change()

    def _trouble(self, run: Run, message: str) -> None:
        """Say why a run cannot be followed, and try again later."""
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._followed.discard, run.id)
        if message == self.trouble:
            return
        self.trouble = message
        self._tell(
            HistoryEntry(number=0, at=self._clock(), kind="trouble", title="It cannot be followed", text=message)
        )

    def _take(self, run: Run, at: float) -> None:
        """Take in a state: add an entry if it is news, else update usage and progress only."""
        before = self._told.get(run.id)
        novelty = compare(before, run)
        if before is not None and (novelty is Novelty.STALE or self.run is None or self.run.id != run.id):
            return  # an older state, or one of a run that another has followed
        self.run = run
        if novelty is Novelty.NEWS:
            self._told[run.id] = run
            self._tell(HistoryEntry(number=0, at=at, kind=run.status.value, title=title_of(run), run=run))
        elif novelty is Novelty.PROGRESS or (before is not None and before.usage != run.usage):
            self._told[run.id] = run
            self._change()

    def _handle(self, handled: Handled) -> None:
        """Tell what became of an action."""
        place = (handled.run_id, handled.action_id)
        before = self._handled.get(place)
        if before == handled:
            return
        self._handled[place] = handled
        answered = handled.state != "running"
        if answered and (before is None or before.state == "running"):
            value = _value_of(handled.output)
            title = f"{handled.name} was {'refused' if handled.is_error else 'answered'}"
            at = self._clock() if self._is_live else None
            self._tell(HistoryEntry(number=0, at=at, kind="action", title=title, text=text_of(value)))

    async def _look_at_pause(self) -> None:
        """Update the pause, and the route that an answer to each group would take."""
        pause = await self.source.pause(self.entry, self.run)
        before, self.pause = self.pause, pause
        if _ids(before) != _ids(pause):
            self._change()
            self.panel_count = self.count
            self.group_counts = {}
            return
        for old, new in zip(before.groups if before else (), pause.groups if pause else (), strict=True):
            if old.route != new.route:
                self._change()
                self.group_counts[new.id] = self.count

    def _tell(self, entry: HistoryEntry) -> None:
        self._change()
        self.entries.append(evolve(entry, number=self.count))
        if len(self.entries) > MOST_ENTRIES:
            del self.entries[MOST_ENTRIES // 2]

    def _change(self) -> None:
        self.count += 1
        self._news.notify()


_BEGUN: Final = HistoryEntry(number=0, at=None, kind="begun", title="Begun")


def _value_of(output: str | None) -> object:
    """Return an output as the journal keeps it; the text itself where that is not JSON."""
    try:
        return codec.decode(output, trusted=True) if output else None
    except codec.CodecError:
        return output


def _ids(pause: Pause | None) -> tuple[str, ...]:
    return () if pause is None else tuple(each.id for each in pause.groups)


def changed_groups(history: WorkHistory, seen: int) -> list[Group]:
    """Return the groups whose route changed after the first *seen* changes, while the panel stayed the same."""
    if history.pause is None:
        return []
    return [each for each in history.pause.groups if history.group_counts.get(each.id, 0) > seen]
