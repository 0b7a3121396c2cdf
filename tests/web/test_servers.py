"""Events through each framework on a real server: many tabs, tabs that leave and come back, a server that stops."""

import asyncio
import json
import logging
import sys
import time

import pytest

from agentruns import ConfigurationError, RunStatus
from agentruns.emulator import Turn
from tests.web.servers import EVER, SITES, WITH_WRAPPED, AiohttpSite, Site, StarletteSite, until

pytestmark = pytest.mark.asyncio

WHOLE = ["running", "completed", "end"]

UNKNOWN = "9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e64"


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> type[Site]:
    return SITES[request.param]


@pytest.fixture(params=WITH_WRAPPED)
def any_site(request: pytest.FixtureRequest) -> type[Site]:
    return WITH_WRAPPED[request.param]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what somebody has logged as wrong."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("path", ["runs", "alone"])
async def test_a_page_shows_each_state_and_the_end(site: type[Site], path: str) -> None:
    async with site(Turn("Done.", running=5)) as served:
        run = await served.began()
        page = await served.visit(f"/{path}/{run.id}")

    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/event-stream")
    assert page.headers["Cache-Control"] == "no-cache"
    assert page.headers["X-Accel-Buffering"] == "no"
    assert page.states == WHOLE
    assert "Done." in page.events[1].data


async def test_a_hundred_tabs_on_one_run_cost_the_polls_of_one(site: type[Site]) -> None:
    asked = []
    for tabs in (1, 100):
        async with site(Turn("Done.", running=20)) as served:
            run = await served.began()
            pages = await asyncio.gather(*[served.visit(f"/runs/{run.id}") for _ in range(tabs)])
            late = await served.visit(f"/runs/{run.id}")
            asked.append(served.polls)

        assert [page.states for page in pages] == [WHOLE] * tabs
        assert {tuple(page.events) for page in pages} == {tuple(late.events)}

    assert asked[1] == asked[0] >= 20


async def test_a_tab_that_comes_back_goes_on_where_it_was_and_is_sent_away_after_the_end(site: type[Site]) -> None:
    async with site(Turn("Done.", running=5)) as served:
        run = await served.began()
        page = await served.visit(f"/runs/{run.id}")
        second = await served.visit(f"/runs/{run.id}", page.events[0].id)
        last = await served.visit(f"/runs/{run.id}", page.events[-1].id)

    assert second.events == page.events[1:]
    assert (last.status, last.body) == (204, b"")


@pytest.mark.parametrize("path", ["runs", "alone"])
async def test_silence_is_filled_with_heartbeats(site: type[Site], path: str) -> None:
    async with site(Turn("Done.", running=30), ping=0.1) as served:
        run = await served.began()
        page = await served.visit(f"/{path}/{run.id}")

    assert page.body.count(b": ping") >= 2
    assert page.states == WHOLE


async def test_a_tab_that_is_closed_stops_nothing_for_the_others(
    site: type[Site], caplog: pytest.LogCaptureFixture
) -> None:
    async with site(Turn("Done.", running=60), linger=0.0, ping=0.1) as served:
        run = await served.began()
        staying = asyncio.create_task(served.visit(f"/runs/{run.id}"))
        await served.glance(f"/runs/{run.id}")
        feed = served.feeds.get(run)
        assert feed is not None
        await until(lambda: feed.watching == 1 and not feed.is_over)
        page = await staying

    assert page.states == WHOLE
    assert complaints(caplog) == []


