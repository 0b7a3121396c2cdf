"""What the hostile tests share: a loop in a hurry, servers of raw bytes in front of an honest vendor, and the token."""

import asyncio
import copy
import html
import pickle
import re
import selectors
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from attrs import frozen

from agentruns import AgentRunsError, Client, ConfigurationError, Retry, Run, connect
from agentruns.dialects import conduit, middesk, narrative, origami
from agentruns.dialects.protocol import Dialect
from agentruns.emulator import Emulator, Turn, Vendor
from agentruns.emulator.script import Script
from agentruns.emulator.vendor import Reply
from agentruns.emulator.vendor import Request as Incoming
from tests.raw_server import Seen, Server

# Time -----------------------------------------------------------------------------------------------------------------

GLANCE = 0.002
"""How long, in real seconds, a loop looks at its sockets before it takes the world for idle."""


class _Impatient(selectors.DefaultSelector):
    """A selector that adds up the time for which it should have waited, and did not."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout if timeout is None else min(timeout, GLANCE))
        if not ready and timeout is not None and timeout > GLANCE:
            self.skipped += timeout - GLANCE
        return ready


class HastyLoop(asyncio.SelectorEventLoop):
    """
    A loop on real sockets whose time jumps to the next timer as soon as nothing moves.

    Both ends of a connection have to live in it, and nothing may happen in threads: a name that is looked up, say.
    """

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.skipped


# The token ------------------------------------------------------------------------------------------------------------

TOKEN = "tk+live/7f3a9c1e5b2d8046=="

SPELLINGS = (
    TOKEN,
    TOKEN[:12],
    TOKEN[-12:],
    quote(TOKEN, safe=""),
    quote(TOKEN, safe="").lower(),
    html.escape(TOKEN).replace("/", "&#x2F;"),
    TOKEN.replace("/", r"\/"),
    TOKEN.replace("/", r"\\/"),
    "".join(f"\\u{ord(each):04x}" for each in TOKEN),
)


def _everything_about(error: BaseException) -> Iterable[str]:
    todo: list[BaseException | None] = [error]
    done: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in done:
            continue
        done.add(id(each))
        todo += [each.__cause__, each.__context__]
        yield from traceback.TracebackException.from_exception(each, capture_locals=True).format(chain=False)
        yield from (repr(each), str(each), repr(vars(each)))
        if isinstance(each, AgentRunsError):
            again = pickle.loads(pickle.dumps(each))
            assert (type(again), str(again)) == (type(each), str(each))
            yield from (pickle.dumps(each, 0).decode("latin-1"), repr(vars(again)), repr(copy.copy(each)))


def told(error: BaseException) -> str:
    """Return all that anything could print of an error, of what led to it, and of the frames on the way."""
    return "\n".join(_everything_about(error))


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """
    Return all that anything could print of what was logged, the locals of tracebacks included.

    Not those that asyncio logs in its debug mode, of a socket that breaks while a request is written: its own frame has
    the bytes, and nobody but asyncio can help it.
    """
    texts = [caplog.text]
    for record in caplog.records:
        texts += [record.getMessage(), repr(record.args)]
        if record.name != "asyncio" and record.exc_info and record.exc_info[1] is not None:
            texts += _everything_about(record.exc_info[1])
    return "\n".join(texts)


def assert_hidden(text: str) -> None:
    shown = [spelling for spelling in SPELLINGS if spelling in text]
    at = text.find(shown[0]) if shown else 0
    assert not shown, f"the token shows: ...{text[max(at - 300, 0) : at + 100]}..."


def debugged() -> None:
    """Let asyncio watch over its loop, and tell of everything that takes time."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0


# Honest vendors -------------------------------------------------------------------------------------------------------

BUSINESS = "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"


def answered(vendor: Vendor, token: str, line: str, headers: Iterable[tuple[str, str]], body: bytes) -> Reply:
    """Return what an emulated vendor says to a request, without a server."""
    method, _, target = line.partition(" ")
    parts = urlsplit(target)
    return vendor.respond(
        Incoming(
            method=method,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query)),
            headers={**dict(headers), "Authorization": f"Bearer {token}"},
            content=body,
        )
    )


