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
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
from attrs import field, frozen

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
    "-m uvicorn app:app --workers {workers} --host {host} --port {port} --ws none --timeout-graceful-shutdown 1"
    " --log-level warning"
)
GUNICORN = "-m gunicorn app:app -w {workers} -b {host}:{port} --preload --graceful-timeout 1 --log-level warning -k "


def sample(mark: str, journal: str = "runs.db") -> str:
    """Return the code of the guide in which *mark* stands, with another journal."""
    (block,) = [each for each in blocks_of(ROOT / "agentruns/web/README.md").values() if mark in each]
    return block.replace('"runs.db"', json.dumps(journal))


@frozen
class Machine:
    """Where workers are: their address, how a command begins that is run there, and what its environment adds."""

    host: str = "127.0.0.1"
    within: Sequence[str] = ()
    environment: Mapping[str, str] = field(factory=dict)


class Workers:
    """
    An app, a module with an `app`, on a server of several processes; each request is a new connection, for any of them.

    On several *machines* there are as many on each, and requests go to them by turns.

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
        machines: Sequence[Machine] = (Machine(),),
    ) -> None:
        (folder / "block.py").write_text(app)
        (folder / "app.py").write_text(AIOHTTP if "from aiohttp import web" in app else ASGI)
        self._folder = folder
        self._command = command
        self._workers = workers
        self._vendor = vendor
        self._machines = machines
        self.emulator = emulator
        self.at: dict[str, int] = {}
        self.asked: dict[str, set[str]] = {}

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with self.emulator, aiohttp.ClientSession(connector=connector) as self._session:
            log = self._folder / "log"
            with log.open("wb") as output:
                started = [self._started(machine, output) for machine in self._machines]
            self._processes = [process for _, process in started]
            self._urls = cycle(url for url, _ in started)
            try:
                yield
            finally:
                for process in self._processes:
                    with suppress(ProcessLookupError):  # all of them have stopped
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                self.output = log.read_text()

    def _started(self, machine: Machine, output: Any) -> tuple[str, subprocess.Popen[bytes]]:
        """Start the server of one machine; return its URL, and its process."""
        vendor = Vendor.of(load(self._vendor))
        settings = {vendor.BASE_URL_VARIABLE: self.emulator.base_url, vendor.TOKEN_VARIABLE: self.emulator.token}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = self._command.format(workers=self._workers, host=machine.host, port=port)
        process = subprocess.Popen(
            [*machine.within, sys.executable, *command.split()],
            cwd=self._folder,
            # All write to one file: unbuffered, a line would be written in pieces, with those of others between them.
            env={**os.environ, **settings, **machine.environment, "PYTHONUNBUFFERED": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return f"http://{machine.host}:{port}", process

    @property
    def url(self) -> str:
        """Return where the next request goes."""
        return next(self._urls)

    async def all_there(self) -> set[int]:
        """Wait until as many processes answer as there are workers; return their ids."""
        seen: set[int] = set()
        async with asyncio.timeout(90):
            while len(seen) < self._workers * len(self._machines):
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
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while any(process.poll() is None for process in self._processes):  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.05)


def kept(output: str) -> Counter[str]:
    """Return how often each key was handed over as completed."""
    return Counter(re.findall(r'into your database: (\w+) .*"completed"', output))
