"""
Starting a piece of work once, or attaching to the run that was started.

A start is entered before it is sent. One whose process died is gone through with under the keys of its origin, or
recovered by looking (`dialects.Recovers`), never sent a second time blindly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentruns._aio.shield import run_shielded
from agentruns._api.flow import Attempts
from agentruns._values import codec
from agentruns._values.commands import first_request
from agentruns._values.large import written
from agentruns._values.run import Run, RunRef
from agentruns.errors import (
    APIError,
    ConfigurationError,
    OutcomeUnknownError,
    RunError,
    ServerError,
    TransportError,
    UnsupportedError,
)

from .digest import request_digest
from .keeper import StartKeeper
from .keys import Keys
from .origins import check_value
from .work import deserialize_origin, is_same_work, keep_state, run_text, serialize_origin, undeclared_ids

if TYPE_CHECKING:
    from .journal import Work

TENDED: Final[ContextVar[str]] = ContextVar("agentruns_tended", default="")
"""The key of the work that is begun for a service, which tends it: that is entered together with its beginning."""

_NOTHING_HAPPENED: Final = (ConfigurationError, UnsupportedError, RunError, APIError)


class Starting:
    """The start of the work named *key*; *digest* names what is asked for, by default what the origin asks for."""

    __slots__ = ("_digest", "_journal", "_key", "_keys", "_operations")

    def __init__(self, keys: Keys, key: str, digest: str | None = None) -> None:
        self._digest = digest
        self._keys = keys
        self._key = key
        self._journal = keys.journal
        self._operations = keys.operations

    async def begin(self, origin: Any, attempts: Attempts) -> Run:
        """
        Start the run, or attach to the one that this key has started.

        Raise `ConfigurationError` for a key that names other work, `OutcomeUnknownError` for a start that died and
        cannot be settled, and whatever a start raises.
        """
        async with self._keys.lock("begin", self._key):  # so no other stream of ours is at it
            if isinstance(origin, Run | RunRef):
                return await self._attach_to(origin, attempts)
            return await self._begin(origin, attempts)

    async def _begin(self, origin: Any, attempts: Attempts) -> Run:
        text, digest = await written(partial(self._as_kept, origin))
        while True:
            work = await self._journal.begin(self._key, text, digest, tended=TENDED.get() == self._key)
            if work.fresh:
                return await self._start(partial(self._operations.start, origin), attempts)
            self._check(work, origin, digest)
            if work.run is not None:
                return await self._present(Run.from_json(work.run), attempts, anew=work.taken)
            if work.taken or work.mine:  # ours, if the journal could not be told that it was given up
                return await self._start_again(work, attempts)
            await self._journal.wait(self._key, work.updated)  # somebody else is starting it

    async def _attach_to(self, origin: Run | RunRef, attempts: Attempts) -> Run:
        tended = TENDED.get() == self._key
        kept = await self._journal.get(self._key)
        if kept is not None and kept.run is not None and await self._was_at(kept, kept.run, origin.id):
            work = await self._journal.attach(self._key, kept.origin, kept.run, kept.digest, tended=tended)
            is_ours = work.taken or (work.mine and isinstance(origin, RunRef))
            return await self._present(Run.from_json(work.run or kept.run), attempts, anew=is_ours)
        run = origin if isinstance(origin, Run) else await self._operations.fetch(origin, attempts=attempts)
        text, digest = serialize_origin(run.ref), self._digest_of(run.ref)
        work = await self._journal.attach(self._key, text, await run_text(run), digest, tended=tended)
        if work.fresh:
            return run
        if work.run is None and (work.taken or work.mine):  # it could not be settled; the caller knows which run it is
            await run_shielded(keep_state(self._journal, self._key, run))
            return run
        if work.run is None or not await self._was_at(work, work.run, run.id):
            self._check(work, run.ref, digest)
        return await self._present(run if work.run is None else Run.from_json(work.run), attempts, anew=work.taken)

    async def _was_at(self, work: Work, kept: str, run_id: str) -> bool:
        """Tell whether the work, whose last state was *kept*, is or was at that run: its name is no other work."""
        return Run.from_json(kept).id == run_id or bool(await self._journal.answers(work.key, run_id))

    async def _present(self, run: Run, attempts: Attempts, *, anew: bool) -> Run:
        """
        Return the run as it is now, not as it was last seen: if it waited, it may have been answered since.

        With *anew*, so may it have gone on: whoever was at the work is gone, and who only looks may have seen that.
        """
        if run.status.is_over or (run.status.in_flight and not anew):
            return run
        now = await self._operations.fetch(run.ref, attempts=attempts)
        if now != run:
            await run_shielded(keep_state(self._journal, self._key, now))
        return now

    def _as_kept(self, origin: Any, most: float) -> tuple[str, str | None]:
        """
        Return an origin as the journal keeps it, and its digest.

        Raise `ConfigurationError` for one that would not come back, `TooLargeError` for more than about *most* parts.
        """
        text = serialize_origin(origin, most)
        check_value(origin, text, self._operations.vendor)
        return text, self._digest_of(origin)

    def _check(self, work: Work, origin: Any, digest: str | None) -> None:
        check_same(work, origin, digest, self._journal.path)

    def _digest_of(self, origin: Any) -> str | None:
        return request_digest(origin) if self._digest is None else self._digest

    async def _start_again(self, work: Work, attempts: Attempts) -> Run:
        """Go through with a start whose process died, or whose outcome was not clear."""
        vendor, origin = self._keys.vendor, deserialize_origin(work.origin, self._keys.vendor)
        if self._keys.key_expired(work.created):
            await self._journal.release(self._key)
            raise self._with_advice(
                OutcomeUnknownError(
                    first_request(vendor.flow("start", origin)),
                    "it was begun longer ago than the vendor remembers what it was asked",
                )
            )
        # Without a note it died before the first request that must not be repeated.
        if vendor.recover is None or work.start_note is None:
            return await self._start(partial(self._operations.start, origin), attempts, again=True)
        note = codec.decode(work.start_note, trusted=True)

        async def recover(keeper: StartKeeper, attempts: Attempts) -> Run:
            if work.group_name is not None:
                await self._journal.recovering(self._key)
            if "known" in note:
                note["known"] += await self._journal.runs_since(work.created)  # what other keys have found is not ours
            return await self._operations.recover(origin, note, keeper, attempts)

        return await self._start(recover, attempts, again=True)

    async def _start(
        self, start: Callable[[StartKeeper, Attempts], Awaitable[Run]], attempts: Attempts, *, again: bool = False
    ) -> Run:
        """
        Start the run, and enter what came of it.

        A clear refusal means that nothing was begun, unless it may have been sent before: *again*, and not noted first
        by this start.
        """
        keeper = StartKeeper(self._journal, self._key)
        try:
            run = await start(keeper, attempts)
        except _NOTHING_HAPPENED as error:
            unclear = (again and not keeper.is_first) or isinstance(error, ServerError)
            if isinstance(error, APIError):
                unclear = unclear or error.status == 408 or error.after_doubt
            end = self._journal.release if unclear else self._journal.forget_start
            await run_shielded(end(self._key))
            raise
        except TransportError as error:
            # Where another request of it is in doubt, that may have begun something.
            tried = again and not keeper.is_first
            never_sent = not (tried or error.sent or error.request.idempotent or attempts.doubt)
            end = self._journal.forget_start if never_sent else self._journal.release
            await run_shielded(end(self._key))
            raise
        except OutcomeUnknownError as error:
            await run_shielded(self._journal.release(self._key))
            raise self._with_advice(error) from error.__cause__
        except BaseException:
            await run_shielded(self._left(keeper))
            raise
        await run_shielded(keep_state(self._journal, self._key, run))
        return run

    async def _left(self, keeper: StartKeeper) -> None:
        await keeper.settle()
        await self._journal.release(self._key)

    def _with_advice(self, error: OutcomeUnknownError) -> OutcomeUnknownError:
        """Return the error with what can be done about it under this key."""
        return OutcomeUnknownError(
            error.request,
            f"{error.reason}. Under key {self._key!r} the journal keeps it as begun",
            remedy="the same call looks again; "
            f"`client.stream(RunRef(id, parent), key={self._key!r})` goes on with a run that you know to be its own; "
            "if there is none, start it under another key",
        )


def check_same(work: Work, origin: Any, digest: str | None, journal: object) -> None:
    """Refuse a key that names other work; *digest* is that of what *origin* asks for."""
    if work.digest is not None and work.digest == digest:
        return  # asked for by another origin, as one that `prepare` has made once more
    if not is_same_work(work.origin, origin):
        ids = ", ".join(undeclared_ids(work.origin, origin))
        raise ConfigurationError(
            f"key {work.key!r} names other work in the journal {journal}",
            field="key",
            remedy="use another key for this, or pass the origin that `client.work(key)` has, to go on with that"
            + (f"; if {ids} is a new id with each value, let its field say `metadata=MINTED`" if ids else ""),
        )
