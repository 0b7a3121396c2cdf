"""What a start waits for before its note is kept: a permit, a token, where to send, a connection; all is given back."""

import asyncio
import random
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from agentruns import (
    AgentRunsError,
    APIError,
    Client,
    JournalError,
    NotFoundError,
    Retry,
    RunRef,
    TransportError,
    a2a,
)
from agentruns._aio.limits import ConcurrencyLimit
from agentruns._api.address import Address, address_of
from agentruns._api.api import Api
from agentruns._api.limiter import Permits, RateLimiter
from agentruns._api.located import LocatedChannel
from agentruns._api.noting import Clearance
from agentruns._api.transport import AiohttpTransport
from agentruns._keeping.keeper import StartKeeper
from agentruns._values.commands import Checkpoint, Flow, Ownership
from agentruns._values.exchange import RateLimit, Request, Response
from agentruns.dialects import narrative, wire
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator, Turn
from tests.conformance import vendors
from tests.scripted_wire import STEADY, VirtualLoop
from tests.simulation.disk import MemoryDisk
from tests.vendor_in_memory import VendorInMemory

POST = Request("POST", "/thing", json={"n": 1})


# What is waited for ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_a_start_waits_for_has_its_token() -> None:
    asked: list[str] = []

    async def source() -> str:
        asked.append("token")
        return "a-token"

    transport = AiohttpTransport(Address("https://vendor.test", source))
    await transport.open()
    await transport.ready(POST)
    await transport.ready(POST)
    await transport.close()

    assert asked == ["token"]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_token_that_cannot_be_had_costs_a_permit_for_a_while_and_no_connection() -> None:
    async def source() -> str:
        raise OSError("no vault")

    transport = AiohttpTransport(Address("https://vendor.test", source), connections=1)
    permits = Permits(RateLimiter(RateLimit(1, 1.0)))
    await transport.open()
    clearance = Clearance(permits, transport, 60.0)
    for _ in range(3):
        with pytest.raises(TransportError, match="no token could be had") as caught:
            await clearance.acquire(POST)
        assert not caught.value.sent
    await transport.close()

    assert transport._limit._free == 1
    assert asyncio.get_running_loop().time() == pytest.approx(2.0)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_contact_is_lost_where_a_start_cannot_find_out_where_to_send() -> None:
    over = Wire([Trouble(True, 0.0, 1e3, 0, ("unsent",) * 3, (), (), ())])
    api = Api(cast("Any", over), Permits(RateLimiter(None)), narrative.problem, Retry(attempts=3, backoff=STEADY))
    began = api.enter().time()
    await api.open()
    with pytest.raises(TransportError, match="no token"):
        await api.perform(_start(0, over.troubles[0]), Keeper(0, over))

    assert api.admission.outages.since == began
    assert not over.kept


class Origin(VendorInMemory):
    """One of the places at which an agent is asked, with one connection."""

    def __init__(self, emulator: Emulator[Any], base_url: str) -> None:
        super().__init__(emulator.state, emulator.token)
        self._base = urlsplit(base_url).path
        self.connections = ConcurrencyLimit(1)

    async def ready(self, *_: object) -> ConcurrencyLimit:
        return self.connections

    async def close(self) -> None:
        self.connections.close()

    async def __call__(self, request: Request) -> Response:
        if not self.connections.acquire_nowait():
            await self.connections.acquire()
        try:
            headers = {"A2A-Version": "1.0", **request.headers}
            return await super().__call__(evolve(request, path=self._base + request.path, headers=headers))
        finally:
            self.connections.release()


