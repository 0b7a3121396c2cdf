"""How tokens travel, where they come from, and that they show nowhere, whichever way they take."""

import asyncio
import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from agentruns import Client, ConfigurationError, Retry, RunRef, TransportError, connect
from agentruns._api.address import Address
from agentruns._api.transport import AiohttpTransport
from agentruns.dialects import Auth, Basic, Bearer, Dialect, Header, NoAuth, Query, Request
from agentruns.dialects.vendor import Vendor
from agentruns.errors import AgentRunsError, AuthenticationError
from tests.raw_server import Act, Server, hang_up, late, reply, silence
from tests.tiny_vendor import tiny

pytestmark = pytest.mark.asyncio

TOKEN = "sk-live/9f8e7d6c5b4a+32=="
NEXT = "sk-live/0a1b2c3d4e5f+77=="
LOGIN = "anna:horse-battery-9"
GET = Request("GET", "/runs/a-1")
DONE = b'{"id": "a-1", "of": "a", "status": "done"}'
QUICK = Retry(attempts=1)


def vendor(**names: Any) -> Dialect:
    return cast(Dialect, SimpleNamespace(**{**vars(tiny()), **names}))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TINY_TOKEN", "TINY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def sending(server: Server, token: Any, auth: Auth = Bearer(), **options: Any) -> AsyncIterator[AiohttpTransport]:  # noqa: B008 - frozen
    transport = AiohttpTransport(Address(server.url, token, auth), **options)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


# How it travels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize(
    ("auth", "token", "name", "value"),
    [
        (Bearer(), TOKEN, "authorization", f"Bearer {TOKEN}"),
        (Header("X-Api-Key"), TOKEN, "x-api-key", TOKEN),
        (Header("Authorization", prefix="Token "), TOKEN, "authorization", f"Token {TOKEN}"),
        (Basic(), LOGIN, "authorization", f"Basic {b64encode(LOGIN.encode()).decode()}"),
        (Basic(user="api"), TOKEN, "authorization", f"Basic {b64encode(f'api:{TOKEN}'.encode()).decode()}"),
        (NoAuth(), "", "authorization", None),
        (Bearer(optional=True), "", "authorization", None),
    ],
    ids=["bearer", "header", "prefix", "login", "user", "none", "optional"],
)
async def test_a_token_is_sent_as_the_dialect_says(
    auth: Auth, token: str, name: str, value: str | None, borrowed: bool
) -> None:
    async with Server(reply(DONE)) as server, aiohttp.ClientSession() as session:
        options: dict[str, Any] = {"session": session} if borrowed else {}
        async with connect(vendor(AUTH=auth), token=token or None, base_url=server.url, **options) as client:
            await client.fetch(RunRef("a-1"))

    assert server.seen[0].header(name) == value
    if name != "authorization":
        assert server.seen[0].header("authorization") is None


async def test_a_token_in_the_query_stands_beside_what_a_request_asks_for() -> None:
    async with Server(reply()) as server, sending(server, TOKEN, Query("key")) as transport:
        await transport(Request("GET", "/runs?page=2", params={"limit": "5"}))
        await transport(Request("GET", "/runs?page=3&key=[token]"))

    quoted = "sk-live%2F9f8e7d6c5b4a%2B32%3D%3D"
    assert server.lines == [f"GET /runs?page=2&key={quoted}&limit=5", f"GET /runs?page=3&key={quoted}"]
    assert server.seen[0].header("authorization") is None


async def test_a_user_may_say_how_the_token_travels_where_the_dialect_does_not_know() -> None:
    async with (
        Server(reply(DONE)) as server,
        connect(tiny(), token=TOKEN, base_url=server.url, auth=Header("x-gateway")) as client,
    ):
        await client.fetch(RunRef("a-1"))

    assert server.seen[0].header("x-gateway") == TOKEN
    assert server.seen[0].header("authorization") is None


