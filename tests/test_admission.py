"""When the next row may begin: the law of goodput, the clock of a row, slots, lost contact, and 429."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentruns import (
    AgentRunsError,
    APIError,
    Client,
    DeadlineExceededError,
    Outcome,
    QuotaError,
    RateLimitedError,
    RateLimiter,
    RunRef,
    TransportError,
    connect,
)
from agentruns._api.accounts import Account, slots_of
from agentruns._following import record
from agentruns._keeping.journal import Journal
from agentruns._values.exchange import RateLimit
from agentruns.testing import ScriptedTransport
from tests.strained_servers import Cut, Slots, Strict, with_slots
from tests.tiny_vendor import Server, client_of

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

SECONDS = 150.0


def lengths(kind: str) -> Iterator[float]:
    """Yield how long run after run takes."""
    chance = random.Random(7)
    while True:
        match kind:
            case "all 20 s":
                yield 20.0
            case "about 8 s":
                yield chance.lognormvariate(2.0, 0.5)
            case _:
                yield chance.expovariate(1 / 20)


async def goodput(kind: str, limit: int, budget: RateLimit, timeout: float) -> float:
    """Return how many rows completed for each request that the budget allowed."""
    server = Server(latency=0.05)
    server.lasts = {f"a-{number}": seconds for number, seconds in zip(range(5000), lengths(kind), strict=False)}
    completed = 0
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + SECONDS
    async with client_of(server, limit=budget) as client:
        origins = (f"a-{number}" for number in range(5000))
        async with client.batch(origins, limit=limit, timeout=timeout) as outcomes:
            try:
                async with asyncio.timeout_at(ends_at):
                    async for outcome in outcomes:
                        completed += outcome.error is None
            except TimeoutError:
                pass
    return completed / (SECONDS * budget.count / budget.seconds)


@pytest.mark.parametrize("kind", ["about 8 s", "all 20 s", "memoryless"])
@pytest.mark.parametrize("budget", [RateLimit(5, 1.0), RateLimit(90, 60.0)], ids=["5 a second", "90 a minute"])
async def test_no_limit_brings_less_than_the_best_one_by_more_than_a_fifth(kind: str, budget: RateLimit) -> None:
    found = {limit: await goodput(kind, limit, budget, timeout=30.0) for limit in (4, 16, 40, 256)}
    best = 0.0
    for limit, reached in found.items():
        best = max(best, reached)
        assert reached >= 0.8 * best, f"limit {limit}: {found}"


async def test_the_clock_of_a_stream_begins_with_its_turn() -> None:
    """Of streams that a rate limit holds back, each has its whole time."""
    async with client_of(Server(5.0), limit=RateLimit(1, 1.0)) as client:
        streams = [client.result(f"a-{number}", timeout=30.0) for number in range(20)]
        found = await asyncio.gather(*streams)

    assert all(run.status.is_over for run in found)
    assert asyncio.get_running_loop().time() > 40.0


@pytest.mark.parametrize("beat", [None, 1.0])
async def test_a_deadline_comes_so_long_after_the_turn(beat: float | None) -> None:
    """Whether the wait for the turn is cut by heartbeats or not."""
    server = Server(1000.0)
    loop = asyncio.get_running_loop()
    async with client_of(server, limit=RateLimit(1, 20.0)) as client:
        first, second = client.stream("a-1"), client.stream("a-2", timeout=30.0)
        await anext(first)
        told: TimeoutError | None = None
        while not isinstance(told, DeadlineExceededError):
            try:
                await asyncio.wait_for(anext(second), beat)
            except TimeoutError as error:
                told = error
        turn = server.times("POST /runs/a-2")[0]

    assert turn > 15.0
    assert loop.time() == pytest.approx(turn + 30.0, abs=2.0)


class Stuck(Journal):
    """A journal whose disk does not answer."""

    async def get(self, key: str) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("beat", [None, 1.0])
async def test_a_journal_that_does_not_answer_is_no_line_to_wait_in(tmp_path: Path, beat: float | None) -> None:
    """The deadline counts the time in which nobody can tell whether the key names work that was begun before."""
    server = Server(1000.0)
    loop = asyncio.get_running_loop()
    async with client_of(server, limit=RateLimit(1, 200.0), journal=Stuck(tmp_path / "stuck.db", "tiny")) as client:
        await client.start("a-1")
        began, stream = loop.time(), client.stream("a-2", key="2", timeout=30.0)
        told: TimeoutError | None = None
        while not isinstance(told, DeadlineExceededError):
            try:
                await asyncio.wait_for(anext(stream), beat)
            except TimeoutError as error:
                told = error

    assert loop.time() == pytest.approx(began + 30.0, abs=2.0)
    assert server.times("POST /runs/a-2") == []


async def test_a_stream_whose_start_has_failed_holds_no_place() -> None:
    server = Server(5.0)
    server.trouble["POST /runs/a-1"] = [(422, {})]
    async with client_of(server, limit=RateLimit(5, 1.0)) as client:
        stream = client.stream("a-1")
        with pytest.raises(APIError):
            await anext(stream)
        assert client._api.admission.slots.held == 0
        assert (await stream.result()).status.is_over, "the step that tries again takes another"
        assert client._api.admission.slots.held == 0


async def test_an_origin_that_waits_for_its_place_when_every_start_is_refused_is_told_as_unstarted() -> None:
    server = Server(5.0)
    found: list[Outcome] = []
    server.trouble["POST /runs/a-1"] = [(402, {})]
    async with client_of(server, limit=RateLimit(1, 1.0)) as client:
        async with client.batch([f"a-{number}" for number in range(9)]) as outcomes:
            while len(found) < 3:
                found.append(await anext(outcomes))
            with pytest.raises(QuotaError):
                await anext(outcomes)
        posted = [line for _, line, _ in server.asked if line.startswith("POST")]

    assert posted == ["POST /runs/a-0", "POST /runs/a-1"]
    assert {outcome.item: record.status_of(outcome.error, outcome.run) for outcome in found} == {
        "a-0": "completed",
        "a-1": "unstarted",
        "a-2": "unstarted",
    }


async def test_a_start_that_nobody_holds_up_begins_at_once() -> None:
    server = Server(5.0)
    async with client_of(server, limit=RateLimit(5, 1.0)) as client:
        await client.result("a-1")

    assert server.asked[0][0] == 0.0


# Slots ----------------------------------------------------------------------------------------------------------------


async def outcomes_of(client: Client, count: int, name: str = "a", **options: Any) -> list[Outcome]:
    async with client.batch([f"{name}-{number}" for number in range(count)], **options) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_batch_waits_in_one_line_for_the_slots_of_an_account(slots: int) -> None:
    """A full slot is no error, and no part of the timeout; refusals are few, and what runs is read meanwhile."""
    server = Slots(slots)
    async with with_slots(server) as client:
        found = await outcomes_of(client, 40, timeout=60.0)

    assert [outcome.error for outcome in found] == [None] * 40
    assert asyncio.get_running_loop().time() <= 1.15 * 40 * 20 / slots
    assert server.refused <= 40 + 25, "each learns from its own refusal at most, and then now and then one"


async def test_clients_of_one_account_wait_in_one_line() -> None:
    """Apart, the second would hear of a free slot when the vendor's hint is over, and take more than twice as long."""
    server, account = Slots(1, seconds=2.0), Account("tiny", "https://tiny.test", "who")
    async with with_slots(server, account) as one, with_slots(server, account) as other:
        batches = [outcomes_of(client, 8, timeout=60.0, name=name) for client, name in ((one, "a"), (other, "b"))]
        found = await asyncio.gather(*batches)

    assert [outcome.error for outcomes in found for outcome in outcomes] == [None] * 16
    assert asyncio.get_running_loop().time() <= 1.3 * 16 * 2
    assert server.refused <= 16 + 10


