"""Middesk: a run's stream of server-sent events, live and replayed, and what may go wrong with it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest

from agentruns.emulator import Call, Fault, Turn
from agentruns.emulator.middesk.stream import history
from tests.emulator.middesk_caller import ASK, Http, asking, parsed, served, yes

pytestmark = pytest.mark.asyncio


class Reader:
    """Reads one open stream event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> tuple[str, Any]:
        async with asyncio.timeout(50):
            ((name, data),) = parsed(await self.response.content.readuntil(b"\n\n"))
            return name, data

    async def silent(self) -> bool:
        """Tell whether nothing comes for some looks of the server at the run."""
        try:
            async with asyncio.timeout(0.08):
                await self.response.content.readany()
        except TimeoutError:
            return True
        return False

    async def closed(self) -> bool:
        async with asyncio.timeout(50):
            return await self.response.content.read() == b""


def opened(http: Http, run: dict[str, Any]) -> Any:
    return http.session.get(f"{http.emulator.base_url}/runs/{run['id']}/stream", headers=http.headers())


def names(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


async def test_a_stream_stays_open_until_the_run_has_finished() -> None:
    async with served(script=[Turn("Fine.", pending=1, running=4, iterations=2)]) as http:
        run = await http.start()
        async with opened(http, run) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            stream = Reader(response)
            assert await stream.silent()
            http.clock.advance(1)
            assert await stream.event() == ("RUN_STARTED", {"run_id": run["id"]})
            name, data = await stream.event()
            assert (name, data["run_id"], len(data["snapshot"]["steps"])) == ("STATE_SNAPSHOT", run["id"], 1)
            assert await stream.silent()
            http.clock.advance(2)
            _, data = await stream.event()
            assert [step["status"] for step in data["snapshot"]["steps"]] == ["completed", "running"]
            assert data["snapshot"]["artifacts"] == []
            http.clock.advance(2)
            _, data = await stream.event()
            assert [step["type"] for step in data["snapshot"]["steps"]] == ["activity", "activity", "output"]
            assert await stream.event() == ("RUN_FINISHED", {"run_id": run["id"]})
            assert await stream.closed()
        assert data["snapshot"]["artifacts"] == (await http.run(run))["output"]["artifacts"]


async def test_a_finished_run_is_replayed_from_the_beginning() -> None:
    async with served(script=[Turn("Fine.", pending=1, running=4, iterations=2)]) as http:
        run = await http.play()
        first = await http.events(run)
        assert names(first) == ["RUN_STARTED", *["STATE_SNAPSHOT"] * 3, "RUN_FINISHED"]
        assert [len(data["snapshot"]["steps"]) for _, data in first[1:-1]] == [1, 2, 3]
        http.clock.advance(1000)
        assert await http.events(run) == first


async def test_an_interrupted_run_closes_its_stream_without_finishing() -> None:
    async with served(script=[asking(running=2), Turn("Fine.", running=2)]) as http:
        run = await http.start()
        async with opened(http, run) as response:
            stream = Reader(response)
            assert [(await stream.event())[0] for _ in range(2)] == ["RUN_STARTED", "STATE_SNAPSHOT"]
            http.clock.advance(2)
            name, data = await stream.event()
            assert (name, data["snapshot"]["steps"][-1]["type"]) == ("STATE_SNAPSHOT", "interrupt")
            assert await stream.closed()
        run = await http.run(run)
        before = await http.events(run)
        await http.resume(run, yes(run))
        async with opened(http, run) as response:
            stream = Reader(response)
            assert [await stream.event() for _ in before] == before
            name, data = await stream.event()
            assert [step["status"] for step in data["snapshot"]["steps"]] == ["completed", "completed", "running"]
            http.clock.advance(2)
            assert [(await stream.event())[0] for _ in range(2)] == ["STATE_SNAPSHOT", "RUN_FINISHED"]
            assert await stream.closed()


async def test_a_policy_keeps_the_stream_open() -> None:
    async with served(script=[asking(running=2), Turn("Fine.", running=2)], interrupt_policy="skip") as http:
        run = await http.start()
        async with opened(http, run) as response:
            stream = Reader(response)
            events = []
            for seconds in (0, 3, 3):
                http.clock.advance(seconds)
                events += [await stream.event(), await stream.event()]
            assert events[-1] == ("RUN_FINISHED", {"run_id": run["id"]})
            assert await stream.closed()


async def test_a_failed_run_is_finished_as_well() -> None:
    async with served(script=[Turn(error="x")]) as http:
        run = await http.play()
        assert names(await http.events(run)) == ["RUN_STARTED", "STATE_SNAPSHOT", "STATE_SNAPSHOT", "RUN_FINISHED"]


async def test_events_as_ag_ui_has_them() -> None:
    script = [asking(ASK, Call("interrupt"), running=2), Turn(error=("x", "No filing."), running=2)]
    async with served(script=script, stream="ag-ui") as http:
        run = await http.play()
        paused = await http.events(run)
        assert set(names(paused)) == {""}
        kinds = [data["type"] for _, data in paused]
        assert kinds == ["RUN_STARTED", "STATE_SNAPSHOT", "STATE_SNAPSHOT", "RUN_FINISHED"]
        assert {(data["runId"], data["threadId"]) for _, data in paused} == {(run["id"], run["thread_id"])}
        outcome = paused[-1][1]["outcome"]
        assert (outcome["type"], [one["id"] for one in outcome["interrupts"]]) == (
            "interrupt",
            [one["id"] for one in run["interrupts"]],
        )
        for number in (0, 1):
            await http.resume(run, yes(run, number))
        http.clock.advance(3)
        later = await http.events(run)
        assert later[:4] == paused
        assert [data["type"] for _, data in later[4:]] == [
            "RUN_STARTED",
            "STATE_SNAPSHOT",
            "STATE_SNAPSHOT",
            "RUN_ERROR",
        ]
        assert later[-1][1]["message"] == "No filing."
    async with served(stream="ag-ui") as http:
        run = await http.play()
        assert (await http.events(run))[-1][1]["outcome"] == {"type": "success"}


async def test_history_only_grows_at_its_end() -> None:
    script = [asking(running=3, iterations=2), asking(Call("a"), Call("b"), running=2), Turn("Fine.", running=2)]
    async with served(script=script) as http:
        run = await http.start()
        seen: list[tuple[str, float]] = []
        for _ in range(40):
            http.clock.advance(0.5)
            events = [(event.type, event.run.now) for event in history(http.emulator.state.runs[run["id"]])]
            assert events[: len(seen)] == seen
            seen = events
            now = await http.run(run)
            if now["interrupts"]:
                await http.resume(now, yes(now))
        assert seen[-1][0] == "RUN_FINISHED"
        assert [kind for kind, _ in seen].count("RUN_FINISHED") == 1


async def test_a_stream_may_break_off_after_its_first_events() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.cut(path="*/stream"))
        async with opened(http, run) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        http.emulator.fail(
            Fault.drop(path="*/stream", times=2)
        )  # aiohttp asks again where it had used the connection before
        with pytest.raises(aiohttp.ClientError):
            await http.events(run)
        http.emulator.fail(Fault.answer(503, path="*/stream"), Fault.malformed("html", path="*/stream"))
        assert (await http.get(f"/runs/{run['id']}/stream")).refused[0] == 503
        assert (await http.get(f"/runs/{run['id']}/stream")).content.startswith(b"<!DOCTYPE")
        assert names(await http.events(run))[-1] == "RUN_FINISHED"
        assert [entry.status for entry in http.emulator.requests("GET", "*/stream")] == [200, None, None, 503, 200, 200]


