"""`agentruns batch`: rows in, one line per row out, and a second call that goes on where the first stopped."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import ConfigurationError, Retry, conduit, connect, narrative, origami
from agentruns.cli import arguments, commands
from agentruns.cli.batch import entry, progress
from agentruns.cli.batch.output import Output, lines
from agentruns.cli.batch.rows import Problem, Row, rows
from agentruns.cli.batch.templates import Item, Mapper, Text
from agentruns.emulator import Emulator, Fault, Narrative, Turn
from tests.command_lines import CONFIG, STATS, ask, at_hand, call, results, speaks, use


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[Narrative]]:
    with at_hand(monkeypatch, tmp_path, script=speaks) as running:
        yield running


def test_every_row_gets_a_line(emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]) -> None:
    ask("one", "two")
    assert commands.main(call()) == 0

    found = results()
    assert {key: (line["status"], line["output"]) for key, line in found.items()} == {
        "1": ("completed", "Re: one"),
        "2": ("completed", "Re: two"),
    }
    line = found["1"]
    assert line["usage"]["input_tokens"] > 0
    assert line["durations"]["total"] > 0
    assert line["durations"]["run"] > 0
    assert (line["attempts"], line["failure"], line["line"], line["vendor"]) == (1, None, 1, "narrative")
    assert "2 of 2 rows, 2 completed" in capsys.readouterr().out


def test_a_second_call_starts_only_what_is_not_done_and_failed_rows_if_asked_to(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "bad", "three")
    assert commands.main(call()) == 1
    assert "--retry-failed" in capsys.readouterr().err
    ask("one", "bad", "three", "four")
    assert commands.main(call()) == 1
    assert emulator.state.runs_started == 4
    assert commands.main(call("--retry-failed", "-q")) == 1
    assert emulator.state.runs_started == 5
    assert {key: line["attempts"] for key, line in results().items()} == {"1": 1, "2": 2, "3": 1, "4": 1}
    assert results()["2"]["failure"]["type"] == "JobFailed"
    emulator.script = [Turn("now")]
    assert commands.main(call("--retry-failed")) == 0
    assert results()["2"]["attempts"] == 3


def test_a_lost_output_is_made_again_from_the_journal(emulator: Emulator[Narrative]) -> None:
    ask("one", "two")
    assert commands.main(call("-q")) == 0
    before = results()
    Path("out.jsonl").unlink()
    assert commands.main(call("-q")) == 0
    assert {key: line["output"] for key, line in results().items()} == {
        key: line["output"] for key, line in before.items()
    }
    assert emulator.state.runs_started == 2


def test_rows_that_cannot_be_used_are_reported_by_line_and_field_and_the_rest_goes_on(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.jsonl").write_bytes(
        b'{"id": 1, "question": "one"}\nnot json\n\n[1]\n{"id": 2}\n{"id": 3, "question": ""}\n'
        b'{"id": 1, "question": "two"}\n{"id": 4, "question": null}\n{"id": 5, "question": "\xff"}\n'
    )
    assert commands.main(call()) == 2
    said = capsys.readouterr().err
    for line in (
        "line 2: it is not JSON",
        "line 4: it is not a JSON object",
        "line 5, field text: it has no column 'question'",
        "line 6, field text: UserMessage.text is ''",
        "line 7, field key: '1' is the key of an earlier row",
        "line 8, field text: column 'question' is empty",
        "line 9: it is not JSON",
    ):
        assert line in said
    statuses = {key: line["status"] for key, line in results().items()}
    assert statuses.pop("1") == "completed"
    assert statuses == dict.fromkeys((2, 4, 5, 6, 7, 8, 9), "invalid")
    ask("one", "two")
    assert commands.main(call()) == 0
    assert set(results()) == {"1", "2"}


def test_a_dry_run_looks_at_every_row_and_sends_nothing(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "")
    assert commands.main(call("--dry-run")) == 2
    told = capsys.readouterr()
    assert "1 rows can be used, 1 cannot" in told.out
    assert "POST /agents/conversations\n" in told.out
    assert "line 2, field text" in told.err
    ask("one")
    words = ["batch", "narrative", "in.jsonl", "--text", "{question}", "--conversation-id", "c", "--dry-run", "--json"]
    assert commands.main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["request"]["path"] == "/agents/conversations/c"
    assert shown["origin"]["text"] == "one"
    assert not emulator.requests()
    assert not Path("out.jsonl").exists()


def test_tools_answer_and_what_they_do_not_cover_waits_for_a_call_that_does(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("handlers.py").write_text(
        textwrap.dedent(
            """
            from agentruns import Tools
            tools = Tools()
            @tools.add
            def book(slot: str) -> dict:
                return {"booked": slot}
            other = Tools()
            @other.add
            def book(slot: str) -> dict:
                raise LookupError("no calendar")
            """
        )
    )
    ask("ask one", "two")
    Path("conversation.json").write_text(
        json.dumps(
            CONFIG
            | {
                "name": "a batch",
                "system_prompt": "Be {brief}.",
                "client_tools": [
                    {
                        "alias": "user",
                        "tools": [{"name": "book", "description": "", "input_schema": {"type": "object"}}],
                    }
                ],
            }
        )
    )
    assert commands.main(call()) == 3
    assert results()["1"]["status"] == "requires_action"
    assert results()["1"]["actions"][0]["name"] == "user-book"
    assert "is taken up again by" in capsys.readouterr().err
    assert commands.main(call("--tools", "handlers.py:other")) == 3
    assert results()["1"]["failure"]["type"] == "LookupError"
    assert commands.main(call("--tools", "handlers.py:tools")) == 0
    assert results()["1"]["output"].startswith("Re:")
    assert emulator.state.runs_started == 3


def test_tools_are_declared_in_the_new_conversations(emulator: Emulator[Narrative]) -> None:
    Path("more_handlers.py").write_text("def book(slot: str) -> bool:\n    return True\ntools = {'book': book}\n")
    ask("ask one")
    assert commands.main(call("--tools", "more_handlers.py:tools")) == 0


def test_a_run_that_outlasts_its_timeout_is_followed_by_the_next_call(emulator: Emulator[Narrative]) -> None:
    ask("slow one", "two")
    assert commands.main(call("--timeout", "5")) == 4
    assert {line["status"] for line in results().values()} == {"unfinished", "completed"}
    for journal in ([], ["--no-journal"], ["--journal", "another"]):
        assert commands.main(call("--timeout", "0.3", *journal)) == 4
    assert emulator.state.runs_started == 2


def test_a_wrong_token_stops_the_call(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(*(f"number {n}" for n in range(50)))
    monkeypatch.setenv("NARRATIVE_TOKEN", "another")
    assert commands.main(call("--limit", "2")) == 5
    said = capsys.readouterr().err
    assert "the vendor answers 401" in said
    assert "go on with:\n  agentruns batch narrative in.jsonl" in said
    assert len(results()) <= 4
    monkeypatch.setenv("NARRATIVE_TOKEN", emulator.token)
    assert commands.main(call("-q")) == 0
    assert len(results()) == 50
    assert emulator.state.runs_started == 50


def test_a_vendor_that_does_not_answer_ends_the_call_when_patience_is_over(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two", "three")
    monkeypatch.setattr(entry, "connect", partial(connect, retry=Retry(attempts=1)))
    with socket.socket() as deaf:  # its port is taken, and nobody listens there
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NARRATIVE_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert commands.main(call("--patience", "0", "--limit", "1")) == 5
    said = capsys.readouterr().err
    assert said.startswith("agentruns: no answer to POST /agents/conversations")
    assert "this call has brought 1 rows to an end; go on with:\n  agentruns batch narrative in.jsonl" in said
    assert list(results()) == ["1"], "no row is begun after that"


def test_a_gateway_that_reaches_no_vendor_ends_the_call_when_patience_is_over(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two", "three")
    monkeypatch.setattr(entry, "connect", partial(connect, retry=Retry(attempts=1)))
    emulator.fail(Fault.answer(503, method="POST", path="*/conversations", times=9))
    assert commands.main(call("--patience", "0", "--limit", "1")) == 5
    said = capsys.readouterr().err
    assert said.startswith("agentruns: POST /agents/conversations was answered 503")
    assert "this call has brought 1 rows to an end; go on with:" in said
    assert list(results()) == ["1"]


def test_a_start_that_the_vendor_refuses_is_tried_again_by_the_next_call(emulator: Emulator[Narrative]) -> None:
    ask("one")
    emulator.fail(Fault.answer(422, method="POST", path="*/runs"))
    assert commands.main(call()) == 5
    assert results()["1"]["failure"]["type"] == "InvalidRequestError"
    assert commands.main(call()) == 0
    assert results()["1"]["attempts"] == 1


def test_a_row_that_has_changed_while_its_run_goes_on_is_told_and_left_as_it_is(emulator: Emulator[Narrative]) -> None:
    ask("slow one")
    assert commands.main(call("--timeout", "4")) == 4
    ask("another")
    assert commands.main(call("--timeout", "0.3")) == 2
    assert results()["1"]["status"] == "unfinished"
    assert emulator.state.runs_started == 1


def test_by_default_a_row_that_changed_or_moved_is_another_one(emulator: Emulator[Narrative]) -> None:
    words = [word for word in call() if word not in {"--key", "{id}"}]
    ask("one", "two")
    assert commands.main(words) == 0
    ask("one", "two, changed")
    assert commands.main(words) == 0
    assert emulator.state.runs_started == 3
    assert len(results()) == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.jsonl"], "no such file"),
        (["in.jsonl", "--set", "colour=red"], "no field colour"),
        (["in.jsonl", "--set", "text"], "FIELD=TEMPLATE"),
        (["in.jsonl", "--text", "{open"], "is no column"),
        (["in.jsonl", "--tool-choice", "{"], "neither JSON nor one column"),
        (["in.csv", "--conversation-id", "c", "--text", "{question}"], "needs the column 'question'"),
        (["twice.csv"], "names columns twice: a"),
        (["empty.csv"], "is empty"),
        (["in.txt"], "kind is not known"),
        (["in.jsonl", "--delimiter", ";"], "--delimiter"),
        (["in.jsonl", "--limit", "0"], "--limit"),
        (["in.jsonl", "--timeout", "-1"], "--timeout"),
        (["in.jsonl", "--conversation", "nowhere.json"], "cannot be read"),
        (["in.jsonl", "--conversation", "list.json"], "must hold a JSON object"),
        (["in.jsonl", "--conversation", "odd.json"], "has colour"),
        (["in.jsonl", "--conversation", "short.json"], "is not a Config"),
        (["in.jsonl", "--conversation", "conversation.json", "--conversation-id", "x"], "leave --conversation-id out"),
        (["in.jsonl", "-o", "in.jsonl"], "OUTPUT is INPUT"),
        (["in.jsonl", "-o", "nowhere/out.jsonl"], "cannot be used"),
        (["in.jsonl", "-o", "list.json"], "is not the output of"),
        (["in.jsonl", "-o", "half.json"], "is not the output of"),
        (["in.jsonl"], "there is no OUTPUT"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_sent(
    words: Sequence[str], text: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one")
    for name, content in {
        "in.csv": "id,answer\n1,2\n",
        "twice.csv": "a,a\n",
        "empty.csv": "",
        "in.txt": "",
        "list.json": "[1]\n",
        "half.json": '{"a": 1}',
        "odd.json": '{"colour": 1}',
        "short.json": '{"model": "m"}',
    }.items():
        Path(name).write_text(content)
    before = Path("list.json").read_text(), Path("half.json").read_text()
    assert commands.main(["batch", "narrative", *words]) == 2
    assert text in capsys.readouterr().err
    assert not emulator.requests()
    assert (Path("list.json").read_text(), Path("half.json").read_text()) == before


@pytest.mark.usefixtures("prompt_origami")
def test_the_other_vendors_map_columns_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with Emulator("origami", slots=10, retry_after=0) as running:
        monkeypatch.setenv("ORIGAMI_BASE_URL", running.base_url)
        monkeypatch.setenv("ORIGAMI_API_KEY", running.token)
        Path("in.tsv").write_text("prompt\ttitle\nFind vets in Leeds.\tvets\nFind vets in York.\t\n")
        words = ["batch", "origami", "in.tsv", "-o", "out.jsonl", "--name", "{title}", "--budget", "500"]
        assert commands.main(words) in {0, 3}
        assert [each["vendor"] for each in results().values()] == ["origami"] * 2


# As a process of its own ----------------------------------------------------------------------------------------------


def spawn(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "agentruns", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def until(holds: Any, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_ctrl_c_or_sigterm_stops_starting_and_drains(
    emulator: Emulator[Narrative], sent: signal.Signals, code: int
) -> None:
    emulator.script = lambda prompt: Turn("done", running=1.0)
    ask(*(f"number {n}" for n in range(30)))
    process = spawn(*call("--limit", "3"))
    with process:
        until(lambda: emulator.state.runs_started >= 3)
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)

    assert process.returncode == code
    assert "no more rows are started" in said
    assert "go on with:\n  agentruns batch narrative in.jsonl" in said
    assert "Traceback" not in said
    assert len(results()) == emulator.state.runs_started < 10
    assert {line["status"] for line in results().values()} == {"completed"}


def test_the_second_ctrl_c_leaves_and_the_next_call_follows_what_was_left(emulator: Emulator[Narrative]) -> None:
    running = 600.0
    emulator.script = lambda prompt: Turn("done", running=running)
    ask(*(f"number {n}" for n in range(5)))
    process = spawn(*call("--limit", "3"))
    with process:
        until(lambda: emulator.state.runs_started == 3)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "Ctrl-C again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "go on with" in said
    assert "Traceback" not in said
    assert results() == {}

    running = 0.05
    assert commands.main(call("--timeout", "5", "-q")) == 4
    assert emulator.state.runs_started == 5


def test_a_killed_call_is_gone_on_with_and_starts_nothing_twice(emulator: Emulator[Narrative]) -> None:
    emulator.script = lambda prompt: Turn("done", running=0.2)
    ask(*(f"number {n}" for n in range(40)))
    process = spawn(*call("--limit", "8"))
    with process:
        until(lambda: emulator.state.runs_started >= 20)
        process.kill()
        process.communicate(timeout=30)
    with Path("out.jsonl").open("ab") as file:
        file.write(b'{"key":"cut off')
    assert commands.main(call("-q")) == 0
    assert len(results()) == 40
    assert emulator.state.runs_started == 40


def test_two_calls_never_write_to_one_output(emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]) -> None:
    ask("one")
    with Output(Path("out.jsonl"), "narrative"):
        assert commands.main(call()) == 2
    assert "another call writes to OUTPUT" in capsys.readouterr().err
    assert commands.main(call()) == 0


def test_an_output_of_another_vendor_is_refused(emulator: Emulator[Narrative]) -> None:
    ask("one")
    assert commands.main(call()) == 0
    with pytest.raises(ConfigurationError, match="holds runs of narrative"):
        Output(Path("out.jsonl"), "origami")


@pytest.mark.usefixtures("prompt_origami")
@pytest.mark.parametrize("first", ["origami", "mine.py:variant"])
def test_a_variant_goes_on_with_a_batch_of_its_vendor(
    first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from agentruns import origami\nvariant = origami.variant(keep_model=False)\n")
    Path("in.jsonl").write_text('{"prompt": "Find vets in Leeds."}\n')
    with Emulator("origami", script=[Turn("Two.")], retry_after=0) as running:
        monkeypatch.setenv("ORIGAMI_BASE_URL", running.base_url)
        monkeypatch.setenv("ORIGAMI_API_KEY", running.token)
        assert commands.main(["batch", first, "in.jsonl", "-o", "out.jsonl", "-q"]) == 0
        with Path("in.jsonl").open("a") as file:
            file.write('{"prompt": "Find vets in York."}\n')
        again = ["batch", "mine.py:variant", "in.jsonl", "-o", "out.jsonl", "-q"]
        assert commands.main([*again, "--dry-run"]) == 0
        assert commands.main(again) == 0
        assert running.state.runs_started == 2
    assert [line["output"] for line in results().values()] == ["Two.", "Two."]


OTHER = """
from agentruns import narrative