async def test_a_client_that_is_left_leaves_its_slots_to_the_others_of_the_account() -> None:
    server, account = Slots(1), Account("tiny", "https://tiny.test", "who")
    async with with_slots(server, account) as other:
        async with with_slots(server, account) as one:
            streams = [one.stream("a-1"), one.stream("a-2")]
            await anext(streams[0])
            refused = asyncio.create_task(anext(streams[1]))
            await asyncio.sleep(5.0)
            assert (one.stats().waiting_for_slot, other.stats().waiting_for_slot) == (1, 0)
            assert one.stats().slots == other.stats().slots == 1
        with pytest.raises(AgentRunsError):
            await refused
        assert other._api.admission.slots.held == 0
        for stream in streams:
            await stream.aclose()
        assert other._api.admission.slots.held == 0
        assert (await other.result("b-1")).status.is_over


async def test_clients_are_of_one_account_by_their_token_or_by_a_limiter() -> None:
    def account(**options: Any) -> Account | None:
        return connect("origami", **options)._api.admission._account

    limiter, source = RateLimiter(None), lambda: "secret"
    assert account(token="secret") == account(token=" secret ")
    assert account(token="secret") != account(token="another")
    assert account(token="secret") != account(token="secret", base_url="https://other.test/v1")
    assert account(token="secret") != connect("middesk", token="secret")._api.admission._account
    assert account(token=source) == account(token=source) != account(token=lambda: "secret")
    assert account(token="secret", budget=limiter) == account(token="another", budget=limiter)
    assert account(transport=ScriptedTransport({})) is None
    told = account(token="secret")
    assert isinstance(told, Account)
    assert "secret" not in f"{told!r} {told.who!r}"
    assert slots_of(told) is slots_of(account(token="secret")) is not slots_of(None)


async def test_one_stream_gives_up_a_slot_after_as_long_as_its_dialect_says() -> None:
    async with with_slots(Slots(0)) as client:
        with pytest.raises(RateLimitedError):
            await client.result("a-1", timeout=None)

    assert asyncio.get_running_loop().time() == pytest.approx(300.0, abs=1.0)


