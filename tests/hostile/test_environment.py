"""What lies around on a machine, and what a vendor leaves there, changes nothing: proxies, ~/.netrc, cookies."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentruns import Backoff, Retry, RunRef, TransportError
from tests.hostile.hostile_servers import HOUSES, TOKEN, Front, Line, Trap, client_of, outcome
from tests.hostile.undocumented_answers import sends, whole
from tests.raw_server import Server, free_port, reply

pytestmark = pytest.mark.asyncio

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "ftp_proxy")

QUICK: dict[str, Any] = {"schedule": Backoff(initial=0.01, maximum=0.02)}


def proxied(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Name a proxy in every variable that anybody reads, and no exception."""
    for name in PROXIES:
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.upper(), url)
    for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


def netrc(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Keep credentials for the host of every test."""
    lines = [f"machine {host} login wrong password wrong" for host in ("127.0.0.1", "localhost", "nowhere.invalid")]
    file = home / ".netrc"
    file.write_text("\n".join([*lines, "default login wrong password wrong", ""]))
    file.chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami"])
async def test_nothing_goes_to_a_proxy_of_the_environment(
    vendor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    house = HOUSES[vendor]()
    async with Server(reply()) as proxy, Front(house) as front:
        proxied(monkeypatch, proxy.url)
        netrc(monkeypatch, tmp_path)
        async with client_of(house, front.url, **QUICK) as client:
            run = await client.start(await house.origin(client))
            await client.fetch(run)
            stream = client.stream(run.ref, timeout=5.0, events=vendor == "middesk")
            await anext(stream)
            await stream.aclose()

    assert proxy.connections == 0
    assert len(front.seen) >= 3
    assert {seen.header("authorization") for seen in front.seen} == {f"Bearer {TOKEN}"}
    assert {seen.header("proxy-authorization") for seen in front.seen} == {None}


async def test_no_proxy_is_asked_to_connect_to_where_tls_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with Line(talk) as proxy:
        proxied(monkeypatch, proxy.url)
        url = f"https://127.0.0.1:{free_port()}"
        async with client_of(HOUSES["narrative"], url, retry=Retry(attempts=1)) as client:
            end = await outcome(client.fetch(RunRef("3c90c3cc-0d44-4b50-8888-8dd25736052a")))

    assert isinstance(end, TransportError)
    assert proxy.connections == 0


async def test_a_host_that_only_a_proxy_could_find_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(reply()) as proxy:
        proxied(monkeypatch, proxy.url)
        url = "http://nowhere.invalid"
        async with client_of(HOUSES["narrative"], url, retry=Retry(attempts=1), insecure=True) as client:
            end = await outcome(client.fetch(RunRef("3c90c3cc-0d44-4b50-8888-8dd25736052a")))

    assert isinstance(end, TransportError)
    assert not end.sent
    assert proxy.connections == 0


# Cookies --------------------------------------------------------------------------------------------------------------

JARS = (
    "session=1",
    "session=2; Path=/; Domain=localhost",
    "session=3; Path=/; Domain=.test",
    "session=4; Path=/; Domain=sub.localhost",
    "session=5; Path=/; Domain=example.com; SameSite=None; Secure",
    "__Host-session=6; Path=/; HttpOnly",
)


async def test_no_cookie_is_ever_sent_back() -> None:
    house = HOUSES["narrative"]()
    jars = [f"Set-Cookie: {jar}" for jar in JARS]
    trap = Trap(".*", sends(lambda honest: whole(honest, *jars)))
    async with (
        Front(house, trap) as front,
        client_of(house, f"http://localhost:{front.port}", **QUICK) as client,  # no jar takes a cookie from an address
    ):
        run = await client.start(await house.origin(client))
        for _ in range(3):
            await client.fetch(run)

    assert len(front.seen) == 6
    assert [seen.header("cookie") for seen in front.seen] == [None] * 6
