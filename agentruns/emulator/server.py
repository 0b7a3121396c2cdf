"""The emulator: a real HTTP server on loopback, with a log of what was asked and a plan of what goes wrong."""

from __future__ import annotations

import asyncio
import fnmatch
import importlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Literal, Self, TypeVar, cast, overload

import attrs
from aiohttp import web
from attrs import frozen

from .clock import Clock
from .delivery import send, struck
from .faults import Fault, Faults
from .schema import JSON
from .script import Script, Turn, checked
from .vendor import Ids, Reply, Request, Stage, Vendor

if TYPE_CHECKING:
    from .a2a import A2A
    from .conduit import Conduit
    from .langgraph import LangGraph
    from .middesk import Middesk
    from .narrative import Narrative
    from .openai_responses import OpenAIResponses
    from .origami import Origami

VENDORS: Final[Mapping[str, str]] = {
    "narrative": "Narrative",
    "middesk": "Middesk",
    "origami": "Origami",
    "conduit": "Conduit",
    "openai_responses": "OpenAIResponses",
    "a2a": "A2A",
    "langgraph": "LangGraph",
}
"""By the name that `Emulator` takes, the class of the vendor in the module of that name."""


def vendor_of(name: str | type[Vendor]) -> type[Vendor]:
    """Return the class of a vendor by its name, or the class as it is."""
    if not isinstance(name, str):
        return name
    if name not in VENDORS:
        raise ValueError(f"unknown vendor {name!r}; known are {', '.join(sorted(VENDORS))}")
    return cast("type[Vendor]", getattr(importlib.import_module(f"agentruns.emulator.{name}"), VENDORS[name]))


V = TypeVar("V", bound=Vendor)