# Lost contact, and 429 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [0.0, 7.0])
async def test_an_outage_costs_a_batch_no_row(begins: float) -> None:
    async with client_of(Cut(begins, begins + 900.0), limit=RateLimit(5, 1.0)) as client:
        found = await outcomes_of(client, 60, timeout=30.0, limit=20)

    assert [outcome.error for outcome in found] == [None] * 60
    assert asyncio.get_running_loop().time() < begins + 900.0 + 60.0


@pytest.mark.parametrize("begins", [0.0, 7.0])
async def test_an_outage_costs_a_batch_no_row_that_is_being_prepared(begins: float) -> None:
    """It is no part of the timeout, which ends a `prepare` that hangs."""
    server = Cut(begins, begins + 900.0)
    async with client_of(server, limit=RateLimit(5, 1.0)) as client:
        server.begin("b-1")

        async def prepare(item: str) -> str:
            await client.fetch(RunRef("b-1", "b"))
            return item

        found = await outcomes_of(client, 30, timeout=30.0, limit=20, prepare=prepare)
        hung = await outcomes_of(client, 1, timeout=30.0, prepare=lambda _: asyncio.Event().wait())

    assert [outcome.error for outcome in found] == [None] * 30
    assert [type(outcome.error) for outcome in hung] == [DeadlineExceededError]


async def test_somebody_finds_out_that_the_vendor_answers_again_though_those_who_have_begun_do_not_ask() -> None:
    server = Cut(7.0, 20.0)
    async with client_of(server, limit=RateLimit(5, 1.0)) as client:
        stream = client.stream("a-1")
        await anext(stream)  # it holds its place, and nobody goes on with it
        await asyncio.sleep(8.0)
        with pytest.raises(TransportError):
            await client.fetch(RunRef("a-1", "a"))
        async with asyncio.timeout(100.0):
            found = await outcomes_of(client, 3, patience=600.0)
        assert stream.run is not None

    assert [outcome.error for outcome in found] == [None] * 3


async def test_a_stream_of_its_own_begins_while_contact_is_lost_and_says_so() -> None:
    """Only rows of a batch wait: whoever asks for one run hears of the outage within the usual time."""
    async with client_of(Cut(7.0, 1e6), limit=RateLimit(5, 1.0)) as client:
        task = asyncio.ensure_future(outcomes_of(client, 20, limit=5, timeout=60.0))
        await asyncio.sleep(30.0)
        with pytest.raises((TransportError, DeadlineExceededError)):
            await client.result("a-99", timeout=20.0)
        task.cancel()

    assert asyncio.get_running_loop().time() < 60.0


async def test_a_batch_ends_when_its_patience_does_and_begins_no_further_row() -> None:
    found: list[Outcome] = []
    told = ""
    async with client_of(Cut(7.0, 1e6), limit=RateLimit(5, 1.0)) as client:
        origins = iter([f"a-{number}" for number in range(1000)])
        async with client.batch(origins, limit=20, timeout=30.0, patience=120.0) as outcomes:
            try:
                async for outcome in outcomes:
                    found.append(outcome)  # noqa: PERF401 - it ends with an error
            except TransportError as error:
                told = str(error)

    assert "no route" in told
    assert 127.0 < asyncio.get_running_loop().time() < 167.0
    assert len(found) < 40


async def test_while_contact_is_lost_stats_say_for_how_long() -> None:
    async with client_of(Cut(7.0, 1e6), limit=RateLimit(5, 1.0)) as client:
        task = asyncio.ensure_future(outcomes_of(client, 60, timeout=30.0, limit=20, patience=600.0))
        await asyncio.sleep(100.0)
        assert client.stats().lost_for == pytest.approx(93.0, abs=5.0)
        task.cancel()


async def test_a_429_ends_no_row_and_slows_the_client_down() -> None:
    """Two thirds of the account's requests are taken by others."""
    server = Strict(20, others=14)
    async with client_of(server, limit=RateLimit(18, 1.0)) as client:
        found = await outcomes_of(client, 150, timeout=600.0)

    assert [outcome.error for outcome in found] == [None] * 150
    assert server.refused < 0.25 * len(server.asked)


async def test_a_429_teaches_the_rate_of_a_vendor_that_documents_none() -> None:
    """Half of what was too much, then by and by more: most of what the vendor allows is used, and little is refused."""
    server = Strict(20, others=14)
    async with client_of(server) as client:
        found = await outcomes_of(client, 150, timeout=600.0)
        needed, took = len(server.asked) - server.refused, asyncio.get_running_loop().time()

    assert [outcome.error for outcome in found] == [None] * 150
    assert server.refused < 0.25 * len(server.asked)
    assert needed / took > 0.6 * server.left


async def test_a_rate_that_was_learned_is_forgotten_when_the_vendor_is_quiet() -> None:
    server = Strict(20, others=14)
    async with client_of(server) as client:
        await outcomes_of(client, 30, timeout=600.0)
        assert server.refused
        server.left = 1000
        await asyncio.sleep(60.0)
        began = asyncio.get_running_loop().time()
        await outcomes_of(client, 60, timeout=600.0)

        assert client._api.permits.limiter.limit is None
        assert asyncio.get_running_loop().time() - began < 6.0
