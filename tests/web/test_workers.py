"""The guide's sample under four workers: clicks and tabs reach any of them, and one that is killed loses nothing."""

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

from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.script import Prompt
from tests.guides import ROOT, blocks_of

WORKERS = 4
RUNS = 12

APP = """
import os
from block import app

@app.get("/whoami")
async def whoami() -> int:
    return os.getpid()
"""


def agent(prompt: Prompt) -> Turn:
    """Ask for an approval, then work for a while."""
    if prompt.tools and not prompt.outputs:
        return Turn(calls=[Call("approve", {"invoice": "17"})])
    return Turn("Done.", running=1.0)


class Workers:
    """The sample on a server of several processes; each request is a new connection, for whichever takes it."""

    def __init__(self, folder: Path, workers: int = WORKERS) -> None:
        (block,) = [each for each in blocks_of(ROOT / "agentruns/web/README.md").values() if "import FastAPI" in each]
        (folder / "block.py").write_text(block)
        (folder / "app.py").write_text(APP)
        self._folder = folder
        self._workers = workers
        self.emulator = Emulator("narrative", script=agent)

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
        command = [sys.executable, "-m", "uvicorn", "app:app", "--workers", str(self._workers), "--port", str(port)]
        command += ["--ws", "none", "--timeout-graceful-shutdown", "3", "--log-level", "warning"]
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
                    async with self._session.get(f"{self.url}/whoami") as response:
                        seen.add(await response.json())
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
async def test_first_clicks_are_taken_and_each_end_is_kept_although_a_worker_is_killed(tmp_path: Path) -> None:
    site = Workers(tmp_path)
    async with site.served():
        workers = await site.all_there()
        slugs = await asyncio.gather(*[site.began() for _ in range(RUNS)])
        asked = [asyncio.get_running_loop().create_future() for _ in slugs]
        tabs = [asyncio.create_task(site.tab(*each)) for each in zip(slugs, asked, strict=True)]
        actions = await asyncio.gather(*asked)
        clicks = [await site.clicked(*each) for each in zip(slugs, actions, strict=True)]
        os.kill(min(workers), signal.SIGKILL)  # while the runs that the answers brought are under way
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