@frozen(kw_only=True)
class Exchange:
    """One request and what became of it.

    `status` is None when the connection was cut before an answer. `started` and `finished` are seconds since the
    emulator was made, by its clock; `finished` is None while the request is in work. The Authorization header is not
    kept.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: JSON
    status: int | None
    started: float
    finished: float | None
    fault: Fault | None


class Emulator(Generic[V]):
    """Serve one vendor's API on loopback.

    `vendor` is a name in `VENDORS`, or a subclass of `Vendor` of your own. Use it as `async with` (serves in the
    running loop) or as plain `with` (serves from a thread of its own). `options` are the vendor's own, see for example
    `NarrativeOptions`. State, log and faults outlive a stop.
    """

    # The parameters are repeated, and not a TypedDict of settings to unpack: mypy knows only closed ones (no
    # `extra_items`, PEP 728), which would list all options of the four vendors a second time.
    @overload
    def __init__(
        self: Emulator[Narrative],
        vendor: Literal["narrative"] = "narrative",
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[Middesk],
        vendor: Literal["middesk"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[Origami],
        vendor: Literal["origami"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[Conduit],
        vendor: Literal["conduit"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[OpenAIResponses],
        vendor: Literal["openai_responses"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[A2A],
        vendor: Literal["a2a"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[LangGraph],
        vendor: Literal["langgraph"],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self: Emulator[Vendor],
        vendor: str,
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    @overload
    def __init__(
        self,
        vendor: type[V],
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None: ...
    def __init__(
        self,
        vendor: str | type[Vendor] = "narrative",
        *,
        script: Script | None = None,
        token: str = "emulator-token",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        wall_start: datetime | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None:
        kind = vendor_of(vendor)
        if not token or token != token.strip():
            raise ValueError("a token is a word without blanks around it")
        self.token = token
        self._name = kind.name
        self._address = (host, port)
        self._stage = Stage(
            token=token,
            clock=clock or time.monotonic,
            wall_start=wall_start or datetime.now(UTC),
            script=checked(script),
            ids=Ids(seed),
        )
        self._vendor = cast(V, kind.build(self._stage, options))
        self.faults = Faults(self._place)
        self._log: list[Exchange] = []
        self._base_url: str | None = None
        self._runner: web.ServerRunner | None = None
        self._thread: _Thread | None = None
        self._working: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        return f"<Emulator {self._name} {self._base_url or 'not running'}>"

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        if self._base_url is None:
            raise RuntimeError("the emulator is not running: enter it with `with` or `async with`")
        return self._base_url

    @property
    def state(self) -> V:
        """The vendor's state, to look at."""
        return self._vendor

    @property
    def script(self) -> Script:
        """What the agent does in the runs to come."""
        return self._stage.script

    @script.setter
    def script(self, script: Script | None) -> None:
        self._stage.script = checked(script)

    def alter(self, alteration: Callable[[Turn], Turn] | None) -> None:
        """Let *alteration* change each turn before it is played, whatever the script says; None for none."""
        self._stage.alter = alteration

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """All requests, in the order they came."""
        return tuple(self._log)

    def requests(self, method: str = "*", path: str = "*") -> tuple[Exchange, ...]:
        """Filter the log by shell patterns."""
        return tuple(
            entry
            for entry in self.exchanges
            if fnmatch.fnmatchcase(entry.method, method) and fnmatch.fnmatchcase(entry.path, path)
        )

    def fail(self, *faults: Fault) -> None:
        """Plan faults."""
        self.faults.add(*faults)

    async def start(self) -> None:
        """Serve in the running loop."""
        if self._base_url is not None or self._runner is not None:
            raise RuntimeError("the emulator is running already")
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, *self._address).start()
        except BaseException:
            await self.stop()
            raise
        host, port = self._runner.addresses[0][:2]
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._base_url = f"http://{authority}{self._vendor.prefix}"

    async def stop(self) -> None:
        """Close all connections and the socket; requests still in work are given up."""
        runner, self._runner, self._base_url = self._runner, None, None
        working = tuple(self._working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)  # lets closed connections say goodbye

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        if self._base_url is not None:
            raise RuntimeError("the emulator is running already")
        self._thread = _Thread(self)
        self._thread.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def _place(self, fault: Fault) -> Fault:
        if fault.kind != "vendor":
            return fault
        plants = self._vendor.plants
        if fault.target not in plants:
            raise ValueError(f"{self._name} has no fault {fault.target!r}; it has {', '.join(sorted(plants))}")
        method, path = plants[fault.target]
        return attrs.evolve(
            fault,
            method=method if fault.method == "*" else fault.method,
            path=path if fault.path == "*" else fault.path,
        )

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        task = cast("asyncio.Task[object]", asyncio.current_task())  # aiohttp handles each request in a task
        self._working.add(task)
        try:
            return await self._exchange(incoming)
        finally:
            self._working.discard(task)

    async def _exchange(self, incoming: web.BaseRequest) -> web.StreamResponse:
        content = await incoming.content.read()
        fault = self.faults.take(incoming.method, incoming.path)
        request = Request(
            method=incoming.method,
            path=incoming.path,
            query=dict(incoming.query),
            headers=incoming.headers,
            content=content,
            planted=fault.target if fault is not None and fault.kind == "vendor" else None,
        )
        kept = incoming.headers.copy()
        kept.popall("Authorization", None)
        entry = self._arrived(attrs.evolve(request, headers=kept), fault)
        slot = len(self._log)
        self._log.append(entry)
        reply = await self._reply(request, fault)
        # before the answer leaves, so that a caller who has it finds it here
        status = None if reply is None else reply.status
        self._log[slot] = attrs.evolve(entry, status=status, finished=self._stage.now())
        return await send(incoming, reply)

    def _arrived(self, request: Request, fault: Fault | None) -> Exchange:
        return Exchange(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.json,
            status=None,
            started=self._stage.now(),
            finished=None,
            fault=fault,
        )

    async def _reply(self, request: Request, fault: Fault | None) -> Reply | None:
        if fault is None or fault.kind == "vendor":
            return self._vendor.respond(request)
        if fault.kind == "delay" and not fault.committed:
            await asyncio.sleep(fault.seconds)
        handled = fault.committed or fault.kind == "delay"
        reply = self._vendor.respond(request) if handled else Reply()
        if fault.kind == "delay" and fault.committed:
            await asyncio.sleep(fault.seconds)
        return struck(fault, reply, self._vendor, request.path)


class _Thread:
    """A thread whose own loop serves one emulator until closed."""

    def __init__(self, emulator: Emulator[V]) -> None:
        self._emulator = emulator
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="agentruns-emulator", daemon=True)

    def open(self) -> None:
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self._thread.join()
            raise

    def close(self) -> None:
        loop, closing = self._ready.result()
        loop.call_soon_threadsafe(closing.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        closing = asyncio.Event()
        try:
            await self._emulator.start()
        except BaseException as error:  # handed to the thread that waits in open()
            self._ready.set_exception(error)
            return
        self._ready.set_result((asyncio.get_running_loop(), closing))
        await closing.wait()
        await self._emulator.stop()