@pytest.mark.parametrize(
    ("auth", "token", "said"),
    [
        (Bearer(), f"Bearer {TOKEN}", 'begins with the word "Bearer"'),
        (Header("x-api-key"), f"Bearer {TOKEN}", 'begins with the word "Bearer"'),
        (Basic(user="api"), "with\nbreak", "characters that a header cannot carry"),
        (Query("key"), "two words", "characters that a header cannot carry"),
        (Basic(), TOKEN, "has no colon"),
        (NoAuth(), TOKEN, "the vendor takes none"),
        (Header("x-api-key"), "schlüssel", "characters that a header cannot carry"),
        (Header("x-api-key"), " ", "there is no token for tiny"),
    ],
)
async def test_a_token_that_cannot_travel_so_is_refused_at_connect(auth: Auth, token: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        connect(vendor(AUTH=auth), token=token)
    assert TOKEN not in told(caught.value)
    assert caught.value.field == "token"


async def test_what_needs_no_token_reads_none_and_may_be_asked_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_TOKEN", TOKEN)
    connect(vendor(AUTH=NoAuth(), TOKEN_VARIABLE=""), base_url="http://elsewhere.test")
    with pytest.raises(ConfigurationError, match="would send the token unencrypted"):
        connect(vendor(AUTH=Bearer(optional=True)), base_url="http://elsewhere.test")
    monkeypatch.delenv("TINY_TOKEN")
    connect(vendor(AUTH=Bearer(optional=True)), base_url="http://elsewhere.test")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"AUTH": "x-api-key"}, "AUTH is 'x-api-key'; it must be a value such as"),
        ({"TOKEN_VARIABLE": ""}, "only with `AUTH = NoAuth"),
    ],
)
async def test_a_dialect_whose_auth_is_wrong_is_refused(names: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Vendor.of(vendor(**names))


@pytest.mark.parametrize(
    "make", [lambda: Header("x api"), lambda: Header(""), lambda: Query(""), lambda: Header("x", prefix="\n")]
)
async def test_a_way_that_no_request_can_take_is_refused_where_it_is_made(make: Callable[[], Auth]) -> None:
    with pytest.raises(ConfigurationError):
        make()


async def test_a_header_that_carries_the_token_cannot_be_given_beside_it() -> None:
    with pytest.raises(ConfigurationError, match="'X-API-Key', which the client sets itself"):
        connect(vendor(AUTH=Header("x-api-key")), token=TOKEN, headers={"X-API-Key": "other"})


async def test_a_vendor_without_a_production_url_asks_for_one() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no base URL for tiny.*TINY_BASE_URL"):
        connect(vendor(BASE_URL=""), token=TOKEN)


# Where it comes from --------------------------------------------------------------------------------------------------


class Tokens:
    """A source of tokens, which counts how often it is asked."""

    def __init__(self, *tokens: Any) -> None:
        self.tokens = list(tokens)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, BaseException):
            raise token
        return cast(str, token)


async def test_a_token_is_asked_for_at_the_first_request_and_kept() -> None:
    tokens = Tokens(TOKEN)
    async with Server(reply(DONE)) as server:
        client = connect(tiny(), token=tokens, base_url=server.url)
        async with client:
            assert tokens.asked == 0
            await asyncio.gather(*(client.fetch(RunRef("a-1")) for _ in range(5)))
            await client.fetch(RunRef("a-1"))

    assert tokens.asked == 1
    assert {seen.header("authorization") for seen in server.seen} == {f"Bearer {TOKEN}"}


def plain() -> str:
    return TOKEN


async def coroutine() -> str:
    return TOKEN


@pytest.mark.parametrize(
    "source", [plain, coroutine, lambda: TOKEN, lambda: coroutine(), Tokens(f" {TOKEN}\n")],
    ids=["plain", "coroutine", "lambda", "lambda of a coroutine", "object"],
)  # fmt: skip
async def test_any_function_may_give_the_token(source: Callable[[], str | Awaitable[str]]) -> None:
    async with Server(reply()) as server, sending(server, source) as transport:
        await transport(GET)
    assert server.seen[0].header("authorization") == f"Bearer {TOKEN}"


@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize("auth", [Bearer(), Query("key")], ids=["bearer", "query"])
async def test_a_token_that_has_run_out_is_renewed_once_and_the_request_sent_again(auth: Auth, borrowed: bool) -> None:
    tokens = Tokens(TOKEN, NEXT)
    post = Request("POST", "/runs/a-1", json={})
    async with (
        Server(reply(b"{}", 401), reply(DONE)) as server,
        aiohttp.ClientSession() as session,
        sending(server, tokens, auth, session=session if borrowed else None) as transport,
    ):
        answers = [await transport(post), await transport(GET)]

    assert [answer.status for answer in answers] == [200, 200]
    assert tokens.asked == 2
    assert [NEXT[:10] in seen.head or "0a1b2c3d" in seen.head for seen in server.seen] == [False, True, True]


async def test_a_fresh_token_that_is_refused_is_an_error_and_no_loop() -> None:
    tokens = Tokens(TOKEN, NEXT, "a third token")
    async with (
        Server(reply(b"{}", 401)) as server,
        connect(tiny(), token=tokens, base_url=server.url) as client,
    ):
        with pytest.raises(AuthenticationError):
            await client.fetch(RunRef("a-1"))
    assert (len(server.seen), tokens.asked) == (2, 2)


async def test_the_same_token_once_more_is_not_tried_again() -> None:
    async with Server(reply(b"{}", 401)) as server, sending(server, Tokens(TOKEN)) as transport:
        assert (await transport(GET)).status == 401
    assert len(server.seen) == 1


async def test_requests_that_are_refused_together_share_one_renewal() -> None:
    tokens = Tokens(TOKEN, NEXT)
    refused = [reply(b"{}", 401)] * 6
    async with Server(*refused, reply(DONE)) as server, sending(server, tokens) as transport:
        answers = await asyncio.gather(*(transport(GET) for _ in range(6)))

    assert [answer.status for answer in answers] == [200] * 6
    assert tokens.asked == 2


