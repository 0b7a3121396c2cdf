"""A real browser: Chromium, driven by Playwright over its own pipe; what it asks for and complains of is kept."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attrs import define, field

from agentruns.cli.console import emulated, served
from agentruns.console import AccessGuard, Source

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000.0
"""Milliseconds that an expectation may take on a busy machine."""

PACE = 0.6
"""Of what the emulated agents do, in seconds: slow enough to be watched."""


def chromium() -> str | None:
    """Return the path of the browser: what the environment names, else Debian's, else what is on the path."""
    named = os.environ.get("AGENTRUNS_CHROMIUM")
    if named:
        return named
    found = [each for each in ("/usr/bin/chromium",) if Path(each).exists()]
    return next(iter([*found, *filter(None, map(shutil.which, ("chromium", "google-chrome")))]), None)


@define(slots=False)
class Window:
    """A browser window of its own: its cookies, what its pages asked for, and what they complained of."""

    context: Any
    requests: list[Any] = field(factory=list)
    heard: list[str] = field(factory=list)
    complaints: list[str] = field(factory=list)
    expected: set[str] = field(factory=set)

    async def tab(self, address: str, **emulated_media: Any) -> Any:
        page = await self.context.new_page()
        if emulated_media:
            await page.emulate_media(**emulated_media)
        await page.goto(address)
        return page

    def watch(self, page: Any) -> None:
        page.on("request", self.asked)
        page.on("console", lambda said: self.complain(f"{said.type}: {said.text}", said.type in {"error", "warning"}))
        page.on("pageerror", lambda error: self.complain(f"uncaught: {error}", True))

    def asked(self, request: Any) -> None:
        self.requests.append(request)

    def complain(self, text: str, is_bad: bool) -> None:
        self.heard.append(text)
        if is_bad and not any(each in text for each in self.expected):
            self.complaints.append(text)


@define
class Desk:
    """A console over an emulated vendor, served at an address that stays when the server goes and comes back."""

    source: Source
    guard: AccessGuard
    address: str
    base: str
    _stack: AsyncExitStack

    async def stop(self) -> None:
        """Stop serving, as a crash or a closed lid would."""
        await self._stack.aclose()

    async def go_on(self) -> None:
        """Serve again, under the same address and with the same secrets."""
        port = int(self.base.rpartition(":")[2])
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(served(self.source, port=port, guard=self.guard))


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Callable[[str], Any]]:
    """Return what opens a console over an emulated vendor."""
    async with AsyncExitStack() as stack:

        async def open_desk(vendor: str, pace: float = PACE) -> Desk:
            source = await stack.enter_async_context(emulated(vendor, pace=pace))
            serving = AsyncExitStack()
            guard = AccessGuard()
            address = await serving.enter_async_context(served(source, guard=guard))
            made = Desk(source, guard, address, address.partition("/?")[0], serving)
            stack.push_async_callback(made.stop)
            return made

        yield open_desk


@pytest_asyncio.fixture
async def windows() -> AsyncIterator[Callable[..., Any]]:
    """Return what opens browser windows; afterwards, nothing may have left this machine, and nobody complained."""
    path = chromium()
    if path is None:
        pytest.skip("the browser tests need Chromium: set AGENTRUNS_CHROMIUM, or install it as `chromium`")
    from playwright.async_api import async_playwright  # not there everywhere: the test modules look for it

    opened: list[Window] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:

            async def open_window(**options: Any) -> Window:
                context = await browser.new_context(**{"viewport": {"width": 1100, "height": 850}, **options})
                context.set_default_timeout(PATIENCE)
                window = Window(context)
                context.on("page", window.watch)
                opened.append(window)
                return window

            yield open_window
        finally:
            await browser.close()
    for window in opened:
        assert [each.url for each in window.requests if not each.url.startswith("http://127.0.0.1:")] == []
        assert window.complaints == []