@define
class Agent:
    """An agent whose card names another origin; each place has one connection."""

    places: list[Origin] = field(factory=list)
    emulator: Emulator[Any] = field(init=False)
    channel: LocatedChannel = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.emulator = vendors.A2ACase().emulator(Turn("Done."), clock=asyncio.get_running_loop().time)
        vendor = Vendor.of(vendors.A2ACase().vendor)
        address = address_of(vendor, "http://agent.test", "", insecure=True)
        self.channel = LocatedChannel(vendor, address, self._place)

    def _place(self, address: Address) -> Origin:
        self.places.append(Origin(self.emulator, address.base_url))
        return self.places[-1]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_bounds_a_start_is_the_limit_of_the_place_that_it_is_sent_to() -> None:
    agent = Agent()
    await agent.channel.open()
    limit = await agent.channel.ready(POST)

    first, found = agent.places
    assert limit is found.connections
    assert [each.path for each in first.requests] == ["/.well-known/agent-card.json"]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_start_that_has_the_only_connection_waits_for_nobody_who_finds_out_where_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Agent()
    vendor, journal = Vendor.of(vendors.A2ACase().vendor), MemoryDisk(random.Random(1)).journal("a2a")
    reads: list[asyncio.Task[Any]] = []
    note = StartKeeper.note

    async def noting(keeper: StartKeeper, what: Checkpoint) -> None:
        reads.append(asyncio.create_task(client.fetch(RunRef("unknown"))))
        await asyncio.sleep(0.001)
        await note(keeper, what)

    monkeypatch.setattr(StartKeeper, "note", noting)
    async with Client(vendor, agent.channel, retry=Retry(backoff=STEADY), schedule=STEADY, journal=journal) as client:
        async with client.stream(a2a.Send("Sort the post."), key="post 1", timeout=60.0) as stream:
            await anext(stream)
        with pytest.raises(NotFoundError):
            await reads[0]


# All of it is given back ----------------------------------------------------------------------------------------------

PERMITS, CONNECTIONS = 3, 1
QUARTER = 0.25


@frozen
class Trouble:
    """What befalls one start, by the number of the try: *ready*, *note*, *take_back* fail or last; *answers* come."""

    keyed: bool
    begins: float
    cancelled: float
    steps: int  # of the loop, after that, before it is cancelled
    ready: tuple[str, ...]
    note: tuple[str, ...]
    take_back: tuple[str, ...]
    answers: tuple[str, ...]


def some(*words: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), max_size=3).map(tuple)


troubles = st.lists(
    st.builds(
        Trouble,
        keyed=st.booleans(),
        begins=st.integers(0, 4).map(QUARTER.__mul__),
        cancelled=st.one_of(st.just(1e3), st.integers(0, 16).map(QUARTER.__mul__)),
        steps=st.integers(0, 6),
        ready=some("at once", "slow", "unsent", "ours"),
        note=some("at once", "slow", "fails"),
        take_back=some("at once", "slow", "fails"),
        answers=some("200", "403", "409", "429", "503", "lost", "unsent", "slow", "broken"),
    ),
    min_size=1,
    max_size=6,
)