def as_result(output):
    return {"tool_use_id": output.action.id, "is_error": output.is_error, "result": str(output.output)}

vendor = narrative.variant(tool_output=as_result)
"""


def test_a_variant_of_narrative_in_a_file_has_conversations_of_its_own_and_its_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OTHER)
    Path("bookings.py").write_text("def book(slot: str) -> bool:\n    return True\ntools = {'book': book}\n")
    Path("conversation.json").write_text(json.dumps(CONFIG))
    ask("ask one", "two")
    with Emulator("narrative", script=speaks, output_field="result") as running:
        use(running, monkeypatch)
        words = call("--tools", "bookings.py:tools")
        assert commands.main(words) == 3
        assert "`narrative.variant(tool_output=...)`" in results()["1"]["failure"]["message"]
        words[1] = "own.py:vendor"
        assert commands.main(words) == 0  # it goes on with what the call before has kept
        asked, _ = running.state.conversations.values()
        told = ["run", "own.py:vendor", "--conversation-id", asked.id, "--text", "ask", "--tools", "bookings.py:tools"]
        assert commands.main([*told, "--json"]) == 0
    assert {line["status"] for line in results().values()} == {"completed"}


# Rows -----------------------------------------------------------------------------------------------------------------


def test_csv_is_read_by_record_and_its_problems_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n2\r\n\r\n3,\xff\r\n4,"z"z\r\n5,w\r\n')
    source = rows(path)
    assert source.columns == ["a", "b"]
    assert list(source)[:3] == [
        Row(2, {"a": "1", "b": "x\r\ny"}),
        Problem(4, "", "it has 1 cells, and the header 2"),
        Problem(6, "b", "it is not UTF-8; if the file is in another encoding, name it: --encoding latin-1"),
    ]
    bad, last = list(source)[3:]
    assert isinstance(bad, Problem)
    assert bad.line == 7
    assert last == Row(8, {"a": "5", "b": "w"})
    assert source.count(threading.Event()) == 5


def test_a_delimiter_may_be_another_one(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a;b\n1;2\n")
    assert list(rows(path, delimiter=";")) == [Row(2, {"a": "1", "b": "2"})]


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"id": list(range(1200)), "tags": [["x"]] * 1200}), path)
    source = rows(path)
    read = list(source)
    assert source.columns == ["id", "tags"]
    assert source.count(threading.Event()) == len(read) == 1200
    assert read[0] == Row(1, {"id": 0, "tags": ["x"]})
    assert read[-1] == Row(1200, {"id": 1199, "tags": ["x"]})
    path.write_bytes(b"PAR1 no")
    with pytest.raises(ConfigurationError, match="is not Parquet"):
        rows(path)


def test_parquet_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigurationError, match=r"agentruns\[parquet\]"):
        rows(path)


# Templates ------------------------------------------------------------------------------------------------------------


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="{}"), min_size=1), st.text())
def test_a_text_that_is_escaped_stands_for_itself(before: str, column: str, value: str) -> None:
    escaped = before.replace("{", "{{").replace("}", "}}")
    row = Row(1, {column: value})
    assert Text.parse(escaped, "here").fill(row) == before
    assert Text.parse(f"{escaped}{{{column}}}{escaped}", "here").fill(row) == before + value + before


def item(mapper: Mapper, **values: Any) -> Any:
    return mapper.item(Row(7, values))


def test_json_fields_take_templates_within_json_and_columns_with_their_types() -> None:
    given = {"agent_id": "{agent.id}", "payload": '{"n": "{n}", "text": "{n} of {#}", "list": ["{{n}}"]}'}
    made = item(Mapper(conduit, given), agent={"id": "a-1"}, n=3)
    assert isinstance(made, Item)
    assert made.origin == conduit.Dispatch("a-1", payload={"n": 3, "text": "3 of 7", "list": ["{n}"]})
    whole = Mapper(conduit, {"payload": "{p}"})
    assert item(whole, agent_id="a", p='{"x": 1}').origin.payload == {"x": 1}
    assert item(whole, agent_id="a", p={"x": 1}).origin.payload == {"x": 1}
    assert item(whole, agent_id="a", p="").origin.payload is None
    assert item(whole, agent_id="a", p="nope").field == "payload"


def test_an_optional_field_whose_column_is_empty_is_left_out() -> None:
    mapper = Mapper(origami, {"agent_id": "{agent}", "focus_table_ids": '["{t}"]'})
    assert item(mapper, prompt="Hi", agent="", t="x").origin.agent_id is None
    assert item(mapper, prompt="Hi", agent="a", t="x").origin.focus_table_ids == ("x",)


def test_default_keys_differ_where_rows_do_and_not_where_ids_are_minted() -> None:
    mapper = Mapper(narrative, {"text": "{q}"})
    keys = [item(mapper, conversation_id="c", q=q).key for q in ("one", "one", "two")]
    assert keys[0] == keys[1] != keys[2]


# Progress -------------------------------------------------------------------------------------------------------------


def picture() -> progress.Picture:
    now = 0.0
    tally = progress.Tally(lambda: now)
    tally.total, tally.before["completed"], tally.before["failed"] = 100, 38, 2
    for _ in range(20):
        tally.add("completed")
    now = 10.0
    return tally.picture({"running": 4, "starting": 1}, STATS)


def test_throughput_and_the_end_are_estimated_from_the_last_minute() -> None:
    shown = picture()
    assert (shown.ended, shown.rate, shown.left) == (60, 2.0, 20.0)
    assert shown.words() == (
        "60 of 100 rows, 20 completed, 40 (2 failed) before, 5 in flight, 2/s, about 20 s left, request budget 25% used"
    )


def test_old_throughput_does_not_count() -> None:
    now = 0.0
    tally = progress.Tally(lambda: now)
    for now, ends in ((10.0, 1000), (100.0, 10), (165.0, 10)):  # noqa: B007 - the clock reads it
        for _ in range(ends):
            tally.add("completed")
        tally.picture({}, STATS)
    assert tally.picture({}, STATS).rate == pytest.approx(10 / 65)


def test_nothing_is_estimated_from_nothing() -> None:
    shown = progress.Tally(lambda: 0.0).picture({}, STATS)
    assert (shown.rate, shown.left) == (None, None)


def test_a_terminal_gets_a_live_table_and_troubles_are_only_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    view = progress.choose(json=False, quiet=False)
    assert isinstance(view, progress.Live)
    view.trouble("line 3: [red]no[/]")
    view.say("Ctrl-C: [so]")
    view.show(picture())
    view.close(picture())
    told = capsys.readouterr().out
    for part in ("60 of 100", "completed", "4 in flight", "2 a second", "about 20 s left", "[red]no[/]", "[so]"):
        assert part in told


def test_in_a_pipe_only_the_first_troubles_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    view = progress.choose(json=False, quiet=False)
    for number in range(30):
        view.trouble(f"line {number}")
    told = capsys.readouterr().out
    assert "line 19" in told
    assert "line 20" not in told
    assert told.count("further ones") == 1


def test_json_progress_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = progress.choose(json=True, quiet=False)
    view.show(picture())
    view.trouble("stands in the output")
    view.close(picture())
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["done"] == {"completed": 20}
    assert told[0]["left"] == 20.0


def test_quiet_says_nothing_but_what_must_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    view = progress.choose(json=True, quiet=True)
    view.show(picture())
    view.trouble("x")
    view.say("Ctrl-C")
    view.close(picture())
    assert capsys.readouterr() == ("", "Ctrl-C\n")


@pytest.mark.parametrize(("seconds", "words"), [(7, "7 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_the_help_names_exit_codes_and_templates(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["batch", "narrative", "--help"])
    told = capsys.readouterr().out
    assert "--conversation FILE" in told
    assert "exit codes:" in told
    assert "stands for the row's column" in told


def test_lines_that_are_cut_off_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    line = {"key": "1", "status": "completed", "attempts": 1, "durations": {}}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    assert list(lines(path)) == [line]
    with Output(path, "narrative") as output:
        assert set(output.known) == {"1"}
    assert path.read_text() == json.dumps(line) + "\n"


def test_an_output_that_was_cut_at_any_byte_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Output(path, "narrative") as output:
        for number in range(3):
            output.append({"key": f"{number}", "status": "completed", "attempts": 1, "durations": {}})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Output(path, "narrative") as output:
            assert len(output.known) == whole[:cut].count(b"\n")
        assert path.read_bytes() == b"".join(line for line in whole[:cut].splitlines(True) if line.endswith(b"\n"))


def test_a_superseded_line_goes_when_the_output_is_tidied_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch(mode=0o640)
    line = {"key": "1", "status": "failed", "attempts": 1, "durations": {}}
    with Output(path, "narrative") as output:
        output.append(line)
        output.append(line | {"key": "2"})
    with Output(path, "narrative") as output:
        output.append(line | {"status": "completed"})
        assert len(path.read_text().splitlines()) == 3
        output.tidy()
        output.append(line | {"key": "3"})
    assert [(each["key"], each["status"]) for each in lines(path)] == [
        ("2", "failed"),
        ("1", "completed"),
        ("3", "failed"),
    ]
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_running_after_a_call(emulator: Emulator[Narrative]) -> None:
    ask("one")

    async def whole() -> set[Any]:
        args = arguments.parse(call("-q"))
        args.typed = call("-q")
        from agentruns.cli.batch import batch

        assert await batch(args) == 0
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(whole()) == set()


def test_a_closed_pipe_does_not_stop_the_work(emulator: Emulator[Narrative]) -> None:
    emulator.script = lambda prompt: Turn("done", running=0.3)
    ask(*(f"number {n}" for n in range(6)))
    process = spawn(*call("--limit", "2", "--json"))
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert len(results()) == 6


def test_a_full_disk_ends_the_call_and_says_how_to_go_on(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ask("one", "two")
    with monkeypatch.context() as patched:
        patched.setattr(Output, "append", full)
        assert commands.main(call("-q")) == 5
    first, *said = capsys.readouterr().err.splitlines()
    assert (
        first
        == "agentruns: OUTPUT 'out.jsonl' could not be written: No space left on device. Free some space on its disk"
    )
    assert said[0].endswith("go on with:")
    assert len(said) == 2
    assert commands.main(call("-q")) == 0
    assert len(results()) == emulator.state.runs_started == 2


def test_a_journal_that_cannot_be_written_stops_the_call(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentruns import JournalError
    from agentruns._keeping.journal import Journal

    async def full(self: Journal, *_: object, **__: object) -> None:
        raise JournalError(self.path, "the disk is full")

    ask(*(f"number {n}" for n in range(30)))
    monkeypatch.setattr(Journal, "begin", full)
    assert commands.main(call("--limit", "2")) == 5
    assert "without the journal nothing can be started safely" in capsys.readouterr().err
    assert emulator.state.runs_started == 0
    assert len(results()) < 10


def test_a_key_that_cannot_be_made_is_a_problem_of_its_row() -> None:
    mapper = Mapper(narrative, {"text": "{q}"}, key="{id}")
    assert item(mapper, conversation_id="c", q="one").field == "key"
    assert str(item(mapper, conversation_id="c", q="one", id="")) == "line 7, field key: it is empty"
    assert item(mapper, conversation_id="c", q="one", id=5).key == "5"


def test_templates_within_json_are_checked_against_the_header_too() -> None:
    given = {"agent_id": "a", "payload": '{"list": ["{here}", {"deep": "x {nowhere}"}]}'}
    with pytest.raises(ConfigurationError, match="--payload needs the column 'nowhere'"):
        Mapper(conduit, given, columns=["here"])
    Mapper(conduit, given, columns=["here", "nowhere"])


def test_values_that_json_cannot_carry_are_problems_of_their_row() -> None:
    mapper = Mapper(narrative, {"text": "{q}"})
    assert "JSON" in str(item(mapper, conversation_id="c", q=float("nan")))


def test_a_jsonl_count_leaves_off_when_told_to(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n\n{}\n")
    leave = threading.Event()
    assert rows(path).count(leave) == 2
    leave.set()
    assert rows(path).count(leave) is None