async def test_the_stream_of_an_unknown_run_is_not_found() -> None:
    async with served() as http:
        run = await http.play()
        assert (await http.get("/runs/none/stream")).refused[0] == 404
        http.emulator.fail(Fault.vendor("run-not-found", path="*/stream"))
        assert (await http.get(f"/runs/{run['id']}/stream")).refused[0] == 404


async def test_a_planned_run_error_takes_the_place_of_the_end() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("stream-error"))
        name, data = (await http.events(run))[-1]
        assert (name, data) == ("RUN_ERROR", {"run_id": run["id"], "message": "The run failed."})


async def test_a_noisy_stream_has_the_same_events_among_others() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("stream-noise"))
        text = (await http.get(f"/runs/{run['id']}/stream")).content.decode()
        assert "\r\n: keep-alive\r\n" in text
        assert "\n" not in text.replace("\r\n", "")
        lines = text.split("\r\n")
        kept = [json.loads(line[6:]) for line in lines if line.startswith("data: ") and "unheard-of" not in line]
        assert kept == [data for _, data in await http.events(run)]


async def test_a_stalled_stream_is_silent_and_open_until_the_caller_leaves() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("stream-stall"))
        async with opened(http, run) as response:
            stream = Reader(response)
            assert (await stream.event())[0] == "RUN_STARTED"
            assert await stream.silent()
            assert not response.content.at_eof()
        await asyncio.sleep(0.05)  # the server sees that the caller has left


async def test_callers_who_leave_and_a_server_that_stops_end_streams_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with served(script=[Turn(running=1e9, iterations=10**3)]) as http:
            run = await http.start()
            async with opened(http, run) as response:
                await Reader(response).event()
                response.close()
            http.clock.advance(2e6)
            await asyncio.sleep(0.05)
            async with opened(http, run) as response:
                await Reader(response).event()
                await http.emulator.stop()
    assert caplog.records == []
