"""Lists of runs: each row says what a read of the run says, and one that does not fit hides no other."""

from __future__ import annotations

import asyncio

from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.client import Client
from agentruns.dialects.protocol import ReadOn
from agentruns.emulator import Fault, Turn
from agentruns.testing.acts import PLAIN, followed, pausing, waits
from agentruns.testing.case import Case
from agentruns.testing.scenario import scenario


async def _listed(client: Client, parent: str) -> dict[str, Run]:
    return {run.id: run async for run in client.runs(parent)}


@scenario("runs are listed", "page", live="yes")
async def runs_are_listed(case: Case) -> None:
    """Find a run that was started in the list of its parent, just once."""
    async with case.serve(PLAIN, PLAIN) as server, case.connect(server) as client:
        run = await client.result(await case.origin(client, server), timeout=waits(server))
        found = [each async for each in client.runs(run.ref.parent)]
    mine = [each for each in found if each.id == run.id]
    assert len(mine) == 1, f"the run stands {len(mine)} times in the list of its parent"
    assert mine[0].ref == run.ref
    assert mine[0].status is RunStatus.COMPLETED
    assert case.base_url or len(found) == 1, "the list has runs that nobody started"


@scenario("a list says what a read says", "page", live="directed")
async def a_list_says_what_a_read_says(case: Case) -> None:
    """Compare a row of the list with a read of the run: over, failed, and paused where runs pause."""
    scripts = [[PLAIN], [Turn(error=case.error, running=0.05)]]
    if case.vendor.resume is not None:
        scripts.append(pausing(case))
    for script in scripts:
        async with case.serve(*script) as server, case.connect(server) as client:
            last = (await followed(case, client, server))[-1]
            rows = await _listed(client, last.ref.parent)
            assert last.id in rows, f"the run {last.id} is not in the list of its parent {last.ref.parent!r}"
            row, read = rows[last.id], await client.fetch(last)
            for name in ("ref", "status", "vendor_status", "vendor"):
                told, known = getattr(row, name), getattr(read, name)
                assert told == known, f"the list says {name} {told!r}, and a read {known!r}"
            for name in ("output", "failure"):
                told, known = getattr(row, name), getattr(read, name)
                assert told is None or told == known, f"the list says {name} {told!r}, and a read {known!r}"
            assert row.actions in {(), read.actions}, f"the list says actions {row.actions}, and a read {read.actions}"


@scenario("many runs read at once are as read one by one", "fetch_many", live="directed")
async def many_at_once(case: Case) -> None:
    """Read runs by one request: in flight, over, failed, and paused where runs pause; then follow many to their end."""
    scripts = [[Turn("Done.", running=1e6)], [PLAIN], [Turn(error=case.error, running=0.05)]]
    if case.vendor.resume is not None:
        scripts.append(pausing(case))
    for script in scripts:
        async with case.serve(*script) as server, case.connect(server) as client:
            run = await client.start(await case.origin(client, server))
            if script is not scripts[0]:
                run = [state async for state in client.stream(run, timeout=waits(server))][-1]
            read = await client.fetch(run)
            for told in await client.perform(case.vendor.flow("fetch_many", [run.ref])):
                if isinstance(told, ReadOn):
                    told = await client.perform(told.read())
                if isinstance(told, RunRef):
                    assert read.status.in_flight, (
                        f"many read at once say that a run is in flight which is {read.status}"
                    )
                else:
                    assert told == read, f"many read at once say {told}, and a read {read}"
    async with case.serve(*[Turn("Done.", running=0.5)] * 4) as server, case.connect(server) as client:
        runs = [await client.start(await case.origin(client, server)) for _ in range(4)]
        ended = await asyncio.gather(*(client.result(run, timeout=waits(server)) for run in runs))
        assert [run.status for run in ended] == [RunStatus.COMPLETED] * 4
        assert client.stats().lists, "many runs were waited for, and none were read at once"


@scenario("all pages of a list are read", "page", live="directed")
async def all_pages(case: Case) -> None:
    """Start several runs, and find each in the list, just once."""
    async with case.serve(*[PLAIN] * 4) as server, case.connect(server) as client:
        runs = [await client.result(await case.origin(client, server), timeout=waits(server)) for _ in range(4)]
        ours = {run.ref for run in runs}  # a real server may have others
        for parent in {run.ref.parent for run in runs}:
            found = [run.id async for run in client.runs(parent) if not case.base_url or run.ref in ours]
            assert sorted(found) == sorted(run.id for run in runs if run.ref.parent == parent)


@scenario("an odd row of a list hides no other", "page", "list_path", "rows_field")
async def an_odd_row(case: Case) -> None:
    """Take the id of one row away: it is left out and counted, and the others are given."""
    async with case.emulator(PLAIN, PLAIN) as emulator, case.connect(emulator) as client:
        runs = [await client.result(await case.origin(client, emulator), timeout=waits(emulator)) for _ in range(2)]
        odd, lost, lists = f"{case.rows_field}.0.{case.row_id_field}", 0, 0
        for parent in {run.ref.parent for run in runs}:
            rows = await _listed(client, parent)
            emulator.fail(Fault.malformed("missing_field", target=odd, method="GET", path=case.list_path))
            found, lists = await _listed(client, parent), lists + 1
            assert not emulator.faults.waiting, "no list was asked for at `list_path`"
            assert found.items() <= rows.items()
            assert len(rows) - len(found) <= 1, f"one row has no `{odd}`, and of {len(rows)} these are given: {found}"
            lost += len(rows) - len(found)
        assert lost, f"a row without `{odd}` is given as a run"
        skipped = client.stats().rows_skipped
        assert skipped == lists, f"stats().rows_skipped is {skipped} where {lists} rows did not fit"
