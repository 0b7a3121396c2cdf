"""
The states of one run as server-sent events: what is said of a run, how errors are told, and the form on the wire.

An event is one of three:

    run     {"id", "parent", "status", "vendor_status", "actions": [{"id", "name", "arguments"}], "output",
             "failure": {"type", "message"} or null, "usage": {"input_tokens", "output_tokens"} or null,
             "progress": {"done", "limit"} or null}
    error   {"type", "message"}: the name and the text of an error of this library; any other is "Error", and is logged
    end     {"id", "status", "reason"}: the last, after which nothing comes; the reason is "over" (completed or failed),
            "paused" (it waits for an answer that no handler gives) or "error"

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
from agentruns._following.stream import RunStream, close
from agentruns._values import check, codec
from agentruns._values.run import Run, RunStatus

logger = logging.getLogger("agentruns")

Shown: TypeAlias = Callable[[Run], Mapping[str, Any]]
"""What makes of a run the JSON object that the browser sees."""

HEADERS: Final[Mapping[str, str]] = MappingProxyType({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
"""For a response of events, beside its content type `text/event-stream`: nothing between may keep or hold back."""

PING: Final = 15.0
"""Seconds between two heartbeats: proxies take a connection for dead after a minute or so of silence."""

_UNTOLD: Final = "something went wrong; the server's log says what"


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
    Return what a watcher is told of an error: of the vendor's refusals and of how the run went, the text as well.

    Other texts may tell of the server, or of what other users do: the path of the journal, the work that a key names,
    an internal host, an answer that somebody else gave. Of these only the class is told, and of classes that are not
    this library's not even that.
    """
    if isinstance(error, errors.APIError | errors.RunError) and error.public and not _is_of_others(error):
        return {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.JournalError):
        return {"type": errors.JournalError.__name__, "message": _UNTOLD}
    if isinstance(error, errors.AgentRunsError) and error.public:
        return {"type": type(error).__name__, "message": _UNTOLD}
    return {"type": "Error", "message": _UNTOLD}


def _is_of_others(error: Exception) -> bool:
    return isinstance(error, errors.AlreadyAnsweredError)


def events(stream: RunStream, *, shown: Shown = public) -> Events:
    """
    Return the states of one stream as events, for one watcher.

    Nothing is sent before the first step. Leaving ends the stream; what that does to the remote run is as its
    `on_cancel` says.
    """
    return Events(stream, shown)


class Events(AsyncGeneratorBase[Event]):
    """Iterate over the events of one stream: each state, the error if there is one, and the end; made by `events`."""

    def __init__(self, stream: RunStream, shown: Shown = public) -> None:
        if not isinstance(stream, RunStream):
            raise errors.ConfigurationError(f"{stream!r} is no stream of a run; pass `client.stream(...)`")
        if not callable(shown):
            raise errors.ConfigurationError(f"shown is {shown!r}; it must be a function of a Run")
        self._stream = stream
        self._shown = shown
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
            said = told(error)
            if said["message"] is _UNTOLD:
                logger.error("a run that is watched can no longer be followed", exc_info=error)
            return self._event("error", said)

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
