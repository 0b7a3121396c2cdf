"""The client without await: the same calls as the async one, from any thread, interrupted and left as that is."""

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, get_overloads

import attrs
import pytest

import agentruns
from agentruns import (
    AgentRunsError,
    Backoff,
    BatchProgress,
    ConfigurationError,
    ConnectOptions,
    Retry,
    RunRef,
    RunStatus,
    StreamOptions,
    Tools,
    _connect,
    blocking,
    narrative,
    origami,
)
from agentruns.blocking.iterating import Iteration
from agentruns.blocking.loop_thread import HandedOver, LoopThread
from agentruns.emulator import Call, Emulator, Turn
from tests.guides import ROOT, blocks_of

QUICK = Backoff(initial=0.01, maximum=0.05)
CONFIG = narrative.Config(
    model="anthropic.claude-opus-4.6",
    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
    max_iterations=8,
    max_tokens=2048,
    output_format_schema=narrative.TEXT_SCHEMA,
)
BOOKING = [Turn(calls=[Call("book", {"slot": "now"})]), Turn("Booked.")]
FOR_EVER = [Turn("Never.", running=600)]

NarrativeClient = blocking.Client[narrative.UserMessage, narrative.NarrativeRun]


def linked(emulator: Emulator[Any], **options: Any) -> NarrativeClient:
    retry = Retry(backoff=QUICK)
    return blocking.connect(
        narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=retry, **options
    )


@contextmanager
def opened(script: Any = None, **options: Any) -> Iterator[tuple[NarrativeClient, Emulator[Any]]]:
    with Emulator("narrative", script=script) as emulator, linked(emulator, **options) as client:
        yield client, emulator


def message(client: NarrativeClient, text: str = "Hello.", tools: Any = None) -> narrative.UserMessage:
    declared = [] if tools is None else [narrative.client_tools(tools, alias="user")]
    config = attrs.evolve(CONFIG, client_tools=declared)
    return narrative.UserMessage(client.perform(narrative.create_conversation(config)).id, text)


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


# The face is that of the async client ---------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"Unpack[StreamOptions]": StreamOptions, "Unpack[ConnectOptions]": ConnectOptions}


def parameters(function: Any) -> dict[str, tuple[Any, str]]:
    """Return the kind and the annotation of each parameter; those that options stand for, one by one."""
    found: dict[str, tuple[Any, str]] = {}
    for each in inspect.signature(function).parameters.values():
        if each.annotation in OPTIONS:
            options = OPTIONS[each.annotation].__annotations__
            found.update((name, (each.KEYWORD_ONLY, kind.__forward_arg__)) for name, kind in options.items())
        else:
            found[each.name] = each.kind, each.annotation
    return found


def defaults(function: Any) -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def returned(function: Any) -> str:
    """Return what a function returns, as the blocking client calls it."""
    text = str(inspect.signature(function).return_annotation)
    if text.startswith("AsyncGenerator["):
        return "Iteration" + text.removeprefix("AsyncGenerator").removesuffix(", None]") + "]"
    return text.replace("AsyncIterator[", "Iteration[")


def public(cls: type) -> list[str]:
    renamed = {"aclose": "close", "asend": "", "athrow": ""}
    names = [renamed.get(name, name) for name in dir(cls) if not name.startswith("_")]
    return sorted(filter(None, names))


METHODS = public(agentruns.Client)


def test_no_method_is_missing_and_none_is_added() -> None:
    assert public(blocking.Client) == METHODS
    assert {"start", "fetch", "stream", "result", "resume", "cancel", "runs", "batch", "perform"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_and_returns_what_the_async_one_does(name: str) -> None:
    ours, theirs = getattr(blocking.Client, name), getattr(agentruns.Client, name)
    assert parameters(ours) == parameters(theirs)
    assert returned(ours) == returned(theirs)
    if parameters(ours).keys() == defaults(ours).keys():
        assert defaults(ours) == defaults(theirs)
    for our, their in zip(get_overloads(ours), get_overloads(theirs), strict=True):
        assert parameters(our) == parameters(their)
        assert defaults(our) == defaults(their)
        assert returned(our) == returned(their)


def test_connect_takes_what_the_async_one_takes() -> None:
    assert parameters(blocking.connect) == parameters(_connect.connect)
    for ours, theirs in zip(get_overloads(blocking.connect), get_overloads(_connect.connect), strict=True):
        assert parameters(ours) == parameters(theirs)
        assert returned(ours) == returned(theirs)


@pytest.mark.parametrize("name", ["RunStream", "Batch", "EventStream"])
def test_what_is_iterated_over_has_what_the_async_one_has(name: str) -> None:
    ours = Iteration if name == "EventStream" else getattr(blocking, name)
    assert public(ours) == public(getattr(agentruns, name))


# Calls ----------------------------------------------------------------------------------------------------------------


def test_a_run_goes_to_its_end_and_its_handlers_are_threads_that_may_use_the_client() -> None:
    tools, seen = Tools(), list[Any]()
    with opened(BOOKING) as (client, _):

        @tools.add
        def book(slot: str) -> bool:
            seen.append((slot, threading.current_thread(), client.fetch(agentruns.tools.current_run()).status))
            return True

        run = client.result(message(client, tools=tools), tools=tools)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "Booked.")
    ((slot, thread, status),) = seen
    assert (slot, status) == ("now", RunStatus.REQUIRES_ACTION)
    assert thread is not threading.main_thread()


