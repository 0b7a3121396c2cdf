"""The one loop that sends: run a vendor's flow, repeating each request as often as it may be repeated."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import sleep
from collections.abc import Callable, MutableMapping
from contextlib import nullcontext
from copy import copy
from itertools import count
from typing import Any, Final, TypeAlias, cast

from attrs import define, evolve, field

from agentruns._values import codec
from agentruns._values.commands import (
    GRANTED,
    AwaitSlot,
    Checkpoint,
    ClaimRun,
    Flow,
    Lock,
    Ownership,
    SkippedRows,
    Sleep,
    T,
)
from agentruns._values.exchange import Problem, Request, Response, Send
from agentruns._values.run import Run
from agentruns.dialects import wire
from agentruns.dialects.vendor import MISTAKES, mistake, name_of
from agentruns.errors import (
    APIError,
    ConflictError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    api_error,
)

from .admission import PLACE
from .noting import Notes
from .retry import Retry

logger = logging.getLogger("agentruns")


_LEAST_REST: Final = 1.0
"""Seconds after which a vendor that wants to be left alone is thought of again."""

Locks: TypeAlias = MutableMapping[str, asyncio.Lock]
"""What flows of one client hold, by key; weak values let go of a lock that nobody holds or waits for."""


@define
class Attempts:
    """
    How the requests of a flow fare, for whoever waits for its result.

    `failure` is what the last one came to, None if it was answered well. `idle` says that none is under way, since the
    last was refused; `doubt`, that one which may have done something had no clear outcome.
    """

    failure: Exception | None = None
    idle: bool = False
    doubt: bool = False
    _unclear: list[tuple[Request, str]] = field(factory=list, init=False)

    def succeeded(self, request: Request) -> None:
        """Note that a request was answered well: what became of the tries before is of no interest any more."""
        self.failure, self.idle = None, False
        if self._unclear:
            self._unclear = [each for each in self._unclear if not _is_same(each[0], request)]

    def failed(self, request: Request, error: TransportError | APIError, *, unclear: bool) -> None:
        """Note what a request came to; *unclear* says that it may have been acted on."""
        self.failure, self.idle = copy(error), True
        self.doubt = self.doubt or (unclear and request.method != "GET")
        if unclear and self.in_doubt(request) is None:
            reason = error.reason if isinstance(error, TransportError) else f"it was answered {error.status}"
            self._unclear.append((request, reason))

    def in_doubt(self, request: Request) -> str | None:
        """Return why a try of the same request, in whichever part of the flow, may have been acted on; None if none."""
        return next((reason for each, reason in self._unclear if _is_same(each, request)), None)


def _is_same(one: Request, other: Request) -> bool:
    return evolve(one, idempotent=True) == evolve(other, idempotent=True)


async def perform(
    flow: Flow[T],
    send: Send,
    problem: Callable[[Response], Problem],
    retry: Retry,
    locks: Locks | None = None,
    notes: Notes | None = None,
    skipped: Callable[[SkippedRows], None] | None = None,
    attempts: Attempts | None = None,
    *,
    guarded: bool = True,
) -> T:
    """
    Run *flow* to its result.

    An answer of 2xx is sent into the flow; everything else is thrown into it as the exception that the caller would
    get, so a flow that knows better can catch it (and look for the run that a lost answer may have started). What a
    flow wants noted or claimed is left to *notes*; without them nothing is kept, and everything is its own. *skipped*
    is told of the rows of a list that did not fit, *attempts* how each request fares. A mistake within a flow that is
    *guarded*, such as a `KeyError`, becomes a `ProtocolError` that names it and the request.
    """
    held: list[asyncio.Lock] = []
    attempts = Attempts() if attempts is None else attempts
    answer = last = GRANTED
    thrown: Exception | None = None
    try:
        wanted: Any = next(flow)
        while True:
            try:
                if isinstance(wanted, Request):
                    answer = last = await _exchange(wanted, send, problem, retry, attempts, notes)
                elif isinstance(wanted, Lock):
                    lock = asyncio.Lock() if locks is None else locks.setdefault(wanted.key, asyncio.Lock())
                    await _acquire(lock)
                    held.append(lock)
                    answer = GRANTED
                elif isinstance(wanted, Sleep):
                    await sleep(wanted.seconds)
                    answer = GRANTED
                elif isinstance(wanted, AwaitSlot):
                    answer = evolve(GRANTED, status=await _await_slot(wanted))
                elif isinstance(wanted, SkippedRows):
                    if skipped is not None:
                        skipped(wanted)
                    answer = GRANTED
                elif isinstance(wanted, Checkpoint):
                    if notes is not None:
                        answer = evolve(GRANTED, status=await notes.note(wanted, at_once=attempts.doubt))
                    else:
                        answer = GRANTED
                elif isinstance(wanted, ClaimRun):
                    answer = GRANTED if notes is None else evolve(GRANTED, status=await notes.claim(wanted.run_id))
                else:
                    break
            except Exception as error:
                thrown = error
                try:
                    wanted = flow.throw(error)
                except ConflictError:  # another flow may begin where this one ends
                    await _take_back(notes, attempts)
                    raise
                await _take_back(notes, attempts)
            else:
                wanted = flow.send(answer)
        raise ProtocolError(
            f"{name_of(flow)} yielded {str(wanted)[:100]!r}, which is no Request, Sleep, AwaitSlot, Lock, Checkpoint, "
            "ClaimRun or SkippedRows",
            None if last is GRANTED else last,
        )
    except StopIteration as end:
        result: Any = end.value
        return cast("T", with_poll_hint(result, last) if isinstance(result, Run) else result)
    except MISTAKES as error:
        if error is thrown or not guarded:
            raise
        raise mistake(name_of(flow), error, last) from error
    finally:
        try:
            flow.close()
        finally:
            for lock in held:
                lock.release()


def with_poll_hint(run: Run, answer: Response) -> Run:
    """Return the run with the wait that the vendor asked for by a header, if its dialect has read none elsewhere."""
    if run.poll_after is not None:
        return run
    asked = wire.poll_after(answer.headers)
    return run if asked is None or not run.status.in_flight else evolve(run, poll_after=asked)


async def _acquire(lock: asyncio.Lock) -> None:
    place = PLACE.get() if lock.locked() else None
    with nullcontext() if place is None else place.waiting():
        await lock.acquire()


async def _await_slot(wanted: AwaitSlot) -> Ownership:
    place = PLACE.get()
    if wanted.seconds > wanted.longest and (place is None or place.patience is None):
        return Ownership.OTHERS
    await (sleep(wanted.seconds) if place is None else place.wait_for_slot(wanted.seconds))
    return Ownership.MINE


async def _exchange(
    request: Request,
    send: Send,
    problem: Callable[[Response], Problem],
    retry: Retry,
    attempts: Attempts,
    notes: Notes | None,
) -> Response:
    """
    Return the 2xx answer to *request*, or raise.

    Lost answers, 408 and 5xx are tried again only where the request is idempotent or was certainly never sent. 429 is
    always tried again: it was refused before anything was done, and so is what a dialect's `problem` says that of.
    `Retry-After` is a floor. For one of many rows (a `Place` with patience), what may be tried again is so for as long
    as it takes: after 429, though its flow may have asked to hear of that, and while contact is lost.

    A try that got no clear answer leaves the request in doubt until one is answered well, also where the flow sends it
    again by itself: that a later try was refused, or was never sent, does not say that nothing was done. While nothing
    is in doubt, what the *notes* say of the request is taken back until the next try.
    """
    for attempt in count(1):
        floor = 0.0
        error: TransportError | APIError
        before = attempts.in_doubt(request)
        attempts.idle = False
        try:
            response = await send(request)
        except TransportError as lost:
            error, unclear = lost, lost.sent
            again = not lost.final and (request.idempotent or not lost.sent)
        except APIError as resting:  # not sent: the vendor has asked for a longer rest than is waited for
            if _bears(resting):
                await _rest(max(retry.longest, _LEAST_REST), attempts, notes)
                continue
            resting.after_doubt = before is not None
            raise
        else:
            if 200 <= response.status < 300:
                cut = undecodable(response) if request.is_json else None
                if cut is None:
                    attempts.succeeded(request)
                    if notes is not None:
                        notes.answered()
                    return response
                # A body that is cut off without a declared length looks like this; the next one may be whole.
                error, again, unclear = cut, request.idempotent, True
            elif response.status < 400:
                place = response.headers.get("location")
                if place is None:
                    raise ProtocolError(
                        f"{request.line} was answered {response.status}, which says nothing here", response
                    )
                raise ProtocolError(
                    f"{request.line} was answered {response.status} (a redirect to {place!r}), which is not followed "
                    "because it could carry the token elsewhere. Check the base URL",
                    response,
                )
            else:
                asked = wire.retry_after_refusal(response)
                said = problem(response)
                error = api_error(response, said, asked)
                floor = asked or 0.0
                refused = response.status == 429 or said.nothing_done
                unclear = not refused and (response.status == 408 or response.status >= 500)
                again = (refused and request.again_after_429) or (unclear and request.idempotent)
                again = again or (response.status == 429 and said.rate_limited and _bears(error))
        attempts.failed(request, error, unclear=unclear)
        if not again or ((attempt >= retry.attempts or floor > retry.longest) and not _bears(error)):
            raise _failure(request, error, unclear, before)
        wait = retry.backoff.delay(attempt - 1, at_least=floor, noise=random.random())  # noqa: S311
        logger.debug("%s: attempt %d of %d failed, next in %.2f s", request.line, attempt, retry.attempts, wait)
        await _rest(wait, attempts, notes)
    raise AssertionError("counting never ends")  # pragma: no cover


async def _rest(seconds: float, attempts: Attempts, notes: Notes | None) -> None:
    """Wait until a request is sent again."""
    await _take_back(notes, attempts)
    await sleep(seconds)


async def _take_back(notes: Notes | None, attempts: Attempts) -> None:
    """Have nobody who finds the note of a request take it for sent, if it was clearly refused."""
    if notes is not None and attempts.idle and not attempts.doubt:
        await notes.take_back()


def _failure(request: Request, error: TransportError | APIError, unclear: bool, before: str | None) -> Exception:
    """Return what is raised for a request that is given up; *before* is why a try before the last is in doubt."""
    if before is not None and isinstance(error, TransportError) and not error.sent:
        unsent, unclear = error, True
        error = TransportError(request, f"{before}; then {unsent.reason}", final=unsent.final, hint=unsent.hint)
        error.__cause__ = unsent
    if isinstance(error, APIError):
        error.after_doubt = before is not None
    if not unclear or request.idempotent:
        return error
    unknown = OutcomeUnknownError(request, str(error))
    unknown.__cause__ = error
    return unknown


def _bears(error: Exception) -> bool:
    """Tell whether a request of one of many rows is to be sent again after *error*, however often it was sent."""
    place = PLACE.get()
    if place is None or place.patience is None:
        return False
    return isinstance(error, RateLimitedError) or place.bears(asyncio.get_running_loop().time())


def undecodable(response: Response) -> TransportError | None:
    """Return what is wrong with an answer that is not whole JSON: it got lost on the way."""
    try:
        _ = response.value
    except codec.CodecError as error:
        begins = response.body[:40].decode("utf-8", "replace")
        return TransportError(response.request, f"the answer is not whole JSON ({error}); it begins {begins!r}")
    return None
