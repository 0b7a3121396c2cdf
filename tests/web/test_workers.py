"""The samples of the guide under four workers: clicks and tabs reach any of them, and one that goes loses nothing."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentruns import connect, narrative
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.script import Prompt
from tests.guides import ROOT, blocks_of
from tests.web.servers import CONFIG, until

WORKERS = 4
RUNS = 12

ASGI = """
import os
import block

async def app(scope, receive, send):
    async def marked(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-worker", str(os.getpid()).encode())]}
        await send(message)
    await block.app(scope, receive, marked)
"""
AIOHTTP = """
import os
from block import app

async def mark(request, response):
    response.headers["X-Worker"] = str(os.getpid())

app.on_response_prepare.append(mark)
"""
"""What of a sample each worker serves, with the number of its process in each answer."""

UVICORN = (
    "-m uvicorn app:app --workers {workers} --port {port} --ws none --timeout-graceful-shutdown 1 --log-level warning"
)
GUNICORN = "-m gunicorn app:app -w {workers} -b 127.0.0.1:{port} --preload --graceful-timeout 1 --log-level warning -k "


def agent(prompt: Prompt) -> Turn:
    """Ask for an approval if it can be asked for, then work for a while."""
    if prompt.tools and not prompt.outputs:
        return Turn(calls=[Call("approve", {"invoice": "17"})])
    return Turn("Done.", running=1.0 if prompt.tools else 4.0)


class Workers:
    """A sample of the guide on a server of several processes; each request is a new connection, for any of them."""

    def __init__(self, folder: Path, sample: str, command: str, *, journal: str = "runs.db") -> None:
        (block,) = [each for each in blocks_of(ROOT / "agentruns/web/README.md").values() if sample in each]
        (folder / "block.py").write_text(block.replace('"runs.db"', repr(journal)))
        (folder / "app.py").write_text(AIOHTTP if "aiohttp" in sample else ASGI)
        self._folder = folder
        self._command = command
        self.emulator = Emulator("narrative", script=agent)
        self.at: dict[str, int] = {}  # which worker shows which run, by the slug

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with self.emulator, aiohttp.ClientSession(connector=connector) as self._session:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            log = self._folder / "log"
            with log.open("wb") as output:
                self._process = self._started(port, output)
            try:
                yield
            finally:
                with suppress(ProcessLookupError):  # all of them have stopped
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                self.output = log.read_text()

    def _started(self, port: int, output: Any) -> subprocess.Popen[bytes]:
        settings = {"NARRATIVE_BASE_URL": self.emulator.base_url, "NARRATIVE_TOKEN": self.emulator.token}
        command = [sys.executable, *self._command.format(workers=WORKERS, port=port).split()]
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=os.environ | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def all_there(self) -> set[int]:
        """Wait until as many processes answer as there are workers; return their ids."""
        seen: set[int] = set()
        async with asyncio.timeout(90):
            while len(seen) < WORKERS:
                try:
                    async with self._session.get(f"{self.url}/nothing") as response:
                        seen.add(int(response.headers["X-Worker"]))
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
        return seen

    async def began(self) -> str:
        async with self._session.post(f"{self.url}/runs", params={"text": "Handle invoice 17."}) as response:
            assert response.status == 200
            slug: str = await response.json()
            return slug

    async def clicked(self, slug: str, action: str) -> int:
        answers = f"{self.url}/runs/{slug}/actions/{action}"
        async with self._session.post(answers, params={"approved": "true"}) as response:
            return response.status

    async def tab(self, slug: str, asked: asyncio.Future[str]) -> str:
        """Watch a run to its end, and come back as a browser does when the server is lost; return its last status."""
        last, status = "", ""
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                async with self._session.get(f"{self.url}/runs/{slug}/events", headers=headers) as response:
                    assert response.status == 200
                    self.at[slug] = int(response.headers["X-Worker"])
                    name = ""
                    async for line in response.content:
                        field, _, value = line.decode().rstrip().partition(": ")
                        if field == "id":
                            last = value
                        elif field == "event":
                            name = value
                        elif field == "data":
                            told = json.loads(value)
                            if name == "end":
                                return status
                            status = told["status"] if name == "run" else name
                            if name == "run" and told["actions"] and not asked.done():
                                asked.set_result(told["actions"][0]["id"])
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """Stop as a supervisor does."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while self._process.poll() is None:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.05)


def kept(output: str) -> Counter[str]:
    """Return how often each key was handed over as completed."""
    return Counter(re.findall(r'into your database: (\w+) .*"completed"', output))


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("command", "end", "store"),
    [(UVICORN, signal.SIGKILL, "file"), (f"{GUNICORN} uvicorn.workers.UvicornWorker", signal.SIGTERM, "database")],
    ids=["uvicorn-killed-file", "gunicorn-stopped-database"],
)
async def test_first_clicks_are_taken_and_each_end_is_kept_although_a_worker_goes(
    tmp_path: Path, command: str, end: signal.Signals, store: str, request: pytest.FixtureRequest
) -> None:
    journal = "runs.db"
    if store == "database":
        journal = request.getfixturevalue("postgres").url(schema="workers", lease=3)
    site = Workers(tmp_path, "import FastAPI", command, journal=journal)
    async with site.served():
        await site.all_there()
        slugs = await asyncio.gather(*[site.began() for _ in range(RUNS)])
        asked = [asyncio.get_running_loop().create_future() for _ in slugs]
        tabs = [asyncio.create_task(site.tab(*each)) for each in zip(slugs, asked, strict=True)]
        actions = await asyncio.gather(*asked)
        clicks = [await site.clicked(*each) for each in zip(slugs, actions, strict=True)]
        os.kill(site.at[slugs[0]], end)  # while the runs that the answers brought are under way
        ends = await asyncio.wait_for(asyncio.gather(*tabs), 90)
        async with asyncio.timeout(60):
            while len(kept((tmp_path / "log").read_text())) < RUNS:  # noqa: ASYNC110 - nor has a file
                await asyncio.sleep(0.2)
        second = await site.clicked(slugs[0], actions[0])
        await site.stop()

    assert clicks == [200] * RUNS
    assert second == 409
    assert ends == ["completed"] * RUNS
    assert len(site.emulator.requests("POST", "*/runs")) == 2 * RUNS
    assert len(kept(site.output)) == RUNS


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("sample", "command", "end"),
    [
        ("from aiohttp import web", f"{GUNICORN} aiohttp.GunicornWebWorker", signal.SIGKILL),
        ("from django", UVICORN, signal.SIGTERM),
    ],
    ids=["aiohttp-gunicorn-killed", "django-uvicorn-stopped"],
)
async def test_a_tab_comes_back_to_another_worker(
    tmp_path: Path, sample: str, command: str, end: signal.Signals
) -> None:
    site = Workers(tmp_path, sample, command)
    async with site.served():
        await site.all_there()
        client = connect(narrative, base_url=site.emulator.base_url, token=site.emulator.token)
        async with client:
            conversation = await client.perform(narrative.create_conversation(CONFIG))
            slug = (await client.start(narrative.UserMessage(conversation.id, "Hello"))).slug
        tab = asyncio.create_task(site.tab(slug, asyncio.get_running_loop().create_future()))
        await until(lambda: site.at)
        first = site.at[slug]
        os.kill(first, end)
        status = await asyncio.wait_for(tab, 90)
        await site.stop()

    assert status == "completed"
    assert site.at[slug] != first
