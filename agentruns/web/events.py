"""
The states of one run as server-sent events: what is said of a run, how errors are told, and the form on the wire.

An event is one of three:

    run     {"id", "parent", "status", "vendor_status", "actions": [{"id", "name", "arguments"}], "output",
             "failure": {"type", "message"} or null, "usage": {"input_tokens", "output_tokens"} or null,
             "progress": {"done", "limit"} or null}
    error   {"type", "message"}: the name of an error of this library, and a sentence for whoever watches; any other is
            "Error". What there is to know of it is logged, and nowhere else
    end     {"id", "status", "reason"}: the last, after which nothing comes; the reason is "over" (completed or failed),
            "paused" (it waits for an answer that no handler gives; not told to who only watches) or "error"

A stream that is given up because the server stops says no `end`: a browser then comes back by itself, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import anyio
from attrs import asdict, frozen

from agentruns import errors
from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._following.driving import RunDrive
from agentruns._following.stream import RunStream, close
from agentruns._following.watching import RunWatch
from agentruns._values import check, codec
from agentruns._values.printable import printable
from agentruns._values.run import Run, RunStatus
from agentruns.inbox import AlreadyDecidedError, NotAskedYetError, NotPendingError, UnknownActionError

logger = logging.getLogger("agentruns")

Shown: TypeAlias = Callable[[Run], Mapping[str, Any]]
"""What makes of a run the JSON object that the browser sees."""

Told: TypeAlias = Callable[[Exception], Mapping[str, Any]]
"""What makes of an error the JSON object that the browser sees: `type` and `message`."""

Source: TypeAlias = RunStream[Any] | RunWatch[Any] | RunDrive[Any]
"""What gives the states that are told."""

HEADERS: Final[Mapping[str, str]] = MappingProxyType({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
"""For a response of events, beside its content type `text/event-stream`: nothing between may keep or hold back."""

PING: Final = 15.0
"""Seconds between two heartbeats: proxies take a connection for dead after a minute or so of silence."""

_UNTOLD: Final = "something went wrong; the server's log says what"

_SAID: Final[tuple[tuple[type[Exception], str], ...]] = (
    (errors.NotFoundError, "there is no such run"),
    (errors.AlreadyAnsweredError, "this was answered before, and the first answer stands"),
    (errors.RateLimitedError, "too much is asked for at the moment; try again later"),
    (errors.TransportError, "the run cannot be reached at the moment; it may go on all the same"),
    (errors.ServerError, "the run cannot be reached at the moment; it may go on all the same"),
    (errors.DeadlineExceededError, "the run takes longer than it is waited for; it may go on all the same"),
    (errors.StalledError, "nothing has changed for long; the run may go on all the same"),
    (errors.ToolOutcomeUnknownError, "a step of this run was cut off, and somebody must look at it"),
    (errors.RunFailedError, "the run has failed"),
    (errors.JournalError, "this cannot be looked up or kept at the moment; try again later"),
    (AlreadyDecidedError, "this was answered before, and the first answer stands"),
    (NotAskedYetError, "this is not asked yet; try again in a moment"),
    (UnknownActionError, "nothing like this is asked for here"),
    (NotPendingError, "this is asked no more: the run has gone on, or asks something else by now"),
)
"""What whoever watches is told of an error, by its class; nothing in it comes from the error itself."""


@frozen
class Event:
    """One server-sent event; `data` is JSON text of one line."""

    id: str
    name: Literal["run", "error", "end"]
    data: str


def encode(event: Event) -> bytes:
    """Return the bytes of an event on the wire."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n".encode()


def public(run: Run) -> dict[str, Any]:
    """Return what a watcher is shown of a run: neither `raw` nor `detail`, which hold whatever the vendor sends."""
    return {
        "id": run.id,
        "parent": run.ref.parent,
        "status": run.status.value,
        "vendor_status": run.vendor_status,
        "actions": [asdict(action) for action in run.actions],
        "output": run.output,
        "failure": asdict(run.failure) if run.failure else None,
        "usage": asdict(run.usage) if run.usage else None,
        "progress": asdict(run.progress) if run.progress else None,
    }


def told(error: Exception) -> dict[str, str]:
    """
    Return what a watcher is told of an error: its class, and a sentence that says what that means for the run.

    No text of the error itself is told: it is for the developer, and may tell of the server, of the vendor, or of what
    others do. Of a class that is not this library's not even the name is told.
    """
    said = next((sentence for kind, sentence in _SAID if isinstance(error, kind)), _UNTOLD)
    if isinstance(error, errors.JournalError):
        return {"type": errors.JournalError.__name__, "message": said}
    known = isinstance(error, errors.AgentRunsError) and error.public
    return {"type": type(error).__name__ if known else "Error", "message": said}


def told_in_full(error: Exception) -> dict[str, str]:
    """
    Return the class and the text of an error of this library, for watchers who are its developers: `told=told_in_full`.

    The text may quote the vendor, ids of its logs, keys, and the path of the journal.
    """
    if isinstance(error, errors.AgentRunsError):
        return {"type": type(error).__name__, "message": str(error)}
    return told(error)


def missing(error: errors.NotFoundError) -> list[Event]:
    """Return what is told of a run that there is not, to who did not ask first."""
    epoch = secrets.token_hex(6)
    end = {"id": None, "status": None, "reason": "error"}
    return [
        Event(f"{epoch}-1", "error", codec.encode(told(error)).decode()),
        Event(f"{epoch}-2", "end", codec.encode(end).decode()),
    ]


def events(stream: Source, *, shown: Shown = public, told: Told = told) -> Events:
    """
    Return the states of one stream as events, for one watcher; *told* makes of an error what that is shown.

    Nothing is sent before the first step. Leaving ends the stream; what that does to the remote run is as its
    `on_cancel` says.
    """
    return Events(stream, shown, told)