class House:
    """An honest vendor in memory; a subclass for each knows how a run is started there, and how it is read."""

    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    start_line: ClassVar[str]
    """What, as a pattern, the request that starts a run looks like."""

    poll_line: ClassVar[str]
    repeats_starts: ClassVar[bool] = True
    """Whether a start may be sent again after a lost answer."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, *turns: Turn, script: Script | None = None) -> None:
        self._emulator: Emulator[Any] = Emulator(
            self.name,
            script=script or turns or [Turn("Done.", running=5.0)] * 4,
            token=TOKEN,
            clock=asyncio.get_running_loop().time,
            **self.options,
        )

    @property
    def vendor(self) -> Any:
        return self._emulator.state

    def says(self, seen: Seen) -> bytes:
        """Return the honest answer to a request, as it goes over the wire."""
        headers = re.findall(r"(?m)^([\w-]+): (.*?)\r?$", seen.head)
        reply = answered(self.vendor, TOKEN, seen.line, headers, seen.body)
        lines = [f"{name}: {value}" for name, value in reply.headers.items()]
        head = [f"HTTP/1.1 {reply.status} Said", f"Content-Length: {len(reply.content)}", *lines, "", ""]
        return "\r\n".join(head).encode() + reply.content

    async def origin(self, client: Client) -> Any:
        """Return what starts a run, after making what it needs."""
        raise NotImplementedError


class NarrativeHouse(House):
    name = "narrative"
    dialect: ClassVar[Dialect] = narrative
    start_line = r"POST .*/runs"
    poll_line = r"GET .*/agents/runs/[^/]+"

    async def origin(self, client: Client) -> narrative.UserMessage:
        config = narrative.Config(
            model="anthropic.claude-opus-4.6",
            data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
            max_iterations=8,
            max_tokens=2048,
            output_format_schema=narrative.TEXT_SCHEMA,
        )
        conversation = await client.perform(narrative.create_conversation(config))
        return narrative.UserMessage(conversation.id, "Do it.")


class MiddeskHouse(House):
    name = "middesk"
    dialect: ClassVar[Dialect] = middesk
    start_line = r"POST .*/runs"
    poll_line = r"GET .*/runs/[^/]+"
    repeats_starts = False

    async def origin(self, client: Client) -> middesk.RunRequest:
        return middesk.RunRequest("cip_orchestrator", business_id=BUSINESS)


class OrigamiHouse(House):
    name = "origami"
    dialect: ClassVar[Dialect] = origami
    start_line = r"POST .*/agents"
    poll_line = r"GET .*/agents/[^/]+/runs/[^/]+"
    options: ClassVar[dict[str, Any]] = {"retry_after": 0}

    async def origin(self, client: Client) -> origami.Prompt:
        return origami.Prompt("Find clinics.")


class ConduitHouse(House):
    name = "conduit"
    dialect: ClassVar[Dialect] = conduit
    start_line = r"POST .*/run"
    poll_line = r"GET .*/runs/[^/]+"
    repeats_starts = False
    options: ClassVar[dict[str, Any]] = {"shown_after": 0.2}

    async def origin(self, client: Client) -> conduit.Dispatch:
        return conduit.Dispatch(self.vendor.agent_id, trigger_id=self.vendor.trigger_id, payload={"unit": "12B"})


HOUSES: dict[str, type[House]] = {
    house.name: house for house in (NarrativeHouse, MiddeskHouse, OrigamiHouse, ConduitHouse)
}


# Servers --------------------------------------------------------------------------------------------------------------

Twist: TypeAlias = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]
"""What a server does once it has read a request, and knows the body of the honest answer."""


@frozen
class Trap:
    """
    What a server does to the requests that *line*, a pattern, fits; to *times* of them, or without it to all.

    A request is *done* if the vendor behind does what it asks for; the twist gets the body of the honest answer.
    """

    line: str
    twist: Twist
    times: int | None = None
    done: bool = True


class Front(Server):
    """A server of raw bytes in front of an honest vendor."""

    def __init__(self, house: House, *traps: Trap, port: int = 0, tls: Any = None) -> None:
        super().__init__(self._answer, port=port, tls=tls)
        self._house = house
        self._traps = list(traps)
        self._sprung: dict[int, int] = {}
        self.struck = 0

    def trap(self, *traps: Trap) -> None:
        """Set traps from now on."""
        self._traps += traps

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        seen = self.seen[-1]
        for number, trap in enumerate(self._traps):
            count = self._sprung.get(number, 0)
            if re.fullmatch(trap.line, seen.line) and (trap.times is None or count < trap.times):
                self._sprung[number] = count + 1
                self.struck += 1
                honest = self._house.says(seen) if trap.done else b""
                await trap.twist(writer, honest.partition(b"\r\n\r\n")[2])
                return
        writer.write(self._house.says(seen))
        await writer.drain()

    def asked(self, line: str) -> list[Seen]:
        """Return the requests that a pattern fits."""
        return [seen for seen in self.seen if re.fullmatch(line, seen.line)]


Talk: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Line:
    """A server that does as a function says with each connection, from the first moment on; it counts them."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


# What a client is put through -----------------------------------------------------------------------------------------


def client_of(house: House | type[House], url: str, **options: Any) -> Client:
    """Connect as users do, with no budget to wait for."""
    base = url + urlsplit(house.dialect.BASE_URL).path
    return connect(house.dialect, **{"token": TOKEN, "base_url": base, "budget": 1e6, "retry": Retry(), **options})


async def outcome(asked: Awaitable[Any]) -> Any:
    """
    Return what is awaited, or the error that it ended in, which must be one of those that the documents name.

    Nothing that a server does is a mistake of the caller's, so `ConfigurationError` is none of them. What has not come
    within an hour never will.
    """
    try:
        async with asyncio.timeout(3600):
            return await asked
    except ConfigurationError as error:
        raise AssertionError("this blames the caller") from error
    except AgentRunsError as error:
        return error


@asynccontextmanager
async def besieged(name: str, *traps: Trap, **options: Any) -> AsyncIterator[tuple[House, Front, Client]]:
    """Put a hostile server before a vendor, and connect to it."""
    house = HOUSES[name]()
    async with Front(house, *traps) as front, client_of(house, front.url, **options) as client:
        yield house, front, client


def sane(run: Any) -> Run:
    """Check that what is taken for a run behaves like one, however it came about."""
    assert isinstance(run, Run), run
    assert isinstance(run.id, str)
    assert all(isinstance(each, str) for action in run.actions for each in (action.id, action.name))
    again = Run.from_json(run.to_json())
    assert again == run
    assert again.raw == run.raw
    assert pickle.loads(pickle.dumps(run)) == run
    assert repr(run)
    return run


def errors_of(outcomes: Sequence[Any]) -> list[str]:
    """Name what things ended in, for a message."""
    return [f"{type(each).__name__}: {each}" if isinstance(each, BaseException) else "a run" for each in outcomes]
