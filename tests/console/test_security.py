"""Who may use the console: whoever has the printed address, from a page of the console itself, under a name of ours."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from agentruns.cli.console import emulated, served
from tests.console.plain_browser import Browser, signed_in

from agentruns.console import AccessGuard  # isort: skip

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
PLACES = ["/", "/work/w1", "/events", "/work/w1/events", "/static/console.css", "/nowhere"]


@pytest.fixture
def guard() -> AccessGuard:
    return AccessGuard()


@pytest_asyncio.fixture
async def address(guard: AccessGuard) -> AsyncIterator[str]:
    async with emulated("conduit") as source, served(source, guard=guard) as address:
        yield address


@pytest_asyncio.fixture
async def browser(address: str) -> AsyncIterator[Browser]:
    async with signed_in(address) as browser:
        yield browser


async def status(url: str, *, method: str = "GET", **headers: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PLACES)
async def test_nothing_is_shown_without_the_cookie(address: str, path: str) -> None:
    base = address.partition("/?")[0]

    assert await status(base + path) == 401
    assert await status(base + path, Cookie=f"agentruns-{base.rpartition(':')[2]}=nonsense") == 401


@pytest.mark.asyncio
async def test_the_printed_address_is_exchanged_for_a_cookie(address: str, guard: AccessGuard) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(address + "&which=done", allow_redirects=False) as answer,
    ):
        assert answer.status == 303
        assert answer.headers["Location"] == "/?which=done"
        cookie = answer.headers["Set-Cookie"]
    assert guard.session in cookie
    assert guard.token not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


@pytest.mark.asyncio
async def test_whoever_comes_by_a_link_of_elsewhere_is_led_in_by_a_page_of_ours(
    address: str, guard: AccessGuard
) -> None:
    """A browser sends a strict cookie only where a page of the same site leads, and not after a redirect."""
    headers = {"Sec-Fetch-Site": "cross-site"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(address.replace("/?", "//evil.example/%22%3E?a=1&"), headers=headers) as answer,
    ):
        assert answer.status == 200
        assert guard.session in answer.headers["Set-Cookie"]
        text = await answer.text()
    assert 'content="0;url=/evil.example/%22%3E?a=1"' in text
    assert guard.token not in text


@pytest.mark.asyncio
async def test_a_ticket_opens_the_console_once(address: str, guard: AccessGuard) -> None:
    url = address.replace(guard.token, guard.ticket())

    assert await status(url) == 303
    assert await status(url) == 403
    assert await status(address) == 303


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["", "nonsense", "ü"])
async def test_a_wrong_token_opens_nothing(address: str, token: str) -> None:
    base = address.partition("/?")[0]

    assert await status(f"{base}/?token={token}") == 403


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "a b"]
)
async def test_a_name_that_is_not_ours_is_not_answered(address: str, host: str) -> None:
    """A page of the web may let its own name point at this machine; the browser then says that name."""
    assert await status(address, Host=host) == 421


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:1", "[::1]:1"])
async def test_every_name_of_this_machine_is_ours(browser: Browser, host: str) -> None:
    page = await browser.open("/", Host=host)

    assert page.status == 200


@pytest.mark.asyncio
async def test_a_console_that_is_exposed_answers_to_addresses_and_its_own_name_only() -> None:
    guard = AccessGuard(hosts=frozenset({"desk.example"}), exposed=True)
    async with emulated("conduit") as source, served(source, guard=guard) as address:
        assert await status(address, Host="10.0.0.1:5") == 303
        assert await status(address, Host="desk.example:5") == 303
        assert await status(address, Host="evil.example:5") == 421


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {},
        {"Origin": "", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_form_from_elsewhere_is_refused(browser: Browser, headers: dict[str, str]) -> None:
    form = (await browser.open("/")).forms[0]
    body = [*form.fields, ("job", "plumber")]

    async with browser.session.post(f"{browser.base}/start", data=body, headers=headers) as answer:
        assert answer.status == 403
    assert "There is no work" in (await browser.open("/")).text


@pytest.mark.asyncio
async def test_a_form_of_ours_that_another_site_sends_is_refused(browser: Browser) -> None:
    form = (await browser.open("/")).forms[0]
    page = await browser.send("/start", [*form.fields, ("job", "plumber")], Sec_Fetch_Site="same-site")

    assert page.status == 403


@pytest.mark.asyncio
@pytest.mark.parametrize("csrf", ["", "nonsense", "ü"])
async def test_a_form_without_our_token_is_refused(browser: Browser, csrf: str) -> None:
    page = await browser.send("/start", {"csrf": csrf, "job": "plumber"})

    assert page.status == 403
    assert "Load the page again" in page.text


@pytest.mark.asyncio
async def test_only_forms_are_taken_and_only_small_ones(browser: Browser) -> None:
    assert (await browser.send("/start", b"{}", Content_Type="application/json")).status == 415
    assert (await browser.send("/start", {"csrf": "x" * 700_000})).status == 413


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(browser: Browser, method: str) -> None:
    assert await status(f"{browser.base}/", method=method) in {403, 405}


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PLACES)
async def test_every_answer_has_the_headers(browser: Browser, path: str) -> None:
    if path.endswith("events"):
        await browser.start("plumber")
    async with browser.session.get(browser.base + path) as answer:
        headers = answer.headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers.getall("Cache-Control") == ["no-store"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["..%2Fapp.py", "../app.py", "NOTICE", "console.js%00"])
async def test_only_the_files_of_the_pages_are_given(browser: Browser, name: str) -> None:
    assert (await browser.open(f"/static/{name}")).status == 404


@pytest.mark.asyncio
async def test_two_consoles_do_not_take_each_others_cookies(address: str) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        emulated("conduit") as source,
        served(source) as other,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        for each in (address, other, address.partition("?")[0], other.partition("?")[0]):
            async with session.get(each) as answer:
                assert answer.status == 200


def test_secrets_are_long_and_in_no_repr(guard: AccessGuard) -> None:
    other = AccessGuard()

    assert len({guard.token, guard.session, guard.csrf, other.token, other.session, other.csrf}) == 6
    assert min(len(guard.token), len(guard.session), len(guard.csrf)) >= 43
    assert not any(secret in repr(guard) for secret in (guard.token, guard.session, guard.csrf))


def test_no_template_has_what_the_policy_forbids() -> None:
    """Inline scripts, styles and handlers would not run, and files of elsewhere would not load."""
    from agentruns import console

    folder = Path(console.__file__).parent
    for path in [*(folder / "templates").iterdir(), folder / "static" / "icon.svg"]:
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=\"/static/)|<style|\sstyle=|\son\w+=|javascript:|hx-on", text), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path
        assert "|safe" not in text.replace(" ", ""), path


@pytest.mark.asyncio
async def test_a_charset_that_is_none_is_refused(browser: Browser) -> None:
    kind = "application/x-www-form-urlencoded; charset=bogus"
    assert (await browser.send("/start", b"a=b", Content_Type=kind)).status == 415


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/%5Cevil.test", "//evil.test", "/\\\\evil.test", "/\\/evil.test"])
async def test_the_token_leads_to_no_other_host(path: str, address: str) -> None:
    base, _, token = address.partition("/?")
    host, _, port = base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path}?{token} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    place = re.search(r"(?i)^location: (.*?)\r$", answer, re.MULTILINE)
    assert place is None or not re.match(r"[/\\]{2}", place[1]), answer


@pytest.mark.asyncio
async def test_what_is_no_request_is_answered_without_a_word_on_stderr(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = address.partition("/?")[0].removeprefix("http://").partition(":")
    for line in (b"GET /\xff?token=secret HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        writer.write_eof()
        await reader.read()
        writer.close()
    assert [record for record in caplog.records if "secret" in record.getMessage() or record.exc_info] == []
