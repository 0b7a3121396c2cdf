"""An app on a server of several processes, whichever takes a request; and who begins, watches and clicks there."""

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

from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator
from tests.guides import ROOT, blocks_of

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


def sample(mark: str, journal: str = "runs.db") -> str:
    """Return the code of the guide in which *mark* stands, with another journal."""
    (block,) = [each for each in blocks_of(ROOT / "agentruns/web/README.md").values() if mark in each]
    return block.replace('"runs.db"', repr(journal))


class Workers:
    """
    An app, a module with an `app`, on a server of several processes; each request is a new connection, for any of them.

    The environment tells it where the emulated *vendor* is; `at` has which worker shows which run, by the slug, and
    `asked` the ids of the actions that its page shows.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        emulator: Emulator[Any],
        command: str = UVICORN,
        *,
        workers: int = 4,
        vendor: str = "narrative",
    ) -> None:
        (folder / "block.py").write_text(app)
        (folder / "app.py").write_text(AIOHTTP if "from aiohttp import web" in app else ASGI)
        self._folder = folder
        self._command = command
        self._workers = workers
        self._vendor = vendor
        self.emulator = emulator
        self.at: dict[str, int] = {}
        self.asked: dict[str, set[str]] = {}

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
        vendor = Vendor.of(load(self._vendor))
        settings = {vendor.BASE_URL_VARIABLE: self.emulator.base_url, vendor.TOKEN_VARIABLE: self.emulator.token}
        command = [sys.executable, *self._command.format(workers=self._workers, port=port).split()]
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
            while len(seen) < self._workers:
                try:
                    seen.add(await self.someone())
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
        return seen

    async def someone(self) -> int:
        """Return the process that takes the next request."""
        async with self._session.get(f"{self.url}/nothing") as response:
            return int(response.headers["X-Worker"])

    async def began(self, text: str = "Handle invoice 17.") -> str:
        async with self._session.post(f"{self.url}/runs", params={"text": text}) as response:
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
                            self.asked[slug] = {each["id"] for each in told["actions"]} if name == "run" else set()
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
