"""The files of `agentruns batch`, packed, typed or damaged, and the terminals that show progress."""

import datetime as dt
import decimal
import gzip
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from agentruns import ConfigurationError, narrative
from agentruns.cli import commands, origins
from agentruns.cli.batch import progress
from agentruns.cli.batch.output import Output, lines
from agentruns.cli.batch.rows import Row, rows
from agentruns.cli.batch.templates import Mapper, Text
from agentruns.emulator import Emulator, Narrative
from tests.command_lines import STATS, ask, at_hand, call, results, speaks

ROWS = ("id,question\n", "1,Zürich?\n", "2,Malmö?\n")


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[Narrative]]:
    with at_hand(monkeypatch, tmp_path, script=speaks) as running:
        yield running


def questions(path: Path, **options: Any) -> list[Any]:
    return [read.values["question"] if isinstance(read, Row) else str(read) for read in rows(path, **options)]


# The input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_may_be_packed_and_in_another_encoding(kind: str, packed: bool, encoding: str, tmp_path: Path) -> None:
    objects = [json.dumps({"question": each}, ensure_ascii=False) + "\n" for each in ("Zürich?", "Malmö?")]
    text = "".join(ROWS if kind == "csv" else objects).encode(encoding)
    path = tmp_path / f"in.{kind}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(text) if packed else text)
    assert questions(path, encoding=None if encoding == "utf-8" else encoding) == ["Zürich?", "Malmö?"]
    assert rows(path, encoding=encoding).count(threading.Event()) == 2


def test_what_is_in_another_encoding_than_was_said_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("".join(ROWS).encode("latin-1"))
    assert "it is not UTF-8; if the file is in another encoding, name it: --encoding latin-1" in questions(path)[0]
    path.write_bytes("".join(ROWS).encode("utf-16"))
    with pytest.raises(ConfigurationError, match="looks like --encoding utf-16"):
        rows(path)
    with pytest.raises(ConfigurationError, match="--encoding is 'klingon'"):
        rows(path, encoding="klingon")
    path.write_bytes("".join(ROWS).encode("latin-1"))
    with pytest.raises(Exception, match="codec can't decode"):
        questions(path, encoding="utf-8")


def test_a_packed_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(("id,question\n" + "1,x\n" * 100_000).encode())[:-200])
    with pytest.raises(Exception, match="cut off or damaged"):
        questions(path)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_wrong_delimiter_is_guessed_at(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"id{delimiter}question\n1{delimiter}one\n")
    found = rows(path)
    with pytest.raises(ConfigurationError, match="is the delimiter another: --delimiter"):
        Mapper(narrative, {"text": "{question}"}, columns=found.columns, hint=found.hint)
    assert rows(path, delimiter=delimiter).hint == ""


def test_typed_values_of_parquet_stand_in_texts_and_keys_without_quotes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    moment = dt.datetime(2024, 1, 1, 12, 30, tzinfo=dt.UTC)
    values = {
        "day": [dt.date(2024, 1, 1)],
        "moment": [moment],
        "price": [decimal.Decimal("1.50")],
        "long": [dt.timedelta(seconds=90)],
        "count": [7],
    }
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table(values), path)
    (row,) = rows(path)
    assert isinstance(row, Row)
    assert Text.parse("on {day}: {price} for {count}", "--text").fill(row) == "on 2024-01-01: 1.50 for 7"
    for column in values:
        assert '"' not in Text.parse(f"{{{column}}}", "--key").fill(row)


# The options ----------------------------------------------------------------------------------------------------------


def test_a_template_may_stand_in_a_file_and_two_ats_stand_for_one(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompt.txt").write_text("Say\n{question}")
    ask("one")
    words = call("-q")
    at = words.index("{question}")
    assert commands.main([*words[:at], "@prompt.txt", *words[at + 1 :]]) == 0
    assert results()["1"]["output"] == "Re: Say\none"
    assert commands.main([*words[:at], "@nowhere.txt", *words[at + 1 :]]) == 2
    assert "--text is '@nowhere.txt', and that file cannot be read" in capsys.readouterr().err
    assert origins.text_of("@@bob", "--text") == "@bob"


def test_a_field_that_is_given_twice_is_refused(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one")
    assert commands.main(call("--set", "text=x")) == 2
    assert "--set text is given twice, or beside --text" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "told"), [("def broken(:\n", "SyntaxError"), ("raise KeyError('x')\n", "KeyError")])