class Wire:
    """A channel on which each start meets its own troubles; a request says by its path whose it is."""

    def __init__(self, troubles: list[Trouble]) -> None:
        self.connections = ConcurrencyLimit(CONNECTIONS)
        self.closed = False
        self.under_way = self.most = 0
        self.sent: set[int] = set()  # starts of which a request may have done something
        self.kept: set[int] = set()  # starts of which a note is kept
        self.unnoted: list[int] = []
        self.troubles = troubles
        self._tries: dict[tuple[int, str], int] = {}

    def word(self, number: int, of: str) -> str:
        """Return what befalls a start at its next try of something."""
        words: tuple[str, ...] = getattr(self.troubles[number], of)
        place = self._tries[number, of] = self._tries.get((number, of), -1) + 1
        return words[place] if place < len(words) else {"answers": "200"}.get(of, "at once")

    async def open(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
        self.connections.close()

    async def listen(self, *_: object) -> None:
        raise AssertionError

    async def ready(self, request: Request) -> ConcurrencyLimit:
        word = self.word(_number(request), "ready")
        await asyncio.sleep({"slow": 6 * QUARTER}.get(word, 0.0))
        if word == "unsent":
            raise TransportError(request, "no token", sent=False)
        if word == "ours":
            raise AgentRunsError("no token")
        return self.connections

    async def __call__(self, request: Request) -> Response:
        if self.closed:
            raise AgentRunsError("closed")
        number = _number(request)
        word = self.word(number, "answers")
        if word == "broken":
            self.sent.add(number)  # for all that can be told
            raise AgentRunsError("it cannot be put as the vendor wants it")
        if not self.connections.acquire_nowait() and not await self.connections.acquire():
            raise AgentRunsError("closed")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answered(request, number, word)
        finally:
            self.under_way -= 1
            self.connections.release()

    async def _answered(self, request: Request, number: int, word: str) -> Response:
        if word == "unsent":
            raise TransportError(request, "refused", sent=False)
        before = number in self.sent
        self.sent.add(number)
        if self.troubles[number].keyed and number not in self.kept:
            self.unnoted.append(number)
        await asyncio.sleep((8 if word == "slow" else 1) * QUARTER)
        if word == "lost":
            raise TransportError(request, "reset")
        if word in {"403", "409", "429"} and not before:
            self.sent.discard(number)
        headers = {"retry-after": "2"} if word == "429" else {}
        return Response(200 if word == "slow" else int(word), headers, b"{}", request)


def _number(request: Request) -> int:
    return int(request.path.rpartition("/")[2])


@define
class Keeper:
    """Keeps the notes of one start as a journal does: one that is cut off is undone, one that fails is not kept."""

    number: int
    wire: Wire

    async def reserve(self, _: Checkpoint) -> Ownership:
        return Ownership.MINE

    async def claim(self, _: str) -> Ownership:
        return Ownership.MINE

    async def note(self, _: Checkpoint) -> None:
        await self._write("note")
        self.wire.kept.add(self.number)

    async def take_back(self) -> None:
        self.wire.kept.discard(self.number)  # a write goes on where its caller does not; where it fails: `settle`
        await self._write("take_back")

    async def _write(self, what: str) -> None:
        word = self.wire.word(self.number, what)
        await asyncio.sleep(4 * QUARTER if word == "slow" else 0.0)
        if word == "fails":
            raise JournalError("journal.db", "the disk is full", "")


def _start(number: int, trouble: Trouble) -> Flow[object]:
    if trouble.keyed:
        yield from wire.checkpoint({"n": number})
    request = Request("POST", f"/thing/{number}", json={})
    try:
        return wire.read_object((yield request))
    except APIError as error:
        if error.status != 409:
            raise
    return wire.read_object((yield request))


@pytest.mark.parametrize("limit", [None, RateLimit(PERMITS, 1.0)], ids=["no limit", "limit"])
@given(troubles=troubles, closes=st.one_of(st.just(1e3), st.integers(0, 16).map(QUARTER.__mul__)))
def test_whatever_befalls_starts_no_permit_is_lost_no_connection_and_no_note_of_what_was_never_sent(
    limit: RateLimit | None, troubles: list[Trouble], closes: float
) -> None:
    async def story() -> None:
        limiter, over = RateLimiter(limit), Wire(troubles)
        api = Api(cast("Any", over), Permits(limiter), narrative.problem, Retry(attempts=3, backoff=STEADY))
        api.enter()
        await api.open()

        async def live(number: int, trouble: Trouble) -> None:
            await asyncio.sleep(trouble.begins)
            keeper = Keeper(number, over) if trouble.keyed else None
            await api.perform(_start(number, trouble), keeper)

        async def cancel(trouble: Trouble, life: asyncio.Task[None]) -> None:
            await asyncio.sleep(trouble.cancelled)
            for _ in range(trouble.steps):
                await asyncio.sleep(0)
            life.cancel()

        lives = [asyncio.create_task(live(*each)) for each in enumerate(troubles)]
        cancels = [asyncio.create_task(cancel(*each)) for each in zip(troubles, lives, strict=True)]
        await asyncio.wait(lives, timeout=closes)
        api.close()
        await api.wait_closed()
        ended, left = await asyncio.wait(lives, timeout=60.0)
        assert not left
        for each in cancels:
            each.cancel()
        for life in ended:
            error = None if life.cancelled() else life.exception()
            assert error is None or isinstance(error, AgentRunsError), repr(error)

        assert over.connections._free == CONNECTIONS
        assert not over.connections._reserved
        assert over.most <= CONNECTIONS
        assert over.unnoted == []
        assert {each for each in over.kept if each not in over.sent} <= _refused(over, lives)
        await _is_whole(limiter, limit)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


def _refused(over: Wire, lives: list[asyncio.Task[None]]) -> set[int]:
    """Return the starts that ended with a refusal: what is kept of these is forgotten by whoever hears it."""
    ends = [None if life.cancelled() else life.exception() for life in lives]
    return {number for number, end in enumerate(ends) if isinstance(end, APIError | TransportError)}


async def _is_whole(limiter: RateLimiter, limit: RateLimit | None) -> None:
    """Send as much at once as the limit allows, long after everything."""
    await asyncio.sleep(100.0)
    loop, permits = asyncio.get_running_loop(), Permits(limiter)
    began = loop.time()
    for _ in range(PERMITS):
        await permits.acquire()
    assert loop.time() == began
    if limit is not None:
        assert limiter._window.free == 0
