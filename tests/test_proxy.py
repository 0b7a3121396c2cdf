"""A proxy that is named is gone through, and its password shows nowhere."""

import asyncio
import logging
from base64 import b64encode
from typing import Any

import aiohttp
import pytest

from agentruns import ConfigurationError, Retry, RunRef, TransportError, connect
from agentruns._api.proxy import proxy_of
from agentruns.cli import arguments
from agentruns.cli.connection import connection
from tests.raw_server import Server, hang_up, raw, reply
from tests.test_auth import DONE, TOKEN, told, vendor

PASSWORD = "horse battery/9staple"
QUOTED = "horse%20battery%2F9staple"
AS_SENT = b64encode(f"anna:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)


def between(server: Server) -> str:
    return f"http://anna:{QUOTED}@127.0.0.1:{server.port}"


@pytest.mark.asyncio
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_requests_go_through_the_proxy_that_is_named(borrowed: bool) -> None:
    async with Server(reply(DONE)) as proxy, aiohttp.ClientSession() as session:
        options: dict[str, Any] = {"session": session} if borrowed else {}
        async with connect(
            vendor(), token=TOKEN, base_url="http://127.0.0.1:9", proxy=between(proxy), **options
        ) as client:
            assert (await client.fetch(RunRef("a-1"))).id == "a-1"

    (seen,) = proxy.seen
    assert seen.line == "GET http://127.0.0.1:9/runs/a-1"
    assert seen.header("proxy-authorization") == f"Basic {AS_SENT}"
    assert seen.header("authorization") == f"Bearer {TOKEN}"


@pytest.mark.asyncio
async def test_the_proxy_of_the_environment_is_taken_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(raw(b"HTTP/1.1 200 OK\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", between(proxy))
        async with connect(
            vendor(), token=TOKEN, base_url="https://tiny.test", trust_env=True, retry=Retry(attempts=1), timeout=2.0
        ) as client:
            with pytest.raises(TransportError):  # it speaks no TLS
                await client.fetch(RunRef("a-1"))
    assert proxy.lines[0] == "CONNECT tiny.test:443"
    assert proxy.seen[0].header("proxy-authorization") == f"Basic {AS_SENT}"
    assert proxy.seen[0].header("authorization") is None


def test_the_environment_is_obeyed_where_it_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(base_url: str) -> str | None:
        proxy = proxy_of(None, base_url, trust_env=True, insecure=False)
        return None if proxy is None else proxy.url

    assert found("https://tiny.test") is None
    monkeypatch.setenv("all_proxy", "proxy.test:3128")
    assert found("https://tiny.test") == "http://proxy.test:3128"
    assert found("http://127.0.0.1:80") is None
    monkeypatch.setenv("no_proxy", "tiny.test")
    assert found("https://tiny.test") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [hang_up, reply(b"no", 407), reply(f"{AS_SENT} {PASSWORD}".encode(), 502)])
async def test_the_password_of_a_proxy_shows_nowhere(act: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with Server(act) as proxy:
        for base_url in ("https://tiny.test", "http://127.0.0.1:9"):
            client = connect(
                vendor(), token=TOKEN, base_url=base_url, proxy=between(proxy), retry=Retry(attempts=1), timeout=2.0
            )
            async with client:
                with pytest.raises(Exception, match=r"GET /runs/a-1|answered|\[token\]|no") as caught:
                    await client.fetch(RunRef("a-1"))
            shown = told(caught.value) + repr(client) + repr(vars(client)) + caplog.text
            assert not any(each in shown for each in (PASSWORD, QUOTED, AS_SENT, TOKEN, PASSWORD[:9]))


@pytest.mark.asyncio
async def test_a_proxy_that_refuses_to_connect_says_so_and_nothing_was_sent() -> None:
    async with (
        Server(reply(b"", 407)) as proxy,
        connect(vendor(), token=TOKEN, proxy=between(proxy), retry=Retry(attempts=1)) as client,
    ):
        with pytest.raises(
            TransportError, match="the proxy answered 407; check the proxy: its address, its user,"
        ) as caught:
            await client.fetch(RunRef("a-1"))
    assert (caught.value.sent, caught.value.final) == (False, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("of_session", [False, True], ids=["named", "of a session"])
async def test_a_proxy_that_is_not_reached_is_what_to_check(of_session: bool) -> None:
    nobody = "http://127.0.0.1:9"
    async with aiohttp.ClientSession(proxy=nobody) as session:
        given: dict[str, Any] = {"session": session} if of_session else {"proxy": nobody}
        async with connect(vendor(), token=TOKEN, retry=Retry(attempts=1), **given) as client:
            with pytest.raises(TransportError, match="; check the proxy: ") as caught:
                await client.fetch(RunRef("a-1"))
    assert not caught.value.sent


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_that_cannot_reach_the_vendor_is_lost_contact_and_no_refusal(status: int) -> None:
    async with (
        Server(reply(b"", status)) as proxy,
        connect(vendor(), token=TOKEN, proxy=between(proxy), retry=Retry(attempts=1)) as client,
    ):
        with pytest.raises(TransportError, match=f"the proxy answered {status}") as caught:
            await client.fetch(RunRef("a-1"))
        assert client.stats().lost_for > 0
    assert (caught.value.sent, caught.value.final) == (False, False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("socks5://anna:SECRETWORD@host:1", "a scheme other than http and https, and only HTTP proxies can be used"),
        ("anna:SECRETWORD@host:1", "only HTTP proxies"),
        ("http://anna:SECRETWORD@", "names a host alone"),
        ("http://anna:SECRETWORD@host/path", "names a host alone"),
        ("http://anna:SECRETWORD@host:port", "is not a URL"),
        ("http://anna:SECRETWORDü@host:1", "proxy"),
        ("http://anna:SECRET WORD@host:1", "names a host alone"),
        (7, "proxy is of the type int"),
    ],
)
def test_what_is_no_url_of_a_proxy_is_refused_and_its_password_not_shown(url: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        connect(vendor(), token=TOKEN, proxy=url)
    assert "SECRET" not in told(caught.value)


def test_a_proxy_and_that_of_the_environment_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        connect(vendor(), token=TOKEN, proxy="http://proxy.test", trust_env=True)


def test_a_proxy_elsewhere_is_not_given_the_token_of_a_vendor_on_this_machine_in_plain_http() -> None:
    with pytest.raises(ConfigurationError, match=r"http://proxy\.test:1 would be given the token unencrypted"):
        connect(vendor(), token=TOKEN, base_url="http://127.0.0.1:9", proxy="http://a:b@proxy.test:1")
    connect(vendor(), token=TOKEN, base_url="http://127.0.0.1:9", proxy="http://proxy.test:1", insecure=True)


def test_a_password_on_the_command_line_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["watch", "narrative", "r", "--proxy", "http://anna:SECRETWORD@host:1"])
    said = capsys.readouterr().err
    assert "use `--proxy env`" in said
    assert "SECRETWORD" not in said
    given = connection(arguments.parse(["watch", "narrative", "r", "--proxy", "env"]))
    assert (given["proxy"], given["trust_env"]) == (None, True)
