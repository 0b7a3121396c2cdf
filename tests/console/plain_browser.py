"""What the console's tests share: a browser without scripts, a journal with work in it, and a console over either."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import define, field

from agentruns import Run
from agentruns._keeping.journal import Journal
from agentruns._values.exchange import Request, Response
from agentruns.dialects.narrative import parse_run
from tests.scripted_wire import CONVERSATION, RUN, run_body

pytest.importorskip("jinja2")
pytest.importorskip("aiohttp_sse")
pytest.importorskip("jsonschema")

from agentruns.cli.console import served
from agentruns.console import AccessGuard, Source

SECONDS = 20.0
"""How long what happens within a second may take on a busy machine."""


@define
class Form:
    """A form of a page: where it goes, what is filled in, and what can be chosen."""

    action: str
    fields: list[tuple[str, str]] = field(factory=list)
    offered: list[tuple[str, str]] = field(factory=list)
    labels: dict[str, str] = field(factory=dict)

    def filled(self, **values: str) -> list[tuple[str, str]]:
        """Return what is sent when fields whose names end so are filled in with these values."""
        sent = dict(self.fields)
        names = {name for name, _ in [*self.fields, *self.offered]}
        for ending, value in values.items():
            (name,) = [name for name in names if name.rpartition("/")[2] == ending]
            sent[name] = value
        return list(sent.items())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._area: str | None = None
        self._select: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(given["action"])
            self.forms.append(self._form)
        if self._form is None:
            return
        name, value = given.get("name", ""), given.get("value", "")
        if tag == "input" and given.get("type") in {"radio", "checkbox"}:
            self._form.offered.append((name, value))
            if "checked" in given:
                self._form.fields.append((name, value))
        elif tag == "input":
            self._form.fields.append((name, value))
        elif tag == "textarea":
            self._area = name
            self._form.fields.append((name, ""))
        elif tag == "select":
            self._select = name
            self._form.fields.append((name, ""))
        elif tag == "option" and self._select is not None:
            self._form.offered.append((self._select, value))
            if "selected" in given:
                self._form.fields[-1] = (self._select, value)

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._form is not None:
            name, value = self._form.fields[-1]
            self._form.fields[-1] = name, (value + data).removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        self._area = None if tag == "textarea" else self._area
        self._select = None if tag == "select" else self._select
        self._form = None if tag == "form" else self._form


@define
class Page:
    status: int
    path: str
    text: str
    headers: Mapping[str, str]

    @property
    def forms(self) -> list[Form]:
        reader = _Reader()
        reader.feed(self.text)
        return reader.forms

    @property
    def answers(self) -> list[Form]:
        return [form for form in self.forms if form.action.endswith("/answer")]


@define
class Browser:
    """Opens pages, sends forms, and listens to what is told of them."""

    session: aiohttp.ClientSession
    base: str
    pages: list[Page] = field(factory=list)

    async def open(self, path: str, **headers: str) -> Page:
        async with self.session.get(self.base + path, headers=headers) as answer:
            return await self._page(answer)

    async def send(self, path: str, fields: Any, *, origin: str | None = None, **headers: str) -> Page:
        sent = {"Origin": origin or self.base, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.session.post(self.base + path, data=fields, headers=sent) as answer:
            return await self._page(answer)

    async def start(self, job: str) -> Page:
        form = next(form for form in (await self.open("/")).forms if form.action == "/start")
        return await self.send("/start", [*form.fields, ("job", job)])

    async def _page(self, answer: aiohttp.ClientResponse) -> Page:
        page = Page(answer.status, answer.url.path, await answer.text(), dict(answer.headers))
        self.pages.append(page)
        return page

    @asynccontextmanager
    async def events(self, path: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """Give the events of a page, each with its id."""
        async with self.session.get(self.base + path, headers=headers) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            yield _events(answer)

    async def until(self, path: str, *needles: str, **headers: str) -> str:
        """Listen until what is told has all of *needles*, and return it."""
        told = ""
        async with asyncio.timeout(SECONDS), self.events(path, **headers) as events:
            async for _, data in events:
                told += data
                if all(needle in told for needle in needles):
                    return told
        raise AssertionError(f"the events ended without {needles}: {told}")

    async def waits(self, work: str) -> Page:
        """Return the page of a piece of work when there is something to answer."""
        await self.until(f"{work}/events", 'data-route="inbox"')
        return await self.open(work)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
    event_id, data = "", []
    async for line in answer.content:
        text = line.decode().rstrip("\r\n")
        if text.startswith("id: "):
            event_id = text[4:]
        elif text.startswith("data: "):
            data.append(text[6:])
        elif not text and data:
            yield event_id, "\n".join(data)
            data = []


@asynccontextmanager
async def browsing(source: Source, guard: AccessGuard | None = None) -> AsyncIterator[Browser]:
    """Serve the console over *source*, and give a browser that has opened the printed address."""
    async with served(source, guard=guard or AccessGuard()) as address, signed_in(address) as browser:
        yield browser


@asynccontextmanager
async def signed_in(address: str) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address that is a number
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SECONDS)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session:
        browser = Browser(session, address.partition("/?")[0])
        async with session.get(address) as answer:
            assert answer.status == 200
            assert "token" not in str(answer.url)
        yield browser


# A journal ------------------------------------------------------------------------------------------------------------

ORIGIN = json.dumps({"conversation_id": CONVERSATION, "text": "Sort my invoices."})


def state(status: str, **changes: Any) -> Run:
    """Return a run of Narrative in the given state."""
    body = json.dumps(run_body(status, **changes)).encode()
    return parse_run(Response(200, {}, body, Request("GET", "/")))


async def fill(journal: str | Path) -> None:
    """Put work into a journal: some that is done, some that waits, and some that has only begun."""
    async with Journal(journal, "narrative") as opened:
        for key, run in (
            ("invoice-1", state("completed", id="run-1")),
            ("invoice-2", state("failed", id="run-2")),
            ("invoice-3", state("requires_action", id=RUN)),
        ):
            await opened.begin(key, ORIGIN)
            await opened.saw(key, run.to_json(), done=key != "invoice-3")
        await opened.begin("invoice-4", ORIGIN)
        await opened.release("invoice-3")
