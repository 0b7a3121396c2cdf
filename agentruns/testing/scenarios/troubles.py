"""What goes wrong on the way: garbage, redirects, errors by status, limits; and nothing secret in what is told."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from agentruns._values.run import RunStatus
from agentruns.emulator import Fault
from agentruns.errors import (
    AgentRunsError,
    APIError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    ServerError,
)
from agentruns.testing.acts import PLAIN, counted, followed, raises
from agentruns.testing.case import Case
from agentruns.testing.scenario import scenario

_ERRORS: Final[Mapping[int, type[APIError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    418: APIError,
    422: InvalidRequestError,
    429: RateLimitedError,
    500: ServerError,
    503: ServerError,
}


@scenario("garbage while polling is survived", "poll_path")
async def garbage(case: Case) -> None:
    """Answer polls by what is no JSON, by a page, by half an answer and by none."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        at: dict[str, Any] = {"method": "GET", "path": case.poll_path}
        emulator.fail(Fault.malformed("not_json", **at), Fault.malformed("html", **at))
        emulator.fail(Fault.drop(**at), Fault.cut(**at))
        assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED


@scenario("a redirect is not followed", "poll_path")
async def a_redirect(case: Case) -> None:
    """Answer a read by a redirect to another host, which would get the token."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.redirect("http://127.0.0.1:9/elsewhere", method="GET", path=case.poll_path))
        with raises(ProtocolError, "redirect"):
            await client.fetch(run)


@scenario("each class of HTTP error has its exception", "poll_path")
async def each_class_of_error(case: Case) -> None:
    """Answer a read by each status."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator, attempts=1) as client:
        run = await client.start(await case.origin(client, emulator))
        for status, kind in _ERRORS.items():
            emulator.fail(Fault.answer(status, method="GET", path=case.poll_path))
            with raises(kind) as caught:
                await client.fetch(run)
            (error,) = caught
            assert isinstance(error, APIError)
            assert error.status == status
            assert error.message, "the error has no message: `problem` reads none"


@scenario("an error body that nobody knows is told as it came", "poll_path")
async def an_unknown_error_body(case: Case) -> None:
    """Answer a read by errors whose bodies are not the vendor's: of a proxy, empty, of another shape."""
    bodies = [b"", b"<html>Bad gateway</html>", b"null", b"[]", b'"no"', b'{"error": 7}', b'{"detail": [{}]}', b"\xff"]
    async with case.emulator(PLAIN) as emulator, case.connect(emulator, attempts=1) as client:
        run = await client.start(await case.origin(client, emulator))
        for body in bodies:
            emulator.fail(Fault.answer(502, content=body, method="GET", path=case.poll_path))
            with raises(ServerError) as caught:
                await client.fetch(run)
            mistake = f"{case.vendor.NAME}.problem failed"
            assert mistake not in str(caught[0]), f"`problem` cannot read {body!r}: {caught[0]}"


@scenario("a 429 is waited out, in seconds", "start_path", "poll_path")
async def a_429_in_seconds(case: Case) -> None:
    """Refuse a start and two polls for lack of room."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.answer(429, retry_after=0, method="GET", path=case.poll_path, times=2))
        emulator.fail(Fault.answer(429, retry_after=0, method="POST", path=case.start_path))
        assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        counted(emulator, 1)


@scenario("a 429 is waited out, until a date", "poll_path")
async def a_429_until_a_date(case: Case) -> None:
    """Refuse a poll until a moment that is named."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.answer(429, retry_after=timedelta(seconds=1), method="GET", path=case.poll_path))
        assert (await client.result(run, timeout=20)).status is RunStatus.COMPLETED


@scenario("no text shows the token", "poll_path")
async def no_text_shows_the_token(case: Case) -> None:
    """Look for the token in what is logged, raised, shown and sent, while all goes well and while it goes wrong."""
    with _logged() as lines:
        async with case.emulator(PLAIN) as emulator:
            token = emulator.token
            async with case.connect(emulator, attempts=1) as client:
                lines.append(repr(client))
                states = await followed(case, client, emulator)
                for status in (400, 401, 500):
                    echo = f'{{"error": "the token {token} is not right"}}'.encode()
                    emulator.fail(Fault.answer(status, content=echo, method="GET", path=case.poll_path))
                    with raises(AgentRunsError) as caught:
                        await client.fetch(states[-1])
                    lines += [repr(caught[0]), *traceback.format_exception(caught[0])]
                emulator.fail(Fault.drop(method="GET", path=case.poll_path))
                with raises(AgentRunsError) as caught:
                    await client.fetch(states[-1])
                lines += traceback.format_exception(caught[0])
            lines += [text for run in states for text in (repr(run), run.to_json())]
            lines += [repr((each.path, each.body)) for each in emulator.exchanges]
    shown = [line for line in lines if token in line]
    assert not shown, f"the token stands in {shown[0][:300]!r}"


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Give what is logged within, as lines that grow."""
    lines: list[str] = []
    logger, handler = logging.getLogger("agentruns"), _Lines(lines)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
