"""`agentruns batch`, called once more: rows that have changed, runs that are gone, and how far a call may go."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentruns import narrative
from agentruns.cli import commands
from agentruns.cli.batch.limits import spent_by
from agentruns.emulator import Call, Emulator, Narrative, Prompt, Turn
from tests.command_lines import CONFIG, ask, at_hand, call, results, speaks, use


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[Narrative]]:
    with at_hand(monkeypatch, tmp_path, script=speaks) as running:
        yield running


def outputs() -> dict[str | int, Any]:
    return {key: (line["output"], line["attempts"]) for key, line in results().items()}


# Rows that have changed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [[], ["--no-journal"]])
def test_a_row_that_has_changed_is_told_and_started_by_again_or_taken_by_keep(
    journal: list[str], emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two")
    assert commands.main(call(*journal)) == 0
    ask("one, changed", "two")
    capsys.readouterr()
    assert commands.main(call(*journal)) == 2
    said = capsys.readouterr().err
    assert "line 1 (1): it asks for something else than when it was completed" in said
    assert "line 2" not in said
    assert "--again\n" in said
    assert "--keep\n" in said
    assert commands.main(call("--keep", *journal)) == 0
    assert outputs() == {"1": ("Re: one", 1), "2": ("Re: two", 1)}
    assert emulator.state.runs_started == 2

    assert commands.main(call("--again", *journal)) == 0
    assert outputs() == {"1": ("Re: one, changed", 2), "2": ("Re: two", 1)}
    for more in ([], ["--again"]):
        assert commands.main(call(*more, *journal)) == 0
    assert emulator.state.runs_started == 3


@pytest.mark.parametrize("keyed", [True, False])
def test_another_template_or_another_conversation_is_another_request(
    keyed: bool, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    words = call() if keyed else [word for word in call() if word not in {"--key", "{id}"}]
    ask("one")
    assert commands.main(words) == 0
    Path("conversation.json").write_text(json.dumps(CONFIG | {"system_prompt": "Be brief."}))
    assert commands.main(words) == 2
    assert "asks for something else" in capsys.readouterr().err
    Path("conversation.json").write_text(json.dumps(dict(reversed(CONFIG.items()))))
    assert commands.main(words) == 0
    if keyed:
        assert commands.main([word.replace("{question}", "v2 {question}") for word in words]) == 2


def test_a_row_that_changed_while_its_output_was_lost_is_told_by_the_journal(emulator: Emulator[Narrative]) -> None:
    ask("one")
    assert commands.main(call("-q")) == 0
    Path("out.jsonl").unlink()
    ask("another")
    assert commands.main(call("-q")) == 5
    message = results()["1"]["failure"]["message"]
    assert "names other work" in message
    assert "--again starts the row as it is now, and --keep takes what there is" in message
    assert commands.main(call("-q", "--keep")) == 0
    assert results()["1"]["output"] == "Re: one"
    Path("out.jsonl").unlink()
    assert commands.main(call("-q", "--again")) == 0
    assert results()["1"]["output"] == "Re: another"
    assert emulator.state.runs_started == 2


def test_an_output_of_a_version_without_digests_is_taken_as_it_is(emulator: Emulator[Narrative]) -> None:
    ask("one")
    assert commands.main(call("-q")) == 0
    line = json.loads(Path("out.jsonl").read_text())
    del line["digest"], line["earlier"]
    Path("out.jsonl").write_text(json.dumps(line) + "\n")
    ask("another")
    assert commands.main(call("-q")) == 0


def test_two_calls_on_one_journal_attach_to_each_others_rows(emulator: Emulator[Narrative]) -> None:
    ask("one", "two")
    assert commands.main(call("-q", "--journal", "shared")) == 0
    other = [word.replace("out.jsonl", "other.jsonl") for word in call("-q", "--journal", "shared")]
    assert commands.main(other) == 0
    assert emulator.state.runs_started == 2
    assert {line["output"] for line in results("other.jsonl").values()} == {"Re: one", "Re: two"}


# Runs that are gone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [[], ["--no-journal"]])
def test_a_row_whose_run_the_vendor_knows_no_more_is_started_again_by_the_way_that_is_told(
    journal: list[str],
    emulator: Emulator[Narrative],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    book = {"name": "book", "description": "", "input_schema": {"type": "object"}}
    Path("conversation.json").write_text(json.dumps(CONFIG | {"client_tools": [{"alias": "user", "tools": [book]}]}))
    ask("slow one", "ask two")
    assert commands.main(call("-q", "--timeout", "5", *journal)) == 4
    assert {line["status"] for line in results().values()} == {"unfinished", "requires_action"}
    with Emulator("narrative", script=[Turn("anew"), Turn("anew")]) as other:  # it knows nothing of the runs
        use(other, monkeypatch)
        for _ in range(2):
            capsys.readouterr()
            assert commands.main(call("-q", *journal)) == 5
            assert "2 rows have runs that the vendor knows no more" in capsys.readouterr().err
            assert {line["failure"]["type"] for line in results().values()} == {"NotFoundError"}
        assert commands.main(call("-q", "--retry-failed", *journal)) == 0
    assert outputs() == {"1": ("anew", 2), "2": ("anew", 2)}


# How far a call may go ------------------------------------------------------------------------------------------------


def test_first_takes_a_sample_and_the_next_call_the_rest(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(*(f"number {n}" for n in range(5)))
    assert commands.main(call("--first", "2")) == 0
    assert "2 of 2 rows, 2 completed" in capsys.readouterr().out
    assert set(results()) == {"1", "2"}
    assert commands.main(call("-q")) == 0
    assert len(results()) == emulator.state.runs_started == 5


def test_after_so_many_failures_no_more_rows_are_taken(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(*(f"bad {n}" for n in range(20)))
    assert commands.main(call("-q", "--limit", "2", "--max-failures", "3")) == 4
    said = capsys.readouterr().err
    assert "3 rows have failed, and --max-failures is 3" in said
    assert "go on with:\n  agentruns batch" in said
    assert 3 <= emulator.state.runs_started <= 6


def test_a_ceiling_on_tokens_counts_earlier_calls_and_every_attempt(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("bad one", "two", "three")
    assert commands.main(call("-q", "--first", "2")) == 1
    assert commands.main(call("-q", "--first", "2", "--retry-failed")) == 1
    lines = results()
    assert lines["1"]["earlier"] == {
        "input_tokens": lines["1"]["usage"]["input_tokens"],
        "output_tokens": lines["1"]["usage"]["output_tokens"],
        "cost": None,
    }
    used = sum((spent["input_tokens"] + spent["output_tokens"]) for spent in map(spent_by, lines.values()) if spent)
    capsys.readouterr()
    assert commands.main(call("-q", "--max-total-tokens", str(used))) == 4
    assert f"{used} tokens are used, and --max-total-tokens is {used}" in capsys.readouterr().err
    assert emulator.state.runs_started == 3
    assert commands.main(call("-q", "--max-total-tokens", str(used + 1), "--limit", "1")) == 4
    assert emulator.state.runs_started == 4


def test_a_ceiling_on_the_cost_is_reached_by_what_the_vendor_says_of_each_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of Conduit with this usage costs .45, in its own unit: the third brings the call beyond 1."""
    monkeypatch.chdir(tmp_path)
    turn = Turn("Done.", running=0.05, usage=(100_000, 10_000))
    with Emulator("conduit", script=lambda _: turn, requests_per_minute=None) as running:
        monkeypatch.setenv("CONDUIT_API_TOKEN", running.token)
        agent, trigger = running.state.agent_id, running.state.trigger_id
        Path("in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(9)))
        words = ["batch", "conduit", "in.jsonl", "-o", "out.jsonl", "--base-url", running.base_url, "-q"]
        words += ["--agent-id", agent, "--trigger-id", trigger, "--limit", "1", "--budget", "100"]
        assert commands.main([*words, "--max-total-cost", "1"]) == 4
        started = len(running.requests("POST", "*"))
    assert "a cost of 1.35 is reached, and --max-total-cost is 1" in capsys.readouterr().err
    assert [line["cost"] for line in results().values()] == [0.45] * 3
    assert started == 3


@pytest.mark.parametrize(
    "words", [("--first", "0"), ("--max-failures", "0"), ("--max-total-cost", "-1"), ("--keep-days", "-1")]
)
def test_a_bound_that_is_none_is_refused(
    words: tuple[str, str], emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one")
    assert commands.main(call(*words)) == 2
    assert words[0] in capsys.readouterr().err


def test_the_columns_that_are_asked_for_stand_in_the_output_with_their_types(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.jsonl").write_text(
        '{"id": 7, "question": "one", "region": {"name": "north"}}\n{"id": 8, "question": "bad"}\n'
    )
    assert commands.main(call("-q", "--columns", "id, region")) == 1
    assert {key: line["columns"] for key, line in results().items()} == {
        "7": {"id": 7, "region": {"name": "north"}},
        "8": {"id": 8, "region": None},
    }
    Path("out.jsonl").unlink()
    assert commands.main(call("-q", "--columns", "*", "--first", "1")) == 0
    assert set(results()["7"]["columns"]) == {"id", "question", "region"}
    Path("in.csv").write_text("id,question\n1,one\n")
    words = [word.replace("in.jsonl", "in.csv") for word in call("--columns", "id,colour")]
    assert commands.main(words) == 2
    assert "--columns is 'id,colour'; INPUT has id, question" in capsys.readouterr().err


def test_a_handler_is_told_the_columns_of_the_row_that_asks(emulator: Emulator[Narrative]) -> None:
    Path("row_handlers.py").write_text(
        "from agentruns.tools import current_item\n"
        "def book(slot: str) -> dict:\n    return {'for': current_item()['id']}\n"
        "tools = {'book': book}\n"
    )

    def script(prompt: Prompt) -> Turn:
        if not prompt.outputs:
            return Turn(calls=[Call("book", {"slot": "x"})])
        return Turn(json.dumps([output.text for output in prompt.outputs]))

    emulator.script = script
    ask("ask one", "ask two")
    assert commands.main(call("-q", "--tools", "row_handlers.py:tools")) == 0
    assert {key: "1" in line["output"] for key, line in results().items()} == {"1": True, "2": False}


# The journal ----------------------------------------------------------------------------------------------------------


def test_keep_days_takes_out_of_the_journal_what_has_been_done_for_longer(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(*(f"{n} " + "x" * 4000 for n in range(30)))
    assert commands.main(call("-q")) == 0
    size = Path("out.jsonl.journal").stat().st_size
    assert commands.main(call("-q", "--keep-days", "1")) == 0
    assert Path("out.jsonl.journal").stat().st_size == size
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 86400)
    assert commands.main(call("-q", "--keep-days", "1")) == 0
    assert Path("out.jsonl.journal").stat().st_size < size / 2
    assert emulator.state.runs_started == 30


# A dry run ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_with_an_output_says_what_would_be_started_and_how_long_that_takes(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two")
    assert commands.main(call("-q")) == 0
    ask("one, changed", "two", "three", "four")
    capsys.readouterr()
    assert commands.main(call("--dry-run", "--budget", "0.01")) == 0
    said = capsys.readouterr().out
    assert "2 would be started, the others are done or in flight; 1 have changed since" in said
    assert "at the vendor's budget that takes 10 min at least" in said
    assert "the first (line 3)" in said


def test_a_conversation_with_places_for_columns_is_told_to_be_no_template(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("conversation.json").write_text(json.dumps(CONFIG | {"system_prompt": "Be {question}."}))
    Path("in.csv").write_text("id,question\n1,one\n")
    words = [word.replace("in.jsonl", "in.csv") for word in call("--dry-run")]
    assert commands.main(words) == 0
    assert "{question} in it, which is sent as it stands" in capsys.readouterr().err


def test_what_a_row_asks_for_is_told_by_a_digest_that_no_minted_id_changes() -> None:
    from agentruns.cli.batch.rows import Row
    from agentruns.cli.batch.templates import Item, Mapper

    def digest(text: str, **more: Any) -> str | None:
        item = Mapper(narrative, {"text": "{q}", "conversation_id": "c"}, **more).item(Row(1, {"q": text}))
        assert isinstance(item, Item)
        return item.digest

    assert digest("a") == digest("a") != digest("b")
    assert digest("a", beside={"model": "m"}) != digest("a", beside={"model": "n"})
