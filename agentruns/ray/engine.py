"""
A batch whose runs are followed by workers of Ray's, on one machine or many.

Items are taken, bounded and answered for here, as in any batch. Each is one call of an actor: where it runs, that it is
run again when its process dies, and where its result is kept meanwhile is for Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, cast
from uuid import uuid4

from attrs import frozen

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._api.limiter import RateLimiter
from agentruns._following.batch import Batch, ItemRunner
from agentruns._following.stream import RunStream
from agentruns._keeping.keys import first_request
from agentruns._polling.stats import Stats
from agentruns._values.run import Origins, Run, RunRef
from agentruns.client import Client
from agentruns.dialects.protocol import Dialect
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError
from agentruns.tools import ToolsLike

from .extra import here, office, ray
from .intents import intent, minted
from .shares import Share
from .worker import Terms, Worker

logger = logging.getLogger("agentruns")

_LOOK_SECONDS: Final = 1.0
_BACK_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 5.0
_NOTHING: Final = Stats(watched=0, polls=0, shared=0, lists=0, listed=0, ends=0, lag=None, budget=0.0, lost=0)


@contextlib.contextmanager
def cluster() -> Iterator[int]:
    """Use the cluster that is there, or one on this machine for as long as this lasts; yield how many nodes it has."""
    ours = not ray().is_initialized()
    if ours:
        ray().init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield sum(1 for node in ray().nodes() if node["Alive"])
    finally:
        if ours:
            ray().shutdown()


@frozen(kw_only=True)
class Crew:
    """
    How many workers there are to be, and what they are told.

    *limit* bounds the runs in flight of all of them. *tools* makes the handlers, in each of them. The ids of origins
    derive from the name *batch*, unless there is none. With *beside*, this process takes part in the budget, too.
    With *here*, workers stay on this machine: the journal is.
    """

    dialect: Dialect
    terms: Terms
    workers: int
    limit: int
    tools: Callable[[], ToolsLike | None] | None = None
    batch: str | None = None
    beside: bool = False
    here: bool = False


class Engine:
    """
    The workers, from their beginning to their end: an async context manager.

    A worker whose process dies is begun anew by Ray, with the calls that it had not answered, if a start that is
    repeated gives the run that exists: by the id of its origin, or by a journal. Else such a call is not repeated, and
    its outcome is unknown. Raise `ConfigurationError` where a worker cannot work.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.again = crew.terms.journal is not None or minted(crew.dialect.Origin) is not None
        self._workers: Sequence[Any] = ()
        self._name = f"agentruns {uuid4().hex}"  # by which workers find the office: a handle would not be kept for them
        self._office: Any = None
        limit = crew.terms.limit
        self._share = Share(limit.seconds, self._renew, "beside") if crew.beside and limit is not None else None
        self._flying: Counter[int] = Counter()
        self._seen: Mapping[int, tuple[Mapping[str, int], Stats | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: set[int] = set()
        self._back = asyncio.Event()

    @property
    def journal(self) -> str | None:
        """Return the path of the journal that the workers share, if they do."""
        return self._crew.terms.journal

    @property
    def budget(self) -> RateLimiter | None:
        """Return the part of the budget that this process has, if it takes part in it."""
        return None if self._share is None else self._share.budget

    def named(self, origin: Any, key: str) -> Any:
        """Return the origin of the item *key* under the id that it has in this batch."""
        return origin if self._crew.batch is None else intent(origin, self._crew.batch, key)

    async def __aenter__(self) -> Self:
        crew, terms = self._crew, self._crew.terms
        if terms.limit is not None:
            self._office = office(terms.limit, crew.workers + crew.beside, name=self._name)
        kind = ray().remote(_Worker)
        options = {
            "num_cpus": 0,  # it waits, nearly all of the time
            "max_restarts": -1,
            "max_task_retries": -1 if self.again else 0,
            "max_concurrency": crew.limit + 16,
            "scheduling_strategy": here() if crew.here else "SPREAD",
        }
        self._workers = [kind.options(**options).remote(terms, crew.tools, self._name) for _ in range(crew.workers)]
        try:
            asked = [self._ask(worker.ready.remote()) for worker in self._workers]
            found = await asyncio.gather(*asked, return_exceptions=True)
            for each in found:
                if isinstance(each, BaseException):
                    raise each
        except BaseException:
            self._end()
            raise
        if len(set(found)) > 1:
            self._end()
            raise ConfigurationError(
                f"the journal {terms.journal} is not the same file for all workers: they run on several machines. Run "
                "without one, or put it on a disk that all of them share"
            )
        self._tasks = {asyncio.create_task(self._look())}
        if self._share is not None:
            self._tasks.add(asyncio.create_task(self._share.keep()))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        closing = [asyncio.ensure_future(self._ask(worker.close.remote())) for worker in self._workers]
        await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
        for each in closing:
            if not each.cancel():
                each.exception()  # they are ended all the same
        self._end()

    def _end(self) -> None:
        """End the processes; the runs in flight go on at the vendor."""
        for actor in (*self._workers, *([self._office] if self._office is not None else [])):
            ray().kill(actor)
        self._workers, self._office = (), None

    def batch(
        self,
        client: Client,
        items: Origins,
        *,
        key: Callable[[Any], str],
        prepare: Callable[[Any], Any],
    ) -> Batch:
        """
        Iterate over the outcomes of *items* as `client.batch` does; *prepare* makes origins here, by *client*.

        What it makes goes to the worker as it is, and goes there again if that must be repeated.
        """

        def follow(origin: Any, key: str | None) -> RunStream:
            return cast("RunStream", _Afar(self, origin, key))

        async def known(key: str) -> Any:
            work = await client.work(key)
            return None if work is None else work.origin

        return Batch(ItemRunner(follow, key, prepare, known if self.journal else None), items, self._crew.limit)

    async def follow(self, origin: Any, key: str | None) -> tuple[Run | None, Exception | None]:
        """Have a worker follow a run to its end, as `Worker.follow` says."""
        while not (there := [place for place in range(len(self._workers)) if place not in self._gone]):
            self._back.clear()
            await self._back.wait()
        place = min(there, key=lambda each: self._flying[each])
        self._flying[place] += 1
        try:
            run, error = await self._workers[place].follow.remote(origin, key)
        except _trouble() as trouble:
            self._miss(place)
            return None, self._lost(origin, trouble)
        else:
            return run, error
        finally:
            self._flying[place] -= 1

    def _miss(self, place: int) -> None:
        """Give a worker that failed nothing to do until it is back: else it would lose that, too."""
        if place not in self._gone:
            self._gone.add(place)
            task = asyncio.create_task(self._await(place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _await(self, place: int) -> None:
        while True:
            try:
                await self._ask(self._workers[place].ready.remote())
                break
            except AgentRunsError:
                await asyncio.sleep(_BACK_SECONDS)
        self._gone.discard(place)
        self._back.set()

    def states(self) -> Mapping[str, int]:
        """Return how many runs were in which state when the workers were last looked at."""
        return sum((Counter(states) for states, _ in self._seen.values()), Counter[str]())

    def stats(self) -> Stats:
        """Return the numbers of all clients together, of when they were last looked at."""
        return together([stats for _, stats in self._seen.values() if stats is not None])

    async def _look(self) -> None:
        while True:
            await self._look_once()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look_once(self) -> None:
        for place, worker in enumerate(self._workers):
            with contextlib.suppress(AgentRunsError, TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    self._seen = {**self._seen, place: await self._ask(worker.look.remote())}

    async def _renew(self, name: str, life: str, held: int) -> tuple[int, int]:
        given, due = await self._ask(self._office.renew.remote(name, life, held))
        return given, due

    async def _ask(self, call: Any) -> Any:
        """Return the answer of an actor; what it raised comes as it was raised."""
        try:
            return await call
        except _trouble() as trouble:
            if isinstance(cause := getattr(trouble, "cause", None), AgentRunsError):
                raise cause from None
            raise AgentRunsError(f"a worker of Ray failed: {_words(trouble)}") from trouble

    def _lost(self, origin: Any, trouble: Exception) -> Exception:
        """Return what is to be said of a call that Ray could not go through with."""
        if self.again or isinstance(origin, Run | RunRef):
            return AgentRunsError(f"its worker failed, and the run goes on if it was started: {_words(trouble)}")
        return OutcomeUnknownError(
            first_request(self._crew.dialect.start(origin)), f"its worker died ({type(trouble).__name__})"
        )


class _Worker(Worker):
    """A worker as an actor, which has the same id in each of its lives."""

    def __init__(self, terms: Terms, tools: Callable[[], ToolsLike | None] | None, office: str) -> None:
        found = None if terms.limit is None else ray().get_actor(office)
        super().__init__(terms, tools, found, name=ray().get_runtime_context().get_actor_id())


class _Afar(AsyncGeneratorBase[Run]):
    """A stream of one state, the last, which a worker has seen."""

    def __init__(self, engine: Engine, origin: Any, key: str | None) -> None:
        self._engine = engine
        self._origin = origin
        self._key = key
        self._over = False
        self.run: Run | None = None

    async def __anext__(self) -> Run:
        if self._over:
            raise StopAsyncIteration
        self._over = True
        self.run, error = await self._engine.follow(self._origin, self._key)
        if error is not None:
            raise error
        assert self.run is not None
        return self.run

    async def aclose(self) -> None:
        self._over = True


def together(stats: Sequence[Stats]) -> Stats:
    """Return the numbers of several clients as those of one; the lag is the mean, the budget that of all shares."""
    if not stats:
        return _NOTHING
    ends = sum(each.ends for each in stats)
    lags = sum(each.lag * each.ends for each in stats if each.lag is not None)
    return Stats(
        watched=sum(each.watched for each in stats),
        polls=sum(each.polls for each in stats),
        shared=sum(each.shared for each in stats),
        lists=sum(each.lists for each in stats),
        listed=sum(each.listed for each in stats),
        ends=ends,
        lag=lags / ends if ends else None,
        budget=sum(each.budget for each in stats) / len(stats),
        lost=sum(each.lost for each in stats),
        rest=max((each.rest for each in stats if each.rest is not None), default=None),
    )


def _trouble() -> type[Exception]:
    """Return the class of what Ray raises."""
    from ray.exceptions import RayError  # type: ignore[import-not-found,unused-ignore]

    found: type[Exception] = RayError
    return found


def _words(trouble: Exception) -> str:
    return f"{type(trouble).__name__}: {str(trouble).strip().partition(chr(10))[0]}"
