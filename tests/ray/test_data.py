"""Runs as a step of Ray Data: real workers, one of which is killed, and the starts counted at the vendor."""

import asyncio
from typing import Any

import pytest
from attrs import evolve

import agentruns.ray as on_ray
from agentruns import ConfigurationError, connect, narrative
from agentruns._values.exchange import RateLimit
from agentruns.emulator import Call, Emulator, Narrative, Prompt, Turn
from tests.ray.cluster import killing, most_in_a_window

pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\."),  # it warns of what it does itself
    pytest.mark.timeout(180),  # it begins a cluster, and many processes
]

CONFIG = narrative.Config(
    model="m",
    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
    max_iterations=3,
    max_tokens=99,
    output_format_schema=narrative.TEXT_SCHEMA,
)
WORKER = "ray::MapWorker"


def conversations(emulator: Emulator[Narrative], count: int) -> list[str]:
    """Return the ids of new conversations."""

    async def make() -> list[str]:
        async with connect(narrative, base_url=emulator.base_url, token=emulator.token) as client:
            return [(await client.perform(narrative.create_conversation(CONFIG))).id for _ in range(count)]

    return asyncio.run(make())


def message(row: dict[str, Any]) -> narrative.UserMessage:
    return narrative.UserMessage(row["conversation"], row["question"])


def book(slot: str) -> bool:
    return True


def test_each_row_is_started_once_although_a_worker_is_killed(place: Any) -> None:
    count, limit = 24, 40
    with Emulator("narrative", script=lambda _: Turn("done", running=0.3)) as emulator:
        ids = conversations(emulator, count)
        before = len(emulator.exchanges)
        rows = [{"id": n, "conversation": each, "question": f"number {n}"} for n, each in enumerate(ids)]
        dataset = on_ray.map_batches(
            place.data.from_items(rows, override_num_blocks=4),
            "narrative",
            message,
            batch="spring",
            key="id",
            batch_size=3,
            budget=float(limit),
            base_url=emulator.base_url,
        )
        with killing(WORKER, lambda: emulator.state.runs_started, count // 3):
            found = dataset.take_all()
        assert sorted(int(each["key"]) for each in found) == list(range(count))
        assert {each["status"] for each in found} == {"completed"}
        assert emulator.state.runs_started == count
        assert len(emulator.requests("POST", "*/runs")) > count, "some were asked for again"
        assert most_in_a_window([each.started for each in emulator.exchanges[before:]], 1.0) <= limit
    assert set(found[0]) == {
        *("key", "status", "output", "failure", "usage", "cost", "started", "ended", "durations"),
        *("attempts", "actions", "run", "vendor"),
    }


@pytest.mark.asyncio
async def test_every_row_of_a_batch_is_answered_for_in_its_order(place: Any) -> None:
    def speaks(prompt: Prompt) -> Turn:
        if "bad" in (prompt.text or ""):
            return Turn(error="JobFailed")
        return Turn("done") if prompt.outputs else Turn(calls=[Call("book", {"slot": "9:00"})])

    async with Emulator("narrative", script=speaks) as emulator:
        async with connect(narrative, base_url=emulator.base_url, token=emulator.token) as client:
            config = evolve(CONFIG, client_tools=[narrative.client_tools({"book": book}, alias="user")])
            ids = [(await client.perform(narrative.create_conversation(config))).id for _ in range(4)]
        told: dict[str, Any] = {"batch": "spring", "key": "id", "base_url": emulator.base_url, "journal": "work.db"}
        columns: dict[str, list[Any]] = {
            "id": ["a", "b", "c", None],
            "conversation": ids,
            "question": ["one", "bad", "", "four"],
        }
        first = on_ray.RunAgents("narrative", message, tools={"book": book}, **told)
        lines = (await first(columns)).to_pylist()
        assert [each["status"] for each in lines] == ["completed", "failed", "invalid", "invalid"]
        assert lines[1]["failure"]["type"] == "JobFailed"
        assert "UserMessage.text" in lines[2]["failure"]["message"]
        assert "no column 'id'" in lines[3]["failure"]["message"]
        started = emulator.state.runs_started

        again = on_ray.RunAgents("narrative", message, **told)  # another process would do the same
        table = pa.table({name: [cells[0]] for name, cells in columns.items()})
        assert [each["output"] for each in (await again(table)).to_pylist()] == ["done"]
        assert emulator.state.runs_started == started
        await first.close()
        await again.close()


def test_workers_cannot_be_more_than_the_requests_that_they_share() -> None:
    with pytest.raises(ConfigurationError, match="cannot be shared by 4 workers"):
        on_ray.map_batches(None, "origami", message, batch="b", key="id", budget=0.02, workers=4)


def test_workers_that_know_nothing_of_each_other_are_refused_where_there_is_a_limit(place: Any) -> None:
    with pytest.raises(ConfigurationError, match="rate_limit_actor="):
        on_ray.RunAgents("origami", message, batch="b", key="id")
    with pytest.raises(ConfigurationError, match="rate_limit_actor="):
        on_ray.RunAgents("narrative", message, batch="b", key="id", limit=RateLimit(5, 1.0))
