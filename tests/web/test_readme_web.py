"""The web handlers of the guide, each on the server that it is for: they show a run, and end promptly."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentruns import Run, RunRef, connect, narrative
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.script import Prompt
from agentruns.web import Feeds
from tests.guides import ROOT, blocks_of
from tests.scripted_wire import Wire, client_of, run
from tests.web.servers import CONFIG, Page, until

BLOCKS = [block for name, block in blocks_of(ROOT / "agentruns/web/README.md").items() if "In a web handler" in name]

AIOHTTP = "import sys; from aiohttp import web; import block; web.run_app(block.app, port=int(sys.argv[1]), print=None)"
UVICORN = (
    "import sys, uvicorn; uvicorn.run('block:app', port=int(sys.argv[1]), ws='none', timeout_graceful_shutdown=3, "
    "log_level='warning')"
)
BY_MARK = {"aiohttp": AIOHTTP, "fastapi": UVICORN, "django": UVICORN}


def agent(prompt: Prompt) -> Turn:
    """Wait for ever if asked for something slow, else ask for what is to be approved, if anything is."""
    if prompt.text is not None and "slow" in prompt.text:
        return Turn("Done.", running=600)
    if prompt.tools and not prompt.outputs:
        return Turn(calls=[Call("approve", {"invoice": "17"})])
    return Turn("Done.", running=0.2)


class Server:
    """A block of the guide, run as a program of its own."""

    def __init__(self, mark: str, folder: Path) -> None:
        (block,) = [each for each in BLOCKS if re.search(rf"^from {re.escape(mark)}\b", each, re.MULTILINE)]
        (folder / "block.py").write_text(block)
        self._folder = folder
        self._program = BY_MARK[mark]
        self.emulator = Emulator("narrative", script=agent)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        async with self.emulator, aiohttp.ClientSession() as self.session:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            self.process = self._started(port)
            try:
                await until(lambda: self._answers(port), seconds=30)
                client = connect(narrative, base_url=self.emulator.base_url, token=self.emulator.token)
                async with client as self.client:
                    yield
            finally:
                self.process.kill()
                self.output = "".join(self.process.communicate())

    def _started(self, port: int) -> subprocess.Popen[str]:
        settings = {"NARRATIVE_BASE_URL": self.emulator.base_url, "NARRATIVE_TOKEN": self.emulator.token}
        settings["PYTHONUNBUFFERED"] = "1"  # uvicorn ends by the signal that it got, and what was buffered is lost
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", self._program, str(port)],
            cwd=self._folder,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _answers(self, port: int) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    async def began(self, text: str = "Hello") -> Run:
        conversation = await self.client.perform(narrative.create_conversation(CONFIG))
        return await self.client.start(narrative.UserMessage(conversation.id, text))

    async def visit(self, slug: str) -> Page:
        async with self.session.get(f"{self.url}/runs/{slug}/events") as response:
            return Page(response.status, response.headers, await response.read())

    async def stop(self) -> float:
        """Stop the server as a supervisor does, and return the seconds that it takes."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        await until(lambda: self.process.poll() is not None, seconds=20)
        return time.monotonic() - began


@pytest.fixture
def server(tmp_path: Path) -> Callable[[str], Server]:
    return lambda mark: Server(mark, tmp_path)


def test_there_is_an_example_for_each_framework() -> None:
    assert len(BLOCKS) == len(BY_MARK)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_many_runs_are_shown_over_one_stream_and_all_are_left_with_it() -> None:
    (block,) = [each for each in blocks_of(ROOT / "agentruns/web/README.md").values() if "def together" in each]
    scope: dict[str, Any] = {}
    exec(block, scope)
    ends = {id_: [run("running", id=id_), run("completed", id=id_)] for id_ in ("a", "b")}
    wire = Wire({f"GET /agents/runs/{id_}": polls for id_, polls in ends.items()})
    wire.script["GET /agents/runs/endless"] = [run("running", id="endless")]
    async with client_of(wire) as client, Feeds(client) as feeds:
        shown = [json.loads(each.data) async for each in scope["together"]([feeds.watch(RunRef(id_)) for id_ in ends])]
        one, endless = RunRef("a"), RunRef("endless")
        page = scope["together"]([feeds.watch(one), feeds.watch(endless)])
        await anext(page)
        await page.aclose()
        left = feeds.get(endless)
        assert left is None or left.watching == 0

    for id_ in ends:
        assert [each["status"] for each in shown if each["id"] == id_] == ["running", "completed"]


