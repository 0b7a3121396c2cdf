"""
An answer that comes by a click, in whatever process: to the run where it is now, and as soon as somebody asks for it.

A page may show an action before the inbox has it, and long after. What is known then is more than the inbox knows: the
journal has the last state of the run and what was answered, and the feed of the run here may have a later state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from agentruns._keeping.digest import digest
from agentruns._keeping.keys import Keys
from agentruns._keeping.shared import SharedState
from agentruns._values.run import Action, RunRef
from agentruns.inbox import AlreadyDecidedError, NotAskedYetError, NotPendingError, Parked, UnknownActionError

if TYPE_CHECKING:
    from .feeds import Feeds

_ASK_SECONDS: Final = 2.0
"""How long a click may come before the inbox has the action that a page shows already."""

_FIRST_LOOK_SECONDS: Final = 0.02
_LAST_LOOK_SECONDS: Final = 0.25


class Answering:
    """Have the runs of one service answered; *take_up* goes on with work that nobody is at, and tells if it was so."""

    def __init__(self, keys: Keys, feeds: Feeds, take_up: Callable[[str], Awaitable[bool]]) -> None:
        self._keys = keys
        self._feeds = feeds
        self._take_up = take_up

    async def decide(self, ref: RunRef, action_id: str, decide: Callable[[str], Awaitable[None]]) -> None:
        """
        Call *decide* with the id of the run where the work of *ref* is now, until the inbox knows the action.

        Raise what it raises, and of an action that does not wait, after a moment, what has become of it: a
        `NotPendingError` of the class that says so.
        """
        loop = asyncio.get_running_loop()
        ends, pause = loop.time() + _ASK_SECONDS, _FIRST_LOOK_SECONDS
        while True:
            known = await self._keys.shared.of_run(ref.id)
            try:
                return await decide(_at(ref, known).id)
            except NotPendingError as error:
                refused = error
            shown = self._shown(ref, known, action_id)
            await self._check(refused, ref, action_id, known, shown)
            if known is not None and not known.is_driven and await self._take_up(known.key):
                ends = loop.time() + _ASK_SECONDS
            elif loop.time() >= ends:
                raise _early(ref, action_id) if shown is not None else _unknown(ref, action_id)
            if shown is None:
                self._feeds.look(_at(ref, known))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK_SECONDS)

    async def _check(
        self, refused: NotPendingError, ref: RunRef, action_id: str, known: SharedState | None, shown: Action | None
    ) -> None:
        """Raise what has become of an action that does not wait; return if it may be asked for in a moment."""
        before = refused.parked
        is_new = shown is not None and before is not None and not _is_of(before, _at(ref, known), shown)
        if isinstance(refused, AlreadyDecidedError) and not is_new:
            raise refused
        if known is not None and await self._is_answered(known, ref, action_id, shown):
            raise AlreadyDecidedError(f"action {action_id!r} of run {ref.id} is not pending: it was answered already")
        may_come = known is not None and known.run is not None and not known.run.status.is_over
        if shown is None and not (isinstance(refused, UnknownActionError) and may_come):
            raise refused

    def _shown(self, ref: RunRef, known: SharedState | None, action_id: str) -> Action | None:
        """
        Return the action of that id which the run shows, as far as is known here or in the journal.

        What is no work of the journal may be driven here without a key; what is only looked at asks nobody.
        """
        at = _at(ref, known)
        feed = self._feeds.get(at)
        looks = feed is not None and (feed.acts or known is not None)
        states = [None if known is None else known.run, feed.run if feed is not None and looks else None]
        actions = [each for run in states if run is not None and run.id == at.id for each in run.actions]
        return next((each for each in actions if each.id == action_id), None)

    async def _is_answered(self, known: SharedState, ref: RunRef, action_id: str, shown: Action | None) -> bool:
        """Tell whether an action was answered, by hand or by a handler, in the run that shows it, or before that."""
        at = _at(ref, known).id
        runs, what = ({ref.id, at}, None) if shown is None else ({at}, digest(shown))
        for run_id in runs:
            for each in await self._keys.journal.answers(known.key, run_id):
                if each.action_id == action_id and each.output is not None and each.is_of(what):
                    return True
        return False


def _is_of(parked: Parked, run: RunRef, shown: Action) -> bool:
    """Tell whether that is what a run shows now: ids of actions may be mere positions."""
    return parked.run.id == run.id and digest(parked.action) == digest(shown)


def _at(ref: RunRef, known: SharedState | None) -> RunRef:
    """Return the run where the work of a run is now: an answer may have brought another."""
    return ref if known is None or known.run is None else known.run.ref


def _early(ref: RunRef, action_id: str) -> NotAskedYetError:
    return NotAskedYetError(f"action {action_id!r} of run {ref.id} is not pending yet: nobody has been asked so far")


def _unknown(ref: RunRef, action_id: str) -> UnknownActionError:
    return UnknownActionError(f"action {action_id!r} of run {ref.id} is not pending: the run asks for no such thing")
