"""
Running the handlers of a pause once, whichever process does.

A handler is entered before it is run, its answer after. One that was cut off by a crash may or may not have had its
effect: it is run again only if its tool is `repeatable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentruns._aio.shield import run_shielded
from agentruns._values.run import Action, Run, ToolOutput
from agentruns.dialects import check_answers
from agentruns.errors import JournalError, ToolOutcomeUnknownError
from agentruns.tools import Tool, answer, current_pause_is_over

from .digest import digest
from .journal.moves import AnswerState
from .keys import Keys
from .work import deserialize_answer, json_text

if TYPE_CHECKING:
    from .journal import Handling

_LOOK_SECONDS: Final = 0.5
"""Seconds between two looks whether a handler that another process runs has answered."""


class HandlersOnce:
    """The handlers of the work named *key*."""

    __slots__ = ("_journal", "_key", "_keys")

    def __init__(self, keys: Keys, key: str) -> None:
        self._keys = keys
        self._key = key
        self._journal = keys.journal

    async def handle(
        self, run: Run, handlers: Sequence[tuple[Action, Tool]], answers: MutableMapping[str, ToolOutput]
    ) -> None:
        """Run those handlers of a pause that have not answered yet; none, if it is not known what another one did."""
        await self._origin(run)  # refused at once where it is needed and not known
        known = {each.action_id: each for each in await self._journal.answers(self._key, run.id)}
        for action, tool in handlers:
            before = known.get(action.id)
            if before is not None and not tool.repeatable and self._is_cut_off(before):
                raise _outcome_unknown(run, action)
        await answer([(action, partial(self._once, run, tool)) for action, tool in handlers], answers)

    async def _origin(self, run: Run) -> Any:
        """Return what started the work, if the answers to its runs need that; raise as `Keys.origin_of` does."""
        if not self._keys.vendor.asks_origin():
            return None
        work = await self._journal.get(self._key)
        return None if work is None else self._keys.origin_of(run, work)

    def _is_cut_off(self, known: Handling) -> bool:
        """Tell whether nobody runs a handler that has not answered: no live process, and no stream of ours."""
        at_it = self._keys.lock("handle", self._key, known.run_id, known.action_id).locked()
        return known.state is AnswerState.RUNNING and not (at_it if known.mine else known.alive)

    async def _once(self, run: Run, tool: Tool, action: Action) -> ToolOutput:
        """Return the answer to an action: the one that was given, else that of the handler."""
        async with self._keys.lock("handle", self._key, run.id, action.id):
            return await self._once_alone(run, tool, action)

    async def _once_alone(self, run: Run, tool: Tool, action: Action) -> ToolOutput:
        """Answer, as the only stream of this client that does."""
        place = (self._key, run.id, action.id)
        while True:
            heard = self._journal.heard()
            known = await self._journal.handle(*place, action.name, repeatable=tool.repeatable, digest=digest(action))
            if known.fresh:
                break
            if known.output is not None:
                return deserialize_answer(action, known)
            if known.mine and tool.repeatable:
                break
            if known.mine or not known.alive:
                raise _outcome_unknown(run, action)
            await self._journal.pause(heard, _LOOK_SECONDS)  # another process runs it
        returned = await self._run(self._key, run.id, tool, action)
        async with self._still_due(*place, tool):
            output = await tool.written(action, returned)
            given = json_text(output.output)
        # Another handler may fail meanwhile, and have this one cancelled, whose work is done.
        known = await run_shielded(self._keep(run, tool, output, given))
        if known.output is None or known.output == given:
            return output
        return deserialize_answer(action, known)  # by hand

    async def _run(self, key: str, run_id: str, tool: Tool, action: Action) -> Any:
        """Run a handler that was entered, and return what it returns; where it ends otherwise, enter that."""
        place, is_begun = (key, run_id, action.id), False
        try:
            async with self._journal.acting():
                is_begun = True
                try:
                    return await tool.run(action)
                except asyncio.CancelledError:
                    if current_pause_is_over():  # no answer is due any more: what asks again asks anew
                        await run_shielded(self._journal.abandon_handler(*place))
                    else:
                        await run_shielded(self._journal.cut_off(*place))
                    raise
                except BaseException:
                    await run_shielded(self._journal.abandon_handler(*place))
                    raise
        except JournalError:
            if not is_begun:
                await run_shielded(self._journal.abandon_handler(*place))
            raise

    async def _keep(self, run: Run, tool: Tool, output: ToolOutput, given: str) -> Handling:
        """Keep an answer that can be sent beside those that are kept; return what is kept."""
        place = (self._key, run.id, output.action.id)
        async with self._keys.lock("answers", self._key, run.id):
            try:
                kept = await self._kept(run, output.action)
            except JournalError:
                kept = ()  # keeping the answer fails as well, and says what becomes of it
            async with self._still_due(*place, tool):
                check_answers(run, [*kept, output], self._keys.vendor, await self._origin(run))
            return await self._journal.answered(*place, given, output.is_error)

    @asynccontextmanager
    async def _still_due(self, key: str, run_id: str, action_id: str, tool: Tool) -> AsyncIterator[None]:
        """Note, where no answer comes of what a handler has returned, that its work is done and an answer is due."""
        try:
            yield
        except BaseException:
            await run_shielded(self._journal.unfit(key, run_id, action_id, ask_again=tool.repeatable))
            raise

    async def _kept(self, run: Run, action: Action) -> Sequence[ToolOutput]:
        """Return the answers to the other actions of a pause that are kept."""
        others = {each.id: each for each in run.actions if each.id != action.id}
        known = await self._journal.answers(self._key, run.id) if others else ()
        return [
            deserialize_answer(others[each.action_id], each)
            for each in known
            if each.output is not None and each.action_id in others and each.is_of(digest(others[each.action_id]))
        ]


def _outcome_unknown(run: Run, action: Action) -> ToolOutcomeUnknownError:
    return ToolOutcomeUnknownError(
        run,
        f"the handler of {action.name!r} for action {action.id} was cut off before it answered, and may or may not "
        "have done its work, or it did, and its answer could not be written",
    )