def test_the_states_of_a_run_are_iterated_over_and_a_pause_is_answered_by_hand() -> None:
    with opened(BOOKING) as (client, _):
        declared = {"book": lambda slot: True}
        origin = message(client, tools=declared)
        with client.stream(origin) as stream:
            states = [run.status for run in stream]
            assert stream.run is not None
            paused = stream.run
            assert next(stream, None) is None
            assert stream.outputs == ()
        assert states[-1] is RunStatus.REQUIRES_ACTION
        followed = client.resume(paused, [agentruns.ToolOutput(each, True) for each in paused.actions])
        assert client.stream(followed).result().output == "Booked."
        begun = client.start(message(client))
        assert client.fetch(begun).id == begun.id
        assert client.stats().watched == 0
        assert client.heard(begun) is False


def test_what_the_async_client_raises_is_raised() -> None:
    with opened([Turn(error="oops")]) as (client, _):
        with pytest.raises(agentruns.RunFailedError, match="oops"):
            client.result(message(client))
        with pytest.raises(agentruns.NotFoundError):
            client.fetch(RunRef("8a1b7c1e-0000-4f5e-9d0a-6f2c1b7e4a11"))
        with pytest.raises(agentruns.UnsupportedError):
            client.runs()
        with pytest.raises(ConfigurationError, match="starts a run from UserMessage"):
            client.stream(42)  # type: ignore[arg-type]


def test_a_key_names_work_in_a_journal(tmp_path: Path) -> None:
    with opened(journal=tmp_path / "runs.db") as (client, _):
        origin = message(client)
        run = client.result(origin, key="one")
        client.stream(origin, key="two").close()
        work = client.work("one")
        assert work is not None
        assert work.run == run
        assert [each.key for each in client.unfinished()] == []
        assert client.prune(older_than=0) == 1


def test_lists_are_read_page_by_page() -> None:
    with (
        Emulator("middesk") as emulator,
        blocking.connect("middesk", token=emulator.token, base_url=emulator.base_url) as client,
    ):
        begun = {
            client.start(
                agentruns.middesk.RunRequest("cip_orchestrator", business_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11")
            ).id
            for _ in range(3)
        }
        assert {run.id for run in client.runs()} == begun
        for run in client.runs():
            assert run.id in begun
            break


def test_many_threads_use_one_client() -> None:
    with opened() as (client, _), ThreadPoolExecutor(8) as pool:
        texts = [f"Number {number}." for number in range(24)]
        outputs = pool.map(lambda text: client.result(message(client, text)).output, texts)
        assert list(outputs) == [f"You said: {text}" for text in texts]


# Batches --------------------------------------------------------------------------------------------------------------


def test_a_batch_takes_its_items_in_the_thread_that_iterates_and_prepares_them_in_others() -> None:
    takers, preparers, told = set(), set(), list[BatchProgress]()

    def items() -> Iterator[int]:
        for number in range(6):
            takers.add(threading.current_thread())
            yield number

    with opened() as (client, _):

        def prepare(number: int) -> narrative.UserMessage:
            preparers.add(threading.current_thread())
            return message(client, str(agentruns.tools.current_item()))

        def tell(progress: BatchProgress) -> None:
            takers.add(threading.current_thread())
            told.append(progress)

        batch = client.batch(items(), limit=3, prepare=prepare, on_progress=tell)
        outcomes = {outcome.item: outcome.run and outcome.run.output for outcome in batch}
        assert outcomes == {number: f"You said: {number}" for number in range(6)}
        assert batch.taken == batch.progress().done == told[-1].done == 6
        assert (batch.refusal, dict(batch.states())) == (None, {})
    assert takers == {threading.current_thread()}
    assert not preparers & takers


def test_items_may_come_from_an_async_iterable_and_be_prepared_by_an_async_function() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    with opened() as (client, _):
        origin = message(client)

        async def prepare(number: int) -> narrative.UserMessage:
            return narrative.UserMessage(origin.conversation_id, str(number))

        outcomes = list(client.batch(items(), limit=1, prepare=prepare, ordered=True))
    assert [outcome.item for outcome in outcomes] == [1, 2]
    assert [outcome.error for outcome in outcomes] == [None, None]


def test_what_the_items_raise_ends_the_batch_once_what_was_taken_is_over() -> None:
    def items(client: NarrativeClient) -> Iterator[narrative.UserMessage]:
        yield message(client)
        raise LookupError("no more rows")

    with opened() as (client, _):
        batch = client.batch(items(client))
        assert next(batch).error is None
        with pytest.raises(LookupError, match="no more rows"):
            next(batch)
        with pytest.raises(ConfigurationError, match="origins is 42"):
            client.batch(42)  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="prepare is 42"):
            client.batch([], prepare=42)  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="on_progress is 42"):
            client.batch([], on_progress=42)  # type: ignore[call-overload]