class Events(AsyncGeneratorBase[Event]):
    """Iterate over the events of one stream: each state, the error if there is one, and the end; made by `events`."""

    def __init__(self, stream: Source, shown: Shown = public, told: Told = told) -> None:
        if not isinstance(stream, RunStream | RunWatch | RunDrive):
            raise errors.ConfigurationError(f"{stream!r} is no stream of a run; pass `client.stream(...)`")
        if not callable(shown):
            raise errors.ConfigurationError(f"shown is {shown!r}; it must be a function of a Run")
        if not callable(told):
            raise errors.ConfigurationError(f"told is {told!r}; it must be a function of an Exception")
        self._stream = stream
        self._shown = shown
        self._told = told
        self._count = 0
        self._is_over = False
        self._is_left = False  # a step was cancelled, and none was taken since
        self.epoch = secrets.token_hex(6)  # so that no other process takes its ids for its own
        self.error: Exception | None = None

    @property
    def run(self) -> Run | None:
        """Return the last state of the run."""
        return self._stream.run

    async def __anext__(self) -> Event:
        """Return the next event; whatever the stream raises is told by one."""
        if self._is_over:
            raise StopAsyncIteration
        if self.error is not None:
            return self._end()
        self._is_left = False
        try:
            return self._event("run", self._shown(await anext(self._stream)))
        except StopAsyncIteration:
            return self._end()
        except asyncio.CancelledError:
            self._is_left = True
            raise
        except Exception as error:
            self.error = error
            self._log(error)
            return self._event_of(error)

    async def aclose(self) -> None:
        """End the stream, and with it the events; the remote run is cancelled if `on_cancel` says so."""
        is_watched = not self._is_over and not self._is_left and self.error is None
        self._is_over = True
        try:
            if is_watched and self.run is not None and self.run.status.in_flight:
                # Leaving while an event is being sent counts as much as leaving while waiting for one.
                with suppress(errors.AgentRunsError):  # another task waits on the stream, and sees its end
                    await self._stream.leave()
        finally:
            await self._stream.aclose()

    def end(self) -> None:
        """End the stream without waiting for what it has under way; no event says so."""
        self._is_over = True
        close(self._stream)

    def _log(self, error: Exception) -> None:
        """Tell the developer what a watcher is not told."""
        run, is_ours = self._stream.run, isinstance(error, errors.AgentRunsError)
        what = "a run" if run is None else f"run {printable(run.id)}"
        about = {"agentruns_error_type": type(error).__name__}
        if run is not None:
            about |= {"agentruns_run_id": run.id, "agentruns_vendor": run.vendor, "agentruns_status": run.status.value}
        if is_ours:
            level = logging.INFO if run is None and isinstance(error, errors.NotFoundError) else logging.WARNING
            logger.log(level, "%s is followed no more: %s: %s", what, type(error).__name__, error, extra=about)
        else:
            logger.error("%s is followed no more", what, exc_info=error, extra=about)

    def _event_of(self, error: Exception) -> Event:
        """Return what is told of an error; where the app's own `told` fails, what is told without it."""
        try:
            return self._event("error", self._told(error))
        except Exception as failure:
            logger.error("`told` has failed, and something else was told", exc_info=failure)
            return self._event("error", told(error))

    def _end(self) -> Event:
        self._is_over = True
        run = self._stream.run
        status = None if run is None else run.status
        over = "paused" if status is RunStatus.REQUIRES_ACTION else "over"
        reason = "error" if self.error is not None else over
        return self._event("end", {"id": None if run is None else run.id, "status": status, "reason": reason})

    def _event(self, name: Literal["run", "error", "end"], data: Mapping[str, Any]) -> Event:
        text = codec.encode(data).decode()
        self._count += 1
        return Event(f"{self.epoch}-{self._count}", name, text)


def chunks(events: AsyncGenerator[Event, None], *, ping: float = PING) -> AsyncGenerator[bytes, None]:
    """
    Return the bytes of a response, for a framework that streams an async iterator: Django, or plain ASGI.

    After each *ping* seconds of silence comes a comment, which shows proxies and the server that the other side lives.
    """
    check.number("ping", ping)
    return _chunks(events, ping)


async def _chunks(events: AsyncGenerator[Event, None], ping: float) -> AsyncGenerator[bytes, None]:
    taken = steps(events, beat=ping)
    try:
        async for event in taken:
            yield b": ping\n\n" if event is None else encode(event)
    finally:
        await taken.aclose()


async def steps(
    events: AsyncGenerator[Event, None], *, beat: float | None = None, stop: anyio.Event | asyncio.Event | None = None
) -> AsyncGenerator[Event | None, None]:
    """
    Iterate over *events*, and close them however that ends; None stands for each *beat* seconds in which none came.

    When *stop* is set there are no more. A step goes on through a beat: cancelled, it might cancel the remote run.
    """
    step: asyncio.Future[Event | None] | None = None
    stopped = None if stop is None else asyncio.ensure_future(stop.wait())
    try:
        while True:
            step = step or asyncio.ensure_future(anext(events, None))
            waited = [each for each in (step, stopped) if each is not None]
            done, _ = await asyncio.wait(waited, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield None
                continue
            if not step.done():
                return
            event, step = step.result(), None
            if event is None:
                return
            yield event
    finally:
        under_way = [each for each in (step, stopped) if each is not None]
        for each in under_way:
            each.cancel()
        if under_way:
            with anyio.CancelScope(shield=True):  # bounded by what the library takes to cancel a remote run
                await asyncio.wait(under_way)
        await events.aclose()
