"""A request of which a try got no clear answer stays in doubt, in every dialect: no later refusal makes that clear."""

import asyncio
from collections.abc import Coroutine
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest
from attrs import evolve

from agentruns import (
    AgentRunsError,
    APIError,
    Client,
    OutcomeUnknownError,
    Retry,
    Run,
    ToolOutput,
    TransportError,
    narrative,
)
from agentruns._api.flow import perform
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns.dialects import wire
from agentruns.emulator import Emulator, Turn
from agentruns.testing import Case
from tests.conformance import vendors
from tests.conformance.acme import AcmeCase
from tests.scripted_wire import STEADY, Answer, Lost, Scripted, Wire, problem
from tests.vendor_in_memory import VendorInMemory

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

CASES: Final[list[Case]] = [
    vendors.NarrativeCase(),
    vendors.MiddeskCase(),
    vendors.OrigamiCase(),
    vendors.ConduitCase(),
    vendors.OpenAIResponsesCase(),
    vendors.A2ACase(),
    vendors.LangGraphCase(),
    AcmeCase(),
]
ANSWERED: Final = [case for case in CASES if case.resume_path]


class LostThenRefused(VendorInMemory):
    """Loses the answer to the first request that is told, which the vendor has *got* or not; no other is sent."""

    def __init__(self, emulator: Emulator[Any], method: str, path: str, got: bool) -> None:
        super().__init__(emulator.state, emulator.token)
        self._method, self._path, self._got = method, path, got
        self._base = "/v1" if path.startswith("/v1/") and not emulator.state.prefix else ""  # a card would say so
        self._headers = {"A2A-Version": "1.0", "x-api-key": emulator.token}
        self.armed = False
        self.tries = 0

    async def __call__(self, request: Request) -> Response:
        request = evolve(request, path=self._base + request.path, headers={**self._headers, **request.headers})
        is_it = request.method == self._method and fnmatchcase(f"{self.vendor.prefix}{request.path}", self._path)
        if not (self.armed and is_it):
            return await super().__call__(request)
        self.tries += 1
        if self.tries > 1:
            raise TransportError(request, "connection refused", sent=False)
        if self._got:
            self.again(request)
        raise TransportError(request, "connection reset")


def client_of(case: Case, wire: VendorInMemory) -> Client[Any, Any]:
    return Client(case.vendor, wire, retry=Retry(attempts=3, backoff=STEADY), schedule=STEADY)


async def outcome(act: Coroutine[Any, Any, Run]) -> Run | AgentRunsError:
    try:
        return await act
    except AgentRunsError as error:
        return error


def leaves_doubt(end: Run | AgentRunsError) -> bool:
    """Tell whether an end says that the vendor may have acted."""
    return isinstance(end, OutcomeUnknownError) or (isinstance(end, TransportError) and end.sent)


@pytest.mark.parametrize("got", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
async def test_a_start_that_was_lost_and_then_could_not_be_sent_may_have_begun(case: Case, got: bool) -> None:
    emulator = case.emulator(Turn("Done."), clock=asyncio.get_running_loop().time)
    over = LostThenRefused(emulator, "POST", case.start_path, got)
    async with client_of(case, over) as client:
        origin = await case.origin(client, emulator)
        over.armed = True
        end = await outcome(client.start(origin))

    assert over.tries
    assert leaves_doubt(end) or (got and isinstance(end, Run)), repr(end)


@pytest.mark.parametrize("got", [True, False])
@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.label)
async def test_an_answer_that_was_lost_and_then_could_not_be_sent_may_have_been_taken(case: Case, got: bool) -> None:
    emulator = case.emulator(Turn(calls=[case.call(0)]), Turn("Done."), clock=asyncio.get_running_loop().time)
    over = LostThenRefused(emulator, case.resume_method, case.resume_path, got)
    async with client_of(case, over) as client:
        async with client.stream(await case.origin(client, emulator)) as stream:
            paused = [state async for state in stream][-1]
        over.armed = True
        end = await outcome(client.resume(paused, [ToolOutput(action, "yes") for action in paused.actions]))

    assert over.tries
    assert leaves_doubt(end) or (got and isinstance(end, Run)), repr(end)


# Whatever the flow ----------------------------------------------------------------------------------------------------

POST: Final = Request("POST", "/thing", json={"n": 1})
LOST: Final = [Lost("connection reset"), problem(500, "broken", "Broken."), problem(408, "slow", "Slow.")]


def asked_twice(request: Request, then: Request) -> Flow[object]:
    """Send a request, and another one if there was no clear answer."""
    try:
        return wire.read_object((yield request))
    except OutcomeUnknownError:
        return wire.read_object((yield then))


async def performed(flow: Flow[object], *answers: Scripted) -> object:
    over = Wire({"POST /thing": answers, "DELETE /thing": answers})
    return await perform(flow, over, narrative.problem, Retry(attempts=2, backoff=STEADY))


@pytest.mark.parametrize("lost", LOST)
async def test_what_a_flow_sends_again_and_cannot_is_of_unknown_outcome(lost: Scripted) -> None:
    with pytest.raises(OutcomeUnknownError, match=r"(reset|was answered \d+); then connection refused") as caught:
        await performed(asked_twice(POST, POST), lost, Lost("connection refused", sent=False))

    assert isinstance(caught.value.__cause__, TransportError)
    assert caught.value.__cause__.sent


@pytest.mark.parametrize("lost", LOST)
async def test_what_a_flow_sends_again_and_is_refused_is_refused_after_doubt(lost: Scripted) -> None:
    with pytest.raises(APIError) as caught:
        await performed(asked_twice(POST, POST), lost, problem(403, "no", "No."))

    assert caught.value.after_doubt


async def test_what_could_not_be_sent_again_says_what_helps_against_that() -> None:
    ends = [TransportError(POST, "reset"), *[TransportError(POST, "refused", sent=False, hint="look there")] * 2]

    async def over(_: Request) -> Response:
        raise ends.pop(0)

    with pytest.raises(OutcomeUnknownError, match=r"reset; then refused; look there\."):
        await perform(asked_twice(POST, POST), over, narrative.problem, Retry(attempts=2, backoff=STEADY))


async def test_another_request_of_the_flow_is_not_in_doubt() -> None:
    other = evolve(POST, json={"n": 2})
    with pytest.raises(TransportError) as caught:
        await performed(asked_twice(POST, other), Lost(), Lost("connection refused", sent=False))

    assert not caught.value.sent


async def test_the_same_request_is_in_doubt_though_it_may_be_repeated_now() -> None:
    first = Request("DELETE", "/thing", idempotent=False)
    with pytest.raises(TransportError) as caught:
        await performed(asked_twice(first, evolve(first, idempotent=True)), Lost(), Lost("no", sent=False))

    assert caught.value.sent


async def test_an_answer_settles_the_doubt() -> None:
    def flow() -> Flow[object]:
        yield from asked_twice(POST, POST)
        return wire.read_object((yield POST))

    with pytest.raises(TransportError) as caught:
        await performed(flow(), Lost(), Answer({}), Lost("connection refused", sent=False))

    assert not caught.value.sent