@pytest.mark.asyncio
@pytest.mark.parametrize("mark", ["aiohttp", "fastapi", "django"])
async def test_it_shows_a_run_and_sends_away_who_has_seen_the_end(mark: str, server: Callable[[str], Server]) -> None:
    site = server(mark)
    async with site.served():
        run = await site.began()
        pages = await asyncio.gather(*[site.visit(run.slug) for _ in range(3)])
        last = {"Last-Event-ID": pages[0].events[-1].id}
        async with site.session.get(f"{site.url}/runs/{run.slug}/events", headers=last) as again:
            status = again.status

    assert [page.states[-2:] for page in pages] == [["completed", "end"]] * 3
    assert {page.headers["Content-Type"].partition(";")[0] for page in pages} == {"text/event-stream"}
    assert {page.headers["X-Accel-Buffering"] for page in pages} == {"no"}
    assert status == 204


@pytest.mark.asyncio
@pytest.mark.parametrize("mark", ["aiohttp", "fastapi", "django"])
async def test_it_stops_promptly_with_tabs_open(mark: str, server: Callable[[str], Server]) -> None:
    site = server(mark)
    async with site.served():
        run = await site.began("Something slow.")
        async with site.session.get(f"{site.url}/runs/{run.slug}/events") as open_tab:
            assert b"event: run" in await open_tab.content.readany()
            took = await site.stop()

    assert took < (6 if mark == "django" else 4)  # seconds; Django is cut off after the three of uvicorn
    assert "never awaited" not in site.output
    assert "was destroyed" not in site.output


@pytest.mark.asyncio
@pytest.mark.parametrize("mark", ["aiohttp", "fastapi", "django"])
async def test_a_run_that_there_is_not_is_404(mark: str, server: Callable[[str], Server]) -> None:
    site = server(mark)
    async with site.served():
        pages = [await site.visit(slug) for slug in ("nonsense", "narrative..9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e64")]

    assert [page.status for page in pages] == [404, 404]


@pytest.mark.asyncio
async def test_a_person_approves_what_the_page_shows_and_the_end_is_kept(server: Callable[[str], Server]) -> None:
    site = server("fastapi")
    async with site.served():
        async with site.session.post(f"{site.url}/runs", params={"text": "Handle invoice 17."}) as response:
            assert response.status == 200
            slug = await response.json()
        watching = asyncio.create_task(site.visit(slug))
        action = await asked_for(site, slug)
        answers = f"{site.url}/runs/{slug}/actions/{action['id']}"
        async with site.session.post(answers, params={"approved": "true"}) as response:
            assert response.status == 200
        async with site.session.post(answers, params={"approved": "false"}) as response:
            assert response.status == 409
        page = await watching
        await site.stop()

    assert action["arguments"] == {"invoice": "17"}
    assert "requires_action" in page.states
    assert page.states[-2:] == ["completed", "end"]
    assert len(site.emulator.requests("POST", "*/runs")) == 2
    assert "into your database:" in site.output
    assert '"completed"' in site.output


async def asked_for(site: Server, slug: str) -> dict[str, Any]:
    """Return the action that a page shows."""
    async with site.session.get(f"{site.url}/runs/{slug}/events") as tab:
        while line := await tab.content.readline():
            if line.startswith(b"data: ") and json.loads(line[6:])["actions"]:
                found: dict[str, Any] = json.loads(line[6:])["actions"][0]
                return found
    raise AssertionError("the run asked for nothing")