def test_a_file_of_handlers_that_cannot_be_loaded_is_told_without_a_traceback(
    code: str, told: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken_handlers.py").write_text(code)
    ask("one")
    assert commands.main(call("--tools", "broken_handlers.py:tools")) == 2
    said = capsys.readouterr().err
    assert f"cannot be loaded: {told}" in said
    assert "Traceback" not in said


# The output -----------------------------------------------------------------------------------------------------------


def damage() -> None:
    """Damage the first line of the output, and put a blank one behind it."""
    first, *others = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    Path("out.jsonl").write_bytes(first[:10] + b"\x00\x00" + first[12:] + b"\n" + b"".join(others))


def test_a_damaged_line_is_healed_from_the_journal_and_kept_aside(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two", "three")
    assert commands.main(call("-q", "--limit", "1")) == 0
    before = results()
    damage()
    damaged = Path("out.jsonl").read_bytes().splitlines(keepends=True)[0]
    assert commands.main(call("-q")) == 0
    assert "line 1 of OUTPUT was damaged, and stands in out.jsonl.damaged now" in capsys.readouterr().err
    assert {key: line["output"] for key, line in results().items()} == {
        key: line["output"] for key, line in before.items()
    }
    assert Path("out.jsonl.damaged").read_bytes() == damaged
    assert emulator.state.runs_started == 3


def test_without_a_journal_a_damaged_line_is_named_with_what_helps(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "two", "three")
    assert commands.main(call("-q", "--no-journal", "--limit", "1")) == 0
    damage()
    before = Path("out.jsonl").read_bytes()
    for more in ([], ["--dry-run"]):
        assert commands.main(call("-q", "--no-journal", *more)) == 2
        assert "in line 1" in (said := capsys.readouterr().err)
        assert "take that line out, and its row is started again" in said
    assert Path("out.jsonl").read_bytes() == before


def test_blank_lines_of_an_output_are_none(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    line = {"key": "1", "line": 1, "status": "completed", "attempts": 1, "durations": {}, "vendor": "narrative"}
    path.write_text(f"\n{json.dumps(line)}\n\n  \n")
    assert [each["key"] for each in lines(path)] == ["1"]
    with Output(path, "narrative") as output:
        assert set(output.known) == {"1"}


# Progress -------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(width: int, monkeypatch: pytest.MonkeyPatch, *, term: str = "xterm") -> str:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(width))
    tally = progress.Tally(lambda: 1.0)
    tally.total = 300
    for _ in range(97):
        tally.add("completed")
    view = progress.choose(json=False, quiet=False, out=(terminal := Terminal()))
    view.show(tally.picture({"running": 4}, STATS))
    view.close(tally.picture({"running": 4}, STATS))
    return terminal.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "97 of 300 rows, 97 completed, 4 in flight" in shown(80, monkeypatch, term="dumb")


@pytest.mark.parametrize("width", [20, 40, 100])
def test_a_narrow_terminal_shows_how_many_of_how_many_beside_no_bar(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = shown(width, monkeypatch)
    rows_line = next(line for line in told.splitlines() if "97 of 300" in line)
    assert "━" not in rows_line
    assert "rows" in rows_line


def test_where_there_is_no_budget_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_cli_batch_files.STATS", evolve(STATS, budget=0.0))
    assert "budget" not in shown(100, monkeypatch)


def test_rows_of_earlier_calls_are_told_with_how_they_ended() -> None:
    tally = progress.Tally(lambda: 1.0)
    tally.before.update({"completed": 297, "failed": 3})
    assert tally.picture({}, STATS).words().startswith("300 rows, 300 (3 failed) before")