def test_what_on_progress_raises_the_batch_raises() -> None:
    def tell(_: BatchProgress) -> None:
        raise LookupError("no bar")

    with opened(FOR_EVER) as (client, _):
        batch = client.batch([message(client)], on_progress=tell)
        with pytest.raises(LookupError, match="no bar"):
            next(batch)


def test_a_batch_that_is_stopped_takes_no_more_and_shows_the_rest() -> None:
    taken = list[int]()

    def items(client: NarrativeClient) -> Iterator[narrative.UserMessage]:
        for number in range(100):
            taken.append(number)
            yield message(client, str(number))

    with opened() as (client, _):
        batch = client.batch(items(client), limit=2)
        next(batch)
        batch.stop()
        rest = list(batch)
    assert len(rest) < 4
    assert len(taken) == batch.taken


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


def test_a_thread_that_is_interrupted_while_it_takes_an_item_may_go_on() -> None:
    class Items(Iterator[narrative.UserMessage]):
        def __init__(self, origins: list[narrative.UserMessage]) -> None:
            self._left = origins
            self._is_interrupted = False

        def __next__(self) -> narrative.UserMessage:
            if not self._is_interrupted:
                self._is_interrupted = True
                raise Interrupted
            if not self._left:
                raise StopIteration
            return self._left.pop()

    with opened() as (client, _):
        batch = client.batch(Items([message(client), message(client)]))
        with pytest.raises(Interrupted):
            next(batch)
        assert [outcome.error for outcome in batch] == [None, None]


# Interrupted, left, closed --------------------------------------------------------------------------------------------

interrupts = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")


