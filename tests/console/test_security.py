"""Who may use the console: whoever has the printed address, from a page of the console itself, under a name of ours."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from agentruns.cli.console import emulated, served
from tests.console.plain_browser import SECONDS, Browser, Page, browsing, signed_in

from agentruns.console import AccessGuard  # isort: skip
from agentruns.console.newcomers import Newcomers  # isort: skip
from agentruns.console.security import SESSION_SECONDS  # isort: skip

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
    assert re.match(r"agentruns-\d+=[\w-]{43};", cookie)
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
        assert re.match(r"agentruns-\d+=[\w-]{43};", answer.headers["Set-Cookie"])
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


# Sessions end ---------------------------------------------------------------------------------------------------------


async def cookie_of(browser: Browser) -> str:
    return "; ".join(f"{each.key}={each.value}" for each in browser.session.cookie_jar)


async def sign_out(browser: Browser) -> Page:
    form = next(form for form in (await browser.open("/")).forms if form.action == "/sign-out")
    return await browser.send("/sign-out", form.fields)


@pytest.mark.asyncio
async def test_who_signs_out_is_out_and_so_is_who_has_copied_the_cookie(address: str, browser: Browser) -> None:
    """Another server of this machine is sent the cookie, too: cookies do not tell ports apart."""
    copied = await cookie_of(browser)
    assert await status(f"{browser.base}/", Cookie=copied) == 200

    page = await sign_out(browser)

    assert "Signed out" in page.text
    assert (await browser.open("/")).status == 401
    assert await status(f"{browser.base}/", Cookie=copied) == 401
    assert await status(address) == 303  # the printed address leads in again


@pytest.mark.asyncio
async def test_signing_out_leaves_other_browsers_alone(address: str, browser: Browser) -> None:
    async with signed_in(address) as other:
        await sign_out(browser)
        assert (await other.open("/")).status == 200


@pytest.mark.asyncio
async def test_no_page_of_elsewhere_signs_anybody_out(browser: Browser) -> None:
    form = next(form for form in (await browser.open("/")).forms if form.action == "/sign-out")

    assert (await browser.send("/sign-out", form.fields, origin="https://evil.example")).status == 403
    assert (await browser.send("/sign-out", {"csrf": "nonsense"})).status == 403
    assert (await browser.open("/")).status == 200


@pytest.mark.asyncio
async def test_events_end_with_the_session(browser: Browser) -> None:
    page = await browser.start("plumber")
    async with asyncio.timeout(SECONDS), browser.events(f"{page.path}/events") as events:
        await anext(events)
        await sign_out(browser)
        async for _ in events:
            pass


@pytest.mark.asyncio
async def test_a_session_ends_by_itself() -> None:
    now = 0.0
    guard = AccessGuard(clock=lambda: now)
    async with emulated("conduit") as source, browsing(source, guard) as browser:
        now = SESSION_SECONDS - 1
        assert (await browser.open("/")).status == 200
        now = SESSION_SECONDS
        page = await browser.open("/", HX_Request="true")
        assert page.status == 401
        assert page.headers["HX-Refresh"] == "true"  # a script shows the page that says so


@pytest.mark.asyncio
async def test_events_end_when_their_session_does_by_itself() -> None:
    now = 0.0
    guard = AccessGuard(clock=lambda: now)
    async with emulated("conduit") as source, browsing(source, guard) as browser:
        page = await browser.start("plumber")
        now = SESSION_SECONDS - 0.2
        async with asyncio.timeout(SECONDS), browser.events(f"{page.path}/events") as events:
            async for _ in events:
                pass


@pytest.mark.asyncio
async def test_of_very_many_sessions_the_oldest_end(address: str, browser: Browser) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for _ in range(101):
            async with session.get(address, allow_redirects=False) as answer:
                assert answer.status == 303
    assert (await browser.open("/")).status == 401


# Connections end ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connections(address: str, count: int, *sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    host, _, port = address.partition("/?")[0].removeprefix("http://").partition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        for _, writer in opened:
            writer.writelines(sent)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
async def test_a_connection_that_asks_for_nothing_ends(sent: bytes) -> None:
    guard = AccessGuard(newcomers=Newcomers(patience=0.1))
    async with (
        emulated("conduit") as source,
        served(source, guard=guard) as address,
        asyncio.timeout(SECONDS),
        connections(address, 1, sent) as (reader,),
    ):
        assert await is_ended(reader)
        assert not guard.newcomers


@pytest.mark.asyncio
async def test_idle_connections_keep_nobody_out(address: str, guard: AccessGuard) -> None:
    async with connections(address, 200) as readers:
        async with asyncio.timeout(SECONDS):
            assert await is_ended(readers[0])
        assert len(guard.newcomers) <= 32
        async with signed_in(address) as browser:
            assert (await browser.open("/")).status == 200


@pytest.mark.asyncio
async def test_who_has_signed_in_keeps_the_connection() -> None:
    guard = AccessGuard(newcomers=Newcomers(patience=0.3))
    async with emulated("conduit") as source, browsing(source, guard) as browser:
        page = await browser.start("plumber")
        async with asyncio.timeout(SECONDS), browser.events(f"{page.path}/events") as events:
            async for _, data in events:
                if "Completed" in data:  # after more than three seconds
                    break
        assert not guard.newcomers


def test_secrets_are_long_and_in_no_repr(guard: AccessGuard) -> None:
    other = AccessGuard()

    assert len({guard.token, guard.csrf, guard.ticket(), other.token, other.csrf, other.ticket()}) == 6
    assert min(len(guard.token), len(guard.csrf), len(guard.ticket())) >= 43
    assert not any(secret in repr(guard) for secret in (guard.token, guard.csrf))


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
