"""`agentruns batch --engine ray`: real workers, some of which are killed, and the starts counted at the vendor."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agentruns import NotFoundError, RunRef, connect, narrative
from agentruns.cli import commands
from agentruns.emulator import Call, Emulator, Narrative, Prompt, Turn
from tests.ray.cluster import killing, most_in_a_window, processes, until

pytest.importorskip("ray")
pytestmark = [pytest.mark.usefixtures("place"), pytest.mark.timeout(180)]  # it begins a cluster, and many processes

ITEMS = 36
WORKER = "ray::_Worker"
CONFIG = {"model": "m", "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11", "max_iterations": 3, "max_tokens": 99}


def conversations(emulator: Emulator[Narrative], count: int) -> list[str]:
    """Return the ids of new conversations."""
    config = narrative.Config(**CONFIG, output_format_schema=narrative.TEXT_SCHEMA)  # type: ignore[arg-type]

    async def make() -> list[str]:
        async with connect(narrative, base_url=emulator.base_url, token=emulator.token) as client:
            return [(await client.perform(narrative.create_conversation(config))).id for _ in range(count)]

    return asyncio.run(make())


def write(rows: Sequence[dict[str, Any]]) -> None:
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(emulator: Emulator[Any], vendor: str, *more: str) -> list[str]:
    words = ["batch", vendor, "in.jsonl", "-o", "out.jsonl", "--base-url", emulator.base_url]
    return [*words, "--engine", "ray", "--workers", "2", "--limit", "8", *more]


def results() -> dict[str, Any]:
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len({line["key"] for line in found}) == len(found), "one line per item"
    return {line["key"]: line for line in found}


def test_narrative_starts_each_run_once_although_workers_are_killed_and_a_lost_output_is_made_again() -> None:
    with Emulator("narrative", script=lambda _: Turn("done", running=0.4)) as emulator:
        ids = conversations(emulator, ITEMS)
        write([{"conversation_id": each, "text": f"number {n}"} for n, each in enumerate(ids)])
        with killing(WORKER, lambda: emulator.state.runs_started, ITEMS // 3, ITEMS // 2):
            assert commands.main(call(emulator, "narrative", "--no-journal")) == 0
        assert [each["status"] for each in results().values()] == ["completed"] * ITEMS
        assert emulator.state.runs_started == ITEMS
        assert len(emulator.requests("POST", "*/runs")) > ITEMS, "some were asked for again"

        Path("out.jsonl").unlink()
        assert commands.main(call(emulator, "narrative", "--no-journal")) == 0
        assert len(results()) == emulator.state.runs_started == ITEMS
        until(lambda: not processes(WORKER))


def test_each_row_has_one_conversation_and_each_pause_one_answer_although_a_worker_is_killed() -> None:
    def speaks(prompt: Prompt) -> Turn:
        return Turn("done", running=0.3) if prompt.outputs else Turn(calls=[Call("book", {"slot": "9:00"})])

    Path("booking.py").write_text("def book(slot: str) -> bool:\n    return True\n\n\ntools = {'book': book}\n")
    count = 20
    with Emulator("narrative", script=speaks) as emulator:
        write([{"text": f"number {n}"} for n in range(count)])
        Path("conversation.json").write_text(json.dumps(CONFIG))
        words = call(emulator, "narrative", "--conversation", "conversation.json", "--tools", "booking.py:tools")
        with killing(WORKER, lambda: emulator.state.runs_started, count):
            assert commands.main([*words, "--no-journal", "--budget", "200"]) == 0
        assert {each["output"] for each in results().values()} == {"done"}
        assert len(emulator.requests("POST", "*/conversations")) == len(results()) == count
        assert emulator.state.runs_started == 2 * count


def test_origami_starts_each_run_once_although_a_worker_is_killed_and_no_second_has_more_than_the_budget() -> None:
    count, limit = 30, 16
    with Emulator("origami", script=lambda _: Turn("done", running=0.2), slots=50) as emulator:
        write([{"prompt": f"Find number {n}."} for n in range(count)])
        with killing(WORKER, lambda: len(emulator.state.runs), count // 3):
            assert commands.main(call(emulator, "origami", "--no-journal", "--budget", f"{limit}")) == 0
        assert len(results()) == len(emulator.state.runs) == count
        assert limit // 2 <= most_in_a_window([each.started for each in emulator.exchanges], 1.0) <= limit


def test_workers_and_a_client_beside_them_on_one_journal_have_one_budget() -> None:
    count, limit = 8, 20

    async def beside(stop: threading.Event) -> int:
        sent = 0
        options: dict[str, Any] = {"base_url": emulator.base_url, "token": emulator.token, "journal": "shared.db"}
        async with connect("middesk", budget=float(limit), **options) as client:
            while not stop.is_set():
                with suppress(NotFoundError):
                    await client.fetch(RunRef(str(uuid4())))
                sent += 1
        return sent

    with Emulator("middesk", script=lambda _: Turn("done", running=0.3)) as emulator:
        businesses(count)
        stop = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            sent = thread.submit(asyncio.run, beside(stop))
            until(Path("shared.db").exists)
            words = call(emulator, "middesk", "--business-id", "{business_id}", "--budget", f"{limit}")
            try:
                assert commands.main([*words, "--journal", "shared.db"]) == 0
            finally:
                stop.set()
            assert sent.result() > limit
        assert len(results()) == len(emulator.state.runs) == count
        assert most_in_a_window([each.started for each in emulator.exchanges], 1.0) <= limit


def businesses(count: int) -> None:
    write([{"type": "cip_orchestrator", "business_id": str(uuid4())} for _ in range(count)])


def test_middesk_without_a_journal_starts_nothing_again_and_says_what_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = 12
    with Emulator("middesk", script=lambda _: Turn("done", running=0.6)) as emulator:
        businesses(count)
        words = call(emulator, "middesk", "--business-id", "{business_id}", "--no-journal")
        with killing(WORKER, lambda: len(emulator.state.runs), 4):
            assert commands.main(words) == 5
        unknown = [each["failure"]["type"] for each in results().values() if each["status"] == "error"]
        assert set(unknown) == {"OutcomeUnknownError"}
        assert len(unknown) <= 4
        assert len(results()) == count
        assert count - len(unknown) <= len(emulator.state.runs) <= count

        started = len(emulator.state.runs)
        words[words.index("ray")] = "local"
        words = [word for word in words if word not in {"--workers", "2"}]
        assert commands.main(words) == 5  # nor does the next call
        assert len(emulator.state.runs) == started
    assert "is not started again" in capsys.readouterr().err


def test_middesk_with_a_journal_starts_each_run_once_although_a_worker_is_killed() -> None:
    count = 8
    with Emulator("middesk", script=lambda _: Turn("done", running=0.6)) as emulator:
        businesses(count)
        # Once all have started: whether a start arrived whose worker died as it was sent, nobody could tell.
        with killing(WORKER, lambda: len(emulator.state.runs), count):
            assert commands.main(call(emulator, "middesk", "--business-id", "{business_id}")) == 0
        assert len(results()) == len(emulator.state.runs) == count
        assert Path("out.jsonl.journal").exists()


def test_ctrl_c_takes_no_more_rows_and_waits_for_those_in_flight(place: Any) -> None:
    """A process of its own, on the cluster that is there."""
    with Emulator("narrative", script=lambda _: Turn("done", running=1.0)) as emulator:
        ids = conversations(emulator, 30)
        write([{"conversation_id": each, "text": f"number {n}"} for n, each in enumerate(ids)])
        process = subprocess.Popen(
            [sys.executable, "-m", "agentruns", *call(emulator, "narrative", "--json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_ADDRESS": place.get_runtime_context().gcs_address},
        )
        with process:
            until(lambda: emulator.state.runs_started >= 8 or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
        assert "no more rows are started" in said
        assert "--engine ray" in said
        assert "Traceback" not in said
        assert all(json.loads(line) for line in out.splitlines())
        assert {each["status"] for each in results().values()} == {"completed"}
        assert len(results()) == emulator.state.runs_started < 20


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--budget", "0.01", "--conversation", "conversation.json"], "too small to be shared"),
        (["--workers", "0", "--conversation-id", "c"], "--workers"),
    ],
)
def test_wrong_usage_exits_with_2(words: Sequence[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("conversation.json").write_text(json.dumps(CONFIG))
    write([{"text": "one"}])
    assert commands.main(["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--engine", "ray", *words]) == 2
    assert text in capsys.readouterr().err
