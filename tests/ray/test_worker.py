"""What a worker does by itself, in virtual time: its rows wait as those of a batch in one process do."""

import asyncio
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from agentruns import Client, TransportError
from agentruns._following.items import NotBegunError
from agentruns._values.exchange import RateLimit
from agentruns._values.run import Run
from agentruns.ray import worker as worker_module
from agentruns.ray.worker import ClientOptions, Worker
from tests.strained_servers import Cut, Slots, Strict, with_slots
from tests.tiny_vendor import Server, client_of, tiny

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

End = tuple[Run | None, Exception | None]


class Process:
    """A worker whose client is this one, and the rows that it is given."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        monkeypatch.setattr(worker_module, "connect", lambda *_, **__: client)
        self.worker = Worker(ClientOptions(vendor=tiny(), **options))

    async def __aenter__(self) -> "Process":
        await self.worker.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.close()

    def begin(self, count: int) -> list[asyncio.Task[End]]:
        return [asyncio.create_task(self.worker.follow(f"a-{number}", None)) for number in range(count)]


def kinds(ends: Sequence[End]) -> list[type[Exception] | None]:
    return [None if error is None else type(error) for _, error in ends]


@pytest.mark.parametrize("begins", [0.0, 7.0])
async def test_an_outage_costs_no_row(begins: float, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(Cut(begins, begins + 900.0), limit=RateLimit(5, 1.0))
    async with Process(client, monkeypatch, timeout=30.0) as process:
        found = await asyncio.gather(*process.begin(60))

    assert kinds(found) == [None] * 60
    assert asyncio.get_running_loop().time() < begins + 900.0 + 60.0


@pytest.mark.parametrize("slots", [1, 3])
async def test_rows_wait_in_one_line_for_slots(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Slots(slots)
    async with Process(with_slots(server), monkeypatch, timeout=60.0) as process:
        found = await asyncio.gather(*process.begin(40))

    assert kinds(found) == [None] * 40
    assert asyncio.get_running_loop().time() <= 1.15 * 40 * 20 / slots
    assert server.refused <= 40 + 25


async def test_the_clock_of_a_row_begins_with_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Process(client_of(Server(5.0), limit=RateLimit(1, 1.0)), monkeypatch, timeout=30.0) as process:
        found = await asyncio.gather(*process.begin(20))

    assert kinds(found) == [None] * 20
    assert asyncio.get_running_loop().time() > 40.0


async def test_a_429_ends_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(Strict(20, others=14), limit=RateLimit(18, 1.0))
    async with Process(client, monkeypatch, timeout=600.0) as process:
        found = await asyncio.gather(*process.begin(80))

    assert kinds(found) == [None] * 80


async def test_when_patience_ends_so_do_the_rows_that_have_begun_and_no_other_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = client_of(Cut(7.0, 1e6), limit=RateLimit(5, 1.0))
    async with Process(client, monkeypatch, timeout=30.0, patience=120.0) as process:
        found = await asyncio.gather(*process.begin(60))
    told = [error for _, error in found if isinstance(error, NotBegunError)]
    begun = [kind for kind in kinds(found) if kind is not NotBegunError]

    assert 127.0 < asyncio.get_running_loop().time() < 167.0
    assert TransportError in begun
    assert set(begun) <= {None, TransportError}
    assert len(told) > 20
    for error in told:
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again.because, TransportError)
        assert "no route" in str(again)


async def test_one_that_is_stopped_ends_what_it_has_begun_and_begins_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Slots(2)
    async with Process(with_slots(server), monkeypatch, timeout=60.0) as process:
        rows = process.begin(12)
        await asyncio.sleep(30.0)
        await process.worker.stop()
        found = await asyncio.gather(*rows, *process.begin(1))

    ends = kinds(found)
    assert set(ends) == {None, NotBegunError}
    assert ends.count(None) == len(server.runs)
    assert asyncio.get_running_loop().time() < 130.0


async def test_a_row_that_nobody_wants_any_more_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(Server(5.0), limit=RateLimit(1, 1.0))
    async with Process(client, monkeypatch, timeout=60.0) as process:
        rows = process.begin(5)
        await asyncio.sleep(0.5)
        for row in rows:
            row.cancel()
        await asyncio.wait(rows)
        await asyncio.sleep(5.0)

        assert client._api.admission.slots.held == 0
        assert (await process.worker.follow("a-9", None))[1] is None
