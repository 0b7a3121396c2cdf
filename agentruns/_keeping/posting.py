"""Posting the answers to a pause once: what was about to be sent is entered before, what followed after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agentruns._aio.shield import run_shielded
from agentruns._api.flow import Attempts
from agentruns._values.exchange import Request
from agentruns._values.run import Run, RunStatus, ToolOutput
from agentruns.dialects import check_answers
from agentruns.errors import APIError, ConfigurationError, ConflictError, OutcomeUnknownError

from .digest import digest
from .journal.moves import AnswerState
from .keys import Keys
from .work import deserialize_answer, keep_state

if TYPE_CHECKING:
    from .journal import Handling


class PostingOnce:
    """The answers of the work named *key*, on their way to the vendor."""

    __slots__ = ("_journal", "_key", "_keys", "_operations")

    def __init__(self, keys: Keys, key: str) -> None:
        self._keys = keys
        self._key = key
        self._journal = keys.journal
        self._operations = keys.operations

    async def post(self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, *, again: bool = False) -> Run:
        """
        Post the answers, enter the state that follows, and return it.

        What somebody else has posted is not posted again. Raise `OutcomeUnknownError` for answers that were sent
        longer ago than the vendor knows them again, and whatever an answer raises.
        """
        async with self._keys.lock("answer", self._key):
            work = await self._journal.get(self._key)
            origin = None if work is None else self._keys.origin_of(run, work)
            handled = {each.action_id: each for each in await self._journal.answers(self._key, run.id)}
            outputs = [_standing(output, handled.get(output.action.id)) for output in outputs]
            if all(action.id in handled and handled[action.id].state is AnswerState.POSTED for action in run.actions):
                moved = None if work is None or work.run is None else Run.from_json(work.run)
                if moved is None or moved.id == run.id:
                    moved = await self._operations.fetch(run.ref, attempts=attempts)
                if moved.id != run.id or moved.status is not RunStatus.REQUIRES_ACTION:
                    return moved
            was_tried = work is not None and work.posting_run == run.id
            since = work.posting_at if work is not None and was_tried else None
            again = again or was_tried
            if since is not None and self._keys.key_expired(since):
                raise OutcomeUnknownError(
                    Request("POST", f"/ (the answers to run {run.id})"),
                    "they were sent before, longer ago than the vendor remembers what it was asked",
                )
            if not again and len(outputs) > 1:  # else they were sent, or it was looked at
                await self._check(run, outputs, handled.values(), origin)
            await self._journal.posting(self._key, run.id)
            try:
                resumed = await self._answered(run, outputs, attempts, origin, again=again)
            except (APIError, ConfigurationError) as error:
                if not was_tried and not attempts.doubt and (attempts.idle or isinstance(error, ConfigurationError)):
                    await run_shielded(self._journal.not_posted(self._key, run.id))
                raise
            await run_shielded(self._posted(run, resumed))
            return resumed

    async def _check(self, run: Run, outputs: Sequence[ToolOutput], handled: Iterable[Handling], origin: Any) -> None:
        """
        Raise `ConfigurationError` for answers that the vendor's dialect would not send, and keep them no longer.

        Each was checked beside those that were kept before; two processes may have kept theirs at once.
        """
        try:
            check_answers(run, outputs, self._keys.vendor, origin)
        except ConfigurationError:
            for each in handled:
                if each.state is AnswerState.ANSWERED:
                    unfit = self._journal.unfit(self._key, run.id, each.action_id, ask_again=True)
                    await run_shielded(unfit)
            raise

    async def _answered(
        self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, origin: Any, *, again: bool
    ) -> Run:
        """Answer what of a pause nobody else has answered, in these words or others, and return what follows."""
        while True:
            try:
                return await self._operations.answer(run, outputs, origin=origin, again=again, attempts=attempts)
            except ConflictError as conflict:
                try:
                    followed = await self._operations.answered_by(run, attempts)
                except OutcomeUnknownError:  # the vendor never tells
                    raise conflict from None
                resumed = followed or await self._operations.fetch(run.ref, attempts=attempts)
                waits = {action.id for action in resumed.actions} if resumed.id == run.id else set()
                left = [output for output in outputs if output.action.id in waits]
                if len(left) == len(outputs):
                    raise
                if not left:
                    return resumed
                run, outputs = resumed, left

    async def _posted(self, run: Run, resumed: Run) -> None:
        await keep_state(self._journal, self._key, resumed)
        await self._journal.posted(self._key, run.id)


def _standing(output: ToolOutput, known: Handling | None) -> ToolOutput:
    """Return the answer that the journal keeps, which is the first, if it keeps one to the same action."""
    if known is None or known.output is None or not known.is_of(digest(output.action)):
        return output
    return deserialize_answer(output.action, known)
