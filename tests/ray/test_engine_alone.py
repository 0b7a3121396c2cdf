"""What the engine does by itself: Ray is played by objects of this process, one of which may fail."""

import asyncio
import inspect
import itertools
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agentruns import (
    AgentRunsError,
    ConfigurationError,
    OutcomeUnknownError,
    Run,
    RunRef,
    RunStatus,
    Stats,
    TransportError,
    connect,
    middesk,
    narrative,
)
from agentruns._following.items import NotBegunError
from agentruns._values.exchange import RateLimit, Request
from agentruns.cli import commands
from agentruns.dialects.protocol import Dialect
from agentruns.emulator import Emulator, Turn
from agentruns.ray import data, engine, extra
from agentruns.ray.engine import PoolOptions, WorkerPool, merge_stats
from agentruns.ray.worker import ClientOptions, Worker

CONFIG = {"model": "m", "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11", "max_iterations": 3, "max_tokens": 99}


class DeadError(Exception):
    """What Ray raises."""


class Method:
    def __init__(self, actor: "Actor", name: str) -> None:
        self._actor = actor
        self._name = name

    def remote(self, *given: Any) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(self._called(*given))

    async def _called(self, *given: Any) -> Any:
        self._actor.calls.add(asyncio.current_task())
        if self._actor.dead:
            raise DeadError("it is dead\nand more")
        try:
            answer = getattr(self._actor.inner, self._name)(*given)
            return await answer if inspect.isawaitable(answer) else answer
        except asyncio.CancelledError:
            if not self._actor.dead:
                raise
            raise DeadError("it died\nand more") from None
        except Exception as error:
            raised = DeadError(f"{error!r}")
            raised.cause = error  # type: ignore[attr-defined]
            raise raised from error


class Actor:
    """An actor, and the calls to it that are not answered."""

    def __init__(self, inner: Any, options: dict[str, Any]) -> None:
        self.inner = inner
        self.options = options
        self.dead = False
        self.calls: set[Any] = set()

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def die(self) -> None:
        self.dead = True
        for call in self.calls:
            call.cancel()


class Kind:
    def __init__(self, ray: "Ray", kind: Any, options: dict[str, Any]) -> None:
        self._ray, self._kind, self._options = ray, kind, options

    def options(self, **options: Any) -> "Kind":
        return Kind(self._ray, self._kind, options)

    def remote(self, *given: Any) -> Actor:
        actor = Actor(self._kind(*given), self._options)
        self._ray.actors.append(actor)
        return actor


class Ray:
    """As much of Ray as the engine sees."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.begun = False

    def __call__(self) -> "Ray":
        return self

    def remote(self, kind: Any) -> Kind:
        return Kind(self, kind, {})

    def init(self, **_: Any) -> None:
        self.begun = True

    def shutdown(self) -> None:
        self.begun = False

    def is_initialized(self) -> bool:
        return self.begun

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}, {"Alive": False}]

    def get_actor(self, name: str) -> Actor:
        return next(actor for actor in self.actors if actor.options.get("name") == name)

    def get_runtime_context(self) -> "Ray":
        return self

    def get_actor_id(self) -> str:
        return f"{len(self.actors)}"

    def kill(self, actor: Actor) -> None:
        actor.die()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ray]:
    monkeypatch.chdir(tmp_path)
    played = Ray()
    for module in (engine, data, extra):
        monkeypatch.setattr(module, "ray", played)
    monkeypatch.setattr(engine, "_trouble", lambda: DeadError)
    for module in (engine, extra):
        monkeypatch.setattr(module, "node_affinity", lambda: "this node")
    yield played
    left = [actor.inner for actor in played.actors if isinstance(actor.inner, Worker)]
    assert [worker for worker in left if worker._client is not None] == []


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator[Any]]:
    with Emulator("narrative", script=lambda _: Turn("done", running=0.1)) as running:
        monkeypatch.setenv("NARRATIVE_BASE_URL", running.base_url)
        monkeypatch.setenv("NARRATIVE_TOKEN", running.token)
        yield running


def call(*more: str) -> list[str]:
    Path("in.jsonl").write_text("".join(json.dumps({"text": f"number {n}"}) + "\n" for n in range(6)))
    Path("conversation.json").write_text(json.dumps(CONFIG))
    words = ["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--conversation", "conversation.json"]
    return [*words, "--engine", "ray", *more]


@pytest.mark.parametrize(("more", "dividing"), [([], 0), (["--no-journal"], 1)], ids=["journal", "no journal"])
def test_a_batch_is_the_same_and_ends_what_it_began(
    more: list[str], dividing: int, ours: Emulator[Any], ray: Ray, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is a journal, the budget is divided there, and no actor is begun for it."""
    assert commands.main(call("--budget", "100", "--workers", "3", "--json", *more)) == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"completed"}
    assert len(lines) == ours.state.runs_started == 6
    assert (ray.begun, [actor.dead for actor in ray.actors]) == (False, [True] * (3 + dividing))
    workers = ray.actors[dividing:]
    assert {(each.options["max_task_retries"], each.options["scheduling_strategy"]) for each in workers} == {
        (-1, "SPREAD" if more else "this node")
    }
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(Path().glob("*.lock")) == []


