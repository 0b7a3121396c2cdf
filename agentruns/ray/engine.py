"""
A batch whose runs are followed by workers of Ray, on one machine or many.

This process takes the items and bounds how many are in flight, as in any batch. Each item is one call of an actor. Ray
decides where the call runs, repeats it when its process dies, and keeps its result meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

from attrs import frozen

from agentruns._api.admission import PLACE
from agentruns._api.limiter import RateLimiter
from agentruns._following.batch import Batch
from agentruns._following.items import ItemRunner
from agentruns._following.options import StreamOptions
from agentruns._keeping.work import Changed, resolver
from agentruns._polling.stats import Stats
from agentruns._values.commands import first_request
from agentruns._values.minted import idempotency_field
from agentruns._values.run import Origins, Run, RunRef
from agentruns.client import Client, entrance_of
from agentruns.dialects.protocol import Dialect
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError
from agentruns.tools import ToolsLike

from .budget_server import Lease
from .extra import node_affinity, rate_limit_actor, ray
from .stable_ids import stable_id
from .worker import ClientOptions, Worker

T = TypeVar("T")

logger = logging.getLogger("agentruns")

_LOOK_SECONDS: Final = 1.0
_BACK_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 5.0
_LOST_SECONDS: Final = 90.0
"""How long no worker may answer: Ray starts one that died again in seconds, or in half a minute on a busy machine."""
_NOTHING: Final = Stats(
    watched=0, polls=0, polls_shared=0, lists=0, polls_saved_by_lists=0, ended=0, lag=None, budget=0.0, contact_lost=0
)


class WorkersLostError(AgentRunsError):
    """Report that no worker of Ray answers any more: the node they are on is gone."""


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
class PoolOptions:
    """
    How many workers follow runs, and how.

    *options* are for the client of each worker. *limit* bounds the runs in flight of all workers together. *tools*
    makes the handlers, in each worker. The ids of origins derive from the name *batch*, unless it is None. With
    *own_requests*, this process sends requests too, and takes part in the budget. With *same_node*, the workers stay on
    this machine, where the journal is.

    Where there is a journal, the budget is kept there, and shared with all else that has it open.
    """

    dialect: Dialect
    options: ClientOptions
    workers: int
    limit: int
    tools: Callable[[], ToolsLike | None] | None = None
    batch: str | None = None
    own_requests: bool = False
    same_node: bool = False


class WorkerPool:
    """
    Start the workers on entry and end them on exit: an async context manager.

    When the process of a worker dies, Ray starts it again. `can_repeat` says whether Ray then also repeats the calls
    that it had not answered: only if a start that is repeated gives the run that exists, by the id of its origin or by
    a journal. Otherwise the outcome of such a call is unknown. Raise `ConfigurationError` where a worker cannot work.
    """

    def __init__(self, pool: PoolOptions) -> None:
        self._pool = pool
        self.can_repeat = pool.options.journal is not None or idempotency_field(pool.dialect.Origin) is not None
        self._workers: Sequence[Any] = ()
        self._name = f"agentruns {uuid4().hex}"  # workers find the actor by it; a handle would not keep it
        self._rate_limit_actor: Any = None
        self._limit = None if self.journal is not None else pool.options.limit  # that we divide ourselves
        self._lease: Lease | None = None
        if pool.own_requests and self._limit is not None:
            self._lease = Lease(self._limit.seconds, self._renew, "this process")
        self._in_flight: Counter[int] = Counter()
        self._seen: Mapping[int, tuple[Mapping[str, int], Stats | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: set[int] = set()
        self._back = asyncio.Event()
        self._silence: asyncio.Future[None]

    @property
    def journal(self) -> str | None:
        """Return the path of the journal that the workers share, None without one."""
        return self._pool.options.journal

    @property
    def budget(self) -> RateLimiter | None:
        """Return this process's part of the budget, None if it sends no requests of its own, or has a journal."""
        return None if self._lease is None else self._lease.budget

    def with_stable_id(self, origin: Any, key: str) -> Any:
        """Return the origin of the item *key* with the id that it has in this batch."""
        return origin if self._pool.batch is None else stable_id(origin, self._pool.batch, key)

    async def __aenter__(self) -> Self:
        pool, options = self._pool, self._pool.options
        if self._limit is not None:
            self._rate_limit_actor = rate_limit_actor(self._limit, pool.workers + pool.own_requests, name=self._name)
        kind = ray().remote(_Worker)
        actor_options = {
            "num_cpus": 0,  # it waits, nearly all of the time
            "max_restarts": -1,
            "max_task_retries": -1 if self.can_repeat else 0,
            "max_concurrency": pool.limit + 16,
            "scheduling_strategy": node_affinity() if pool.same_node else "SPREAD",
        }
        actor = kind.options(**actor_options)
        self._workers = [actor.remote(options, pool.tools, self._name) for _ in range(pool.workers)]
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
                f"the journal {options.journal} is not the same file for all workers: they run on several machines. "
                "Run without one, or put it on a disk that all of them share"
            )
        self._silence = asyncio.get_running_loop().create_future()
        self._tasks = {asyncio.create_task(self._look())}
        if self._lease is not None:
            self._tasks.add(asyncio.create_task(self._lease.keep()))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self.is_lost:
            return  # whom nobody can reach, nobody can end
        closing = [asyncio.ensure_future(self._ask(worker.close.remote())) for worker in self._workers]
        await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
        for each in closing:
            if not each.cancel():
                each.exception()  # they are ended all the same
        self._end()

    def _end(self) -> None:
        """End the processes; the runs in flight go on at the vendor."""
        for actor in (*self._workers, *([self._rate_limit_actor] if self._rate_limit_actor is not None else [])):
            ray().kill(actor)
        self._workers, self._rate_limit_actor = (), None

    def batch(
        self,
        client: Client,
        items: Origins,
        *,
        key: Callable[[Any], str],
        prepare: Callable[[Any], Any],
        options: Callable[[Any], StreamOptions] = lambda _: {},
        changed: Changed = "refuse",
    ) -> Batch:
        """
        Iterate over the outcomes of *items* as `client.batch` does; *prepare* makes origins here, by *client*.

        The worker gets each origin as it is, and gets it again if the call is repeated.
        """

        def follow(origin: Any, key: str | None, digest: str | None, _: StreamOptions) -> _RemoteRun:
            if (place := PLACE.get()) is not None:
                place.leave()  # the run gets one where it is followed
            return _RemoteRun(self, origin, key, digest)

        resolve = resolver(client.work, changed) if self.journal else None
        entrance = None
        if self._pool.own_requests:
            entrance = entrance_of(client, self._pool.options.patience, for_runs=False)
        runner = ItemRunner(follow, key, prepare, resolve, options, entrance, keep=changed == "keep")
        return Batch(runner, items, self._pool.limit)

    def stop(self) -> None:
        """Have the workers begin nothing more; what has begun goes on to its end."""
        for worker in self._workers:
            self._beside(self._stop(worker))

    async def _stop(self, worker: Any) -> None:
        with contextlib.suppress(AgentRunsError):  # one that died has nothing in flight
            await self._ask(worker.stop.remote())

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the batch; it is given up at the end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def follow(
        self, origin: Any, key: str | None, digest: str | None = None
    ) -> tuple[Run | None, Exception | None]:
        """Have a worker follow a run to its end, as `Worker.follow` says."""
        while not (there := [index for index in range(len(self._workers)) if index not in self._gone]):
            self._back.clear()
            try:
                await self._or_lost(self._back.wait())
            except WorkersLostError as error:
                return None, error
        index = min(there, key=lambda each: self._in_flight[each])
        self._in_flight[index] += 1
        try:
            return await self._or_lost(self._workers[index].follow.remote(origin, key, digest))
        except WorkersLostError as error:
            return None, error
        except _trouble() as trouble:
            self._miss(index)
            return None, self._lost(origin, trouble)
        finally:
            self._in_flight[index] -= 1

    async def _or_lost(self, call: Awaitable[T]) -> T:
        """Return the answer of an actor; raise `WorkersLostError` once nobody answers any more."""
        asked = asyncio.ensure_future(call)
        try:
            either: set[asyncio.Future[Any]] = {asked, self._silence}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return asked.result()
        finally:
            asked.cancel()
        raise WorkersLostError(
            f"no worker of Ray has answered for {_LOST_SECONDS:g} s: its node is gone. Runs that were started go on"
        )

    @property
    def is_lost(self) -> bool:
        """Tell whether no worker answers any more."""
        return self._silence.done()

    def _miss(self, index: int) -> None:
        """Give a worker that failed no calls until it is back, so that it loses no more of them."""
        if index not in self._gone:
            self._gone.add(index)
            self._beside(self._await(index))

    async def _await(self, index: int) -> None:
        while True:
            try:
                await self._ask(self._workers[index].ready.remote())
                break
            except AgentRunsError:
                await asyncio.sleep(_BACK_SECONDS)
        self._gone.discard(index)
        self._back.set()

    def states(self) -> Mapping[str, int]:
        """Return how many runs were in which state when the workers were last looked at."""
        return sum((Counter(states) for states, _ in self._seen.values()), Counter[str]())

    def stats(self) -> Stats:
        """Return the numbers of all clients together, of when they were last looked at."""
        return merge_stats([stats for _, stats in self._seen.values() if stats is not None])

    async def _look(self) -> None:
        heard = time.monotonic()
        while True:
            if await self._look_once():
                heard = time.monotonic()
            elif time.monotonic() - heard > _LOST_SECONDS and not self._silence.done():
                self._silence.set_result(None)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look_once(self) -> bool:
        """Look at every worker; tell whether one has answered."""
        heard = False
        for index, worker in enumerate(self._workers):
            with contextlib.suppress(AgentRunsError, TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    self._seen = {**self._seen, index: await self._ask(worker.look.remote())}
                    heard = True
        return heard

    async def _renew(self, name: str, life: str, held: int) -> tuple[int, int]:
        given, due = await self._ask(self._rate_limit_actor.renew.remote(name, life, held))
        return given, due

    async def _ask(self, call: Any) -> Any:
        """Return the answer of an actor; raise what the actor raised."""
        try:
            return await call
        except _trouble() as trouble:
            if isinstance(cause := getattr(trouble, "cause", None), AgentRunsError):
                raise cause from None
            raise AgentRunsError(f"a worker of Ray failed: {_words(trouble)}") from trouble

    def _lost(self, origin: Any, trouble: Exception) -> Exception:
        """Return the error for a call that Ray could not complete."""
        if self.can_repeat or isinstance(origin, Run | RunRef):
            return AgentRunsError(f"its worker failed, and the run goes on if it was started: {_words(trouble)}")
        return OutcomeUnknownError(
            first_request(self._pool.dialect.start(origin)), f"its worker died ({type(trouble).__name__})"
        )


class _Worker(Worker):
    """A worker as an actor; it keeps its id when its process is started again."""

    def __init__(self, options: ClientOptions, tools: Callable[[], ToolsLike | None] | None, actor_name: str) -> None:
        shared = options.limit is None or options.journal is not None
        found = None if shared else ray().get_actor(actor_name)
        super().__init__(options, tools, found, name=ray().get_runtime_context().get_actor_id())


class _RemoteRun:
    """A run that a worker follows."""

    def __init__(self, engine: WorkerPool, origin: Any, key: str | None, digest: str | None) -> None:
        self._engine = engine
        self._origin = origin
        self._key = key
        self._digest = digest
        self.run: Run | None = None

    async def result(self) -> Run:
        """Return the last state of the run, or raise what is in the way of its completion."""
        self.run, error = await self._engine.follow(self._origin, self._key, self._digest)
        if error is not None:
            raise error
        assert self.run is not None
        return self.run

    async def aclose(self) -> None:
        """Do nothing: a worker ends its stream by itself."""


def merge_stats(stats: Sequence[Stats]) -> Stats:
    """Return the numbers of several clients as those of one: lag and budget are means, the others sums or maxima."""
    if not stats:
        return _NOTHING
    ended = sum(each.ended for each in stats)
    slots = [each.slots for each in stats if each.slots is not None]
    lags = sum(each.lag * each.ended for each in stats if each.lag is not None)
    return Stats(
        watched=sum(each.watched for each in stats),
        polls=sum(each.polls for each in stats),
        polls_shared=sum(each.polls_shared for each in stats),
        lists=sum(each.lists for each in stats),
        polls_saved_by_lists=sum(each.polls_saved_by_lists for each in stats),
        ended=ended,
        lag=lags / ended if ended else None,
        budget=sum(each.budget for each in stats) / len(stats),
        contact_lost=sum(each.contact_lost for each in stats),
        seconds_left=max((each.seconds_left for each in stats if each.seconds_left is not None), default=None),
        rows_skipped=sum(each.rows_skipped for each in stats),
        lost_for=max(each.lost_for for each in stats),
        waiting_for_slot=sum(each.waiting_for_slot for each in stats),
        slots=sum(slots) if slots else None,
    )


def _trouble() -> type[Exception]:
    """Return the class of what Ray raises."""
    from ray.exceptions import RayError  # type: ignore[import-not-found,unused-ignore]

    found: type[Exception] = RayError
    return found


def _words(trouble: Exception) -> str:
    return f"{type(trouble).__name__}: {str(trouble).strip().partition(chr(10))[0]}"
