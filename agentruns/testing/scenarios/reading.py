"""What answers may look like: new words and fields, what is missing, and the ways by which one run is read."""

from __future__ import annotations

from typing import Any

from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.emulator import Fault, Turn
from agentruns.errors import AgentRunsError, ProtocolError
from agentruns.testing.acts import PLAIN, followed, pausing, raises, waits
from agentruns.testing.case import Case
from agentruns.testing.driving import Answer, exchange
from agentruns.testing.scenario import scenario

_MORE = ("usage", "progress", "poll_after", "vendor", "raw")


@scenario("an unknown status word does not crash or hang")
async def an_unknown_word(case: Case) -> None:
    """Let a run report a word that nobody knows."""
    turn = Turn("Done.", status="meditating", running=0.8)
    async with case.emulator(turn) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator)
    assert "meditating" in [run.vendor_status for run in states], "the vendor's own word is not in `vendor_status`"
    assert not states[-1].status.in_flight


@scenario("an unknown field survives")
async def an_unknown_field(case: Case) -> None:
    """Let a run have a field that nobody knows."""
    turn = Turn("Done.", running=0.05, extra={"novelty": {"n": 1}})
    async with case.emulator(turn) as emulator, case.connect(emulator) as client:
        last = (await followed(case, client, emulator))[-1]
    for run in (last, Run.from_json(last.to_json())):
        assert run.raw.get("novelty") == {"n": 1}, f"Run.raw has lost a field: it has {[*run.raw]}"


@scenario("a missing field names its path", "poll_path")
async def a_missing_field(case: Case) -> None:
    """Take the id out of an answer."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.malformed("missing_field", target=case.id_field, method="GET", path=case.poll_path))
        with raises(ProtocolError, f"@ $.{case.id_field}"):
            await client.fetch(run)


@scenario("a run that was written down has its detail", "detail", live="directed")
async def a_parked_detail(case: Case) -> None:
    """Write a run down, over or paused, and read it: `detail` and `raw` are the vendor's as before."""
    for script in ([PLAIN], *([pausing(case)] if case.vendor.resume is not None else ())):
        async with case.serve(*script) as server, case.connect(server) as client:
            last = (await followed(case, client, server))[-1]
        again = Run.from_json(last.to_json())
        assert last.detail is not None, "Run.detail is None"
        assert again.raw == last.raw, "Run.raw is not what it was"
        assert type(again.detail) is type(last.detail), f"detail is {again.detail!r}, and was {last.detail!r}"
        assert again.detail == last.detail
        assert again == last


@scenario("a poll reads what a fetch reads", "parse_run", live="directed")
async def parse_run_equals_fetch(case: Case) -> None:
    """Compare what `parse_run` makes of each answer with what `fetch` makes of it."""
    parse = case.vendor.parse_run
    assert parse is not None
    seen: list[tuple[Any, Run]] = []

    def parsed(response: Any) -> Run:
        run: Run = parse(response)
        seen.append((response, run))
        return run

    slow = Turn("Done.", running=0.5)  # so that it is not over when its start is found by looking
    for script in ([slow], *([pausing(case)] if case.vendor.resume is not None else ())):
        async with (
            case.serve(*script) as server,
            case.connect(server, changes={"parse_run": parsed}) as client,
        ):
            await followed(case, client, server)
    assert seen, "no poll was read by `parse_run`"
    for response, run in seen:
        whole = Answer(response.body, response.status, response.headers)
        flow = case.vendor.flow("fetch", run.ref, {})
        try:
            fetched = exchange(flow, whole).result
        except (AssertionError, AgentRunsError):
            continue  # `fetch` asks for more than this answer, and so says more
        assert fetched == run, f"`fetch` reads {fetched}, and `parse_run` {run}"
        for name in _MORE:
            assert getattr(fetched, name) == getattr(run, name), f"`fetch` and `parse_run` differ in {name}"


@scenario("an answer is read the same each time", live="directed")
async def the_same_each_time(case: Case) -> None:
    """Read a run that is over twice."""
    async with case.serve(PLAIN) as server, case.connect(server) as client:
        run = await client.result(await case.origin(client, server), timeout=waits(server))
        first, second = await client.fetch(run), await client.fetch(RunRef(run.ref.id, run.ref.parent))
    assert first == second == run
    assert first.raw == second.raw
    assert first.status is RunStatus.COMPLETED