@contextmanager
def interrupted_when(holds: Callable[[], object]) -> Iterator[None]:
    """Interrupt the main thread once something holds."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def watch() -> None:
        until(holds)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


@interrupts
def test_an_interrupted_wait_goes_on_at_the_next_step() -> None:
    with opened(lambda _: Turn("Done.", running=0.5)) as (client, emulator):
        stream = client.stream(message(client))
        begun = next(stream)
        with pytest.raises(Interrupted), interrupted_when(lambda: emulator.requests("GET")):
            stream.result()
        assert stream.result().id == begun.id
        assert len(emulator.requests("POST", "*/runs")) == 1


@interrupts
@pytest.mark.usefixtures("prompt_origami")
def test_an_interrupted_wait_cancels_the_run_where_it_is_told_to_and_waits_for_that() -> None:
    with (
        Emulator("origami", script=FOR_EVER, retry_after=0) as emulator,
        blocking.connect(origami, token=emulator.token, base_url=emulator.base_url) as client,
    ):
        with pytest.raises(Interrupted), interrupted_when(lambda: emulator.requests("GET", "*/runs/*")):
            client.result(origami.Prompt("Find clinics."), on_cancel="cancel")
        assert len(emulator.requests("POST", "*/cancel")) == 1


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    class Owner:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    loop = LoopThread()
    loop.open(Owner())
    try:
        yield loop
    finally:
        loop.close()


async def numbers(ended: threading.Event) -> AsyncGenerator[int, None]:
    try:
        for number in range(3):
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        ended.set()


def test_an_iteration_that_is_left_early_is_closed() -> None:
    with loop_thread() as loop:
        ended = threading.Event()
        for number in Iteration(loop, numbers(ended)):
            assert number == 0
            break
        assert ended.wait(20)
        closed = threading.Event()
        with Iteration(loop, numbers(closed)) as iteration:
            assert next(iteration) == 0
        assert closed.is_set()
        assert list(iteration) == []


def test_a_stream_that_is_left_early_leaves_nothing_behind_and_does_not_touch_the_run() -> None:
    with opened(FOR_EVER) as (client, _):
        for run in client.stream(message(client)):
            assert run.status.in_flight
            break
        until(lambda: client.stats().watched == 0)
        batch = client.batch([message(client)])
        with pytest.raises(Interrupted), interrupted_when(lambda: dict(batch.states()).get("running")):
            next(batch)
        batch.close()
        assert client.stats().watched == 0


def test_who_waits_while_another_thread_closes_the_client_is_told() -> None:
    told = list[BaseException]()

    def wait(client: NarrativeClient, origin: narrative.UserMessage) -> None:
        try:
            client.result(origin)
        except AgentRunsError as error:
            told.append(error)

    with opened(FOR_EVER) as (client, emulator):
        waiter = threading.Thread(target=wait, args=(client, message(client)))
        waiter.start()
        until(lambda: emulator.requests("GET"))
    waiter.join(20)
    assert "closed" in str(*told)


def test_work_that_is_under_way_ends_with_the_thread_of_the_loop() -> None:
    told = list[BaseException]()
    begun = threading.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    def wait() -> None:
        with pytest.raises(AgentRunsError, match="another thread closes the client") as raised:
            loop.call(never)
        told.append(raised.value)

    with loop_thread() as loop:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert begun.wait(20)
    waiter.join(20)
    assert len(told) == 1


def test_work_whose_caller_is_interrupted_before_it_begins_never_begins() -> None:
    begun = list[int]()

    async def work() -> None:
        begun.append(1)

    async def hand_over() -> None:
        call.begin()
        await asyncio.sleep(0)

    call, loop = HandedOver(work), asyncio.new_event_loop()
    loop.close()
    call.give_up(loop)
    asyncio.run(hand_over())
    with pytest.raises(AgentRunsError):
        call.result()
    assert begun == []


# Wrong use ------------------------------------------------------------------------------------------------------------


def test_a_running_event_loop_is_not_stopped_for_it() -> None:
    async def within(client: NarrativeClient) -> None:
        with pytest.raises(ConfigurationError, match="use the async client there: `async with"):
            client.fetch(RunRef("r"))
        with pytest.raises(ConfigurationError, match="use the async client there"), linked(emulator):
            pass

    with Emulator("narrative") as emulator, linked(emulator) as client:
        asyncio.run(within(client))


def test_an_async_handler_cannot_use_the_client_whose_loop_it_is_in() -> None:
    tools = Tools()
    with opened(BOOKING) as (client, _):

        @tools.add
        async def book(slot: str) -> bool:
            return client.stats().watched == 1

        with pytest.raises(ConfigurationError, match="use the async client there"):
            client.result(message(client, tools=tools), tools=tools)


def test_the_cell_of_a_notebook_may_wait_although_the_loop_of_its_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cell() -> None:
        with linked(emulator) as client:
            assert client.result(message(client)).status is RunStatus.COMPLETED

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    with Emulator("narrative") as emulator:
        monkeypatch.setitem(sys.modules, "IPython", kernel)
        asyncio.run(cell())
        terminal = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
        monkeypatch.setitem(sys.modules, "IPython", terminal)
        with pytest.raises(ConfigurationError, match="use the async client there"):
            asyncio.run(cell())


def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with Emulator("narrative") as emulator:
        client = linked(emulator)
        with pytest.raises(ConfigurationError, match=r"within `with blocking\.connect"):
            client.stats()
        with client:
            stream = client.stream(message(client))
            with pytest.raises(ConfigurationError, match="open already"):
                client.__enter__()
            assert "open>" in repr(client)
            assert repr(stream).startswith("<blocking <RunStream")
        with pytest.raises(ConfigurationError, match="not open"):
            client.stats()
        with pytest.raises(ConfigurationError, match="not open"):
            next(stream)
        stream.close()


def test_a_forked_process_is_told_to_open_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as (client, _):
        with monkeypatch.context() as child:
            child.setattr("agentruns.blocking.loop_thread.os.getpid", lambda: -1)
            with pytest.raises(ConfigurationError, match="before the process was forked"):
                client.stats()
            with pytest.raises(ConfigurationError, match="before the process was forked"):
                client.__enter__()
        assert client.stats().watched == 0


def test_a_client_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with Emulator("narrative") as emulator:
        alive = threading.active_count()
        with pytest.raises(AgentRunsError), linked(emulator, journal=tmp_path):
            pass
        until(lambda: threading.active_count() == alive)
    assert threading.active_count() == before


def test_a_session_of_the_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="event loop of its own"):
        blocking.connect(narrative, token="t", session=object())  # type: ignore[call-overload]


# The guide ------------------------------------------------------------------------------------------------------------

GUIDE = blocks_of(ROOT / "agentruns" / "blocking" / "README.md")


def test_the_view_of_the_guide_answers_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django")
    (view,) = [block for block in GUIDE.values() if "from django" in block]
    with Emulator("narrative") as emulator:
        monkeypatch.setenv("NARRATIVE_TOKEN", emulator.token)
        monkeypatch.setenv("NARRATIVE_BASE_URL", emulator.base_url)
        asked = "from django.test import Client\nprint(Client().post('/ask', {'text': 'Hello.'}).content.decode())\n"
        shown = _run(view + asked)
    assert shown.splitlines()[-1] == "You said: Hello."


def _run(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