async def test_listening_renews_the_token_as_well() -> None:
    tokens = Tokens(TOKEN, NEXT)
    async with Server(reply(b"{}", 401), reply(b"")) as server, sending(server, tokens) as transport:
        assert await transport.listen(GET, lambda: None) is None
    assert server.seen[1].header("authorization") == f"Bearer {NEXT}"


@pytest.mark.parametrize("given", [None, 7, "", "two words", f"Bearer {TOKEN}"])
async def test_a_function_that_gives_no_token_is_told_so_before_anything_is_sent(given: Any) -> None:
    async with Server(reply()) as server, sending(server, Tokens(given)) as transport:
        with pytest.raises(ConfigurationError, match="token") as caught:
            await transport(GET)
    assert server.seen == []
    assert TOKEN not in told(caught.value)


async def test_a_source_that_fails_for_a_while_is_lost_contact_and_asked_again() -> None:
    tokens = Tokens(OSError(f"no route, while sending {TOKEN}"), TOKEN)
    async with Server(reply(DONE)) as server, sending(server, tokens) as transport:
        with pytest.raises(
            TransportError, match=r"no token could be had \(OSError\); look at the function that is `token`"
        ) as caught:
            await transport(GET)
        assert (await transport(GET)).status == 200
    assert caught.value.sent is False
    assert len(server.seen) == 1


async def test_a_source_that_hangs_is_given_up_in_time_and_ended_with_the_client() -> None:
    ended = asyncio.Event()

    async def hang() -> str:
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    async with Server(reply()) as server:
        async with sending(server, hang, timeout=0.05) as transport:
            with pytest.raises(TransportError, match=r"no token within 0\.05 s"):
                await transport(GET)
        async with sending(server, hang) as transport:
            ended.clear()
            waiting = asyncio.ensure_future(transport(GET))
            await asyncio.sleep(0.01)
        with pytest.raises(AgentRunsError, match="the client was closed while GET /runs/a-1 was under way"):
            await waiting
    assert ended.is_set()


async def test_one_who_stops_waiting_takes_the_token_from_nobody_else() -> None:
    given: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def source() -> str:
        return await given

    async with Server(reply(DONE)) as server, sending(server, source) as transport:
        first, second = (asyncio.ensure_future(transport(GET)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        given.set_result(TOKEN)
        assert (await second).status == 200
    assert first.cancelled()


# That it shows nowhere ------------------------------------------------------------------------------------------------

WAYS: dict[str, tuple[Auth, tuple[str, str]]] = {
    "bearer": (Bearer(), (TOKEN, NEXT)),
    "header": (Header("x-api-key"), (TOKEN, NEXT)),
    "query": (Query("key"), (TOKEN, NEXT)),
    "login": (Basic(), (LOGIN, "anna:staple-correct-8")),
    "user": (Basic(user="api"), (TOKEN, NEXT)),
}


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    for name in ("", "agentruns", "aiohttp", "aiohttp.client", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def told(error: BaseException | None) -> str:
    """Return what may be printed of an error and its causes, the local variables of our frames included."""
    if error is None:
        return ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if "/tests/" not in frame.f_code.co_filename]
    own = [repr(error), str(error), repr(vars(error)), *(repr(frame.f_locals) for frame in frames)]
    return "\n".join([*own, told(error.__cause__), told(error.__context__)])


def spelled(token: str) -> tuple[str, ...]:
    encoded = [b64encode(each.encode()).decode().rstrip("=") for each in (token, f"api:{token}")]
    return (token, token[:14], token[-12:], token.replace("/", "%2F"), *encoded)


@pytest.mark.parametrize("kept", [True, False], ids=["text", "function"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("act", ["echo", "hang up", "silence"])
async def test_no_token_shows_whichever_way_it_takes(
    way: str, kept: bool, act: str, everything: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    auth, tokens = WAYS[way]
    all_of_it = " ".join(each for token in tokens for each in spelled(token)[:1])
    header = " ".join(str(value) for token in tokens for value in _sent(auth, token))
    echo = reply(f'{{"said": "{all_of_it}"}}'.encode(), 401, X_Echo=header)
    acts: dict[str, Act] = {"echo": echo, "hang up": hang_up, "silence": late(silence)}
    source: Any = tokens[0] if kept else Tokens(*tokens)
    async with Server(echo if not kept else acts[act], acts[act]) as server:
        client: Client = connect(vendor(AUTH=auth), token=source, base_url=server.url, retry=QUICK, budget=1000.0)
        async with client:
            with pytest.raises(AgentRunsError) as caught:
                await client.fetch(RunRef("a-1"))
            shown = told(caught.value) + repr(client) + repr(vars(client)) + everything.text

    response = getattr(caught.value, "response", None)
    if response is not None:
        shown += repr(response.headers) + response.body.decode() + repr(response.request)
        assert "[token]" in response.body.decode()
    hidden = tokens[:1] if kept else tokens
    for token in hidden:
        for spelling in spelled(token):
            assert spelling not in shown


def _sent(auth: Auth, token: str) -> list[str]:
    from agentruns._values.secret import Secret

    secret = Secret(token)
    return [str(each) for each in (*auth.headers(secret).values(), *auth.params(secret).values())]
