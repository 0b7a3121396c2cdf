"""The samples of the guide under two and four workers: clicks and tabs reach any, and one that goes loses nothing."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agentruns import connect, narrative
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.script import Prompt
from tests.web.servers import CONFIG, until
from tests.web.workers import GUNICORN, UVICORN, Workers, kept, sample

RUNS = 12


def agent(prompt: Prompt) -> Turn:
    """Ask for an approval if it can be asked for, then work for a while."""
    if prompt.tools and not prompt.outputs:
        return Turn(calls=[Call("approve", {"invoice": "17"})])
    return Turn("Done.", running=1.0 if prompt.tools else 3.0)


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
    site = Workers(tmp_path, sample("import FastAPI", journal), Emulator("narrative", script=agent), command)
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
        if end is signal.SIGTERM:
            await site.stop()

    assert clicks == [200] * RUNS
    assert second == 409
    assert ends == ["completed"] * RUNS
    assert len(site.emulator.requests("POST", "*/runs")) == 2 * RUNS
    assert len(kept(site.output)) == RUNS


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("mark", "command", "end"),
    [
        ("from aiohttp import web", f"{GUNICORN} aiohttp.GunicornWebWorker", signal.SIGKILL),
        ("from django", UVICORN, signal.SIGTERM),
    ],
    ids=["aiohttp-gunicorn-killed", "django-uvicorn-stopped"],
)
async def test_a_tab_comes_back_to_another_worker(tmp_path: Path, mark: str, command: str, end: signal.Signals) -> None:
    site = Workers(tmp_path, sample(mark), Emulator("narrative", script=agent), command, workers=2)
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
        if end is signal.SIGTERM:
            await site.stop()

    assert status == "completed"
    assert site.at[slug] != first
