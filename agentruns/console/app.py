"""The addresses of the console, and what each does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from agentruns import _extras as extras
from agentruns._keeping.journal.entries import Entry
from agentruns._keeping.journal.queries import PAGE, Which
from agentruns._values.printable import printable
from agentruns.dialects.show import Answer, Fact, text_of
from agentruns.errors import AgentRunsError, ConfigurationError
from agentruns.web import Event
from agentruns.web.aiohttp import end_watching, sse_response
from agentruns.web.events import steps

from .asks import Ask
from .forms import Posted
from .history import WorkHistory
from .live import Histories, cards_of, list_events, work_events
from .security import HEADERS, AccessGuard, add_headers
from .source import AnsweredElsewhereError, Source
from .timeline import Group
from .views import Card, Listing, Views

logger = logging.getLogger("agentruns")

_LARGEST: Final = 1 << 19
"""Bytes of a form, at most."""

_SEND_SECONDS: Final = 60.0
"""How long a browser may take to send a form."""

_STATIC: Final[Mapping[str, str]] = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "sse.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

_LATE: Final = "That was answered elsewhere, or is no longer asked. Nothing was sent."
_SAID: Final = "Your answer was sent."


def application(source: Source, guard: AccessGuard) -> web.Application:
    """
    Return the console over *source*, an open one, as an application for aiohttp.web.

    Serve it with `handler_cancellation=True`, so that a page that was left is watched no more. Raise
    `ConfigurationError` if the extra `console` is not installed.
    """
    _look_for_extra()
    console = _Console(source, guard)
    app = web.Application(middlewares=[guard.middleware(), console.tell], client_max_size=_LARGEST)
    app.add_routes([
        web.get("/", console.runs),
        web.get("/events", console.run_events),
        web.get("/work/{entry}", console.work),
        web.get("/work/{entry}/events", console.work_events),
        web.get("/work/{entry}/trace", console.trace),
        web.post("/work/{entry}/answer", console.answer),
        web.post("/start", console.start),
        web.post("/sign-out", console.sign_out),
        web.get("/static/{name}", console.static),
        web.get("/favicon.ico", console.icon),
    ])
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(end_watching)
    app.on_cleanup.append(console.close)
    return app


class _Console:
    """The handlers, and what they share."""

    def __init__(self, source: Source, guard: AccessGuard) -> None:
        self._source = source
        self._guard = guard
        self._views = Views(guard.csrf, source.place)
        self._histories = Histories(source)

    async def close(self, _: web.Application) -> None:
        """Close the histories that were watched."""
        await self._histories.close()

    @web.middleware
    async def tell(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell what goes wrong on a page of its own."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return self._problem(request, error.status, error.reason, error.text or "")
        except AgentRunsError as error:
            return self._problem(request, 502, "That did not work", str(error))

    def _problem(self, request: web.Request, status: int, title: str, text: str) -> web.Response:
        page = self._views.notice(text) if _is_htmx(request) else self._views.problem(title, text)
        return _html(page, status=status)

    # Looking ----------------------------------------------------------------------------------------------------------

    async def runs(self, request: web.Request) -> web.StreamResponse:
        """Show the entries."""
        which, before, key = _which(request)
        listing = await self._listing(which, before, key)
        digest = sha256(self._views.entries(listing).encode()).hexdigest()[:16]
        query = {"which": which, "after": digest, **({"before": str(before)} if before is not None else {})}
        query |= {"key": key} if key else {}
        events = str(request.rel_url.with_path("/events").with_query(query))
        return _html(self._views.runs(listing, self._source.jobs.offered, events))

    async def run_events(self, request: web.Request) -> web.StreamResponse:
        """Tell how the list changes."""
        which, before, key = _which(request)

        async def render() -> str:
            return self._views.entries(await self._listing(which, before, key))

        return await self._send(request, list_events(self._source, render, _seen(request)))

    async def work(self, request: web.Request) -> web.StreamResponse:
        """Show one entry."""
        entry = await self._entry(request)
        said = _SAID if request.query.get("said") == "sent" else ""
        async with self._histories.of(entry) as history:
            await history.refresh()
            return _html(await self._work(history, said=said))

    async def work_events(self, request: web.Request) -> web.StreamResponse:
        """Tell how one entry goes on."""
        entry = await self._entry(request)
        async with self._histories.of(entry) as history:
            return await self._send(request, work_events(self._source, history, self._views, _seen(request)))

    async def trace(self, request: web.Request) -> web.StreamResponse:
        """Show how the last run of an entry came about."""
        entry = await self._entry(request)
        async with self._histories.of(entry) as history:
            run = history.run
        trace = await self._source.trace(run) if run is not None else ()
        return _html(self._views.trace(history, trace, whole=not _is_htmx(request)))

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Give one of the files that pages need."""
        return self._file(request.match_info["name"])

    async def icon(self, _: web.Request) -> web.StreamResponse:
        """Give the icon where browsers look for it if a page does not say."""
        return self._file("icon.svg")

    def _file(self, name: str) -> web.Response:
        if name not in _STATIC:
            raise web.HTTPNotFound(text="There is no such file.")
        body = (files("agentruns.console") / "static" / name).read_bytes()
        return web.Response(body=body, content_type=_STATIC[name], charset="utf-8")

    async def _listing(self, which: Which, before: int | None, key: str) -> Listing:
        entries, counts = await self._source.book.page(which, before=before, key=key)
        work = [each for each in entries if each.id.startswith("w")]
        older = int(work[-1].id[1:]) if len(work) == PAGE else None
        return Listing(entries=entries, counts=counts, which=which, before=before, older=older, key=key)

    async def _entry(self, request: web.Request) -> Entry:
        entry = await self._source.book.entry(request.match_info["entry"])
        if entry is None:
            raise web.HTTPNotFound(text="The journal has no such work, or has it no longer.")
        return entry

    async def _work(self, history: WorkHistory, *, said: str = "", instead: Card | None = None) -> str:
        cards = await cards_of(self._source, history)
        if instead is not None:
            shown = [instead if card.group.id == instead.group.id else card for card in cards]
            cards = shown if instead in shown else [instead, *cards]
        origin = await self._source.book.origin(history.entry.id)
        facts = [Fact(name, text_of(value), is_block="\n" in text_of(value)) for name, value in origin.items() if value]
        return self._views.work(history, cards, facts, said)

    async def _send(self, request: web.Request, events: AsyncGenerator[Event, None]) -> web.StreamResponse:
        session = self._guard.session_of(request)
        if session is None:  # it has ended meanwhile
            await events.aclose()
            raise web.HTTPUnauthorized
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._guard.seconds_left(session), session.over.set)
        try:
            told = _until(session.over, events)
            return await sse_response(request, told, headers={**HEADERS, "Cache-Control": "no-store"})
        finally:
            end.cancel()

    # Doing ------------------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass on the answers of one form; show it again where something is wrong with it, or it came too late."""
        posted = await self._posted(request)
        entry = await self._entry(request)
        async with self._histories.of(entry) as history:
            pause = await self._source.pause(entry, history.run)
            group = pause.group(_last(posted, "group")) if pause is not None else None
            if group is None or not group.is_open:
                return await self._late(request, history, group)
            read = [each.read(posted) for each in await self._source.asks(group)]
            if any(isinstance(each, Ask) for each in read):
                asks = [
                    each if isinstance(each, Ask) else ask.filled(posted, {})
                    for each, ask in zip(read, await self._source.asks(group), strict=True)
                ]
                wrong = "Nothing was sent: something must be corrected."
                return await self._card(request, history, Card(group, tuple(asks), error=wrong), 422)
            try:
                await self._source.give(group, cast("list[Answer]", read))
            except AnsweredElsewhereError:
                return await self._late(request, history, group)
            except AgentRunsError as error:
                logger.warning("an answer to run %s was not passed on: %s", printable(group.run.id), error)
                asks_again = tuple(each.filled(posted, {}) for each in await self._source.asks(group))
                status = 422 if isinstance(error, ConfigurationError) else 502
                return await self._card(request, history, Card(group, asks_again, error=f"Not sent: {error}"), status)
            if not _is_htmx(request):
                raise web.HTTPSeeOther(f"/work/{entry.id}?said=sent")
            return await self._card(request, history, await self._over(group, said=_SAID), 200)

    async def _late(self, request: web.Request, history: WorkHistory, group: Group | None) -> web.StreamResponse:
        if group is None:
            if _is_htmx(request):
                return _html(self._views.notice(_LATE), status=409)
            return _html(self._views.problem("Too late", _LATE), status=409)
        return await self._card(request, history, await self._over(group, error=_LATE), 409)

    async def _over(self, group: Group, *, said: str = "", error: str = "") -> Card:
        """Return what is shown of actions that were answered."""
        answered = Group(run=group.run, actions=group.actions, route="answered")
        return Card(answered, await self._source.asks(answered), said, error)

    async def _card(self, request: web.Request, history: WorkHistory, card: Card, status: int) -> web.Response:
        await history.refresh()
        if _is_htmx(request):
            return _html(self._views.card(history, card), status=status)
        return _html(await self._work(history, instead=card), status=status)

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Start one of the jobs that are offered."""
        posted = await self._posted(request)
        name = _last(posted, "job")
        jobs = self._source.jobs
        if jobs.start is None or name not in {job.name for job in jobs.offered}:
            raise web.HTTPNotFound(text="There is no such job.")
        key = await jobs.start(name)
        entry = await self._source.book.named(key)
        self._source.notify()
        raise web.HTTPSeeOther("/" if entry is None else f"/work/{entry}")

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """End the session of this browser."""
        await self._posted(request)
        return self._guard.sign_out(request)

    async def _posted(self, request: web.Request) -> dict[str, list[str]]:
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType(text="That is not what a form of this console sends.")
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                form = await request.post()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="The form did not arrive. Send it again.") from None
        except (LookupError, ValueError):  # a charset that is none, or not that of the bytes
            raise web.HTTPUnsupportedMediaType(text="That is not what a form of this console sends.") from None
        posted: dict[str, list[str]] = {}
        for name, value in form.items():
            if isinstance(value, str):
                posted.setdefault(name, []).append(value)
        if not self._guard.is_from_our_form(_last(posted, "csrf")):
            raise web.HTTPForbidden(text="That form is not of this console, or it was restarted. Load the page again.")
        return posted


async def _until(over: asyncio.Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Iterate over *events* until a session is over."""
    taken = steps(events, stop=over)
    try:
        async for event in taken:
            if event is not None:  # a heartbeat, which is not asked for
                yield event
    finally:
        await taken.aclose()


def _last(posted: Posted, name: str) -> str:
    return (posted.get(name) or ("",))[-1]


def _is_htmx(request: web.Request) -> bool:
    return request.headers.get("HX-Request") == "true"


_LONGEST_KEY: Final = 1000


def _which(request: web.Request) -> tuple[Which, int | None, str]:
    which = request.query.get("which", "all")
    before = request.query.get("before", "")
    known = which if which in {"all", "waiting", "open", "done", "failed"} else "all"
    number = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    return cast("Which", known), number, request.query.get("key", "")[:_LONGEST_KEY]


def _seen(request: web.Request) -> str | None:
    """Return the event that the browser has seen last: it says so itself when it comes back."""
    return request.headers.get("Last-Event-ID") or request.query.get("after")


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8")


def _look_for_extra() -> None:
    with extras.require("console", "the console needs"):
        import aiohttp_sse
        import jsonschema  # type: ignore[import-untyped,unused-ignore]

        _ = aiohttp_sse, jsonschema