@pytest.mark.parametrize("path", ["runs", "alone"])
async def test_when_the_last_tab_is_closed_nothing_is_asked_any_more(
    any_site: type[Site], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with any_site(Turn("Done.", running=EVER), linger=0.0, ping=0.1) as served:
        run = await served.began()
        await served.glance(f"/{path}/{run.id}")
        await until(lambda: served.client.stats().watched == 0)

    assert complaints(caplog) == []


async def test_without_linger_the_run_is_followed_to_its_end_although_all_tabs_are_closed(site: type[Site]) -> None:
    async with site(Turn("Done.", running=30), ping=0.1) as served:
        run = await served.began()
        await served.glance(f"/runs/{run.id}")
        feed = served.feeds.get(run)
        assert feed is not None
        assert (await feed.ended()).output == "Done."


@pytest.mark.parametrize("path", ["runs", "alone"])
@pytest.mark.parametrize("mode", ["leave", "cancel", "confirm"])
async def test_the_remote_run_goes_on_or_is_cancelled_as_asked(site: type[Site], path: str, mode: str) -> None:
    turn = Turn("Done.", running=EVER)
    async with site(turn, vendor="origami", ping=0.1, linger=0.0, on_cancel=mode) as served:
        run = await served.began()
        if path == "runs":
            served.feeds.open(run)
        await served.glance(f"/{path}/{run.id}?parent={run.ref.parent}")
        await until(lambda: served.client.stats().watched == 0)
        last = await served.client.fetch(run)

    cancels = served.emulator.requests("POST", "*/cancel")
    assert len(cancels) == (mode != "leave")
    assert last.status is (RunStatus.RUNNING if mode == "leave" else RunStatus.FAILED)


@pytest.mark.parametrize("path", ["runs", "alone"])
async def test_a_server_that_stops_with_open_tabs_ends_promptly_and_says_no_end(
    any_site: type[Site], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with any_site(Turn("Done.", running=EVER)) as served:
        run = await served.began()
        pages = [asyncio.create_task(served.visit(f"/{path}/{run.id}")) for _ in range(5)]
        await until(lambda: served.polls > 5)
        began = time.monotonic()
        await served.stop()
        took = time.monotonic() - began
        seen = await asyncio.gather(*pages)

    assert took < 30  # the runs would go on for ever
    assert [page.states for page in seen] == [["running"]] * 5
    assert complaints(caplog) == []


async def test_a_tab_that_outlives_its_server_is_told_all_by_the_next(site: type[Site]) -> None:
    async with site(Turn("Done.", running=40)) as served:
        run = await served.began()
        watching = asyncio.create_task(served.visit(f"/runs/{run.id}"))
        await until(lambda: served.polls > 2)
        await served.restart()
        first = await watching
        second = await served.visit(f"/runs/{run.id}", first.events[-1].id)

    assert first.states == ["running"]
    assert second.states == WHOLE


async def test_a_run_that_there_is_not_is_404_and_a_browser_does_not_come_back(site: type[Site]) -> None:
    async with site() as served:
        page = await served.visit(f"/runs/{UNKNOWN}")

    assert page.status == 404
    assert json.loads(page.body) == {"type": "NotFoundError", "message": "there is no such run"}


async def test_to_who_has_a_stream_of_its_own_an_unknown_run_is_an_event(site: type[Site]) -> None:
    async with site() as served:
        page = await served.visit(f"/alone/{UNKNOWN}")

    assert page.status == 200
    assert page.states == ["error", "end"]
    assert '"NotFoundError"' in page.events[0].data


async def test_a_head_request_follows_nothing(site: type[Site]) -> None:
    async with site(Turn("Done.", running=EVER)) as served:
        run = await served.began()
        async with served.session.head(f"{served.url}/runs/{run.id}"):
            pass
        assert served.feeds.get(run) is None


@pytest.mark.parametrize(("kind", "module"), [(StarletteSite, "sse_starlette"), (AiohttpSite, "aiohttp_sse")])
async def test_without_the_extra_the_error_names_it(
    kind: type[Site], module: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with kind() as served:
        monkeypatch.setitem(sys.modules, module, None)
        page = await served.visit("/runs/r")

    assert page.status == 500
    assert "pip install 'agentruns[web]'" in caplog.text
    assert ConfigurationError.__name__ in caplog.text