def test_workers_read_a_vendor_from_its_file_wherever_they_run(
    ours: Emulator[Any], ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    init = Worker.__init__

    def noted(worker: Worker, options: ClientOptions, *given: Any, **named: Any) -> None:
        told.append(options.vendor)
        init(worker, options, *given, **named)

    monkeypatch.setattr(Worker, "__init__", noted)
    (tmp_path / "own.py").write_text("from agentruns import narrative\nvendor = narrative.variant(tool_output=str)\n")
    words = call()
    words[1] = "own.py:vendor"

    assert commands.main(words) == 0
    assert set(told) == {f"{tmp_path / 'own.py'}:vendor"}
    assert ours.state.runs_started == 6


def test_ids_that_the_rows_give_are_left_alone(ours: Emulator[Any], ray: Ray) -> None:
    own = [str(uuid4()) for _ in range(2)]
    words = call("--client-op-id", "{id}", "--no-journal")
    Path("in.jsonl").write_text("".join(json.dumps({"text": "Hi", "id": each}) + "\n" for each in own))
    assert commands.main(words) == 0
    assert {run.client_op_id for run in ours.state.runs.values()} == set(own)
    assert ray.actors[0].options["scheduling_strategy"] == "SPREAD"


def test_a_worker_that_cannot_work_ends_the_call(
    ours: Emulator[Any], ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refused(_: Worker) -> None:
        raise ConfigurationError("there is no token here")

    monkeypatch.setattr(Worker, "ready", refused)
    assert commands.main(call()) == 2
    assert "no token here" in capsys.readouterr().err
    assert all(actor.dead for actor in ray.actors)


def test_workers_with_different_journals_are_refused(
    ours: Emulator[Any], ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def found(worker: Worker) -> int:
        return id(worker)

    monkeypatch.setattr(Worker, "ready", found)
    assert commands.main(call("--journal", "work.db")) == 2
    assert "is not the same file for all workers" in capsys.readouterr().err


def pool(dialect: Any, **changes: Any) -> PoolOptions:
    known: Dialect = dialect
    options = ClientOptions(vendor=known.NAME, timeout=30.0, **changes)
    return PoolOptions(dialect=known, options=options, workers=2, limit=4)


@pytest.mark.asyncio
async def test_a_start_that_cannot_be_repeated_is_of_unknown_outcome_and_its_worker_gets_no_more_until_it_is_back(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIDDESK_API_KEY", "t")
    calls: asyncio.Queue[Worker] = asyncio.Queue()
    count = itertools.count()

    async def follow(self: Worker, origin: Any, key: str | None, digest: str | None) -> Any:
        calls.put_nowait(self)
        if next(count) < 2:
            await asyncio.sleep(60)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Worker, "follow", follow)
    origin = middesk.RunRequest("agent", business_id="b")
    async with connect("middesk") as client, WorkerPool(pool(middesk)) as started:
        assert not started.can_repeat
        first, other = ray.actors
        async with started.batch(client, [origin, origin], key=str, prepare=lambda item: item) as batch:
            stepping = asyncio.ensure_future(anext(batch))
            assert {await calls.get(), await calls.get()} == {first.inner, other.inner}
            first.die()
            error = (await stepping).error
            assert isinstance(error, OutcomeUnknownError)
            assert "its worker died" in str(error)

            await started.follow(origin, None)
            assert await calls.get() is other.inner, "the dead one had less to do"
            other.die()
            assert isinstance((await anext(batch)).error, OutcomeUnknownError)

        waiting = asyncio.create_task(started.follow(origin, None))
        first.dead = False
        await waiting
        assert await calls.get() is first.inner
        other.dead = False  # so that it can be closed here, where its process did not end


@pytest.mark.asyncio
async def test_a_run_that_exists_is_not_unknown_for_its_worker_failed(
    ours: Emulator[Any], ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Worker, "follow", follow)
    async with WorkerPool(pool(narrative)) as started:
        run, error = await started.follow(narrative.UserMessage("c", "Hi"), None)
        assert run is None
        assert type(error) is AgentRunsError
        assert "a bug" in str(error)


def test_a_node_that_is_gone_ends_the_call_with_the_usual_hint(
    ours: Emulator[Any], ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ready(_: Worker) -> None:
        """Open no client, which nobody could close."""

    async def hangs(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(Worker, "ready", ready)
    monkeypatch.setattr(Worker, "follow", hangs)
    monkeypatch.setattr(Worker, "look", hangs)
    monkeypatch.setattr(engine, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(engine, "_LOST_SECONDS", 0.2)
    assert commands.main(call("--limit", "2")) == 5
    said = capsys.readouterr().err
    assert "no worker of Ray answers any more" in said
    assert "go on with:\n  agentruns batch" in said
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert {line["failure"]["type"] for line in lines} == {"WorkersLostError"}
    assert len(lines) < 6


def test_a_vendor_that_does_not_answer_ends_the_call_when_patience_is_over(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not begun, here or at a worker, has no line in the output: the next call begins it."""
    with socket.socket() as deaf:  # its port is taken, and nobody listens there
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NARRATIVE_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("NARRATIVE_TOKEN", "t")
        words = call("--patience", "0", "--limit", "2", "--no-journal")
        assert commands.main(words) == 5
        assert len(Path("out.jsonl").read_text().splitlines()) <= 2
        ids = [{"text": "Hi", "conversation_id": str(uuid4())} for _ in range(6)]
        Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ids))
        words = [word for word in words if word not in {"--conversation", "conversation.json"}]
        words[words.index("out.jsonl")] = "other.jsonl"
        assert commands.main(words) == 5
        assert len(Path("other.jsonl").read_text().splitlines()) <= 4
    said = capsys.readouterr().err
    assert said.count("agentruns: no answer to") >= 2
    assert said.count("rows to an end; go on with:\n  agentruns batch narrative in.jsonl") == 2


@pytest.mark.asyncio
async def test_rows_that_workers_do_not_begin_end_the_batch_with_the_reason(
    ours: Emulator[Any], ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    because = TransportError(Request("GET", "/"), "no route to host")
    given = itertools.count()

    async def follow(_: Worker, origin: Any, *__: Any) -> Any:
        if next(given):
            return None, NotBegunError(because)
        await asyncio.sleep(0.1)
        return Run(RunRef("r"), RunStatus.COMPLETED, "completed", raw={}), None

    monkeypatch.setattr(Worker, "follow", follow)
    origins = [narrative.UserMessage("c", f"{number}") for number in range(20)]
    async with (
        connect(narrative) as client,
        WorkerPool(pool(narrative)) as started,
        started.batch(client, origins, key=str, prepare=lambda item: item) as batch,
    ):
        assert (await anext(batch)).error is None
        with pytest.raises(TransportError, match="no route"):
            await anext(batch)
        assert batch.taken == 4


@pytest.mark.asyncio
async def test_workers_share_the_budget_of_the_journal_with_other_clients(ours: Emulator[Any], ray: Ray) -> None:
    def held() -> int:
        with closing(sqlite3.connect("j.db")) as file:
            return sum(count for (count,) in file.execute("SELECT held FROM budget_part WHERE returns IS NULL"))

    limit = RateLimit(40, 1.0)
    async with (
        connect(narrative, budget=40, journal="j.db") as client,
        WorkerPool(pool(narrative, limit=limit, journal="j.db")) as started,
    ):
        assert [type(actor.inner) for actor in ray.actors] == [engine._Worker] * 2
        clients = [client, *(actor.inner._client for actor in ray.actors)]
        limits = [each._api.permits.limiter for each in clients]
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert sum(each.limit.count for each in limits) <= 40
            if min(each.limit.count for each in limits) > 0:
                break
        assert held() <= 40
        assert min(each.limit.count for each in limits) > 0
        assert started.stats().budget == 0.0


@pytest.mark.asyncio
async def test_the_numbers_of_all_workers_are_told_as_one(ours: Emulator[Any], ray: Ray) -> None:
    async with WorkerPool(pool(narrative, limit=RateLimit(100, 1.0))) as started:
        await started._look_once()
        assert started.states() == {}
        assert started.stats().watched == 0
        assert len(started._seen) == 2


def test_stats_of_several_clients_add_up() -> None:
    one = Stats(
        watched=1,
        polls=2,
        polls_shared=3,
        lists=4,
        polls_saved_by_lists=5,
        ended=2,
        lag=1.0,
        budget=0.2,
        contact_lost=1,
        seconds_left=7.0,
    )
    none = Stats(
        watched=0,
        polls=0,
        polls_shared=0,
        lists=0,
        polls_saved_by_lists=0,
        ended=0,
        lag=None,
        budget=0.0,
        contact_lost=0,
    )
    both = merge_stats([one, one, none])
    assert (both.watched, both.polls, both.polls_shared, both.lists, both.polls_saved_by_lists) == (2, 4, 6, 8, 10)
    assert (both.ended, both.lag, both.contact_lost, both.seconds_left) == (4, 1.0, 2, 7.0)
    assert both.budget == pytest.approx(0.4 / 3)
    assert merge_stats([]).ended == 0


@pytest.mark.asyncio
async def test_rows_of_arrays_run_without_a_cluster(ours: Emulator[Any], ray: Ray) -> None:
    pytest.importorskip("pyarrow")
    async with connect(narrative) as client:
        config = narrative.Config(**CONFIG, output_format_schema=narrative.TEXT_SCHEMA)  # type: ignore[arg-type]
        made = await client.perform(narrative.create_conversation(config))
    runs = data.RunAgents(
        "narrative",
        lambda row: narrative.UserMessage(row["conversation"], "Hi"),
        batch="b",
        key="id",
        rate_limit_actor=extra.rate_limit_actor(RateLimit(50, 1.0), 1),
        limit=RateLimit(50, 1.0),
    )
    table = await runs({"id": [7], "conversation": [made.id]})
    assert [(each["key"], each["output"]) for each in table.to_pylist()] == [("7", "done")]
    await runs.close()


@pytest.mark.asyncio
async def test_what_is_wrong_for_every_row_is_no_row(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.delenv("NARRATIVE_TOKEN", raising=False)
    runs = data.RunAgents("narrative", lambda _: narrative.UserMessage("c", "Hi"), batch="b", key="id")
    with pytest.raises(ConfigurationError, match="no token"):
        await runs({"id": [7]})
