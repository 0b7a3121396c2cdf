"""What must hold on each real server, whatever it speaks: the conformance scenarios, and what gets lost or killed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import pytest

from agentruns import (
    AlreadyAnsweredError,
    Client,
    DeadlineExceededError,
    OutcomeUnknownError,
    Run,
    ToolOutput,
    Tools,
    connect,
)
from agentruns.testing import Conformance

from .proxy import Fault, Proxy, proxied
from .servers import Server, tell

Moment = Literal[
    "before the start is sent",
    "before the reply to the start",
    "while the run goes on",
    "while its handler runs",
    "before the reply to the answer",
    "while the answer runs",
]

MOMENTS: Final[dict[Moment, int]] = {
    "before the start is sent": 0,
    "before the reply to the start": 1,
    "while the run goes on": 1,
    "while its handler runs": 1,
    "before the reply to the answer": 2,
    "while the answer runs": 2,
}
"""When a process is killed, and how many starts and answers the server has got by then."""


class RealServer(Conformance):
    """
    A server, as a test class: what it is named, how it is reached, and what starts a run there.

    Its module has `make_server(folder)`, which installs it and returns it, and which keeps runs in that folder. What it
    alone can do has tests of its own in the class.
    """

    path: ClassVar[str] = ""
    """What follows host and port in the base URL"""

    posts: ClassVar[tuple[str, str]]
    """Method and path, as shell patterns, of the requests that start and answer runs, and of no others"""

    reads: ClassVar[tuple[str, str]] = ("GET", "*")
    """Method and path of the requests that read one"""

    directs = True

    restarted: ClassVar[Mapping[Literal["stop", "kill"], type[Exception] | None]]
    """
    What becomes of runs that go on while the server is stopped, or killed, and started anew: nothing, they end; or what
    is raised. `DeadlineExceededError` is of those that it shows in flight for ever.
    """

    many: ClassVar[int] = 300
    """How many runs at once it bears within a minute"""

    moments: ClassVar[Collection[Moment]] = MOMENTS.keys()
    """When a process is killed that follows a run"""

    asks: ClassVar[str] = "ask"
    """The handler that `asking` needs; it takes any arguments, and its answer has to be within the output"""

    def plain(self, number: int) -> Any:
        """Return what starts a run that ends by itself, within tenths of a second."""
        raise NotImplementedError

    def asking(self, number: int, calls: int = 1) -> Any:
        """Return what starts a run that soon asks so many questions at once, one of them by `asks`."""
        raise NotImplementedError

    def failing(self) -> Any:
        """Return what starts a run that fails."""
        raise NotImplementedError

    def working(self, number: int) -> Any:
        """Return what starts a run that goes on for three seconds."""
        raise NotImplementedError

    def slow(self) -> Any:
        """Return what starts a run that goes on for half a minute."""
        raise NotImplementedError

    async def origin(self, client: Client, server: Any) -> Any:
        """Return what does what a conformance scenario says."""
        turn = server.script[0]
        if turn.calls:
            return self.asking(0, len(turn.calls))
        if turn.error:
            return self.failing()
        return self.slow() if turn.running > 10 else self.plain(0)

    def client(self, url: str, **options: Any) -> Client[Any, Any]:
        """Return a client of the server, or the proxy, at *url*."""
        return connect(self.dialect, base_url=url + self.path, token=self.token or None, **options)

    def handler(self, answer: Callable[[], Any]) -> Tools:
        """Return tools that answer what a run asks, and may be called again after a crash."""
        tools = Tools()

        @tools.add(name=self.asks, repeatable=True)
        async def ask(question: str) -> Any:
            return await answer()

        return tools

    @pytest.fixture(autouse=True)
    def _served(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tell the conformance scenarios where the server is."""
        monkeypatch.setattr(type(self), "base_url", server.url + self.path)

    # What gets lost

    @pytest.mark.asyncio
    async def test_a_start_whose_reply_got_lost_is_not_made_twice(self, server: Server) -> None:
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            proxy.plan(Fault(*self.posts))
            if self.can_find_starts:
                assert (await client.result(self.plain(0))).output is not None
            else:
                with pytest.raises(OutcomeUnknownError):
                    await client.result(self.plain(0))
            assert proxy.count(*self.posts) == 1

    @pytest.mark.asyncio
    async def test_an_answer_whose_reply_got_lost_is_not_given_twice(self, server: Server) -> None:
        answer = Answer()
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            proxy.plan(Fault(*self.posts, nth=2))
            stream = client.stream(self.asking(0), tools=self.handler(answer))
            if self.can_settle_answers:
                assert "yes" in str((await stream.result()).output)
            else:
                for _ in range(2):  # who tries again hears the same
                    with pytest.raises(OutcomeUnknownError):
                        await stream.result()
            assert proxy.count(*self.posts) == 2
        assert answer.given == 1

    @pytest.mark.asyncio
    async def test_reads_that_get_lost_are_read_again(self, server: Server) -> None:
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            proxy.plan(Fault(*self.posts, cut="never", then=lambda: _lose_reads(proxy, self.reads)))
            assert (await client.result(self.plain(0))).output is not None
            assert proxy.count(*self.posts) == 1

    @pytest.mark.asyncio
    async def test_a_server_that_is_started_anew_while_runs_wait_loses_none(self, server: Server) -> None:
        answer = Answer(held=True)
        async with self.client(server.url) as client:
            following = asyncio.create_task(_outputs(client, [self.asking(n) for n in range(10)], self.handler(answer)))
            while answer.given < 10:
                assert not following.done()
                await asyncio.sleep(0.02)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            answer.let_go()
            outputs = await following
        assert all("yes" in str(output) for output in outputs), outputs
        assert answer.given == 10

    @pytest.mark.asyncio
    @pytest.mark.parametrize("how", ["stop", "kill"])
    async def test_what_becomes_of_runs_that_go_on_while_the_server_is_started_anew_is_told(
        self, how: Literal["stop", "kill"], server: Server
    ) -> None:
        if how not in self.restarted:
            pytest.skip("played on the server of the same API")
        wanted = self.restarted[how]
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            runs = await asyncio.gather(*(client.start(self.working(number)) for number in range(4)))
            following = [asyncio.create_task(client.result(run, timeout=100)) for run in runs]
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.stop if how == "stop" else server.kill)
            await asyncio.to_thread(server.start)
            if wanted is DeadlineExceededError:
                assert not (await asyncio.wait(following, timeout=4))[0]
                following = [asyncio.create_task(client.result(run, timeout=1)) for run in runs]
            ends = await asyncio.gather(*following, return_exceptions=True)
            assert proxy.count(*self.posts) == len(runs)
        for run, end in zip(runs, ends, strict=True):
            if isinstance(end, Run):
                assert (wanted, end.output is None) == (None, False)
            else:
                assert (type(end), run.id in str(end)) == (wanted, True), end

    # Who is killed, and who comes first

    @pytest.mark.asyncio
    @pytest.mark.parametrize("moment", MOMENTS)
    async def test_a_process_that_is_killed_leaves_nothing_doubled(
        self, moment: Moment, server: Server, tmp_path: Path
    ) -> None:
        if moment not in self.moments:
            pytest.skip("played on the server of the same API")
        async with proxied(server.url) as proxy:
            with Life(type(self), proxy, tmp_path) as life:
                await life.be_killed(moment)
            assert proxy.count(*self.posts) == MOMENTS[moment]
            answer = Answer()
            async with self.client(proxy.url, journal=tmp_path / "journal") as client:
                coming = client.result(self.asking(0), key="k", tools=self.handler(answer), timeout=100)
                unclear = {"before the start is sent"}  # none is found, which may yet be about to show
                unclear |= set() if self.can_find_starts else {"before the reply to the start"}
                unclear |= set() if self.can_settle_answers else {"before the reply to the answer"}
                if moment not in unclear:
                    assert "yes" in str((await coming).output)
                    assert proxy.count(*self.posts) == 2
                    assert answer.given + life.answers == (2 if moment == "while its handler runs" else 1)
                else:
                    with pytest.raises(OutcomeUnknownError):
                        await coming
                    assert proxy.count(*self.posts) == MOMENTS[moment]
                    assert answer.given == 0

    @pytest.mark.asyncio
    async def test_two_clients_that_answer_one_pause_at_once_give_one_answer(
        self, server: Server, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        async with (
            proxied(server.url) as proxy,
            self.client(proxy.url, journal=journal) as one,
            self.client(proxy.url, journal=journal) as other,
        ):
            paused = [run async for run in one.stream(self.asking(0), key="k")][-1]
            given = await asyncio.gather(
                one.resume(paused, [ToolOutput(paused.actions[0], "yes")]),
                other.resume(paused, [ToolOutput(paused.actions[0], "yes, by the other")]),
                return_exceptions=True,
            )
            assert [type(each) for each in given if isinstance(each, Exception)] == [AlreadyAnsweredError]
            assert proxy.count(*self.posts) == 2
            taken = next(each for each in given if isinstance(each, Run))
            assert "yes" in str((await one.result(taken)).output)

    # Many

    @pytest.mark.asyncio
    async def test_hundreds_of_runs_at_once_none_lost_and_none_made_twice(self, server: Server) -> None:
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            began = time.monotonic()
            outputs = await _outputs(client, [self.plain(number) for number in range(self.many)])
            seconds = time.monotonic() - began
            assert proxy.count(*self.posts) == self.many
        assert not [output for output in outputs if output is None or isinstance(output, Exception)]
        tell(f"{self.label}: {self.many} runs at once in {seconds:.1f} s, with {len(proxy.seen)} requests")


class Answer:
    """What a handler answers: "yes", once it is let go, if it is *held*; `given` counts how often it was asked."""

    def __init__(self, *, held: bool = False) -> None:
        self.given = 0
        self._free = asyncio.Event()
        if not held:
            self._free.set()

    async def __call__(self) -> str:
        self.given += 1
        await self._free.wait()
        return "yes"

    def let_go(self) -> None:
        """Let those answer that wait."""
        self._free.set()


async def _outputs(client: Client[Any, Any], origins: list[Any], tools: Tools | None = None) -> list[Any]:
    batch = client.batch(origins, limit=len(origins), tools=tools, timeout=120)
    return [outcome.run.output if outcome.error is None and outcome.run else outcome.error async for outcome in batch]


def _lose_reads(proxy: Proxy, reads: tuple[str, str]) -> None:
    for nth in (1, 2):
        proxy.plan(Fault(*reads, nth=nth))


class Life:
    """A process that follows one run under a key, beside a journal in *folder*, until it is killed."""

    def __init__(self, of: type[RealServer], proxy: Proxy, folder: Path) -> None:
        self._of, self._proxy, self._asked = of, proxy, folder / "asked"
        self._words = [sys.executable, "-m", "tests.real.life", of.__module__, of.__name__, proxy.url, str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def answers(self) -> int:
        """Return how often its handler was asked."""
        return self._asked.read_text().count("asked") if self._asked.exists() else 0

    async def be_killed(self, moment: Moment) -> None:
        """Begin, and be killed at a moment."""
        killed = asyncio.Event()

        def kill() -> None:
            self.kill()
            killed.set()

        def kill_at_a_read() -> None:
            self._proxy.plan(Fault(*self._of.reads, then=kill))

        posts = self._of.posts
        faults: dict[Moment, Fault] = {
            "before the start is sent": Fault(*posts, cut="before", then=kill),
            "before the reply to the start": Fault(*posts, then=kill),
            "while the run goes on": Fault(*posts, cut="never", then=kill_at_a_read),
            "before the reply to the answer": Fault(*posts, nth=2, then=kill),
            "while the answer runs": Fault(*posts, nth=2, cut="never", then=kill_at_a_read),
        }
        if moment in faults:
            self._proxy.plan(faults[moment])
        hold = "hold" if moment == "while its handler runs" else "go"
        self._begin(hold)
        async with asyncio.timeout(100):
            while not killed.is_set():
                if hold == "hold" and self.answers:
                    kill()
                assert self._is_running() or killed.is_set(), "it ended before the moment came"
                await asyncio.sleep(0.02)

    def _begin(self, hold: str) -> None:
        self._process = subprocess.Popen([*self._words, hold], env=os.environ | {"PYTHONPATH": str(_ROOT)})

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill it, wherever it is."""
        if self._process is not None and self._is_running():
            self._process.kill()
            self._process.wait(10)

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


_ROOT: Final = Path(__file__).parents[2]
